//! The next step for a claim, and for a volume (upstream: `pkg/controller/volume/persistentvolume/pv_controller.go`). Pure.
//!
//! A binding takes four writes: the volume's spec, its status, the claim's spec, its status. Each look yields the first
//! that is missing, so it does not matter where the one before broke off, or who else wrote meanwhile.

use super::matching::{best_match, mismatch, same_volume_mode};
use crate::client::ObjectKey;
use crate::client::events::Level;
use crate::controllers::claims::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, LOCAL_PATH, PROVISIONED_BY, PROVISIONERS, SELECTED_NODE, claim_phase,
    class_of_claim, is_bound_to, volume_name, volume_phase,
};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use std::sync::Arc;

/// What there is beside the claim.
pub struct World<'a> {
    pub volume: &'a dyn Fn(&str) -> Option<Arc<PersistentVolume>>,
    /// Volumes that are free in the claim's class, and those that name the claim.
    pub candidates: &'a [Arc<PersistentVolume>],
    pub class: &'a dyn Fn(&str) -> Option<Arc<StorageClass>>,
    /// The class of claims that say nothing.
    pub default_class: Option<&'a str>,
    /// The names of pods that use the claim and have no node yet.
    pub waiting_pods: &'a dyn Fn() -> Vec<String>,
    pub node_exists: &'a dyn Fn(&str) -> bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Done,
    Volume(Box<PersistentVolume>),
    VolumeStatus(Box<PersistentVolume>),
    Claim(Box<PersistentVolumeClaim>),
    ClaimStatus(Box<PersistentVolumeClaim>),
    /// The built-in provisioner is to make a volume.
    Provision(Arc<StorageClass>),
    /// The claim must be looked at, not the volume.
    LookAt(ObjectKey),
    /// The claim is not there: if the API server says so, too, the volume is released.
    Release,
    /// The volume's data and the volume go.
    Delete,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// About the claim; else the volume.
    pub of_claim: bool,
    pub level: Level,
    pub reason: &'static str,
    pub message: String,
}

/// A step, and what people are told once it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub step: Step,
    pub notices: Vec<Notice>,
}

impl From<Step> for Decision {
    fn from(step: Step) -> Self {
        Self {
            step,
            notices: Vec::new(),
        }
    }
}

fn notice(of_claim: bool, level: Level, reason: &'static str, message: impl Into<String>) -> Notice {
    Notice {
        of_claim,
        level,
        reason,
        message: message.into(),
    }
}

/// The next step for a claim.
pub fn for_claim(claim: &PersistentVolumeClaim, world: &World<'_>) -> Decision {
    if claim.annotations().contains_key(BIND_COMPLETED) {
        bound_claim(claim, world)
    } else {
        match volume_name(claim) {
            None => open_claim(claim, world),
            Some(name) => claim_of(claim, name, world),
        }
    }
}

fn bound_claim(claim: &PersistentVolumeClaim, world: &World<'_>) -> Decision {
    let volume = match volume_name(claim) {
        None => {
            let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return lost(claim, "ClaimLost", message);
        }
        Some(name) => (world.volume)(name),
    };
    let Some(volume) = volume else {
        return lost(
            claim,
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        );
    };
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.is_none_or(|reference| reference.uid == claim.metadata.uid) {
        return bind(&volume, claim).into();
    }
    let message = "Two claims are bound to the same volume, this one is bound incorrectly";
    lost(claim, "ClaimMisbound", message)
}

fn lost(claim: &PersistentVolumeClaim, reason: &'static str, message: &str) -> Decision {
    if claim_phase(claim) == "Lost" {
        return Step::Done.into();
    }
    Decision {
        step: claim_status(claim, "Lost", None),
        notices: vec![notice(true, Level::Warning, reason, message)],
    }
}

/// A claim that takes any volume that fits.
fn open_claim(claim: &PersistentVolumeClaim, world: &World<'_>) -> Decision {
    let class_name = class_of_claim(claim);
    let class = class_name
        .filter(|name| !name.is_empty())
        .and_then(|name| (world.class)(name));
    let delayed = class
        .as_ref()
        .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = best_match(claim, world.candidates, delayed) {
        return bind(&volume, claim).into();
    }
    if let (None, Some(default)) = (class_name, world.default_class) {
        // The class came after the claim.
        let mut claim = claim.clone();
        claim.spec.get_or_insert_default().storage_class_name = Some(default.to_owned());
        return Step::Claim(Box::new(claim)).into();
    }
    let selected = claim.annotations().get(SELECTED_NODE);
    if delayed && selected.is_none() {
        let pods = (world.waiting_pods)();
        let (reason, message) = match pods.as_slice() {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => (
                "WaitForPodScheduled",
                format!("waiting for pods {} to be scheduled", pods.join(",")),
            ),
        };
        return pending(claim, vec![notice(true, Level::Normal, reason, message)]);
    }
    match class_name {
        None | Some("") => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            pending(claim, vec![notice(true, Level::Normal, "FailedBinding", message)])
        }
        Some(name) => match class {
            None => {
                let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
                pending(claim, vec![notice(true, Level::Warning, "ProvisioningFailed", message)])
            }
            Some(class) => provision(claim, class, selected, world),
        },
    }
}

fn provision(
    claim: &PersistentVolumeClaim,
    class: Arc<StorageClass>,
    selected: Option<&String>,
    world: &World<'_>,
) -> Decision {
    let provisioner = &class.provisioner;
    if provisioner != LOCAL_PATH && provisioner.starts_with("kubernetes.io/") {
        let message = format!("no volume plugin matched name: {provisioner}");
        return pending(claim, vec![notice(true, Level::Warning, "ProvisioningFailed", message)]);
    }
    if PROVISIONERS
        .iter()
        .any(|key| claim.annotations().get(*key) != Some(provisioner))
    {
        let mut claim = claim.clone();
        for key in PROVISIONERS {
            claim.annotations_mut().insert(key.to_owned(), provisioner.clone());
        }
        return Step::Claim(Box::new(claim)).into();
    }
    if provisioner != LOCAL_PATH {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        return pending(
            claim,
            vec![notice(true, Level::Normal, "ExternalProvisioning", message)],
        );
    }
    if selected.is_some_and(|node| !(world.node_exists)(node)) {
        // The scheduler must choose again.
        let mut claim = claim.clone();
        claim.annotations_mut().remove(SELECTED_NODE);
        return Step::Claim(Box::new(claim)).into();
    }
    match claim_status(claim, "Pending", None) {
        Step::Done => Step::Provision(class).into(),
        status => status.into(),
    }
}

/// A claim that names its volume.
fn claim_of(claim: &PersistentVolumeClaim, name: &str, world: &World<'_>) -> Decision {
    let Some(volume) = (world.volume)(name) else {
        return pending(claim, Vec::new());
    };
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.is_none() {
        return match mismatch(claim, &volume) {
            None => bind(&volume, claim).into(),
            Some(why) => {
                let message = format!("Cannot bind to requested volume \"{name}\": {why}");
                pending(claim, vec![notice(true, Level::Warning, "VolumeMismatch", message)])
            }
        };
    }
    if is_bound_to(&volume, claim) {
        return bind(&volume, claim).into();
    }
    let message = format!("volume \"{name}\" already bound to a different claim.");
    pending(claim, vec![notice(true, Level::Warning, "FailedBinding", message)])
}

fn pending(claim: &PersistentVolumeClaim, notices: Vec<Notice>) -> Decision {
    match claim_status(claim, "Pending", None) {
        Step::Done => Decision {
            step: Step::Done,
            notices,
        },
        // The notices come with the look after this write.
        status => status.into(),
    }
}

/// A claim's status in a phase, with what it has of its volume.
fn claim_status(claim: &PersistentVolumeClaim, phase: &str, volume: Option<&PersistentVolume>) -> Step {
    let mut new = claim.clone();
    let status = new.status.get_or_insert_default();
    let spec = volume.and_then(|volume| volume.spec.as_ref());
    status.access_modes = spec.and_then(|spec| spec.access_modes.clone());
    match spec {
        None => {
            status.capacity = None;
            status.current_volume_attributes_class_name = None;
        }
        // Once it is bound the capacity follows the file system, not the volume: that is for who resizes.
        Some(spec) if claim_phase(claim) != phase => {
            status.capacity = spec.capacity.clone();
            status.current_volume_attributes_class_name = spec.volume_attributes_class_name.clone();
        }
        Some(_) => {}
    }
    status.phase = Some(phase.to_owned());
    if new == *claim {
        Step::Done
    } else {
        Step::ClaimStatus(Box::new(new))
    }
}

/// The reference by which a volume knows its claim.
pub fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The first write that is missing between the two.
fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Step {
    let ours = is_bound_to(volume, claim);
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if !ours || reference.is_none_or(|reference| reference.uid != claim.metadata.uid) {
        let mut volume = volume.clone();
        volume.spec.get_or_insert_default().claim_ref = Some(reference_to(claim));
        if !ours {
            let annotations = volume.annotations_mut();
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        return Step::Volume(Box::new(volume));
    }
    if volume_phase(volume) != "Bound" {
        return volume_status(volume, "Bound", "");
    }
    let named = volume_name(claim) == volume.metadata.name.as_deref();
    if !named || !claim.annotations().contains_key(BIND_COMPLETED) {
        let mut claim = claim.clone();
        claim.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
        let annotations = claim.annotations_mut();
        if !named {
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
        return Step::Claim(Box::new(claim));
    }
    claim_status(claim, "Bound", Some(volume))
}

fn volume_status(volume: &PersistentVolume, phase: &str, message: &str) -> Step {
    if volume_phase(volume) == phase {
        return Step::Done;
    }
    let mut volume = volume.clone();
    let status = volume.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.message = (!message.is_empty()).then(|| message.to_owned());
    Step::VolumeStatus(Box::new(volume))
}

/// The next step for a volume; `claim` is the one of the name that it refers to.
pub fn for_volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Decision {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(reference) = reference.filter(|reference| reference.uid.as_ref().is_some_and(|uid| !uid.is_empty()))
    else {
        // Free, or reserved for a claim that is not bound yet.
        return volume_status(volume, "Available", "").into();
    };
    let Some(claim) = claim.filter(|claim| claim.metadata.uid == reference.uid) else {
        return Step::Release.into();
    };
    match volume_name(claim) {
        None if !same_volume_mode(claim, volume) => Decision {
            step: Step::Done,
            notices: vec![
                notice(
                    false,
                    Level::Warning,
                    "VolumeMismatch",
                    format!(
                        "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{}\" due to incompatible \
                         volumeMode.",
                        claim.name_any()
                    ),
                ),
                notice(
                    true,
                    Level::Warning,
                    "VolumeMismatch",
                    format!(
                        "Cannot bind PersistentVolume \"{}\" to requested PersistentVolumeClaim due to incompatible \
                         volumeMode.",
                        volume.name_any()
                    ),
                ),
            ],
        },
        None => Step::LookAt(ObjectKey::of(claim)).into(),
        Some(name) if Some(name) == volume.metadata.name.as_deref() => volume_status(volume, "Bound", "").into(),
        // The claim is bound elsewhere. What was made for it is needed no more.
        Some(_) if volume.annotations().contains_key(PROVISIONED_BY) && policy(volume) == "Delete" => released(volume),
        Some(_) => unbind(volume),
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or_default()
}

fn unbind(volume: &PersistentVolume) -> Decision {
    let mut volume = volume.clone();
    let by_controller = volume.annotations_mut().remove(BOUND_BY_CONTROLLER).is_some();
    let reference = &mut volume.spec.get_or_insert_default().claim_ref;
    if by_controller {
        *reference = None;
    } else if let Some(reference) = reference {
        // Its author reserved it: it stays reserved.
        reference.uid = None;
    }
    Step::Volume(Box::new(volume)).into()
}

/// The next step for a volume whose claim is gone for sure.
pub fn released(volume: &PersistentVolume) -> Decision {
    if !matches!(volume_phase(volume), "Released" | "Failed") {
        return volume_status(volume, "Released", "").into();
    }
    match policy(volume) {
        "Retain" => Step::Done.into(),
        "Delete" => match volume.annotations().get(PROVISIONED_BY) {
            // Somebody else made it, and deletes it.
            Some(by) if by != LOCAL_PATH && !by.starts_with("kubernetes.io/") => Step::Done.into(),
            _ => Step::Delete.into(),
        },
        "Recycle" => failed(
            volume,
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!",
        ),
        _ => failed(
            volume,
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        ),
    }
}

/// The volume could not be reclaimed.
pub fn failed(volume: &PersistentVolume, reason: &'static str, message: &str) -> Decision {
    match volume_status(volume, "Failed", message) {
        Step::Done => Step::Done.into(),
        step => Decision {
            step,
            notices: vec![notice(false, Level::Warning, reason, message)],
        },
    }
}

/// The default among the classes: of several the newest, then the first by name.
pub fn default_class(classes: &[Arc<StorageClass>]) -> Option<&str> {
    const MARKS: [&str; 2] = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    let marked = |class: &&Arc<StorageClass>| {
        MARKS
            .iter()
            .any(|mark| class.annotations().get(*mark).is_some_and(|value| value == "true"))
    };
    let created = |class: &StorageClass| class.metadata.creation_timestamp.clone();
    let newest = classes.iter().filter(marked).min_by(|one, other| {
        created(other)
            .cmp(&created(one))
            .then_with(|| one.name_any().cmp(&other.name_any()))
    });
    newest.and_then(|class| class.metadata.name.as_deref())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
