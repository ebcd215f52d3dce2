//! Which volume fits a claim (upstream: `component-helpers/storage/volume`, `persistentvolume/index.go`). Pure.

use crate::controllers::claims::{class_of_claim, class_of_volume, is_bound_to, storage, volume_phase};
use crate::controllers::ownership;
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::SelectorExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn modes_of(modes: Option<&Vec<String>>) -> BTreeSet<&str> {
    modes.into_iter().flatten().map(String::as_str).collect()
}

fn claim_modes(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    modes_of(claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref()))
}

fn volume_modes(volume: &PersistentVolume) -> BTreeSet<&str> {
    modes_of(volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref()))
}

pub fn capacity(volume: &PersistentVolume) -> Quantity {
    let spec = volume.spec.as_ref();
    storage(spec.and_then(|spec| spec.capacity.as_ref())).unwrap_or(Quantity::ZERO)
}

pub fn request(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref())).unwrap_or(Quantity::ZERO)
}

/// Whether both are file systems, or both are devices.
pub fn same_volume_mode(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    let has = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    wanted.unwrap_or("Filesystem") == has.unwrap_or("Filesystem")
}

fn same_attributes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let has = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_attributes_class_name.as_deref());
    wanted.unwrap_or_default() == has.unwrap_or_default()
}

/// Why a volume that a claim names cannot be its volume.
pub fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    if capacity(volume) < request(claim) {
        return Some("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim).unwrap_or_default() {
        return Some("storageClassName does not match");
    }
    if !same_attributes(claim, volume) {
        return Some("VolumeAttributesClassName does not match");
    }
    if !same_volume_mode(claim, volume) {
        return Some("incompatible volumeMode");
    }
    (!volume_modes(volume).is_superset(&claim_modes(claim))).then_some("incompatible accessMode")
}

/// The volume for a claim that names none: of those with the fewest access modes first, one that is reserved for it,
/// else the smallest that is large enough. If its binding is `delayed`, the scheduler chooses, and only what is reserved
/// counts.
pub fn best_match(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let wanted = claim_modes(claim);
    let mut by_modes: BTreeMap<(usize, Vec<&str>), Vec<&Arc<PersistentVolume>>> = BTreeMap::new();
    for volume in volumes {
        let modes = volume_modes(volume);
        if modes.is_superset(&wanted) {
            let key = (modes.len(), modes.into_iter().collect());
            by_modes.entry(key).or_default().push(volume);
        }
    }
    by_modes.into_values().find_map(|group| best_of(claim, &group, delayed))
}

fn best_of(
    claim: &PersistentVolumeClaim,
    volumes: &[&Arc<PersistentVolume>],
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let fits = |volume: &&&Arc<PersistentVolume>| {
        capacity(volume) >= request(claim)
            && same_volume_mode(claim, volume)
            && same_attributes(claim, volume)
            && volume.metadata.deletion_timestamp.is_none()
    };
    let fitting: Vec<&Arc<PersistentVolume>> = volumes.iter().filter(fits).copied().collect();
    if let Some(reserved) = fitting.iter().find(|volume| is_bound_to(volume, claim)) {
        return Some(Arc::clone(reserved));
    }
    if delayed {
        return None;
    }
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selected = |volume: &PersistentVolume| match selector {
        // An empty selector leaves the choice open.
        None => true,
        Some(selector) if *selector == LabelSelector::default() => true,
        Some(_) => ownership::selector(selector).matches(volume.labels()),
    };
    let class = class_of_claim(claim).unwrap_or_default();
    let free = fitting.into_iter().filter(|volume| {
        let claimed = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
        !claimed && volume_phase(volume) == "Available" && class_of_volume(volume) == class && selected(volume)
    });
    free.min_by_key(|volume| (capacity(volume), volume.name_any())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(more: Value) -> PersistentVolumeClaim {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "c",
            "resources": {"requests": {"storage": "5Gi"}}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "one", "namespace": "a", "uid": "u1"}, "spec": spec}))
            .unwrap()
    }

    fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({
            "metadata": {"name": name, "labels": {"name": name}},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "storageClassName": "c"},
            "status": {"phase": "Available"},
        });
        for (pointer, value) in more.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            volume.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    #[test]
    fn the_best_volume_is_chosen() {
        let to = |name: &str, uid: &str| json!({"/spec/claimRef": {"namespace": "a", "name": name, "uid": uid}});
        let two_modes = json!({"/spec/accessModes": ["ReadWriteOnce", "ReadOnlyMany"]});
        let table = [
            (
                "the smallest that is large enough",
                claim(json!({})),
                vec![
                    volume("small", "1Gi", json!({})),
                    volume("big", "20Gi", json!({})),
                    volume("fit", "6Gi", json!({})),
                ],
                Some("fit"),
            ),
            (
                "exactly as large is large enough",
                claim(json!({})),
                vec![volume("same", "5120Mi", json!({}))],
                Some("same"),
            ),
            (
                "fewer access modes come first",
                claim(json!({})),
                vec![
                    volume("both", "5Gi", two_modes.clone()),
                    volume("one", "9Gi", json!({})),
                ],
                Some("one"),
            ),
            (
                "more access modes do",
                claim(json!({})),
                vec![volume("both", "5Gi", two_modes)],
                Some("both"),
            ),
            (
                "a mode is missing",
                claim(json!({"accessModes": ["ReadWriteMany"]})),
                vec![volume("one", "5Gi", json!({}))],
                None,
            ),
            (
                "reserved for it, also of another class",
                claim(json!({})),
                vec![
                    volume("free", "5Gi", json!({})),
                    volume(
                        "reserved",
                        "50Gi",
                        json!({"/spec/claimRef": {"namespace": "a", "name": "one"}, "/spec/storageClassName": "d"}),
                    ),
                ],
                Some("reserved"),
            ),
            (
                "reserved for others, or for one of that name before",
                claim(json!({})),
                vec![
                    volume("theirs", "5Gi", to("two", "u2")),
                    volume("old", "5Gi", to("one", "u0")),
                ],
                None,
            ),
            (
                "reserved, but too small",
                claim(json!({})),
                vec![volume("reserved", "1Gi", to("one", "u1"))],
                None,
            ),
            (
                "another class",
                claim(json!({"storageClassName": "d"})),
                vec![volume("one", "5Gi", json!({}))],
                None,
            ),
            (
                "no class wants none",
                claim(json!({"storageClassName": ""})),
                vec![volume("one", "5Gi", json!({"/spec/storageClassName": null}))],
                Some("one"),
            ),
            (
                "another volume mode",
                claim(json!({"volumeMode": "Block"})),
                vec![volume("one", "5Gi", json!({}))],
                None,
            ),
            (
                "a selector",
                claim(json!({"selector": {"matchLabels": {"name": "two"}}})),
                vec![volume("one", "5Gi", json!({})), volume("two", "9Gi", json!({}))],
                Some("two"),
            ),
            (
                "not available",
                claim(json!({})),
                vec![volume("one", "5Gi", json!({"/status/phase": "Released"}))],
                None,
            ),
            (
                "going",
                claim(json!({})),
                vec![volume(
                    "one",
                    "5Gi",
                    json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"}),
                )],
                None,
            ),
            (
                "attributes differ",
                claim(json!({"volumeAttributesClassName": "fast"})),
                vec![volume("one", "5Gi", json!({}))],
                None,
            ),
        ];
        for (what, claim, volumes, expected) in table {
            let found = best_match(&claim, &volumes, false).map(|volume| volume.name_any());
            assert_eq!(found.as_deref(), expected, "{what}");
        }
        let volumes = [
            volume("free", "5Gi", json!({})),
            volume("reserved", "9Gi", to("one", "u1")),
        ];
        let delayed = best_match(&claim(json!({})), &volumes, true).map(|volume| volume.name_any());
        assert_eq!(delayed.as_deref(), Some("reserved"));
        assert_eq!(best_match(&claim(json!({})), &volumes[..1], true), None);
    }

    #[test]
    fn why_a_named_volume_does_not_fit() {
        let volume = volume("one", "5Gi", json!({}));
        for (more, expected) in [
            (json!({}), None),
            (
                json!({"resources": {"requests": {"storage": "6Gi"}}}),
                Some("requested PV is too small"),
            ),
            (
                json!({"storageClassName": "d"}),
                Some("storageClassName does not match"),
            ),
            (json!({"volumeMode": "Block"}), Some("incompatible volumeMode")),
            (
                json!({"accessModes": ["ReadWriteMany"]}),
                Some("incompatible accessMode"),
            ),
        ] {
            assert_eq!(mismatch(&claim(more.clone()), &volume), expected, "{more}");
        }
    }
}
