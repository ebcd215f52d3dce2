//! Volumes, claims and the storage.k8s.io kinds
//! (upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/storage/v1/defaults.go`, their validation).

use super::Stored;
use super::pod::validate::{label_selector, one_of, quantity_value};
use crate::registry::columns::{core as core_printers, storage as printers};
use crate::registry::field::FieldError;
use crate::registry::json::{at, child_or_new, default_text, default_to, is_set, items, map, text};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::{Map, Value, json};

const NOT_ATTENDED: &str = "volumes and claims are stored, but nothing binds, provisions or mounts them yet";
const NO_DRIVERS: &str = "storage objects are stored, but no storage driver is asked to act on them yet";
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub fn persistent_volume() -> Stored {
    Stored::new(core_printers::PERSISTENT_VOLUME)
        .returns_deleted()
        .defaults(|volume| {
            let spec = child_or_new(volume, "spec");
            default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_text(spec, "volumeMode", "Filesystem");
        })
        .rules(validate_volume)
        .update_rules(|new, old| {
            let mode = |volume| at(volume, &["spec", "volumeMode"]);
            Vec::from_iter(immutable(mode(new), mode(old), "spec.volumeMode"))
        })
        .status(|| json!({"phase": "Pending"}))
        .unattended(NOT_ATTENDED)
}

pub fn persistent_volume_claim() -> Stored {
    Stored::new(core_printers::PERSISTENT_VOLUME_CLAIM)
        .returns_deleted()
        .defaults(|claim| default_text(child_or_new(claim, "spec"), "volumeMode", "Filesystem"))
        .rules(validate_claim)
        .update_rules(claim_update)
        .status(|| json!({"phase": "Pending"}))
        .unattended(NOT_ATTENDED)
}

pub fn storage_class() -> Stored {
    Stored::new(printers::STORAGE_CLASS)
        .returns_deleted()
        .defaults(|class| {
            default_text(class, "reclaimPolicy", "Delete");
            default_text(class, "volumeBindingMode", "Immediate");
        })
        .rules(|class| {
            let mut errors = Vec::new();
            if text(class, &["provisioner"]).is_empty() {
                errors.push(FieldError::required("provisioner", ""));
            }
            for (field, values) in [
                ("reclaimPolicy", ["Delete", "Retain"]),
                ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
            ] {
                let value = text(class, &[field]);
                if !values.contains(&value) {
                    errors.push(FieldError::not_supported(field, value, &values));
                }
            }
            errors
        })
        .update_rules(|new, old| {
            let fixed = ["parameters", "provisioner", "reclaimPolicy"];
            let changed = fixed.iter().filter(|field| new.get(**field) != old.get(**field));
            let mut errors: Vec<FieldError> = changed
                .map(|field| FieldError::forbidden(*field, &format!("updates to {field} are forbidden.")))
                .collect();
            let mode = "volumeBindingMode";
            errors.extend(immutable(new.get(mode), old.get(mode), mode));
            errors
        })
        .unattended(NO_DRIVERS)
}

pub fn volume_attributes_class() -> Stored {
    Stored::new(printers::VOLUME_ATTRIBUTES_CLASS)
        .returns_deleted()
        .unattended(NO_DRIVERS)
}

pub fn volume_attachment() -> Stored {
    Stored::new(printers::VOLUME_ATTACHMENT)
        .conditional()
        .returns_deleted()
        .status(|| json!({"attached": false}))
        .unattended(NO_DRIVERS)
}

pub fn csi_node() -> Stored {
    Stored::new(printers::CSI_NODE).conditional().returns_deleted()
}

pub fn csi_driver() -> Stored {
    Stored::new(printers::CSI_DRIVER)
        .conditional()
        .returns_deleted()
        .defaults(|driver| {
            let spec = child_or_new(driver, "spec");
            default_to(spec, "attachRequired", true);
            for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
                default_to(spec, field, false);
            }
            default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if !is_set(spec, "volumeLifecycleModes") {
                spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
            }
        })
        .unattended(NO_DRIVERS)
}

pub fn csi_storage_capacity() -> Stored {
    Stored::new(printers::CSI_STORAGE_CAPACITY).conditional()
}

fn access_modes(spec: &Object) -> Vec<FieldError> {
    let modes = items(spec, &["accessModes"]);
    let unknown = modes
        .iter()
        .filter(|mode| !mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode)));
    unknown
        .map(|mode| FieldError::not_supported("spec.accessModes", mode.clone(), &ACCESS_MODES))
        .collect()
}

fn validate_volume(volume: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(volume, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    if !is_set(spec, "accessModes") {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    errors.extend(access_modes(spec));
    match map(spec, &["capacity"]).filter(|capacity| !capacity.is_empty()) {
        None => errors.push(FieldError::required("spec.capacity", "")),
        Some(capacity) => {
            if capacity.len() > 1 || !capacity.contains_key("storage") {
                let error = FieldError::not_supported("spec.capacity", Value::Object(capacity.clone()), &["storage"]);
                errors.push(error);
            }
            for (name, value) in capacity {
                errors.extend(quantity_value(name, value, &format!("spec.capacity[{name}]")));
            }
        }
    }
    errors.extend(one_of(
        spec,
        "persistentVolumeReclaimPolicy",
        &["Delete", "Recycle", "Retain"],
        "spec",
    ));
    errors.extend(one_of(spec, "volumeMode", &["Block", "Filesystem"], "spec"));
    errors
}

fn validate_claim(claim: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(claim, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    if !is_set(spec, "accessModes") {
        errors.push(FieldError::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    errors.extend(access_modes(spec));
    if let Some(selector) = map(spec, &["selector"]) {
        errors.extend(label_selector(selector, "spec.selector"));
    }
    match at(spec, &["resources", "requests", "storage"]) {
        None => errors.push(FieldError::required("spec.resources[storage]", "")),
        Some(value) => errors.extend(quantity_value("storage", value, "spec.resources[storage]")),
    }
    errors.extend(one_of(spec, "volumeMode", &["Block", "Filesystem"], "spec"));
    errors
}

fn claim_update(claim: &Object, old: &Object) -> Vec<FieldError> {
    let fixed = |object: &Object| {
        let mut spec = map(object, &["spec"]).cloned().unwrap_or_default();
        // What binding fills in may be filled in.
        for field in ["resources", "volumeAttributesClassName"] {
            spec.remove(field);
        }
        spec
    };
    let (mut new, old) = (fixed(claim), fixed(old));
    for field in ["volumeName", "storageClassName"] {
        if !old.contains_key(field) {
            new.remove(field);
        }
    }
    if new == old {
        return Vec::new();
    }
    let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
        for bound claims";
    vec![FieldError::forbidden("spec", detail)]
}
