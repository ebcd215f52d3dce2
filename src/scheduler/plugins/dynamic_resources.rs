//! Claims for devices (upstream: `dynamicresources`). Claims that are allocated bind the pod to the nodes of their devices,
//! and are reserved for it. Nothing is allocated here: choosing devices needs the drivers' expressions, which the
//! scheduler does not evaluate, and such a pod says so.

use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::objects::Objects;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::selector::NodeTerms;
use k8s_openapi::api::resource::v1::ResourceClaim;
use std::sync::Arc;

/// Pods that may use one claim at a time.
const USERS_MAX: usize = 256;

pub struct DynamicResources;

#[derive(Clone)]
struct Allocated(Vec<NodeTerms>);

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
            Some(claim) => claims.push(claim.clone()),
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

fn check(claims: &[Arc<ResourceClaim>], pod: &PodInfo) -> Result<Vec<NodeTerms>, Refusal> {
    let mut terms = Vec::new();
    for claim in claims {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let status = claim.status.as_ref();
        let Some(allocation) = status.and_then(|status| status.allocation.as_ref()) else {
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(Refusal::unresolvable("resourceclaim is being deleted"));
            }
            return Err(Refusal::unresolvable(format!(
                "resourceclaim {name:?} is not allocated, and this scheduler does not allocate devices"
            )));
        };
        let users = status
            .and_then(|status| status.reserved_for.as_ref())
            .map_or(0, Vec::len);
        if users >= USERS_MAX && !is_reserved_for(claim, pod) {
            return Err(Refusal::unschedulable("resourceclaim in use"));
        }
        terms.extend(allocation.node_selector.as_ref().map(NodeTerms::new));
    }
    Ok(terms)
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        if pod.spec().resource_claims.as_ref().is_none_or(Vec::is_empty) {
            return PreFilter::Skip;
        }
        match claims_of(cx.objects, pod).and_then(|claims| check(&claims, pod)) {
            Ok(terms) => PreFilter::run(Allocated(terms)),
            Err(refusal) => PreFilter::Reject(refusal),
        }
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{NodeAdded, NodeChanged, ResourceClaim};
        matches!(event, NodeAdded | NodeChanged | ResourceClaim)
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::ResourceClaim { new: Some(claim), .. } => {
                claim.metadata.namespace.as_deref() == Some(pod.namespace.as_str())
                    && claim_names(pod).is_ok_and(|names| names.iter().any(|n| Some(n) == claim.metadata.name.as_ref()))
            }
            Event::NodeAdded(_) => true,
            Event::NodeChanged { what, .. } => what.labels,
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Allocated {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if self
            .0
            .iter()
            .all(|terms| terms.matches_labels(&node.name, node.labels()))
        {
            Ok(())
        } else {
            Err(Refusal::unresolvable("resourceclaim not available on the node"))
        }
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
