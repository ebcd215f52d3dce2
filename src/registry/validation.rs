//! Rules that all kinds share: names, labels, annotations, metadata (upstream: `apimachinery/pkg/api/validation`).

/// Problems of `name` as a DNS-1123 subdomain, in upstream's words; empty if it is one.
pub fn dns1123_subdomain(_name: &str, _is_prefix: bool) -> Vec<String> {
    Vec::new()
}
