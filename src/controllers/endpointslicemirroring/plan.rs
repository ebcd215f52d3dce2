//! Which slices mirror an Endpoints that somebody keeps by hand: one for each subset and address family
//! (upstream: `pkg/controller/endpointslicemirroring`). Pure.

use crate::client::endpoint_slices::SERVICE_NAME;
use crate::controllers::endpoint::addresses_of;
use crate::controllers::endpoint::plan::LEADER;
use crate::controllers::endpointslice::desired::{EndpointKey, PortsKey, endpoint_key, ports_key, same_endpoint};
use crate::controllers::ownership::controller_ref;
use crate::controllers::service_endpoints::TRIGGER_TIME;
use crate::managed_by::{ENDPOINT_SLICE_MIRRORING_CONTROLLER as MANAGER, ENDPOINT_SLICES as MANAGED_BY};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// No subset's slices get more.
pub const ADDRESSES_MAX: usize = 1000;
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses left out, invalid ones included.
    pub skipped: usize,
}

/// Whether the Endpoints is mirrored: by hand, for a Service without a selector, and not a lock.
pub fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    may_be_mirrored(endpoints) && service.is_some_and(without_selector)
}

pub fn may_be_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP).is_none_or(|skip| skip != "true") && !endpoints.annotations().contains_key(LEADER)
}

pub fn without_selector(service: &Service) -> bool {
    service.spec.as_ref().is_none_or(|spec| spec.selector.is_none())
}

type GroupKey = (&'static str, PortsKey);
#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<EndpointKey, Endpoint>,
}

/// `slices` are those that carry the name and this controller's mark.
pub fn plan(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut held: BTreeMap<(&str, PortsKey), Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        let key = ports_key(slice.ports.as_deref().unwrap_or_default());
        held.entry((slice.address_type.as_str(), key)).or_default().push(slice);
    }
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        plan.add_subset(subset, &mut groups);
    }
    for ((address_type, key), group) in groups {
        let of_group = held.remove(&(address_type, key)).unwrap_or_default();
        let (kept, surplus) = match of_group.split_first() {
            Some((first, rest)) if !group.endpoints.is_empty() => (Some(*first), rest),
            _ => (None, &of_group[..]),
        };
        plan.delete.extend(surplus.iter().map(|slice| (*slice).clone()));
        if group.endpoints.is_empty() || kept.is_some_and(|slice| is_current(slice, endpoints, &group)) {
            continue;
        }
        let new = slice(endpoints, address_type, group, kept.map(Arc::as_ref));
        match kept {
            Some(_) => plan.update.push(new),
            None => plan.create.push(new),
        }
    }
    plan.delete.extend(held.into_values().flatten().cloned());
    plan.reuse();
    if endpoints.metadata.deletion_timestamp.is_some() {
        plan.create.clear();
    }
    plan
}

impl Plan {
    fn add_subset(
        &mut self,
        subset: &k8s_openapi::api::core::v1::EndpointSubset,
        groups: &mut BTreeMap<GroupKey, Group>,
    ) {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let key = ports_key(&ports);
        for family in ["IPv4", "IPv6"] {
            groups
                .entry((family, key.clone()))
                .or_default()
                .ports
                .clone_from(&ports);
        }
        let mut added = 0;
        for (address, ready) in addresses_of(subset) {
            if added >= ADDRESSES_MAX {
                self.skipped += 1;
                continue;
            }
            let Some(ip) = sloppy_ip(&address.ip) else {
                self.invalid += 1;
                self.skipped += 1;
                continue;
            };
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let endpoint = endpoint(address, ip, ready);
            if let Some(group) = groups.get_mut(&(family, key.clone())) {
                group.endpoints.insert(endpoint_key(&endpoint), endpoint);
            }
            added += 1;
        }
    }

    /// What would be deleted becomes what would be created, within an address type.
    fn reuse(&mut self) {
        for mut new in std::mem::take(&mut self.create) {
            let free = self.delete.iter().position(|old| old.address_type == new.address_type);
            match free.map(|index| self.delete.remove(index)) {
                Some(old) => {
                    new.metadata.name = old.metadata.name.clone();
                    new.metadata.resource_version = old.metadata.resource_version.clone();
                    self.update.push(new);
                }
                None => self.create.push(new),
            }
        }
    }
}

/// As Go reads addresses: zeros before a number are allowed, and IPv4 in IPv6 is IPv4.
fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let parts: [u8; 4] = parts.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(parts)))
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone().or_else(|| Some("TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..Default::default()
        }),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        ..Default::default()
    }
}

fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut annotations = endpoints.annotations().clone();
    annotations.remove(TRIGGER_TIME);
    annotations.remove(LAST_APPLIED);
    annotations
}

fn is_current(slice: &EndpointSlice, endpoints: &Endpoints, group: &Group) -> bool {
    let held = slice.endpoints.as_deref().unwrap_or_default();
    let same = |endpoint: &Endpoint| {
        let wanted = group.endpoints.get(&endpoint_key(endpoint));
        wanted.is_some_and(|wanted| same_endpoint(wanted, endpoint))
    };
    held.len() == group.endpoints.len()
        && held.iter().all(same)
        && *slice.labels() == labels(endpoints)
        && *slice.annotations() == annotations(endpoints)
}

fn slice(endpoints: &Endpoints, address_type: &str, group: Group, old: Option<&EndpointSlice>) -> EndpointSlice {
    let name = endpoints.name_any();
    EndpointSlice {
        metadata: ObjectMeta {
            name: old.and_then(|old| old.metadata.name.clone()),
            resource_version: old.and_then(|old| old.metadata.resource_version.clone()),
            generate_name: old.is_none().then(|| format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels(endpoints)),
            annotations: Some(annotations(endpoints)),
            owner_references: Some(vec![controller_ref(endpoints)]),
            ..Default::default()
        },
        address_type: address_type.to_owned(),
        endpoints: Some(group.endpoints.into_values().collect()),
        ports: Some(group.ports),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
