//! What a pod's resource claims, and a claim's reservations, are to be. Pure.

use crate::controllers::claims::is_scheduled;
use crate::controllers::ownership::{controller_of, controller_ref};
use crate::controllers::pods::{is_finished, is_terminating};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

/// On claims made from a template: the name that the pod has for it.
pub const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps a claim while it is allocated.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// A claim serves no more pods at once.
const RESERVED_FOR_MAX: usize = 256;
/// Of the base of a made name, so that five more characters fit.
const BASE_MAX: usize = 57;

/// Which claim is meant by an entry of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Meant {
    /// One that the user makes.
    Given(String),
    /// One made from a template, as the pod's status says.
    Made(String),
    /// The status says that none is needed.
    None,
    /// None is made yet.
    NotYet,
}

pub fn entries(pod: &Pod) -> &[PodResourceClaim] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.resource_claims.as_deref())
        .unwrap_or_default()
}

pub fn meant(pod: &Pod, entry: &PodResourceClaim) -> Meant {
    if let Some(name) = &entry.resource_claim_name {
        return Meant::Given(name.clone());
    }
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.resource_claim_statuses.iter().flatten());
    match statuses.into_iter().find(|status| status.name == entry.name) {
        Some(status) => status.resource_claim_name.clone().map_or(Meant::None, Meant::Made),
        None => Meant::NotYet,
    }
}

/// `namespace/name` of the claims of a pod that exist by what it says.
pub fn claim_words(pod: &Pod) -> Vec<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let names = entries(pod).iter().filter_map(|entry| match meant(pod, entry) {
        Meant::Given(name) | Meant::Made(name) => Some(name),
        Meant::None | Meant::NotYet => None,
    });
    names.map(|name| format!("{namespace}/{name}")).collect()
}

/// The claim that the scheduler made for the extended resources that the pod asks for.
pub fn extended_claim(pod: &Pod) -> Option<&str> {
    let told = pod.status.as_ref()?.extended_resource_claim_status.as_ref()?;
    Some(&told.resource_claim_name)
}

pub fn owning_pod(claim: &ResourceClaim) -> Option<&OwnerReference> {
    controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod" && owner.api_version == "v1")
}

pub fn is_made_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    owning_pod(claim).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

/// It runs nothing any more, and never will.
pub fn is_done(pod: &Pod) -> bool {
    is_finished(pod) || (is_terminating(pod) && !is_scheduled(pod))
}

/// What is to be done for an entry of a pod.
#[derive(Debug, PartialEq)]
pub enum Make {
    Nothing,
    /// It was made, and the pod's status does not say so.
    Note(String),
    FromTemplate(String),
}

/// `held` finds a claim by name; `own` are the claims that the pod owns.
pub fn make(
    pod: &Pod,
    entry: &PodResourceClaim,
    held: impl Fn(&str) -> Option<std::sync::Arc<ResourceClaim>>,
    own: &[std::sync::Arc<ResourceClaim>],
) -> Make {
    let Some(template) = &entry.resource_claim_template_name else {
        return Make::Nothing;
    };
    match meant(pod, entry) {
        Meant::Given(_) | Meant::None => return Make::Nothing,
        Meant::Made(name) if held(&name).is_some_and(|claim| is_made_for(&claim, pod)) => return Make::Nothing,
        // It was deleted, or is another's: a new one is made.
        Meant::Made(_) | Meant::NotYet => {}
    }
    let orphan = own
        .iter()
        .find(|claim| claim.annotations().get(POD_CLAIM_NAME) == Some(&entry.name));
    match orphan {
        Some(claim) => Make::Note(claim.name_any()),
        None => Make::FromTemplate(template.clone()),
    }
}

pub fn from_template(pod: &Pod, entry: &PodResourceClaim, template: &ResourceClaimTemplate) -> ResourceClaim {
    let spec = template.spec.clone().unwrap_or_default();
    let described = spec.metadata.unwrap_or_default();
    let mut annotations = described.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), entry.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base_name(&pod.name_any(), &entry.name)),
            namespace: pod.metadata.namespace.clone(),
            owner_references: Some(vec![OwnerReference {
                block_owner_deletion: None,
                ..controller_ref(pod)
            }]),
            annotations: Some(annotations),
            labels: described.labels,
            ..Default::default()
        },
        spec: spec.spec,
        status: None,
    }
}

/// Of pod and entry, both cut in proportion if they are too long together.
fn base_name(pod: &str, entry: &str) -> String {
    let whole = format!("{pod}-{entry}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let cut = |text: &str| {
        text.get(..text.len() * BASE_MAX / whole.len())
            .unwrap_or(text)
            .to_owned()
    };
    format!("{}-{}", cut(pod), cut(entry))
}

/// The claim with the pod among those it is reserved for, if it is allocated and there is room.
pub fn reserved(claim: &ResourceClaim, pod: &Pod) -> Option<ResourceClaim> {
    let status = claim.status.as_ref().filter(|status| status.allocation.is_some())?;
    let held = status.reserved_for.as_deref().unwrap_or_default();
    let uid = pod.uid().unwrap_or_default();
    if held.len() >= RESERVED_FOR_MAX || held.iter().any(|one| one.uid == uid) {
        return None;
    }
    let mut claim = claim.clone();
    let list = claim
        .status
        .get_or_insert_default()
        .reserved_for
        .get_or_insert_default();
    list.push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.name_any(),
        uid,
    });
    Some(claim)
}

#[derive(Debug, PartialEq)]
pub enum Step {
    Nothing,
    /// Where that frees the claim, it is [`unprotected`] at once: later nobody knows whether a finalizer is left of
    /// former users, or is what the scheduler begins to allocate with.
    Status(Box<ResourceClaim>),
    Unprotect(Box<ResourceClaim>),
    Delete,
}

/// The next step for a claim. `is_valid` tells whether a reservation is still for a pod that needs it, `owner_is_done`
/// whether the pod that it was made for will not need it.
pub fn next_step(
    claim: &ResourceClaim,
    is_valid: impl Fn(&ResourceClaimConsumerReference) -> bool,
    owner_is_done: bool,
) -> Step {
    let status = claim.status.clone().unwrap_or_default();
    let held = status.reserved_for.unwrap_or_default();
    let valid: Vec<ResourceClaimConsumerReference> = held.iter().filter(|one| is_valid(one)).cloned().collect();
    let going = claim.metadata.deletion_timestamp.is_some();
    let unused = valid.is_empty();
    // The last user has left, or a claim that nobody uses goes: what it was given is free again.
    let deallocate = unused && is_protected(claim) && status.allocation.is_some() && (!held.is_empty() || going);
    if valid.len() < held.len() || deallocate {
        let mut claim = claim.clone();
        let status = claim.status.get_or_insert_default();
        status.reserved_for = (!unused).then_some(valid);
        if deallocate {
            status.allocation = None;
        }
        return Step::Status(Box::new(claim));
    }
    if unused
        && going
        && let Some(claim) = unprotected(claim)
    {
        return Step::Unprotect(Box::new(claim));
    }
    if unused && owner_is_done && !going {
        return Step::Delete;
    }
    Step::Nothing
}

/// The claim without its protection, if it has one that is not needed.
pub fn unprotected(claim: &ResourceClaim) -> Option<ResourceClaim> {
    let allocated = claim.status.as_ref().is_some_and(|status| status.allocation.is_some());
    if allocated || !is_protected(claim) {
        return None;
    }
    let mut claim = claim.clone();
    claim.finalizers_mut().retain(|finalizer| finalizer != FINALIZER);
    Some(claim)
}

fn is_protected(claim: &ResourceClaim) -> bool {
    claim.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
