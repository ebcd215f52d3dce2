//! Which endpoints a Service is to have, by the ports that they are reached at
//! (upstream: `staging/src/k8s.io/endpointslice/utils.go`). Pure.

use crate::client::endpoint_slices::SERVICE_NAME;
use crate::client::pods::target;
use crate::controllers::ownership::controller_ref;
use crate::controllers::pods::is_ready;
use crate::controllers::service_endpoints::{
    HEADLESS, belongs, hostname, is_headless, may_have_no_ports, pod_ips, ports, publishes_not_ready, target_port,
};
use crate::managed_by;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

const RESERVED: [&str; 3] = [SERVICE_NAME, managed_by::ENDPOINT_SLICES, HEADLESS];
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// What tells sets of ports apart, in order: name, protocol, number, application protocol of each.
pub type PortsKey = Vec<(String, String, Option<i32>, Option<String>)>;
/// What tells endpoints apart: addresses, host name, namespace and name of the target.
pub type EndpointKey = (Vec<String>, Option<String>, Option<String>, Option<String>);

pub fn ports_key(ports: &[EndpointPort]) -> PortsKey {
    let key = |port: &EndpointPort| {
        (
            port.name.clone().unwrap_or_default(),
            port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port.port,
            port.app_protocol.clone(),
        )
    };
    let mut key: PortsKey = ports.iter().map(key).collect();
    key.sort();
    key
}

pub fn endpoint_key(endpoint: &Endpoint) -> EndpointKey {
    let mut addresses = endpoint.addresses.clone();
    addresses.sort();
    let target = endpoint.target_ref.as_ref();
    (
        addresses,
        endpoint.hostname.clone(),
        target.and_then(|target| target.namespace.clone()),
        target.and_then(|target| target.name.clone()),
    )
}

/// Whether two endpoints of one key say the same, hints and the target's revision left aside.
pub fn same_endpoint(one: &Endpoint, other: &Endpoint) -> bool {
    let conditions = |endpoint: &Endpoint| endpoint.conditions.clone().unwrap_or_default();
    let target = |endpoint: &Endpoint| {
        let target = endpoint.target_ref.clone();
        target.map(|target| ObjectReference {
            resource_version: None,
            ..target
        })
    };
    one.node_name == other.node_name
        && one.zone == other.zone
        && conditions(one) == conditions(other)
        && target(one) == target(other)
}

/// Endpoints that share their ports.
#[derive(Debug, Default)]
pub struct Group {
    pub ports: Vec<EndpointPort>,
    pub endpoints: BTreeMap<EndpointKey, Endpoint>,
}

/// The endpoints of one address family, and the pods left out because their node, named second, is not known.
pub struct Desired {
    pub groups: BTreeMap<PortsKey, Group>,
    pub without_node: Vec<(String, String)>,
}

/// The address types of the slices of a Service.
pub fn address_types(service: &Service) -> BTreeSet<&'static str> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let known = ["IPv4", "IPv6"];
    let of_families: BTreeSet<&str> = known
        .into_iter()
        .filter(|family| families.iter().any(|wanted| wanted == family))
        .collect();
    if !of_families.is_empty() {
        return of_families;
    }
    // Written by a server that knows no families.
    let ip = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => BTreeSet::from(["IPv4"]),
        Ok(IpAddr::V6(_)) => BTreeSet::from(["IPv6"]),
        Err(_) => BTreeSet::from(known),
    }
}

pub fn desired(
    service: &Service,
    address_type: &str,
    pods: &[Arc<Pod>],
    node: &dyn Fn(&str) -> Option<Arc<Node>>,
) -> Desired {
    let mut desired = Desired {
        groups: BTreeMap::new(),
        without_node: Vec::new(),
    };
    for pod in pods.iter().filter(|pod| belongs(pod, true)) {
        let ports = endpoint_ports(service, pod);
        let group = desired.groups.entry(ports_key(&ports)).or_insert_with(|| Group {
            ports,
            endpoints: BTreeMap::new(),
        });
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let known = node(name.unwrap_or_default());
        if known.is_none() && !publishes_not_ready(service) {
            let node = name.unwrap_or_default().to_owned();
            desired.without_node.push((pod.name_any(), node));
            continue;
        }
        let endpoint = endpoint(pod, known.as_deref(), service, address_type);
        if !endpoint.addresses.is_empty() {
            group.endpoints.insert(endpoint_key(&endpoint), endpoint);
        }
    }
    desired
}

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    if may_have_no_ports(service) {
        return Vec::new();
    }
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(pod, port)?),
            protocol: port.protocol.clone().or_else(|| Some("TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports(service).iter().filter_map(port).collect()
}

fn endpoint(pod: &Pod, node: Option<&Node>, service: &Service, address_type: &str) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let addresses = pod_ips(pod)
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
        .filter(|ip| ip.is_ipv6() == (address_type == "IPv6"));
    let zone = node
        .and_then(|node| node.labels().get(ZONE))
        .filter(|zone| !zone.is_empty());
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Endpoint {
        addresses: addresses.map(|ip| ip.to_string()).collect(),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        target_ref: Some(target(pod)),
        node_name: node_name.filter(|name| !name.is_empty()),
        zone: zone.cloned(),
        hostname: hostname(pod, service),
        ..Default::default()
    }
}

/// The labels that a slice is to have, and whether those it takes from the Service are others than it has.
pub fn labels(slice: &EndpointSlice, service: &Service) -> (BTreeMap<String, String>, bool) {
    let free = |labels: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let free = labels.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str()));
        free.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let mut labels = free(service.labels());
    let changed = free(slice.labels()) != labels;
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    let manager = managed_by::ENDPOINT_SLICE_CONTROLLER;
    labels.insert(managed_by::ENDPOINT_SLICES.to_owned(), manager.to_owned());
    (labels, changed)
}

/// A slice without endpoints.
pub fn new_slice(service: &Service, address_type: &str, ports: &[EndpointPort]) -> EndpointSlice {
    let name = service.name_any();
    let mut slice = EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![controller_ref(service)]),
            ..Default::default()
        },
        address_type: address_type.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports.to_vec()),
    };
    slice.metadata.labels = Some(labels(&slice, service).0);
    slice
}

pub fn is_owned_by(slice: &EndpointSlice, service: &Service) -> bool {
    slice.owner_references().iter().any(|owner| {
        Some(&owner.uid) == service.metadata.uid.as_ref() && owner.kind == "Service" && owner.api_version == "v1"
    })
}
