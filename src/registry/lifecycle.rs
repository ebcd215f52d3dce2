//! Kinds that are on their way out (upstream: the `APILifecycleDeprecated` methods of the API types, and
//! `apiserver/pkg/endpoints/deprecation`).

use super::Kind;

/// What every request for the kind is warned of.
pub fn deprecation(kind: &Kind) -> Option<&'static str> {
    match (kind.group, kind.version, kind.kind) {
        ("", "v1", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        ("", "v1", "Endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        _ => None,
    }
}
