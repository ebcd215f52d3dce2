//! Claims for devices (upstream: `dynamicresources`). Claims that are allocated bind the pod to the nodes of their devices;
//! for the others there must be devices on the node. All of them are reserved for the pod before it is bound.

use crate::scheduler::configuration::args::DynamicResourcesArgs;
use crate::scheduler::devices::extended::{self, Backed};
use crate::scheduler::devices::readiness::{is_given_up, is_ready};
use crate::scheduler::devices::{Failure, Inventory, Taken, allocate, key, requests, results, unsupported};
use crate::scheduler::diagnosis::Diagnosis;
use crate::scheduler::framework::{
    Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Score, Verdict, normalize_by_highest,
};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::selector::NodeTerms;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Pods that may use one claim at a time.
const USERS_MAX: usize = 256;
/// Alternatives that a request may have.
const ALTERNATIVES_MAX: usize = 8;
const NOT_HERE: &str = "resourceclaim not available on the node";

pub struct DynamicResources {
    /// How long devices may take to become ready.
    binding_timeout: Duration,
}

/// The nodes of the devices that the pod has, and the claims that have none yet.
#[derive(Clone)]
struct Wanted<'a> {
    cx: Cx<'a>,
    terms: Vec<NodeTerms>,
    /// Devices that it has will not become ready, wherever it goes.
    is_hopeless: bool,
    /// A claim of an earlier try must go first.
    has_leftover: bool,
    /// Claims that have no devices yet, and what there is of devices.
    open: Option<Arc<Open<'a>>>,
    pod: &'a PodInfo,
}

struct Open<'a> {
    claims: Vec<Arc<ResourceClaim>>,
    /// Extended resources that devices stand for on nodes that do not have them.
    backed: Backed,
    inventory: Inventory<'a>,
    taken: Taken,
}

impl<'a> Open<'a> {
    fn new(cx: Cx<'a>, claims: Vec<Arc<ResourceClaim>>, backed: Backed) -> Self {
        let taken = Taken::of(cx.objects);
        Self {
            claims,
            backed,
            inventory: Inventory::of(cx.objects, &taken),
            taken,
        }
    }

    fn allocate(&self, cx: Cx<'_>, pod: &PodInfo, node: &NodeInfo) -> Result<Vec<Arc<ResourceClaim>>, Refusal> {
        let special = extended::claim(pod, &self.backed, &node.allocatable);
        let claims: Vec<Arc<ResourceClaim>> = self.claims.iter().cloned().chain(special.map(Arc::new)).collect();
        if claims.is_empty() {
            return Ok(claims);
        }
        let found = allocate(cx.objects, &self.inventory, &self.taken, &claims, node);
        found.map_err(|failure| match failure {
            Failure::Here(why) => Refusal::unresolvable(why),
            Failure::Wrong(why) => Refusal::error(why),
        })
    }
}

/// Devices for the pod's claims on the node that was chosen: the claims that get some now.
pub fn decide(cx: Cx<'_>, pod: &PodInfo, node: &NodeInfo) -> Result<Vec<Arc<ResourceClaim>>, Refusal> {
    let (_, open) = split(&claims_of(cx, pod)?, pod)?;
    let backed = extended::backed(cx.objects, pod);
    if open.is_empty() && backed.is_empty() {
        return Ok(Vec::new());
    }
    Open::new(cx, open, backed).allocate(cx, pod, node)
}

/// Whether the pod needs devices, by claims or by extended resources.
pub fn concerns(cx: Cx<'_>, pod: &PodInfo) -> bool {
    let claims = pod.spec().resource_claims.as_ref();
    claims.is_some_and(|claims| !claims.is_empty()) || !extended::backed(cx.objects, pod).is_empty()
}

/// The claim for extended resources that an earlier try has left behind. What it was given may be out of date.
fn leftover<'a>(cx: Cx<'a>, pod: &PodInfo) -> Option<&'a Arc<ResourceClaim>> {
    let mut claims = cx.objects.resource_claims.in_namespace(&pod.namespace);
    claims.find(|claim| extended::owner(claim) == Some(pod.uid.as_str()))
}

/// What is said after no node was found, and the claim that gives its devices back, so that others may do better.
pub fn after(
    cx: Cx<'_>,
    pod: &PodInfo,
    diagnosis: &Diagnosis,
    patience: Duration,
) -> (&'static str, Option<Arc<ResourceClaim>>) {
    if !extended::backed(cx.objects, pod).is_empty()
        && let Some(claim) = leftover(cx, pod)
    {
        return ("deletion of ResourceClaim completed", Some(claim.clone()));
    }
    let claims = claims_of(cx, pod).unwrap_or_default();
    if claims.is_empty() || split(&claims, pod).and_then(|(_, open)| are_known(cx, &open)).is_err() {
        return ("no new claims to deallocate", None);
    }
    let refused = diagnosis
        .refusals
        .iter()
        .filter(|(_, refusal)| refusal.reasons.iter().any(|why| why == NOT_HERE));
    let nodes: Vec<&NodeInfo> = refused.map(|(slot, _)| cx.cache.node_at(*slot)).collect();
    let is_unavailable = |claim: &ResourceClaim| {
        let status = claim.status.as_ref();
        let Some(allocation) = status.and_then(|status| status.allocation.as_ref()) else {
            return false;
        };
        let terms = allocation.node_selector.as_ref().map(NodeTerms::new);
        let reached = |node: &NodeInfo| {
            terms
                .as_ref()
                .is_none_or(|terms| terms.matches_labels(&node.name, node.labels()))
        };
        let is_lost = is_lost(claim, patience, Timestamp::now());
        !nodes.is_empty() && (is_lost || nodes.iter().any(|node| !reached(node)))
    };
    let is_free = |claim: &ResourceClaim| {
        let users = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref());
        users.unwrap_or_default().iter().all(|user| user.uid == pod.uid)
    };
    let freed = claims.into_iter().find(|claim| is_free(claim) && is_unavailable(claim));
    match freed {
        Some(claim) => ("deallocation of ResourceClaim completed", Some(claim)),
        None => ("still not schedulable", None),
    }
}

/// The names of the pod's claims; Err if one is still to be made.
pub fn claim_names(pod: &PodInfo) -> Result<Vec<String>, Refusal> {
    let status = pod.pod.status.as_ref();
    let made = status
        .and_then(|status| status.resource_claim_statuses.as_deref())
        .unwrap_or_default();
    let mut names = Vec::new();
    for claim in pod.spec().resource_claims.iter().flatten() {
        if let Some(name) = &claim.resource_claim_name {
            names.push(name.clone());
            continue;
        }
        match made.iter().find(|status| status.name == claim.name) {
            Some(status) => names.extend(status.resource_claim_name.clone()),
            None => {
                return Err(Refusal::unresolvable(format!(
                    "pod {:?}: pod claim {:?}: ResourceClaim not created yet",
                    pod.key(),
                    claim.name
                )));
            }
        }
    }
    Ok(names)
}

fn is_owner(pod: &Pod, claim: &ResourceClaim) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref())
}

/// The pod's claims that are there.
pub fn claims_of(cx: Cx<'_>, pod: &PodInfo) -> Result<Vec<Arc<ResourceClaim>>, Refusal> {
    let mut claims = Vec::new();
    let given = |name: &String| {
        let mut claims = pod.spec().resource_claims.iter().flatten();
        claims.any(|claim| claim.resource_claim_name.as_ref() == Some(name))
    };
    for name in claim_names(pod)? {
        let Some(claim) = cx.objects.resource_claims.get(&pod.namespace, &name) else {
            let reason = super::volumes::not_found("resourceclaim.resource.k8s.io", &name);
            return Err(Refusal::unresolvable(reason));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(Refusal::unresolvable(format!(
                "resourceclaim {name:?} is being deleted"
            )));
        }
        if !given(&name) && !is_owner(&pod.pod, claim) {
            let (claim, pod) = (key(claim), pod.key());
            let why = format!("ResourceClaim {claim} was not created for pod {pod} (pod is not owner)");
            return Err(Refusal::unresolvable(why));
        }
        let uid = claim.metadata.uid.as_deref().unwrap_or_default();
        match cx.objects.assumed.allocations.get(uid) {
            None => claims.push(claim.clone()),
            Some(assumed) if assumed.is_written => claims.push(assumed.claim.clone()),
            Some(_) => {
                let why = format!("resource claim {} is in the process of being allocated", key(claim));
                return Err(Refusal::unresolvable(why));
            }
        }
    }
    Ok(claims)
}

/// All classes that the claims ask for are there.
fn are_known(cx: Cx<'_>, claims: &[Arc<ResourceClaim>]) -> Result<(), Refusal> {
    for claim in claims {
        for way in requests(claim).iter().flatten() {
            if cx.objects.device_classes.get("", way.class).is_none() {
                let why = format!("request {}: device class {} does not exist", way.name, way.class);
                return Err(Refusal::unresolvable(why));
            }
        }
    }
    Ok(())
}

pub fn is_reserved_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let reserved = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref());
    reserved.into_iter().flatten().any(|user| user.uid == pod.uid)
}

fn has_devices(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// Where the devices are that are there, and the claims that have none.
fn split(claims: &[Arc<ResourceClaim>], pod: &PodInfo) -> Result<(Vec<NodeTerms>, Vec<Arc<ResourceClaim>>), Refusal> {
    let (mut terms, mut open) = (Vec::new(), Vec::new());
    for claim in claims {
        let status = claim.status.as_ref();
        let Some(allocation) = status.and_then(|status| status.allocation.as_ref()) else {
            if let Some(what) = unsupported(claim) {
                return Err(Refusal::unresolvable(what));
            }
            open.push(claim.clone());
            continue;
        };
        let users = status
            .and_then(|status| status.reserved_for.as_ref())
            .map_or(0, Vec::len);
        if users >= USERS_MAX && !is_reserved_for(claim, pod) {
            return Err(Refusal::unresolvable("resourceclaim in use"));
        }
        terms.extend(allocation.node_selector.as_ref().map(NodeTerms::new));
    }
    Ok((terms, open))
}

/// It has devices that will not become ready, or not in time.
fn is_lost(claim: &ResourceClaim, patience: Duration, now: Timestamp) -> bool {
    let has_devices = has_devices(claim);
    match is_ready(claim) {
        Err(_) => true,
        Ok(ready) => has_devices && !ready && is_given_up(claim, patience, now),
    }
}

impl DynamicResources {
    pub fn new(args: &DynamicResourcesArgs) -> Self {
        Self {
            binding_timeout: args.binding_timeout,
        }
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        let backed = extended::backed(cx.objects, pod);
        if pod.spec().resource_claims.as_ref().is_none_or(Vec::is_empty) && backed.is_empty() {
            return PreFilter::Skip;
        }
        let has_leftover = !backed.is_empty() && leftover(cx, pod).is_some();
        let prepared = claims_of(cx, pod).and_then(|claims| {
            let (terms, open) = split(&claims, pod)?;
            are_known(cx, &open)?;
            let (now, patience) = (Timestamp::now(), self.binding_timeout);
            let hopeless = |claim: &Arc<ResourceClaim>| is_lost(claim, patience, now);
            Ok(Wanted {
                cx,
                terms,
                has_leftover,
                is_hopeless: claims.iter().any(hopeless),
                open: (!open.is_empty() || !backed.is_empty()).then(|| Arc::new(Open::new(cx, open, backed))),
                pod,
            })
        });
        match prepared {
            Ok(wanted) => PreFilter::run(wanted),
            Err(refusal) => PreFilter::Reject(refusal),
        }
    }
    /// Nodes where requests get more of what they want most.
    fn pre_score<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let (_, open) = split(&claims_of(cx, pod).ok()?, pod).ok()?;
        let has_choice = |claim: &Arc<ResourceClaim>| requests(claim).iter().any(|ways| ways.len() > 1);
        if !open.iter().any(has_choice) {
            return None;
        }
        let open = Open::new(cx, open, Backed::new());
        Some(Box::new(Preferred { cx, open, pod }))
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{DeviceClass, NodeAdded, NodeChanged, ResourceClaim, ResourceSlice};
        matches!(
            event,
            DeviceClass | NodeAdded | NodeChanged | ResourceClaim | ResourceSlice
        )
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        let is_own = |claim: &ResourceClaim| {
            claim.metadata.namespace.as_deref() == Some(pod.namespace.as_str())
                && claim_names(pod).is_ok_and(|names| names.iter().any(|n| Some(n) == claim.metadata.name.as_ref()))
        };
        match event {
            Event::ResourceClaim { old, new } => {
                // Somebody gives devices back, or it is one of the pod's.
                let freed = old.is_some_and(has_devices) && !new.is_some_and(has_devices);
                let left = old.is_some_and(|old| extended::owner(old) == Some(pod.uid.as_str())) && new.is_none();
                freed || left || new.is_some_and(is_own)
            }
            Event::NodeAdded(_) | Event::ResourceSlice | Event::DeviceClass => true,
            Event::NodeChanged { what, .. } => what.labels,
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Wanted<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if self.has_leftover {
            return Err(Refusal::unschedulable("cannot schedule extended resource claim"));
        }
        // As upstream, what is to be allocated is looked at first.
        if let Some(open) = &self.open {
            open.allocate(self.cx, self.pod, node)?;
        }
        let there = |terms: &NodeTerms| terms.matches_labels(&node.name, node.labels());
        if self.is_hopeless || !self.terms.iter().all(there) {
            return Err(Refusal::unresolvable(NOT_HERE));
        }
        Ok(())
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

struct Preferred<'a> {
    cx: Cx<'a>,
    open: Open<'a>,
    pod: &'a PodInfo,
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let claims = self.open.allocate(self.cx, self.pod, node).unwrap_or_default();
        let scores = claims.iter().flat_map(|claim| {
            let got = |name: &str| results(claim).any(|result| result.request == name);
            let ranks = requests(claim).into_iter().map(move |ways| {
                let chosen = ways.iter().position(|way| way.name.contains('/') && got(&way.name));
                chosen.map_or(0, |rank| ALTERNATIVES_MAX - rank)
            });
            ranks.collect::<Vec<_>>()
        });
        i64::try_from(scores.sum::<usize>()).unwrap_or(i64::MAX)
    }
    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, false);
    }
}
