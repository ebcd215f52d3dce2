//! Rules about volumes: which node can reach them, how many it can take, who else uses them
//! (upstream: `volumebinding`, `volumezone`, `volumerestrictions`, `nodevolumelimits`).

pub mod binding;
pub mod limits;
pub mod restrictions;
pub mod zone;

use crate::scheduler::objects::Objects;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::selector::NodeTerms;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use std::sync::Arc;

pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Empty: no class.
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(claim, OLD_CLASS).or(spec).unwrap_or_default()
}

pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let annotations = volume.metadata.annotations.as_ref();
    let old = annotations
        .and_then(|annotations| annotations.get(OLD_CLASS))
        .map(String::as_str);
    let spec = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    old.or(spec).unwrap_or_default()
}

/// Empty: none yet.
pub fn volume_of(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Both sides agree on it.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_of(claim).is_empty() && annotation(claim, BIND_COMPLETED).is_some()
}

/// From where the volume can be reached; None: from everywhere.
pub fn reach(volume: &PersistentVolume) -> Option<NodeTerms> {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.required.as_ref())
        .map(NodeTerms::new)
}

/// The node can reach the volume.
pub fn reaches(node: &Node, volume: &PersistentVolume) -> bool {
    reach(volume).is_none_or(|terms| terms.matches(node))
}

fn uses(pod: &PodInfo, claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.namespace.as_deref() == Some(pod.namespace.as_str())
        && pod
            .claims
            .iter()
            .any(|(name, _)| Some(name.as_str()) == claim.metadata.name.as_deref())
}

/// The claims of a pod that are there.
fn claims_of<'a>(objects: &'a Objects, pod: &'a PodInfo) -> impl Iterator<Item = &'a Arc<PersistentVolumeClaim>> {
    pod.claims
        .iter()
        .filter_map(|(name, _)| objects.claims.get(&pod.namespace, name))
}

/// As the API server would say it.
pub fn not_found(what: &str, name: &str) -> String {
    format!("{what} {name:?} not found")
}
