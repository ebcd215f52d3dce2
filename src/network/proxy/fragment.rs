//! The rules of one Service (upstream: `pkg/proxy/nftables/proxier.go` `syncProxyRules`). Pure.

use super::services::{Destinations, Port, Protocol};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Bit of a connection's mark: it goes where a Service leads.
pub const MARK: &str = "0x00004000";

/// Elements by map or set and key. The value is empty in sets.
pub type Elements = BTreeMap<(&'static str, String), String>;

pub const SERVICES: &str = "services";
pub const NODE_PORTS: &str = "node_ports";
pub const NOWHERE: &str = "nowhere";
pub const NODE_PORTS_NOWHERE: &str = "node_ports_nowhere";
pub const THEMSELVES: &str = "themselves";

/// A part of the table that comes and goes as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Rules by chain.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Declarations by set.
    pub sets: BTreeMap<String, String>,
    pub elements: Elements,
    /// What leads where by UDP.
    pub udp: BTreeMap<Asked, BTreeSet<(Ipv4Addr, u16)>>,
    pub endpoints: BTreeSet<Ipv4Addr>,
}

/// What a client sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Address(Ipv4Addr, u16),
    NodePort(u16),
}

/// A name that is as good as unique and that nftables takes.
fn name(prefix: &str, parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n").as_bytes());
    format!("{prefix}_{}", hex::encode(digest.get(..10).unwrap_or_default()))
}

impl Fragment {
    pub fn of(ports: &[Port]) -> Self {
        let mut fragment = Self::default();
        ports.iter().for_each(|port| fragment.add(port));
        fragment
    }

    fn add(&mut self, port: &Port) {
        let protocol = port.protocol.name();
        let inside = port.cluster_ips.iter().map(|ip| (*ip, false));
        let outside = port.external_ips.iter().map(|ip| (*ip, true));
        let internal = self.chain("in", port, &port.internal);
        // Where both are the same, so is the chain.
        let external = match port.internal == port.external {
            true => internal.clone(),
            false => self.chain("ex", port, &port.external),
        };
        for (ip, from_outside) in inside.chain(outside) {
            let (chain, destinations) = match from_outside {
                true => (&external, &port.external),
                false => (&internal, &port.internal),
            };
            let key = format!("{ip} . {protocol} . {}", port.number);
            match chain {
                Some(chain) => {
                    let guarded = from_outside && !port.source_ranges.is_empty() && port.balancer_ips.contains(&ip);
                    let to = if guarded {
                        self.guard(port, chain)
                    } else {
                        chain.clone()
                    };
                    self.elements.insert((SERVICES, key), format!("goto {to}"));
                }
                None => {
                    self.elements.insert((NOWHERE, key), refusal(destinations).to_owned());
                }
            }
            if port.protocol == Protocol::Udp {
                let asked = Asked::Address(ip, port.number);
                self.udp.insert(asked, destinations.endpoints.clone());
            }
        }
        if let Some(number) = port.node_port {
            let key = format!("{protocol} . {number}");
            match &external {
                Some(chain) => self.elements.insert((NODE_PORTS, key), format!("goto {chain}")),
                None => {
                    let refusal = refusal(&port.external).to_owned();
                    self.elements.insert((NODE_PORTS_NOWHERE, key), refusal)
                }
            };
            if port.protocol == Protocol::Udp {
                let endpoints = port.external.endpoints.clone();
                self.udp.insert(Asked::NodePort(number), endpoints);
            }
        }
    }

    /// The chain that leads to one of the endpoints; None without any.
    fn chain(&mut self, side: &str, port: &Port, destinations: &Destinations) -> Option<String> {
        let endpoints = &destinations.endpoints;
        if endpoints.is_empty() {
            return None;
        }
        for (ip, _) in endpoints {
            self.endpoints.insert(*ip);
            self.elements
                .insert((THEMSELVES, format!("{ip} . {ip}")), String::new());
        }
        let protocol = port.protocol.name();
        let number = port.number.to_string();
        let chain = name("s", &[side, &port.name, protocol, &number]);
        let comment: String = format!("{} {protocol}/{number}", port.name).chars().take(120).collect();
        let mut rules = vec![format!("ct mark set ct mark or {MARK} comment \"{comment}\"")];
        let count = endpoints.len();
        match port.affinity_seconds {
            None => {
                let to = endpoints.iter().enumerate();
                let to: Vec<String> = to.map(|(i, (ip, port))| format!("{i} : {ip} . {port}")).collect();
                rules.push(format!(
                    "meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {} }}",
                    to.join(", ")
                ));
            }
            Some(seconds) => {
                let mut choices = Vec::new();
                for (index, (ip, to)) in endpoints.iter().enumerate() {
                    let (address, seconds) = (format!("{ip}:{to}"), seconds.to_string());
                    let clients = name("c", &[side, &port.name, protocol, &number, &address, &seconds]);
                    let endpoint = name("e", &[side, &port.name, protocol, &number, &address]);
                    rules.push(format!("ip saddr @{clients} goto {endpoint}"));
                    choices.push(format!("{index} : goto {endpoint}"));
                    let lead = vec![
                        format!("update @{clients} {{ ip saddr }}"),
                        format!("meta l4proto {protocol} dnat ip to {address}"),
                    ];
                    self.chains.insert(endpoint, lead);
                    let declaration =
                        format!("{{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout {seconds}s; }}");
                    self.sets.insert(clients, declaration);
                }
                rules.push(format!("numgen random mod {count} vmap {{ {} }}", choices.join(", ")));
            }
        }
        self.chains.insert(chain.clone(), rules);
        Some(chain)
    }

    /// The chain before it that lets only some clients pass.
    fn guard(&mut self, port: &Port, chain: &str) -> String {
        let guard = name("g", &[&port.name, port.protocol.name(), &port.number.to_string()]);
        let ranges = port.source_ranges.join(", ");
        let rules = vec![format!("ip saddr != {{ {ranges} }} drop"), format!("goto {chain}")];
        self.chains.insert(guard.clone(), rules);
        guard
    }
}

/// What becomes of a connection that leads nowhere.
fn refusal(destinations: &Destinations) -> &'static str {
    match destinations.others {
        true => "drop",
        false => "goto refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(endpoints: &[[u8; 4]]) -> Port {
        let destinations = Destinations {
            endpoints: endpoints.iter().map(|ip| (Ipv4Addr::from(*ip), 8080)).collect(),
            others: false,
        };
        Port {
            name: "ns/web:http".to_owned(),
            protocol: Protocol::Tcp,
            number: 80,
            cluster_ips: vec![[10, 43, 0, 9].into()],
            external_ips: Vec::new(),
            balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            node_port: Some(30_080),
            internal: destinations.clone(),
            external: destinations,
            affinity_seconds: None,
        }
    }

    #[test]
    fn one_of_the_endpoints() {
        let fragment = Fragment::of(&[port(&[[10, 42, 0, 2], [10, 42, 0, 3]])]);
        let (chain, rules) = fragment.chains.first_key_value().unwrap();
        assert_eq!(fragment.chains.len(), 1);
        assert!(
            rules[0].contains("ct mark") && rules[0].contains("ns/web:http"),
            "{rules:?}"
        );
        assert_eq!(
            rules[1],
            "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.2 . 8080, 1 : 10.42.0.3 . 8080 }"
        );
        let at = |map: &'static str, key: &str| fragment.elements.get(&(map, key.to_owned())).cloned();
        assert_eq!(at(SERVICES, "10.43.0.9 . tcp . 80"), Some(format!("goto {chain}")));
        assert_eq!(at(NODE_PORTS, "tcp . 30080"), Some(format!("goto {chain}")));
        assert_eq!(at(THEMSELVES, "10.42.0.2 . 10.42.0.2"), Some(String::new()));
        assert!(fragment.udp.is_empty());
    }

    #[test]
    fn nobody_to_lead_to() {
        let mut web = port(&[]);
        let fragment = Fragment::of(&[web.clone()]);
        assert!(fragment.chains.is_empty());
        let at = |fragment: &Fragment, map: &'static str, key: &str| fragment.elements[&(map, key.to_owned())].clone();
        assert_eq!(at(&fragment, NOWHERE, "10.43.0.9 . tcp . 80"), "goto refused");
        web.external.others = true;
        let fragment = Fragment::of(&[web]);
        assert_eq!(at(&fragment, NODE_PORTS_NOWHERE, "tcp . 30080"), "drop");
    }

    #[test]
    fn clients_stay_with_their_endpoint() {
        let mut web = port(&[[10, 42, 0, 2], [10, 42, 0, 3]]);
        web.affinity_seconds = Some(60);
        let fragment = Fragment::of(&[web.clone()]);
        assert_eq!((fragment.chains.len(), fragment.sets.len()), (3, 2));
        assert!(fragment.sets.values().all(|set| set.contains("timeout 60s")));
        let rules = fragment.chains.values().find(|rules| rules.len() == 4).unwrap();
        assert!(rules[1].starts_with("ip saddr @c_") && rules[3].contains("random mod 2 vmap { 0 : goto e_"));
        web.affinity_seconds = Some(61);
        let other = Fragment::of(&[web]);
        assert!(other.sets.keys().all(|name| !fragment.sets.contains_key(name)));
    }

    #[test]
    fn outside_may_lead_elsewhere_and_not_for_everybody() {
        let mut web = port(&[[10, 42, 0, 2], [10, 42, 0, 3]]);
        web.external.endpoints.pop_first();
        web.external_ips = vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        web.balancer_ips = vec![[192, 0, 2, 2].into()];
        web.source_ranges = vec!["198.51.100.0/24".to_owned()];
        let fragment = Fragment::of(&[web]);
        let at = |map: &'static str, key: &str| fragment.elements[&(map, key.to_owned())].clone();
        assert_ne!(at(SERVICES, "10.43.0.9 . tcp . 80"), at(NODE_PORTS, "tcp . 30080"));
        assert_eq!(at(SERVICES, "192.0.2.1 . tcp . 80"), at(NODE_PORTS, "tcp . 30080"));
        let guard = at(SERVICES, "192.0.2.2 . tcp . 80");
        let rules = &fragment.chains[guard.strip_prefix("goto ").unwrap()];
        assert_eq!(rules[0], "ip saddr != { 198.51.100.0/24 } drop");
    }

    #[test]
    fn what_udp_must_not_be_led_to_any_more_is_known() {
        let mut dns = port(&[[10, 42, 0, 2]]);
        dns.protocol = Protocol::Udp;
        let fragment = Fragment::of(&[dns]);
        let keys: Vec<&Asked> = fragment.udp.keys().collect();
        assert_eq!(
            keys,
            [&Asked::Address([10, 43, 0, 9].into(), 80), &Asked::NodePort(30_080)]
        );
    }
}
