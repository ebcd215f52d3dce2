//! The names and addresses that a server certificate is for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// By which names in-cluster clients know the API server (upstream: kubeadm's `GetAPIServerAltNames`).
const CLUSTER_NAMES: [&str; 4] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// A name that can stand in no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a DNS name nor an IP address")]
pub struct BadName(pub String);

/// DNS names and IP addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    pub dns: BTreeSet<String>,
    pub ips: BTreeSet<IpAddr>,
}

impl ServerNames {
    /// From configuration: DNS names (`*.` may lead) and addresses, mixed.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<ServerNames, BadName> {
        let mut parsed = ServerNames::default();
        for name in names {
            let name = name.as_ref();
            if let Ok(ip) = name.parse() {
                parsed.ips.insert(ip);
            } else if is_dns_name(name.strip_prefix("*.").unwrap_or(name)) {
                parsed.dns.insert(name.to_ascii_lowercase());
            } else {
                return Err(BadName(name.to_owned()));
            }
        }
        Ok(parsed)
    }

    /// What this machine answers to now: the cluster's names, its host name, and the addresses of its interfaces.
    pub fn of_machine() -> ServerNames {
        let mut names = ServerNames::default();
        names.dns.extend(CLUSTER_NAMES.map(str::to_owned));
        names.dns.insert("localhost".to_owned());
        if let Some(host) = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()) {
            names
                .dns
                .extend(Some(host.to_ascii_lowercase()).filter(|host| is_dns_name(host)));
        }
        if in_container() {
            names.dns.insert("host.docker.internal".to_owned());
        }
        names
            .ips
            .extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
        names.ips.extend(interface_addresses());
        names
    }

    pub fn and(mut self, other: &ServerNames) -> ServerNames {
        self.dns.extend(other.dns.iter().cloned());
        self.ips.extend(other.ips.iter().copied());
        self
    }

    pub fn covers(&self, other: &ServerNames) -> bool {
        self.dns.is_superset(&other.dns) && self.ips.is_superset(&other.ips)
    }
}

/// Whether this process runs in a container of Docker, Podman or Kubernetes.
pub fn in_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Addresses of all interfaces, without those that no client can dial: link-local IPv6 needs a scope, which a
/// certificate can not hold.
fn interface_addresses() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return BTreeSet::new();
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) => IpAddr::V6(v6.ip()),
                _ => return None,
            };
            let usable = match ip {
                IpAddr::V4(_) => true,
                IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            };
            usable.then_some(ip)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_names_are_told_from_addresses() {
        let names = ServerNames::parse(&["Krust.Example.com", "*.example.com", "10.0.0.7", "fd00::1"]).unwrap();
        assert_eq!(
            names.dns.iter().map(String::as_str).collect::<Vec<_>>(),
            ["*.example.com", "krust.example.com"]
        );
        assert_eq!(names.ips.len(), 2);
        for bad in ["", "a b", "-x", "https://x", "x:6443", "a..b"] {
            assert_eq!(ServerNames::parse(&[bad]), Err(BadName(bad.to_owned())));
        }
    }

    #[test]
    fn the_machine_answers_to_localhost_and_to_the_clusters_names() {
        let names = ServerNames::of_machine();
        let wanted = ["localhost", "kubernetes.default.svc", "127.0.0.1", "::1"];
        assert!(names.covers(&ServerNames::parse(&wanted).unwrap()), "{names:?}");
        assert!(!names.covers(&ServerNames::parse(&["elsewhere.example"]).unwrap()));
    }
}
