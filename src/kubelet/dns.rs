//! Where a pod looks names up (upstream: `pkg/kubelet/network/dns`). Pure.

use crate::kubelet::pod;
use crate::kubelet::sandbox::CLUSTER_DOMAIN;
use k8s_openapi::api::core::v1::Pod;

const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;
/// Names with fewer dots are looked up below the search domains first.
const CLUSTER_OPTION: &str = "ndots:5";

/// What `resolv.conf` says. Nothing at all stands for the node's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// The node's own file.
pub fn of_node() -> Dns {
    parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// `cluster` are the servers of the cluster; without any, pods have the node's, as upstream's kubelet does it.
pub fn of(pod: &Pod, cluster: &[String], node: impl FnOnce() -> Dns) -> Dns {
    let spec = pod::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let of_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" | "" => !pod::host_network(pod),
        _ => false,
    };
    let mut dns = match policy {
        "None" => Dns::default(),
        _ if of_cluster && !cluster.is_empty() => {
            let namespace = pod::namespace(pod);
            let mut searches = vec![
                format!("{namespace}.svc.{CLUSTER_DOMAIN}"),
                format!("svc.{CLUSTER_DOMAIN}"),
                CLUSTER_DOMAIN.to_owned(),
            ];
            searches.extend(node().searches);
            Dns {
                servers: cluster.to_vec(),
                searches,
                options: vec![CLUSTER_OPTION.to_owned()],
            }
        }
        // Left to the runtime, which knows what of it makes sense in a pod.
        _ if spec.dns_config.is_none() => return Dns::default(),
        _ => node(),
    };
    let config = spec.dns_config.clone().unwrap_or_default();
    dns.servers.extend(config.nameservers.unwrap_or_default());
    dns.searches.extend(config.searches.unwrap_or_default());
    for option in config.options.into_iter().flatten() {
        let Some(name) = option.name else { continue };
        // The pod's own stands in the place of one of that name.
        dns.options.retain(|other| other.split(':').next() != Some(&*name));
        dns.options.push(match option.value {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name,
        });
    }
    unique(&mut dns.servers);
    unique(&mut dns.searches);
    dns.servers.truncate(SERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    while dns.searches.join(" ").len() > SEARCH_CHARACTERS_MAX {
        dns.searches.pop();
    }
    dns
}

fn unique(words: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    words.retain(|word| seen.insert(word.clone()));
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last one holds.
            Some("search") => dns.searches = words.filter(|word| *word != ".").map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> Dns {
        parse("# of this host\nnameserver 127.0.0.53\nsearch home.example .\noptions edns0 trust-ad\n")
    }

    fn resolved(cluster: &[&str], spec: Value) -> (String, String, String) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})).unwrap();
        let cluster: Vec<String> = cluster.iter().map(|server| (*server).to_owned()).collect();
        let dns = of(&pod, &cluster, node);
        (dns.servers.join(" "), dns.searches.join(" "), dns.options.join(" "))
    }

    #[test]
    fn policies() {
        let cluster = &["10.43.0.10"];
        let of_cluster = (
            "10.43.0.10".to_owned(),
            "ns.svc.cluster.local svc.cluster.local cluster.local home.example".to_owned(),
            "ndots:5".to_owned(),
        );
        let nothing = (String::new(), String::new(), String::new());
        let none = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": ["a.b"]}});
        for (spec, expected) in [
            (json!({"containers": []}), &of_cluster),
            (json!({"containers": [], "hostNetwork": true}), &nothing),
            (
                json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                &of_cluster,
            ),
            (json!({"containers": [], "dnsPolicy": "Default"}), &nothing),
            (none, &("192.0.2.1".to_owned(), "a.b".to_owned(), String::new())),
        ] {
            assert_eq!(&resolved(cluster, spec.clone()), expected, "{spec}");
        }
        assert_eq!(resolved(&[], json!({"containers": []})), nothing);
    }

    #[test]
    fn what_a_pod_adds() {
        let config = json!({
            "nameservers": ["192.0.2.1", "10.43.0.10"], "searches": ["a.b", "cluster.local"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        });
        let (servers, searches, options) = resolved(&["10.43.0.10"], json!({"containers": [], "dnsConfig": config}));
        assert_eq!(servers, "10.43.0.10 192.0.2.1");
        assert_eq!(
            searches,
            "ns.svc.cluster.local svc.cluster.local cluster.local home.example a.b"
        );
        assert_eq!(options, "ndots:2 edns0");
        let own = json!({"containers": [], "dnsPolicy": "Default", "dnsConfig": {"options": [{"name": "edns0"}]}});
        assert_eq!(resolved(&["10.43.0.10"], own).2, "trust-ad edns0");
    }
}
