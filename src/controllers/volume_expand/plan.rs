//! The next step for a claim that asks for more than its volume has (upstream: `pkg/controller/volume/expand`). Pure.
//!
//! What is asked for is noted in the claim's status first, then the volume grows, then the claim says so: a crash
//! between leaves no doubt about what was begun.

use crate::controllers::claims::{Amounts, LOCAL_PATH, PROVISIONED_BY, claim_phase, storage};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

const STORAGE: &str = "storage";
const IN_PROGRESS: &str = "ControllerResizeInProgress";
const RESIZING: [&str; 2] = ["Resizing", "FileSystemResizePending"];

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Done,
    /// The volume does not know of the claim yet.
    Unbound,
    /// Who made the volume is to resize it, not we.
    External,
    Begin(Box<PersistentVolumeClaim>),
    Volume(Box<PersistentVolume>),
    Finish(Box<PersistentVolumeClaim>),
}

fn request(claim: &PersistentVolumeClaim) -> Option<&Amounts> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

/// Whether a claim asks for more than it has, and asks now: its status says again and again that it does.
pub fn is_news(old: Option<&PersistentVolumeClaim>, new: &PersistentVolumeClaim) -> bool {
    let capacity = |claim: &PersistentVolumeClaim| {
        let status = claim.status.as_ref();
        storage(status.and_then(|status| status.capacity.as_ref()))
    };
    let begins = |old: &PersistentVolumeClaim| {
        claim_phase(old) != "Bound" || storage(request(new)) > storage(request(old)) || capacity(new) > capacity(old)
    };
    is_asking(new) && old.is_none_or(begins)
}

/// Whether a claim asks for more than it has.
pub fn is_asking(claim: &PersistentVolumeClaim) -> bool {
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    claim_phase(claim) == "Bound" && storage(request(claim)) > storage(capacity)
}

pub fn next_step(claim: &PersistentVolumeClaim, volume: &PersistentVolume, now: Timestamp) -> Step {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let bound = reference.is_some_and(|reference| reference.uid == claim.metadata.uid);
    let wanted = request(claim).and_then(|amounts| amounts.get(STORAGE));
    let Some(wanted) = wanted.filter(|_| is_asking(claim)) else {
        return Step::Done;
    };
    if !bound {
        return Step::Unbound;
    }
    if volume
        .annotations()
        .get(PROVISIONED_BY)
        .is_none_or(|by| by != LOCAL_PATH)
    {
        return Step::External;
    }
    let status = claim.status.clone().unwrap_or_default();
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let noted = status
        .allocated_resources
        .as_ref()
        .and_then(|amounts| amounts.get(STORAGE))
        == Some(wanted);
    if !noted && storage(capacity) < storage(request(claim)) {
        return Step::Begin(Box::new(begun(claim, wanted, now)));
    }
    if storage(capacity) < storage(request(claim)) {
        let mut volume = volume.clone();
        let amounts = volume.spec.get_or_insert_default().capacity.get_or_insert_default();
        amounts.insert(STORAGE.to_owned(), wanted.clone());
        return Step::Volume(Box::new(volume));
    }
    Step::Finish(Box::new(finished(claim, capacity.cloned())))
}

fn begun(claim: &PersistentVolumeClaim, wanted: &Quantity, now: Timestamp) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    let status = claim.status.get_or_insert_default();
    let allocated = status.allocated_resources.get_or_insert_default();
    allocated.insert(STORAGE.to_owned(), wanted.clone());
    let statuses = status.allocated_resource_statuses.get_or_insert_default();
    statuses.insert(STORAGE.to_owned(), IN_PROGRESS.to_owned());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| !RESIZING.contains(&condition.type_.as_str()));
    conditions.push(PersistentVolumeClaimCondition {
        type_: RESIZING[0].to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now.into()),
        ..Default::default()
    });
    claim
}

fn finished(claim: &PersistentVolumeClaim, capacity: Option<Amounts>) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    let status = claim.status.get_or_insert_default();
    status.capacity = capacity;
    if let Some(statuses) = &mut status.allocated_resource_statuses {
        statuses.remove(STORAGE);
    }
    status.allocated_resource_statuses = status
        .allocated_resource_statuses
        .take()
        .filter(|statuses| !statuses.is_empty());
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| !RESIZING.contains(&condition.type_.as_str()));
    }
    claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_grows_in_three_writes() {
        let mut claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "a", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": "2Gi"}}, "volumeName": "v"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        }))
        .unwrap();
        let mut volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": "v", "annotations": {PROVISIONED_BY: LOCAL_PATH}},
            "spec": {"capacity": {"storage": "1Gi"}, "claimRef": {"namespace": "a", "name": "c", "uid": "u"}},
        }))
        .unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let Step::Begin(begun) = next_step(&claim, &volume, now) else {
            panic!()
        };
        let shown = serde_json::to_value(&begun.status).unwrap();
        assert_eq!(shown["allocatedResources"], json!({"storage": "2Gi"}));
        assert_eq!(shown["allocatedResourceStatuses"], json!({"storage": IN_PROGRESS}));
        assert_eq!(shown["conditions"][0]["type"], "Resizing");
        claim = *begun;
        let Step::Volume(grown) = next_step(&claim, &volume, now) else {
            panic!()
        };
        volume = *grown;
        let Step::Finish(done) = next_step(&claim, &volume, now) else {
            panic!()
        };
        let shown = serde_json::to_value(&done.status).unwrap();
        assert_eq!(
            (&shown["capacity"]["storage"], &shown["conditions"]),
            (&json!("2Gi"), &json!([]))
        );
        assert!(shown.get("allocatedResourceStatuses").is_none());
        assert_eq!(next_step(&done, &volume, now), Step::Done);
        volume.annotations_mut().clear();
        assert_eq!(next_step(&claim, &volume, now), Step::External);
        volume.spec.as_mut().unwrap().claim_ref = None;
        assert_eq!(next_step(&claim, &volume, now), Step::Unbound);
    }

    #[test]
    fn a_claim_asks_once() {
        let claim = |phase: &str, wanted: &str, capacity: &str| -> PersistentVolumeClaim {
            let value = json!({"spec": {"resources": {"requests": {"storage": wanted}}},
                "status": {"phase": phase, "capacity": {"storage": capacity}}});
            serde_json::from_value(value).unwrap()
        };
        let asks = claim("Bound", "2Gi", "1Gi");
        for (old, new, expected) in [
            (None, asks.clone(), true),
            (Some(asks.clone()), asks.clone(), false),
            (Some(claim("Bound", "1Gi", "1Gi")), asks.clone(), true),
            (Some(claim("Pending", "2Gi", "0")), asks.clone(), true),
            (Some(asks.clone()), claim("Bound", "3Gi", "1Gi"), true),
            (Some(claim("Bound", "3Gi", "1Gi")), claim("Bound", "3Gi", "2Gi"), true),
            (Some(asks), claim("Bound", "2Gi", "2Gi"), false),
        ] {
            assert_eq!(is_news(old.as_ref(), &new), expected, "{new:?}");
        }
    }
}
