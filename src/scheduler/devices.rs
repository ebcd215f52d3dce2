//! Which devices claims get on a node (upstream: `dynamic-resource-allocation/structured`). Pure but for the expressions of
//! classes and requests, which the caller evaluates.
//!
//! Left out, and said at the pod: consumable capacity, shared counters of partitions, binding conditions.

use super::node_info::NodeInfo;
use super::objects::Objects;
use super::selector::NodeTerms;
use crate::client::placement::tolerates;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceAttribute, DeviceConstraint,
    DeviceRequestAllocationResult, DeviceSelector, DeviceToleration, ExactDeviceRequest, ResourceClaim, ResourceSlice,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Steps after which the search for one node is given up.
const STEPS_MAX: usize = 20_000;

/// Evaluates selectors of devices, which are CEL expressions.
pub trait Expressions: Send + Sync {
    /// Whether the expression holds for the device; Err in words for people.
    fn holds(&self, expression: &str, driver: &str, device: &Device) -> Result<bool, String>;
}

/// Driver, pool, device.
pub type DeviceId = (String, String, String);

struct Candidate<'a> {
    id: DeviceId,
    slice: &'a ResourceSlice,
    device: &'a Device,
}

/// One request, or one of its alternatives.
struct Wanted<'a> {
    name: String,
    class: &'a str,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    admin: bool,
    all: bool,
    count: usize,
}

/// Devices that are allocated to somebody, with administrators' access left out.
pub fn taken(objects: &Objects) -> HashSet<DeviceId> {
    let claims = objects
        .resource_claims
        .all()
        .chain(objects.assumed.allocations.values());
    let allocations = claims.filter_map(|claim| claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref());
    let results = allocations.flat_map(|devices| devices.results.iter().flatten());
    let counted = results.filter(|result| result.admin_access != Some(true));
    counted
        .map(|result| (result.driver.clone(), result.pool.clone(), result.device.clone()))
        .collect()
}

/// What the claim asks for that is not done here.
pub fn unsupported(claim: &ResourceClaim) -> Option<&'static str> {
    let devices = claim.spec.as_ref()?.devices.as_ref()?;
    let mut requests = devices.requests.iter().flatten();
    let asks = requests.any(|request| {
        let exact = request.exactly.as_ref();
        exact.is_some_and(|exact| exact.capacity.is_some() || exact.derived_attributes.is_some())
            || request
                .first_available
                .iter()
                .flatten()
                .any(|sub| sub.capacity.is_some() || sub.derived_attributes.is_some())
    });
    asks.then_some("shares of devices' capacity and derived attributes are not allocated")
}

pub struct Allocator<'a> {
    objects: &'a Objects,
    expressions: Option<&'a dyn Expressions>,
    taken: &'a HashSet<DeviceId>,
    candidates: Vec<Candidate<'a>>,
    steps: usize,
}

impl<'a> Allocator<'a> {
    pub fn new(objects: &'a Objects, taken: &'a HashSet<DeviceId>, node: &NodeInfo) -> Self {
        Self {
            objects,
            expressions: objects.expressions.as_deref(),
            taken,
            candidates: candidates(objects, node),
            steps: 0,
        }
    }

    /// The claims with devices for each, all of them or none. Err: something is wrong with a claim or class.
    pub fn allocate(
        &mut self,
        claims: &[Arc<ResourceClaim>],
        node: &NodeInfo,
    ) -> Result<Option<Vec<Arc<ResourceClaim>>>, String> {
        let mut used = HashSet::new();
        let mut allocated = Vec::new();
        for claim in claims {
            let Some(chosen) = self.choose(claim, &mut used)? else {
                return Ok(None);
            };
            let mut claim = (**claim).clone();
            let result = self.result(&claim, &chosen, node);
            claim.status.get_or_insert_default().allocation = Some(result);
            allocated.push(Arc::new(claim));
        }
        Ok(Some(allocated))
    }

    /// Devices for one claim: request, the request's alternative, device.
    fn choose(&mut self, claim: &ResourceClaim, used: &mut HashSet<usize>) -> Result<Option<Vec<Choice>>, String> {
        let Some(devices) = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref()) else {
            return Ok(Some(Vec::new()));
        };
        let mut requests: Vec<Vec<Wanted<'_>>> = Vec::new();
        for request in devices.requests.iter().flatten() {
            let mut ways = Vec::new();
            if let Some(exact) = &request.exactly {
                ways.push(wanted(request.name.clone(), exact));
            }
            for sub in request.first_available.iter().flatten() {
                ways.push(Wanted {
                    name: format!("{}/{}", request.name, sub.name),
                    class: &sub.device_class_name,
                    selectors: sub.selectors.as_deref().unwrap_or_default(),
                    tolerations: sub.tolerations.as_deref().unwrap_or_default(),
                    admin: false,
                    all: sub.allocation_mode.as_deref() == Some("All"),
                    count: sub.count.unwrap_or(1).max(0) as usize,
                });
            }
            requests.push(ways);
        }
        let constraints = devices.constraints.as_deref().unwrap_or_default();
        let mut fitting: Vec<Vec<Vec<usize>>> = Vec::new();
        for ways in &requests {
            let each: Result<Vec<Vec<usize>>, String> = ways.iter().map(|way| self.fitting(way)).collect();
            fitting.push(each?);
        }
        let mut chosen = Vec::new();
        let found = self.search(&requests, &fitting, constraints, 0, used, &mut chosen);
        Ok(found.then_some(chosen))
    }

    /// The candidates that meet the request by themselves.
    fn fitting(&self, wanted: &Wanted<'_>) -> Result<Vec<usize>, String> {
        let Some(class) = self.objects.device_classes.get("", wanted.class) else {
            return Err(format!("could not retrieve device class {}", wanted.class));
        };
        let of_class = class
            .spec
            .as_ref()
            .and_then(|spec| spec.selectors.as_deref())
            .unwrap_or_default();
        let mut fitting = Vec::new();
        for (at, candidate) in self.candidates.iter().enumerate() {
            let taints = candidate.device.taints.iter().flatten();
            let mut hard = taints.filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
            let tainted = hard.any(|taint| {
                let taint = Taint {
                    key: taint.key.clone(),
                    value: taint.value.clone(),
                    effect: taint.effect.clone(),
                    time_added: None,
                };
                !wanted
                    .tolerations
                    .iter()
                    .any(|toleration| tolerates(&as_toleration(toleration), &taint))
            });
            let partitioned = candidate
                .device
                .consumes_counters
                .as_ref()
                .is_some_and(|list| !list.is_empty());
            if tainted || partitioned || (!wanted.admin && self.taken.contains(&candidate.id)) {
                continue;
            }
            let mut holds = true;
            for selector in of_class.iter().chain(wanted.selectors) {
                let Some(cel) = &selector.cel else { continue };
                let Some(expressions) = self.expressions else {
                    return Err("selectors of devices are not evaluated".into());
                };
                if !expressions.holds(&cel.expression, &candidate.id.0, candidate.device)? {
                    holds = false;
                    break;
                }
            }
            if holds {
                fitting.push(at);
            }
        }
        Ok(fitting)
    }

    /// Tries the ways of the request, and for each what is left of devices, until all requests have theirs.
    fn search(
        &mut self,
        requests: &[Vec<Wanted<'_>>],
        fitting: &[Vec<Vec<usize>>],
        constraints: &[DeviceConstraint],
        request: usize,
        used: &mut HashSet<usize>,
        chosen: &mut Vec<Choice>,
    ) -> bool {
        let Some(ways) = requests.get(request) else { return true };
        for (way, list) in ways.iter().zip(&fitting[request]) {
            let count = if way.all { list.len() } else { way.count };
            if count == 0 || list.len() < count {
                continue;
            }
            let mut begin = Vec::new();
            if self.pick(
                requests,
                fitting,
                constraints,
                request,
                (way, list.as_slice(), count),
                0,
                &mut begin,
                used,
                chosen,
            ) {
                return true;
            }
        }
        false
    }

    #[allow(clippy::too_many_arguments)]
    fn pick(
        &mut self,
        requests: &[Vec<Wanted<'_>>],
        fitting: &[Vec<Vec<usize>>],
        constraints: &[DeviceConstraint],
        request: usize,
        (way, list, count): (&Wanted<'_>, &[usize], usize),
        from: usize,
        picked: &mut Vec<usize>,
        used: &mut HashSet<usize>,
        chosen: &mut Vec<Choice>,
    ) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return false;
        }
        if picked.len() == count {
            return self.search(requests, fitting, constraints, request + 1, used, chosen);
        }
        for (at, candidate) in list.iter().enumerate().skip(from) {
            if (!way.admin && used.contains(candidate)) || !self.keeps(constraints, chosen, &way.name, *candidate) {
                if way.all {
                    return false;
                }
                continue;
            }
            if !way.admin {
                used.insert(*candidate);
            }
            picked.push(*candidate);
            chosen.push(Choice {
                request: way.name.clone(),
                class: way.class.to_owned(),
                admin: way.admin,
                tolerations: way.tolerations.to_vec(),
                candidate: *candidate,
            });
            if self.pick(
                requests,
                fitting,
                constraints,
                request,
                (way, list, count),
                at + 1,
                picked,
                used,
                chosen,
            ) {
                return true;
            }
            chosen.pop();
            picked.pop();
            if !way.admin {
                used.remove(candidate);
            }
            if way.all {
                return false;
            }
        }
        false
    }

    /// Whether the device may stand beside those that are chosen.
    fn keeps(&self, constraints: &[DeviceConstraint], chosen: &[Choice], request: &str, candidate: usize) -> bool {
        let concerns = |constraint: &DeviceConstraint, name: &str| {
            let main = name.split('/').next().unwrap_or_default();
            let listed = constraint.requests.as_deref().unwrap_or_default();
            listed.is_empty() || listed.iter().any(|listed| listed == name || listed == main)
        };
        constraints
            .iter()
            .filter(|constraint| concerns(constraint, request))
            .all(|constraint| {
                let others = || chosen.iter().filter(|choice| concerns(constraint, &choice.request));
                if let Some(name) = &constraint.match_attribute {
                    let Some(own) = self.attribute(candidate, name) else {
                        return false;
                    };
                    if others().any(|choice| self.attribute(choice.candidate, name) != Some(own)) {
                        return false;
                    }
                }
                if let Some(name) = &constraint.distinct_attribute {
                    let Some(own) = self.attribute(candidate, name) else {
                        return false;
                    };
                    if others().any(|choice| self.attribute(choice.candidate, name) == Some(own)) {
                        return false;
                    }
                }
                true
            })
    }

    /// By its full name; the driver's own attributes need not name it.
    fn attribute(&self, candidate: usize, name: &str) -> Option<&'a DeviceAttribute> {
        let Candidate { id, device, .. } = &self.candidates[candidate];
        let attributes = device.attributes.as_ref()?;
        attributes.get(name).or_else(|| {
            let (domain, short) = name.split_once('/')?;
            (domain == id.0).then(|| attributes.get(short))?
        })
    }

    fn result(&self, claim: &ResourceClaim, chosen: &[Choice], node: &NodeInfo) -> AllocationResult {
        let results: Vec<DeviceRequestAllocationResult> = chosen
            .iter()
            .map(|choice| {
                let (driver, pool, device) = self.candidates[choice.candidate].id.clone();
                DeviceRequestAllocationResult {
                    request: choice.request.clone(),
                    driver,
                    pool,
                    device,
                    admin_access: choice.admin.then_some(true),
                    tolerations: (!choice.tolerations.is_empty()).then(|| choice.tolerations.clone()),
                    ..DeviceRequestAllocationResult::default()
                }
            })
            .collect();
        let mut config = Vec::new();
        let mut of_classes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for choice in chosen {
            let requests = of_classes.entry(choice.class.as_str()).or_default();
            if !requests.contains(&choice.request) {
                requests.push(choice.request.clone());
            }
        }
        for (class, requests) in of_classes {
            let class = self.objects.device_classes.get("", class);
            let config_of_class = class.and_then(|class| class.spec.as_ref()?.config.as_ref());
            for from in config_of_class.into_iter().flatten() {
                config.push(DeviceAllocationConfiguration {
                    opaque: from.opaque.clone(),
                    requests: Some(requests.clone()),
                    source: "FromClass".into(),
                });
            }
        }
        let of_claim = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.devices.as_ref()?.config.as_ref());
        for from in of_claim.into_iter().flatten() {
            config.push(DeviceAllocationConfiguration {
                opaque: from.opaque.clone(),
                requests: from.requests.clone(),
                source: "FromClaim".into(),
            });
        }
        let parts: Vec<&Candidate<'_>> = chosen.iter().map(|choice| &self.candidates[choice.candidate]).collect();
        AllocationResult {
            devices: Some(DeviceAllocationResult {
                results: Some(results),
                config: (!config.is_empty()).then_some(config),
            }),
            node_selector: reach(&parts, node),
            allocation_timestamp: None,
        }
    }
}

/// A device for a request.
struct Choice {
    request: String,
    class: String,
    admin: bool,
    tolerations: Vec<DeviceToleration>,
    candidate: usize,
}

fn wanted(name: String, exact: &ExactDeviceRequest) -> Wanted<'_> {
    Wanted {
        name,
        class: &exact.device_class_name,
        selectors: exact.selectors.as_deref().unwrap_or_default(),
        tolerations: exact.tolerations.as_deref().unwrap_or_default(),
        admin: exact.admin_access == Some(true),
        all: exact.allocation_mode.as_deref() == Some("All"),
        count: exact.count.unwrap_or(1).max(0) as usize,
    }
}

fn as_toleration(toleration: &DeviceToleration) -> Toleration {
    Toleration {
        effect: toleration.effect.clone(),
        key: toleration.key.clone(),
        operator: toleration.operator.clone(),
        value: toleration.value.clone(),
        toleration_seconds: toleration.toleration_seconds,
    }
}

/// The devices that the node can reach, of the newest generation of each pool, if the pool is told whole.
fn candidates<'a>(objects: &'a Objects, node: &NodeInfo) -> Vec<Candidate<'a>> {
    let mut pools: BTreeMap<(&str, &str), Vec<&'a ResourceSlice>> = BTreeMap::new();
    for slice in objects.resource_slices.all() {
        let key = (slice.spec.driver.as_str(), slice.spec.pool.name.as_str());
        pools.entry(key).or_default().push(slice);
    }
    let here = |name: &Option<String>, all: Option<bool>, selector: &Option<NodeSelector>| {
        all == Some(true)
            || name.as_deref() == Some(node.name.as_str())
            || selector
                .as_ref()
                .is_some_and(|selector| NodeTerms::new(selector).matches_labels(&node.name, node.labels()))
    };
    let mut found = Vec::new();
    for ((driver, pool), slices) in pools {
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
        let slices: Vec<_> = slices
            .into_iter()
            .filter(|slice| Some(slice.spec.pool.generation) == newest)
            .collect();
        if slices
            .first()
            .is_none_or(|first| first.spec.pool.resource_slice_count != slices.len() as i64)
        {
            continue;
        }
        for slice in slices {
            let spec = &slice.spec;
            let by_device = spec.per_device_node_selection == Some(true);
            if !by_device && !here(&spec.node_name, spec.all_nodes, &spec.node_selector) {
                continue;
            }
            for device in spec.devices.iter().flatten() {
                if by_device && !here(&device.node_name, device.all_nodes, &device.node_selector) {
                    continue;
                }
                found.push(Candidate {
                    id: (driver.to_owned(), pool.to_owned(), device.name.clone()),
                    slice,
                    device,
                });
            }
        }
    }
    found
}

/// From where all the devices can be reached; None: from everywhere.
fn reach(parts: &[&Candidate<'_>], node: &NodeInfo) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for Candidate { slice, device, .. } in parts {
        let spec = &slice.spec;
        let (name, selector) = if spec.per_device_node_selection == Some(true) {
            (&device.node_name, &device.node_selector)
        } else {
            (&spec.node_name, &spec.node_selector)
        };
        if name.is_some() {
            let only = NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![node.name.clone()]),
            };
            let term = NodeSelectorTerm {
                match_fields: Some(vec![only]),
                match_expressions: None,
            };
            return Some(NodeSelector {
                node_selector_terms: vec![term],
            });
        }
        // Such a selector has exactly one term.
        for own in selector.iter().flat_map(|selector| &selector.node_selector_terms) {
            for (all, own) in [
                (&mut term.match_expressions, &own.match_expressions),
                (&mut term.match_fields, &own.match_fields),
            ] {
                for requirement in own.iter().flatten() {
                    let list = all.get_or_insert_default();
                    if !list.contains(requirement) {
                        list.push(requirement.clone());
                    }
                }
            }
        }
    }
    (term != NodeSelectorTerm::default()).then(|| NodeSelector {
        node_selector_terms: vec![term],
    })
}
