//! Kubeconfigs of the administrator and of other processes (upstream: `cmd/kubeadm/app/phases/kubeconfig`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::transport::pki::PemPair;

/// File in the data directory.
pub const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";

/// What cluster, user and context are called.
pub const CONTEXT: &str = "krust";

/// By which URL a client on this machine reaches a server that listens on `address`.
pub fn local_url(address: SocketAddr) -> String {
    let ip = match address.ip().to_canonical() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, address.port()))
}

/// The kubeconfig's text. JSON strings are YAML strings, and nothing else here needs quoting.
pub fn kubeconfig(server: &str, authority_pem: &str, client: &PemPair) -> String {
    let encode = |pem: &str| STANDARD.encode(pem);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {CONTEXT}\n\
         \x20 cluster:\n\
         \x20   server: {}\n\
         \x20   certificate-authority-data: {}\n\
         contexts:\n\
         - name: {CONTEXT}\n\
         \x20 context:\n\
         \x20   cluster: {CONTEXT}\n\
         \x20   user: {CONTEXT}\n\
         current-context: {CONTEXT}\n\
         users:\n\
         - name: {CONTEXT}\n\
         \x20 user:\n\
         \x20   client-certificate-data: {}\n\
         \x20   client-key-data: {}\n",
        quote(server),
        encode(authority_pem),
        encode(&client.certificate),
        encode(&client.key),
    )
}

fn quote(text: &str) -> Value {
    json!(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_kubectl_reads() {
        let pair = PemPair {
            certificate: "certificate".to_owned(),
            key: "key".to_owned(),
        };
        let text = kubeconfig("https://127.0.0.1:6443", "authority", &pair);
        let parsed: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(parsed["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(parsed["users"][0]["user"]["client-key-data"], STANDARD.encode("key"));
        assert_eq!(
            parsed["contexts"][0]["context"],
            json!({"cluster": "krust", "user": "krust"})
        );
        let config: kube::config::Kubeconfig = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("krust"));
    }

    #[test]
    fn urls_are_local_where_the_server_listens_everywhere() {
        for (address, url) in [
            ("[::]:6443", "https://127.0.0.1:6443"),
            ("0.0.0.0:1", "https://127.0.0.1:1"),
            ("10.0.0.1:6443", "https://10.0.0.1:6443"),
            ("[::1]:6443", "https://[::1]:6443"),
        ] {
            assert_eq!(local_url(address.parse().unwrap()), url);
        }
    }
}
