//! nftables rules of the pod network (upstream: the CNI plug-ins `bridge` (`ipMasq`), `firewall` and `portmap`).
//!
//! Pods reach the world under the node's address, and the world reaches their host ports. Where somebody forbids
//! forwarding on this node, as Docker does, what the pods' bridge forwards is allowed; the kernel asks that firewall
//! between pods as well.

use super::PodRange;
use crate::netfilter::{self, NetfilterError};
use crate::runtime::Protocol;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// The chain that iptables has for forwarding, and with it Docker.
const FORWARD_CHAIN: [&str; 3] = ["ip", "filter", "FORWARD"];

/// A port of the node that leads to a pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// None: each of the node's addresses.
    pub address: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
    pub pod: (Ipv4Addr, u16),
}

impl HostPort {
    /// Whether the same packet could be for both.
    pub fn meets(&self, other: &HostPort) -> bool {
        let addresses = self.address.is_none() || other.address.is_none() || self.address == other.address;
        addresses && self.protocol == other.protocol && self.port == other.port
    }
}

/// Allows what the bridge forwards, where somebody forbids it.
pub(super) async fn allow(bridge: &str) -> Result<(), NetfilterError> {
    let list: Vec<&str> = ["list", "chain"].into_iter().chain(FORWARD_CHAIN).collect();
    // Without the chain nothing is forbidden.
    let chain = netfilter::run("nft", &list, "").await.unwrap_or_default();
    match allow_forwarding(bridge, &chain) {
        Some(rules) => netfilter::apply(&rules).await,
        None => Ok(()),
    }
}

/// Replaces the bridge's own table.
pub(super) async fn set(bridge: &str, range: &PodRange, ports: &BTreeSet<HostPort>) -> Result<(), NetfilterError> {
    netfilter::apply(&table(bridge, range, ports, netfilter::sees_bridged(bridge))).await
}

/// The bridge's table, in the place of the one that is there. `sees_bridged`: answers between pods come back through it.
fn table(bridge: &str, range: &PodRange, ports: &BTreeSet<HostPort>, sees_bridged: bool) -> String {
    let mut text = format!("table ip {bridge}\ndelete table ip {bridge}\ntable ip {bridge} {{\n");
    if !ports.is_empty() {
        let (everywhere, at_one): (Vec<&HostPort>, Vec<&HostPort>) =
            ports.iter().partition(|port| port.address.is_none());
        let elements = |ports: &[&HostPort]| {
            let element = |port: &&HostPort| {
                let at = port.address.map_or(String::new(), |address| format!("{address} . "));
                let (pod, to) = port.pod;
                format!("{at}{} . {} : {pod} . {to}", name(port.protocol), port.port)
            };
            let elements: Vec<String> = ports.iter().map(element).collect();
            match elements.is_empty() {
                true => String::new(),
                false => format!(" elements = {{ {} }};", elements.join(", ")),
            }
        };
        let pods: BTreeSet<String> = ports.iter().map(|port| format!("{0} . {0}", port.pod.0)).collect();
        let pods = Vec::from_iter(pods).join(", ");
        let _ = write!(
            text,
            "  map everywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service;{} }}\n  \
             map at_one {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;{} }}\n  \
             set themselves {{ type ipv4_addr . ipv4_addr; elements = {{ {pods} }}; }}\n  \
             chain host_ports {{\n    \
             meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @at_one\n    \
             meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport map @everywhere\n  }}\n  \
             chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n    \
             fib daddr type local jump host_ports\n  }}\n  \
             chain output {{\n    type nat hook output priority -100; policy accept;\n    \
             fib daddr type local jump host_ports\n  }}\n  \
             chain loopback {{\n    type filter hook prerouting priority raw; policy accept;\n    \
             iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop\n  }}\n",
            elements(&everywhere),
            elements(&at_one)
        );
    }
    let _ = write!(
        text,
        "  chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n    \
         ip saddr {range} ip daddr != {range} masquerade\n"
    );
    if !ports.is_empty() {
        // What the node sends from its loopback address; and what a pod sends itself.
        let _ = write!(
            text,
            "    ct status dnat oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade\n    \
             ct status dnat ip saddr . ip daddr @themselves masquerade\n"
        );
        if !sees_bridged {
            let _ = writeln!(text, "    ct status dnat ip saddr {range} ip daddr {range} masquerade");
        }
    }
    text + "  }\n}\n"
}

pub fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Rules before all others of a chain that drops what it does not know; None if it does not, or has them.
fn allow_forwarding(bridge: &str, chain: &str) -> Option<String> {
    let name = format!("\"{bridge}\"");
    if !chain.contains("policy drop") || chain.contains(&name) {
        return None;
    }
    let chain = FORWARD_CHAIN.join(" ");
    let rule = |direction: &str| format!("insert rule {chain} {direction} {name} counter accept\n");
    Some(rule("iifname") + &rule("oifname"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_allowed_once_and_only_where_it_is_forbidden() {
        let open = "type filter hook forward priority filter; policy accept;";
        assert_eq!(allow_forwarding("krust0", open), None);
        let closed = "type filter hook forward priority filter; policy drop;\noifname \"docker0\" accept";
        let rules = allow_forwarding("krust0", closed).unwrap();
        assert_eq!(rules.lines().count(), 2);
        assert_eq!(allow_forwarding("krust0", &(closed.to_string() + &rules)), None);
        assert_eq!(allow_forwarding("krust0", ""), None);
    }

    fn port(address: Option<[u8; 4]>, protocol: Protocol, port: u16) -> HostPort {
        HostPort {
            address: address.map(Ipv4Addr::from),
            protocol,
            port,
            pod: ([10, 42, 0, 5].into(), 80),
        }
    }

    #[test]
    fn the_table_holds_the_host_ports() {
        let range: PodRange = "10.42.0.0/24".parse().unwrap();
        let without = table("krust0", &range, &BTreeSet::new(), false);
        assert!(without.contains("masquerade") && !without.contains("dnat"), "{without}");
        let ports = [
            port(None, Protocol::Tcp, 8080),
            port(None, Protocol::Udp, 8080),
            port(Some([127, 0, 0, 1]), Protocol::Tcp, 81),
        ];
        let with = table("krust0", &range, &ports.into(), true);
        for part in [
            "elements = { tcp . 8080 : 10.42.0.5 . 80, udp . 8080 : 10.42.0.5 . 80 };",
            "elements = { 127.0.0.1 . tcp . 81 : 10.42.0.5 . 80 };",
            "elements = { 10.42.0.5 . 10.42.0.5 };",
        ] {
            assert!(with.contains(part), "{part}\n{with}");
        }
        let between_pods = "ip saddr 10.42.0.0/24 ip daddr 10.42.0.0/24 masquerade";
        assert!(!with.contains(between_pods));
        assert!(table("krust0", &range, &ports.into(), false).contains(between_pods));
    }

    #[test]
    fn who_is_in_whose_way() {
        let any = port(None, Protocol::Tcp, 80);
        let one = port(Some([10, 0, 0, 1]), Protocol::Tcp, 80);
        assert!(any.meets(&one) && one.meets(&any) && one.meets(&one));
        assert!(!one.meets(&port(Some([10, 0, 0, 2]), Protocol::Tcp, 80)));
        assert!(!any.meets(&port(None, Protocol::Udp, 80)) && !any.meets(&port(None, Protocol::Tcp, 81)));
    }
}
