//! What a Service's ports lead to (upstream: `pkg/proxy/{servicechangetracker,endpointslicecache,topology}.go`). Pure.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Says that somebody else leads to a Service.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn of(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// As nftables calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Where connections go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    pub endpoints: BTreeSet<(Ipv4Addr, u16)>,
    /// Without any here there are some elsewhere: a connection gets no answer, so that others are asked.
    pub others: bool,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `namespace/name:port`.
    pub name: String,
    pub protocol: Protocol,
    pub number: u16,
    pub cluster_ips: Vec<Ipv4Addr>,
    /// External addresses and those of load balancers.
    pub external_ips: Vec<Ipv4Addr>,
    /// Of those the ones that only some may reach.
    pub balancer_ips: Vec<Ipv4Addr>,
    pub source_ranges: Vec<String>,
    pub node_port: Option<u16>,
    /// For connections from within the cluster.
    pub internal: Destinations,
    /// For those from outside.
    pub external: Destinations,
    /// How long a client stays with its endpoint.
    pub affinity_seconds: Option<i32>,
}

/// The ports of a Service on the node; none for those that are no business of ours.
pub fn ports(service: &Service, slices: &[Arc<EndpointSlice>], node: &str) -> Vec<Port> {
    let metadata = &service.metadata;
    let labels = metadata.labels.as_ref();
    let Some(spec) = &service.spec else { return Vec::new() };
    let has_other_proxy = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    let headless = spec
        .cluster_ip
        .as_deref()
        .is_none_or(|ip| ip.is_empty() || ip == "None");
    if has_other_proxy || headless || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let cluster_ips = match listed.is_empty() {
        true => v4(spec.cluster_ip.iter()),
        false => v4(listed.iter()),
    };
    let balancers = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let balancers = balancers.flat_map(|status| status.ingress.iter().flatten());
    // With `Proxy` the balancer itself must see the connection.
    let balancers = balancers.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let balancer_ips = v4(balancers.filter_map(|ingress| ingress.ip.as_ref()));
    let mut external_ips = v4(spec.external_ips.iter().flatten());
    external_ips.extend(&balancer_ips);
    let affinity_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        config
            .and_then(|config| config.timeout_seconds)
            .unwrap_or(AFFINITY_SECONDS)
    });
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let key = format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    );
    let mut ports = Vec::new();
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) = (Protocol::of(port.protocol.as_deref()), u16::try_from(port.port)) else {
            continue;
        };
        let name = port.name.as_deref().unwrap_or_default();
        ports.push(Port {
            name: format!("{key}:{name}"),
            protocol,
            number,
            cluster_ips: cluster_ips.clone(),
            external_ips: external_ips.clone(),
            balancer_ips: balancer_ips.clone(),
            source_ranges: source_ranges(spec.load_balancer_source_ranges.as_deref()),
            node_port: port
                .node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|p| *p > 0),
            internal: destinations(slices, port, protocol, internal_local.then_some(node)),
            external: destinations(slices, port, protocol, external_local.then_some(node)),
            affinity_seconds,
        });
    }
    ports
}

fn v4<'a>(addresses: impl Iterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    addresses.filter_map(|address| address.parse().ok()).collect()
}

fn source_ranges(ranges: Option<&[String]>) -> Vec<String> {
    let is_v4 = |range: &str| {
        let (address, bits) = range.split_once('/')?;
        (address.parse::<Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32)).then_some(())
    };
    let ranges = ranges.unwrap_or_default().iter().map(|range| range.trim());
    ranges
        .filter(|range| is_v4(range).is_some())
        .map(str::to_owned)
        .collect()
}

/// The endpoints of a port; with a node, those on it. Those that are ready, or, without any, those that serve while they
/// end.
fn destinations(
    slices: &[Arc<EndpointSlice>],
    port: &ServicePort,
    protocol: Protocol,
    only_on: Option<&str>,
) -> Destinations {
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    let mut others = false;
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let listed = slice.ports.iter().flatten();
        let mut numbers = listed.filter(|listed| {
            listed.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && Protocol::of(listed.protocol.as_deref()) == Some(protocol)
        });
        let Some(number) = numbers.next().and_then(|listed| u16::try_from(listed.port?).ok()) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(state) = State::of(endpoint) else { continue };
            if only_on.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                others = true;
                continue;
            }
            let into = match state {
                State::Ready => &mut ready,
                State::Ending => &mut ending,
            };
            // Upstream uses the first address of each.
            into.extend(
                v4(endpoint.addresses.first().into_iter())
                    .into_iter()
                    .map(|ip| (ip, number)),
            );
        }
    }
    Destinations {
        endpoints: if ready.is_empty() { ending } else { ready },
        others,
    }
}

enum State {
    Ready,
    /// Serves, but is about to end.
    Ending,
}

impl State {
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let Some(conditions) = &endpoint.conditions else {
            return Some(Self::Ready);
        };
        // Unknown counts as ready.
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(ready);
        match (ready, serving && conditions.terminating.unwrap_or(false)) {
            (true, _) => Some(Self::Ready),
            (false, true) => Some(Self::Ending),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": spec})).unwrap()
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
        let slice = json!({"addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn addresses(destinations: &Destinations) -> Vec<String> {
        let endpoints = destinations.endpoints.iter();
        endpoints.map(|(ip, port)| format!("{ip}:{port}")).collect()
    }

    #[test]
    fn ports_and_their_addresses() {
        let spec = json!({
            "type": "NodePort", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9", "fd00::9"],
            "externalIPs": ["192.0.2.1"], "sessionAffinity": "ClientIP",
            "ports": [
                {"name": "http", "port": 80, "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        });
        let slices = [slice(
            json!([{"addresses": ["10.42.0.2"]}, {"addresses": ["10.42.0.3"]}]),
        )];
        let ports = ports(&service(spec), &slices, "n");
        let [http, dns] = &ports[..] else { panic!("{ports:?}") };
        assert_eq!(
            (http.name.as_str(), http.number, http.node_port),
            ("ns/web:http", 80, Some(30_080))
        );
        assert_eq!(http.cluster_ips, [Ipv4Addr::new(10, 43, 0, 9)]);
        assert_eq!(http.external_ips, [Ipv4Addr::new(192, 0, 2, 1)]);
        assert_eq!(http.affinity_seconds, Some(10_800));
        assert_eq!(addresses(&http.internal), ["10.42.0.2:8080", "10.42.0.3:8080"]);
        // No slice has a port of that name.
        assert_eq!((dns.protocol, addresses(&dns.internal).len()), (Protocol::Udp, 0));
    }

    #[test]
    fn what_is_not_led_anywhere() {
        let port = json!([{"port": 80}]);
        for spec in [
            json!({"clusterIP": "None", "ports": port}),
            json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "", "ports": port}),
        ] {
            assert!(ports(&service(spec), &[], "n").is_empty());
        }
        let mut other = service(json!({"clusterIP": "10.43.0.9", "ports": port}));
        other.metadata.labels = Some([(PROXY_NAME_LABEL.to_owned(), "mesh".to_owned())].into());
        assert!(ports(&other, &[], "n").is_empty());
    }

    #[test]
    fn endpoints_that_end_serve_where_none_is_ready() {
        let spec = || service(json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80}]}));
        let ending =
            json!({"addresses": ["10.42.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let broken = json!({"addresses": ["10.42.0.3"], "conditions": {"ready": false}});
        let ready = json!({"addresses": ["10.42.0.4"], "conditions": {"ready": true}});
        let of = |endpoints: Value| addresses(&ports(&spec(), &[slice(endpoints)], "n")[0].internal);
        assert_eq!(of(json!([ending, broken])), ["10.42.0.2:8080"]);
        assert_eq!(of(json!([ending, broken, ready])), ["10.42.0.4:8080"]);
        assert!(of(json!([broken])).is_empty());
    }

    #[test]
    fn local_traffic_stays_on_its_node() {
        let spec = json!({
            "type": "NodePort", "clusterIP": "10.43.0.9", "externalTrafficPolicy": "Local",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        });
        let slices = [slice(json!([
            {"addresses": ["10.42.0.2"], "nodeName": "n"}, {"addresses": ["10.42.1.2"], "nodeName": "m"},
        ]))];
        let on = |node: &str| ports(&service(spec.clone()), &slices, node).remove(0);
        assert_eq!(addresses(&on("n").external), ["10.42.0.2:8080"]);
        assert_eq!(addresses(&on("n").internal).len(), 2);
        let nowhere = on("o").external;
        assert!(nowhere.endpoints.is_empty() && nowhere.others);
    }
}
