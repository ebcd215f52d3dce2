//! Claims and volumes as several controllers look at them: who belongs to whom, and which pods use which claim
//! (upstream: `component-helpers/storage`).

pub use crate::client::claims::{LOCAL_PATH, PROVISIONED_BY, claim_name};
use crate::client::pods::node_name;
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// On claims whose binding is done.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On claims and volumes that were bound by a controller, not by their author.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On claims: the node that the scheduler has chosen for the pod that waits for the volume.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On claims: who is to make their volume.
pub const PROVISIONERS: [&str; 2] = [
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
];
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Amounts by resource.
pub type Amounts = BTreeMap<String, resource::Quantity>;

pub fn storage(amounts: Option<&Amounts>) -> Option<Quantity> {
    amounts?.get("storage")?.0.parse().ok()
}

/// The class that a claim asks for; None if it says nothing, an empty one if it wants none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    let old = claim.annotations().get(OLD_CLASS);
    let spec = claim.spec.as_ref();
    old.or(spec.and_then(|spec| spec.storage_class_name.as_ref()))
        .map(String::as_str)
}

pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let old = volume.annotations().get(OLD_CLASS);
    let spec = volume.spec.as_ref();
    let class = old.or(spec.and_then(|spec| spec.storage_class_name.as_ref()));
    class.map_or("", String::as_str)
}

pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status.and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn volume_phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status.and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The volume that a claim names, by its author or since it was bound.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref();
    name.filter(|name| !name.is_empty())
}

/// Whether a volume is reserved for the claim, or bound to it.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        let uid = reference.uid.as_ref().filter(|uid| !uid.is_empty());
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && uid.is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
    })
}

pub fn volumes(pod: &Pod) -> &[Volume] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// `namespace/name` of every claim of a pod: words for an index.
pub fn claim_words(pod: &Pod) -> Vec<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let names = volumes(pod).iter().filter_map(|volume| claim_name(pod, volume));
    names.map(|name| format!("{namespace}/{name}")).collect()
}

/// Whether the claim was made for an ephemeral volume of this very pod.
pub fn is_made_for(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    claim.metadata.namespace == pod.metadata.namespace
        && claim.owner_references().iter().any(|owner| {
            owner.controller == Some(true) && owner.kind == "Pod" && Some(&owner.uid) == pod.metadata.uid.as_ref()
        })
}

pub fn is_scheduled(pod: &Pod) -> bool {
    node_name(pod).is_some()
}
