//! Which slices to create, update and delete, so that every endpoint is in exactly one slice and few slices change
//! (upstream: `staging/src/k8s.io/endpointslice/reconciler.go`). Pure.

use super::desired::{Desired, same_endpoint};
use super::desired::{
    Group, PortsKey, address_types, desired, endpoint_key, is_owned_by, labels, new_slice, ports_key,
};
use super::hints::Distribution;
use super::topology::{self, Slices, Zones};
use crate::controllers::service_endpoints::{TRIGGER_TIME, trigger_text};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// No slice of this controller gets more.
pub const ENDPOINTS_MAX: usize = 100;

/// What is known of one Service.
pub struct Observed<'a> {
    pub service: &'a Service,
    /// Those that its selector selects.
    pub pods: &'a [Arc<Pod>],
    pub node: &'a dyn Fn(&str) -> Option<Arc<Node>>,
    pub zones: &'a dyn Fn() -> Zones,
    /// Those that carry its name and this controller's mark, and are not being deleted.
    pub slices: &'a [Arc<EndpointSlice>],
    /// The change that led to this look.
    pub trigger: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Pods that are left out until their node is known, with its name.
    pub without_node: Vec<(String, String)>,
    /// For a Service that asks for hints by the processors of zones: whether its endpoints of an address family have them,
    /// or why not.
    pub topology: Vec<(&'static str, Result<(), String>)>,
}

impl Plan {
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }
}

pub fn plan(observed: &Observed<'_>) -> Plan {
    let service = observed.service;
    let types = address_types(service);
    let zones = topology::is_wanted(service).then(observed.zones);
    let mut whole = Plan::default();
    for address_type in &types {
        let slices = observed
            .slices
            .iter()
            .filter(|slice| slice.address_type == *address_type);
        let slices: Vec<&Arc<EndpointSlice>> = slices.collect();
        let Desired { groups, without_node } = desired(service, address_type, observed.pods, observed.node);
        let mut part = of_type(service, address_type, &slices, groups);
        if let Some(zones) = &zones {
            let given = part.put_topology(zones, &slices);
            whole.topology.push((*address_type, given));
        } else {
            part.put_hints(Distribution::of(service), &slices);
        }
        part.reuse(service);
        whole.create.append(&mut part.create);
        whole.update.append(&mut part.update);
        whole.delete.append(&mut part.delete);
        // A pod is left out of both families.
        whole.without_node = without_node;
    }
    let others = observed.slices.iter();
    let others = others.filter(|slice| !types.contains(slice.address_type.as_str()));
    whole.delete.extend(others.cloned());
    if service.metadata.deletion_timestamp.is_some() {
        // The garbage collector is at it.
        whole.create.clear();
    }
    for slice in whole.create.iter_mut().chain(&mut whole.update) {
        put_trigger(slice, observed.trigger);
    }
    whole
}

fn of_type(
    service: &Service,
    address_type: &str,
    slices: &[&Arc<EndpointSlice>],
    groups: BTreeMap<PortsKey, Group>,
) -> Plan {
    let mut plan = Plan::default();
    let mut by_ports: BTreeMap<PortsKey, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        if is_owned_by(slice, service) {
            let key = ports_key(slice.ports.as_deref().unwrap_or_default());
            by_ports.entry(key).or_default().push(slice);
        } else {
            plan.delete.push((*slice).clone());
        }
    }
    for (key, group) in groups {
        let of_group = by_ports.remove(&key).unwrap_or_default();
        plan.fill(service, address_type, &of_group, group);
    }
    plan.delete.extend(by_ports.into_values().flatten().cloned());
    if plan.delete.len() == slices.len() && plan.create.is_empty() {
        // One slice without endpoints says that there are none.
        let empty = new_slice(service, address_type, &[]);
        match plan.delete.as_slice() {
            [only] if same_placeholder(only, &empty) => plan.delete.clear(),
            _ => plan.create.push(empty),
        }
    }
    plan
}

fn same_placeholder(slice: &EndpointSlice, empty: &EndpointSlice) -> bool {
    slice.metadata.labels == empty.metadata.labels
        && slice.metadata.owner_references == empty.metadata.owner_references
        && slice.endpoints.as_ref().is_none_or(Vec::is_empty)
        && slice.ports.as_ref().is_none_or(Vec::is_empty)
}

impl Plan {
    /// Changes the slices of one set of ports: what must change first, then those take what is missing, then one
    /// that has room for all the rest, and only then new ones.
    fn fill(&mut self, service: &Service, address_type: &str, slices: &[&Arc<EndpointSlice>], group: Group) {
        let mut missing = group.endpoints;
        let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
        for slice in slices {
            let before = slice.endpoints.as_deref().unwrap_or_default();
            let (mut kept, mut outdated) = (Vec::new(), false);
            for endpoint in before {
                // What is found once is looked for no more: an endpoint that stands in two slices leaves the second.
                if let Some(wanted) = missing.remove(&endpoint_key(endpoint)) {
                    outdated |= !same_endpoint(&wanted, endpoint);
                    kept.push(wanted);
                }
            }
            let (labels, relabelled) = labels(slice, service);
            if outdated || kept.len() != before.len() {
                if kept.is_empty() {
                    self.delete.push((*slice).clone());
                } else {
                    let mut new = EndpointSlice::clone(slice);
                    new.endpoints = Some(kept);
                    new.metadata.labels = Some(labels);
                    changed.push(new);
                }
            } else if relabelled {
                let mut new = EndpointSlice::clone(slice);
                new.metadata.labels = Some(labels);
                changed.push(new);
            } else {
                unchanged.push(*slice);
            }
        }
        let mut missing = missing.into_values();
        changed.sort_by_key(|slice| std::cmp::Reverse(length(slice)));
        for slice in &mut changed {
            let room = ENDPOINTS_MAX.saturating_sub(length(slice));
            slice
                .endpoints
                .get_or_insert_default()
                .extend(missing.by_ref().take(room));
        }
        while missing.len() > 0 {
            let fullest = (missing.len() < ENDPOINTS_MAX)
                .then(|| fullest_with_room(&unchanged, missing.len()))
                .flatten();
            match fullest {
                Some(index) => {
                    let mut slice = EndpointSlice::clone(unchanged.remove(index));
                    slice.endpoints.get_or_insert_default().extend(missing.by_ref());
                    changed.push(slice);
                }
                None => {
                    let mut slice = new_slice(service, address_type, &group.ports);
                    slice.endpoints = Some(missing.by_ref().take(ENDPOINTS_MAX).collect());
                    self.create.push(slice);
                }
            }
        }
        self.update.extend(changed);
    }

    /// Those that would stay as they are.
    fn unchanged<'a>(&self, slices: &[&'a Arc<EndpointSlice>]) -> Vec<&'a Arc<EndpointSlice>> {
        let updated = self.update.iter().map(ResourceExt::name_any);
        let touched: BTreeSet<String> = updated
            .chain(self.delete.iter().map(|slice| slice.name_any()))
            .collect();
        let slices = slices.iter().filter(|slice| !touched.contains(&slice.name_any()));
        slices.copied().collect()
    }

    fn put_topology(&mut self, zones: &Zones, slices: &[&Arc<EndpointSlice>]) -> Result<(), String> {
        let unchanged = self.unchanged(slices);
        let all = Slices {
            create: &mut self.create,
            update: &mut self.update,
            unchanged,
        };
        let given = topology::give(zones, all);
        if given.is_err() {
            self.put_hints(Distribution::Anywhere, slices);
        }
        given
    }

    fn put_hints(&mut self, distribution: Distribution, slices: &[&Arc<EndpointSlice>]) {
        for slice in self.unchanged(slices) {
            if distribution.is_missing(slice.endpoints.as_deref().unwrap_or_default()) {
                self.update.push(EndpointSlice::clone(slice));
            }
        }
        for slice in self.create.iter_mut().chain(&mut self.update) {
            distribution.put(slice.endpoints.as_deref_mut().unwrap_or_default());
        }
    }

    /// What would be deleted becomes what would be created: one write instead of two.
    fn reuse(&mut self, service: &Service) {
        let mut deleted = Vec::new();
        for old in std::mem::take(&mut self.delete) {
            if !is_owned_by(&old, service) {
                deleted.push(old);
                continue;
            }
            let Some(mut slice) = self.create.pop() else {
                deleted.push(old);
                continue;
            };
            slice.metadata.name = old.metadata.name.clone();
            // It replaces what was looked at, and nothing newer.
            slice.metadata.resource_version = old.metadata.resource_version.clone();
            self.update.push(slice);
        }
        self.delete = deleted;
    }
}

fn length(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

fn fullest_with_room(slices: &[&Arc<EndpointSlice>], wanted: usize) -> Option<usize> {
    let roomy = slices.iter().enumerate();
    let roomy = roomy.filter(|(_, slice)| length(slice) + wanted <= ENDPOINTS_MAX);
    roomy.max_by_key(|(_, slice)| length(slice)).map(|(index, _)| index)
}

fn put_trigger(slice: &mut EndpointSlice, trigger: Option<Timestamp>) {
    match trigger {
        Some(time) => {
            slice
                .annotations_mut()
                .insert(TRIGGER_TIME.to_owned(), trigger_text(time));
        }
        None => {
            if let Some(annotations) = &mut slice.metadata.annotations {
                annotations.remove(TRIGGER_TIME);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
