//! Claims for devices (upstream: `dynamicresources`). Claims that are allocated bind the pod to the nodes of their devices;
//! for the others there must be devices on the node. All of them are reserved for the pod before it is bound.

use crate::scheduler::devices::{Allocator, DeviceId, taken, unsupported};
use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::objects::Objects;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::selector::NodeTerms;
use k8s_openapi::api::resource::v1::ResourceClaim;
use std::collections::HashSet;
use std::sync::Arc;

/// Pods that may use one claim at a time.
const USERS_MAX: usize = 256;

pub struct DynamicResources;

/// The nodes of the devices that the pod has, and the claims that have none yet.
#[derive(Clone)]
struct Wanted<'a> {
    cx: Cx<'a>,
    terms: Vec<NodeTerms>,
    open: Arc<Vec<Arc<ResourceClaim>>>,
    taken: Arc<HashSet<DeviceId>>,
}

/// Devices for the pod's claims on the node that was chosen: the claims that get some now.
pub fn decide(cx: Cx<'_>, pod: &PodInfo, node: &NodeInfo) -> Result<Vec<Arc<ResourceClaim>>, Refusal> {
    let (_, open) = split(&claims_of(cx.objects, pod)?, pod)?;
    if open.is_empty() {
        return Ok(Vec::new());
    }
    allocate(cx.objects, &open, &taken(cx.objects), node)
}

fn allocate(
    objects: &Objects,
    open: &[Arc<ResourceClaim>],
    taken: &HashSet<DeviceId>,
    node: &NodeInfo,
) -> Result<Vec<Arc<ResourceClaim>>, Refusal> {
    match Allocator::new(objects, taken, node).allocate(open, node) {
        Ok(Some(claims)) => Ok(claims),
        Ok(None) => Err(Refusal::unschedulable("cannot allocate all claims")),
        Err(error) => Err(Refusal::error(error)),
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

/// The pod's claims that are there.
pub fn claims_of(objects: &Objects, pod: &PodInfo) -> Result<Vec<Arc<ResourceClaim>>, Refusal> {
    let mut claims = Vec::new();
    for name in claim_names(pod)? {
        match objects.resource_claims.get(&pod.namespace, &name) {
            Some(claim) => {
                let uid = claim.metadata.uid.as_deref().unwrap_or_default();
                let assumed = objects.assumed.allocations.get(uid);
                claims.push(assumed.unwrap_or(claim).clone());
            }
            None => {
                let reason = super::volumes::not_found("resourceclaim.resource.k8s.io", &name);
                return Err(Refusal::unresolvable(reason));
            }
        }
    }
    Ok(claims)
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
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(Refusal::unresolvable("resourceclaim is being deleted"));
            }
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
            return Err(Refusal::unschedulable("resourceclaim in use"));
        }
        terms.extend(allocation.node_selector.as_ref().map(NodeTerms::new));
    }
    Ok((terms, open))
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        if pod.spec().resource_claims.as_ref().is_none_or(Vec::is_empty) {
            return PreFilter::Skip;
        }
        match claims_of(cx.objects, pod).and_then(|claims| split(&claims, pod)) {
            Ok((terms, open)) => PreFilter::run(Wanted {
                taken: Arc::new(if open.is_empty() {
                    HashSet::new()
                } else {
                    taken(cx.objects)
                }),
                cx,
                terms,
                open: Arc::new(open),
            }),
            Err(refusal) => PreFilter::Reject(refusal),
        }
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
                freed || new.is_some_and(is_own)
            }
            Event::NodeAdded(_) | Event::ResourceSlice | Event::DeviceClass => true,
            Event::NodeChanged { what, .. } => what.labels,
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Wanted<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let there = |terms: &NodeTerms| terms.matches_labels(&node.name, node.labels());
        if !self.terms.iter().all(there) {
            return Err(Refusal::unresolvable("resourceclaim not available on the node"));
        }
        if self.open.is_empty() {
            return Ok(());
        }
        allocate(self.cx.objects, &self.open, &self.taken, node).map(drop)
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
