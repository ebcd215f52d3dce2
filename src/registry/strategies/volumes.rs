//! Persistent volumes and claims (upstream: `ValidatePersistentVolume`, `ValidatePersistentVolumeClaim` in
//! `pkg/apis/core/validation`, `pkg/apis/core/v1/defaults.go`).

use super::Stored;
use super::pod::validate::{invalid, label_selector, node_selector, one_of, quantity_value};
use super::volume_sources::{self, Owner};
use crate::quantity::Quantity;
use crate::registry::columns::core as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key};
use crate::registry::json::{at, child, child_or_new, default_text, is_set, items, map, quantity, text};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::{Map, Value, json};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const EXPAND_SECRET: &str = "controllerExpandSecretRef";
const RESIZE_STATUSES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// The sources of a persistent volume, in the order in which upstream looks for them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub fn persistent_volume() -> Stored {
    Stored::new(printers::PERSISTENT_VOLUME)
        .returns_deleted()
        .defaults(|volume| {
            let spec = child_or_new(volume, "spec");
            default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_text(spec, "volumeMode", "Filesystem");
            if let Some(host_path) = child(spec, "hostPath") {
                host_path.entry("type").or_insert(json!(""));
            }
        })
        .rules(|volume| {
            let (empty, name) = (Map::new(), text(volume, &["metadata", "name"]));
            volume_spec(map(volume, &["spec"]).unwrap_or(&empty), name, false, "spec")
        })
        .update_rules(volume_update)
        .status(|| json!({"phase": "Pending", "lastPhaseTransitionTime": now()}))
        .stamps_status(|volume, old| {
            let phase = |volume: &Object| text(volume, &["status", "phase"]).to_owned();
            let time = |volume: &Object| at(volume, &["status", "lastPhaseTransitionTime"]).cloned();
            if phase(volume) != phase(old) && time(volume) == time(old) {
                child_or_new(volume, "status").insert("lastPhaseTransitionTime".into(), json!(now()));
            }
        })
}

pub fn persistent_volume_claim() -> Stored {
    Stored::new(printers::PERSISTENT_VOLUME_CLAIM)
        .returns_deleted()
        .defaults(|claim| default_claim(child_or_new(claim, "spec")))
        .rules(|claim| match map(claim, &["spec"]) {
            Some(spec) => claim_spec(spec, "spec"),
            None => claim_spec(&Map::new(), "spec"),
        })
        .update_rules(claim_update)
        .status_rules(|claim, _| claim_status(claim))
        .status(|| json!({"phase": "Pending"}))
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Defaults of a claim's spec, also in templates.
pub fn default_claim(spec: &mut Object) {
    default_text(spec, "volumeMode", "Filesystem");
    // A source that is given in the older field is meant by the newer one, too, and the other way round.
    let local = |reference: &Value| {
        reference
            .get("namespace")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
    };
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".into(), source);
        }
        (None, Some(reference)) if local(&reference) => {
            spec.insert("dataSource".into(), reference);
        }
        _ => {}
    }
}

fn access_modes(spec: &Object, path: &str, missing: &str) -> Vec<FieldError> {
    let modes = items(spec, &["accessModes"]);
    let path = format!("{path}.accessModes");
    if modes.is_empty() {
        return vec![FieldError::required(path, missing)];
    }
    let known = |mode: &&Value| mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode));
    let mut errors: Vec<FieldError> = modes
        .iter()
        .filter(|mode| !known(mode))
        .map(|mode| FieldError::not_supported(path.as_str(), mode.clone(), &ACCESS_MODES))
        .collect();
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, detail));
    }
    errors
}

fn positive(name: &str, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = quantity_value(name, value, path);
    if let Some(amount) = quantity(value).filter(|amount| amount.is_zero() || amount.is_negative()) {
        errors.push(FieldError::invalid(
            path,
            amount.to_string(),
            "must be greater than zero",
        ));
    }
    errors
}

fn class_name(spec: &Object, field: &str, path: &str) -> Vec<FieldError> {
    let name = text(spec, &[field]);
    let problems = if name.is_empty() {
        Vec::new()
    } else {
        dns1123_subdomain(name, false)
    };
    invalid(&format!("{path}.{field}"), name, &problems)
}

/// The spec of a persistent volume; `inline` is that of an attachment, which needs no more than its source.
pub fn volume_spec(spec: &Object, name: &str, inline: bool, path: &str) -> Vec<FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    let not_inline = "may not be specified in the context of inline volumes";
    let mut errors = Vec::new();
    if inline {
        for field in ["claimRef", "capacity"].iter().filter(|field| is_set(spec, field)) {
            errors.push(FieldError::forbidden(at(field), not_inline));
        }
        if !spec.contains_key("csi") {
            let detail = "has to be specified in the context of inline volumes";
            errors.push(FieldError::required(at("csi"), detail));
        }
    }
    errors.extend(access_modes(spec, path, ""));
    if !inline {
        errors.extend(capacity(spec, &at("capacity")));
    }
    let (policy, policy_path) = (
        text(spec, &["persistentVolumeReclaimPolicy"]),
        at("persistentVolumeReclaimPolicy"),
    );
    if inline && !matches!(policy, "" | "Retain") {
        let detail = "may only be Retain in the context of inline volumes";
        errors.push(FieldError::forbidden(policy_path, detail));
    } else if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(policy_path, policy, &RECLAIM_POLICIES));
    }
    if inline && spec.contains_key("nodeAffinity") {
        errors.push(FieldError::forbidden(at("nodeAffinity"), not_inline));
    } else if let Some(affinity) = map(spec, &["nodeAffinity"]) {
        let path = at("nodeAffinity.required");
        match map(affinity, &["required"]) {
            Some(selector) => errors.extend(node_selector(selector, &path)),
            None => errors.push(FieldError::required(path, "must specify required node constraints")),
        }
    }
    errors.extend(volume_source(spec, name, path));
    if text(spec, &["hostPath", "path"]) == "/" && text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(at("persistentVolumeReclaimPolicy"), detail));
    }
    if inline && is_set(spec, "storageClassName") {
        errors.push(FieldError::forbidden(at("storageClassName"), not_inline));
    } else {
        errors.extend(class_name(spec, "storageClassName", path));
    }
    let mode = text(spec, &["volumeMode"]);
    if inline && !matches!(mode, "" | "Filesystem") {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(FieldError::forbidden(at("volumeMode"), detail));
    } else if !mode.is_empty() && !VOLUME_MODES.contains(&mode) {
        errors.push(FieldError::not_supported(at("volumeMode"), mode, &VOLUME_MODES));
    }
    if let Some(Value::String(class)) = spec.get("volumeAttributesClassName") {
        if class.is_empty() {
            let detail = "an empty string is disallowed";
            errors.push(FieldError::required(at("volumeAttributesClassName"), detail));
        }
        errors.extend(class_name(spec, "volumeAttributesClassName", path));
        if !spec.contains_key("csi") {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required(at("csi"), detail));
        }
    }
    errors
}

fn capacity(spec: &Object, path: &str) -> Vec<FieldError> {
    let Some(amounts) = map(spec, &["capacity"]).filter(|amounts| !amounts.is_empty()) else {
        return vec![FieldError::required(path, "")];
    };
    let mut errors = Vec::new();
    if amounts.len() > 1 || !amounts.contains_key("storage") {
        let shown = Value::Object(amounts.clone());
        errors.push(FieldError::not_supported(path, shown, &["storage"]));
    }
    for (name, value) in amounts {
        errors.extend(positive(name, value, &format!("{path}[{name}]")));
    }
    errors
}

fn volume_source(spec: &Object, volume: &str, path: &str) -> Vec<FieldError> {
    let (mut errors, mut found) = (Vec::new(), false);
    for name in SOURCES {
        let Some(source) = map(spec, &[name]) else { continue };
        if found {
            let shown = if name == "cephfs" { "cephFS" } else { name };
            let detail = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(format!("{path}.{shown}"), detail));
            continue;
        }
        found = true;
        let path = format!("{path}.{}", volume_sources::path_name(name));
        errors.extend(volume_sources::errors(
            name,
            source,
            &path,
            Owner::PersistentVolume(volume),
        ));
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    if spec.contains_key("local") && !spec.contains_key("nodeAffinity") {
        let detail = "Local volume requires node affinity";
        errors.push(FieldError::required(format!("{path}.nodeAffinity"), detail));
    }
    errors
}

fn volume_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let source = |volume: &Object| {
        let spec = map(volume, &["spec"]).cloned().unwrap_or_default();
        SOURCES.map(|name| spec.get(name).cloned())
    };
    let mut errors = Vec::new();
    let mut comparable = new.clone();
    // The secret for growing a volume may be named later.
    if at(old, &["spec", "csi"]).is_some() && at(old, &["spec", "csi", EXPAND_SECRET]).is_none() {
        let csi = child(&mut comparable, "spec").and_then(|spec| child(spec, "csi"));
        csi.and_then(|csi| csi.remove(EXPAND_SECRET));
    }
    if source(&comparable) != source(old) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
    }
    let field = |volume, name| at(volume, &["spec", name]);
    errors.extend(immutable(
        field(new, "volumeMode"),
        field(old, "volumeMode"),
        // Upstream leaves the spec out of these paths.
        "volumeMode",
    ));
    if field(old, "nodeAffinity").is_some() {
        let path = "nodeAffinity";
        errors.extend(immutable(field(new, "nodeAffinity"), field(old, "nodeAffinity"), path));
    }
    errors.extend(attributes_class(new, old));
    errors
}

/// Once there is a class of attributes, there is always one.
fn attributes_class(new: &Object, old: &Object) -> Option<FieldError> {
    let path = ["spec", "volumeAttributesClassName"];
    let class = |object| at(object, &path).filter(|class| !class.is_null());
    class(old)?;
    let detail = "update from non-nil value to nil is forbidden";
    class(new)
        .is_none()
        .then(|| FieldError::forbidden(path.join("."), detail))
}

/// The spec of a claim, also in templates (upstream: `ValidatePersistentVolumeClaimSpec`).
pub fn claim_spec(spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = access_modes(spec, path, "at least 1 access mode is required");
    if let Some(selector) = map(spec, &["selector"]) {
        errors.extend(label_selector(selector, &format!("{path}.selector")));
    }
    let storage = format!("{path}.resources[storage]");
    match at(spec, &["resources", "requests", "storage"]) {
        None => errors.push(FieldError::required(storage, "")),
        Some(value) => errors.extend(positive("storage", value, &storage)),
    }
    errors.extend(class_name(spec, "storageClassName", path));
    errors.extend(class_name(spec, "volumeAttributesClassName", path));
    errors.extend(one_of(spec, "volumeMode", &VOLUME_MODES, path));
    let (source, reference) = (map(spec, &["dataSource"]), map(spec, &["dataSourceRef"]));
    for (field, source) in [("dataSource", source), ("dataSourceRef", reference)] {
        if let Some(source) = source {
            errors.extend(data_source(source, &format!("{path}.{field}")));
        }
    }
    if let (Some(source), Some(reference)) = (source, reference) {
        let same = |field: &str| text(source, &[field]) == text(reference, &[field]);
        // Upstream's value is a path here, of which its JSON shows nothing.
        if is_set(reference, "namespace") {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            errors.push(FieldError::invalid(path, json!({}), detail));
        } else if !["apiGroup", "kind", "name"].into_iter().all(same) {
            errors.push(FieldError::invalid(path, json!({}), "must match dataSourceRef"));
        }
    }
    errors
}

fn data_source(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "kind"] {
        if text(source, &[field]).is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    }
    let (group, kind) = (text(source, &["apiGroup"]), text(source, &["kind"]));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, kind, detail));
    }
    if !group.is_empty() {
        errors.extend(invalid(
            &format!("{path}.apiGroup"),
            group,
            &dns1123_subdomain(group, false),
        ));
    }
    if let Some(namespace) = source
        .get("namespace")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
    {
        errors.extend(invalid(
            &format!("{path}.namespace"),
            namespace,
            &dns1123_label(namespace, false),
        ));
    }
    errors
}

fn claim_update(claim: &Object, old: &Object) -> Vec<FieldError> {
    let fixed = |object: &Object| {
        let mut spec = map(object, &["spec"]).cloned().unwrap_or_default();
        for field in ["resources", "volumeAttributesClassName"] {
            spec.remove(field);
        }
        spec
    };
    let (mut new, before) = (fixed(claim), fixed(old));
    // What binding fills in may be filled in.
    for field in ["volumeName", "storageClassName"] {
        if !before.contains_key(field) {
            new.remove(field);
        }
    }
    let bound = text(old, &["status", "phase"]) == "Bound";
    let resources = |claim| at(claim, &["spec", "resources"]);
    let class = |claim| at(claim, &["spec", "volumeAttributesClassName"]).filter(|class| !class.is_null());
    let mut errors = Vec::new();
    let others = resources(claim) != resources(old) || class(claim) != class(old);
    if new != before || (!bound && others) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
            for bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let request = |claim| at(claim, &["spec", "resources", "requests", "storage"]).and_then(quantity);
    let has = at(old, &["status", "capacity", "storage"]).and_then(quantity);
    if let (Some(wanted), Some(before)) = (request(claim), request(old))
        && wanted < before
        && wanted <= has.unwrap_or(Quantity::ZERO)
    {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
    let mode = |claim| at(claim, &["spec", "volumeMode"]);
    errors.extend(immutable(mode(claim), mode(old), "volumeMode"));
    errors.extend(attributes_class(claim, old));
    if class(old).is_some() && class(claim).is_some_and(|class| class == "") && class(old) != class(claim) {
        let detail = "update from non-nil value to an empty string is forbidden";
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", detail));
    }
    errors
}

fn claim_status(claim: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let amounts = |field: &str| map(claim, &["status", field]).into_iter().flatten();
    let negative = |value: &Value, path: &str| {
        let amount = quantity(value).filter(|amount| amount.is_negative())?;
        let detail = "must be a valid resource quantity";
        Some(FieldError::invalid(path, amount.to_string(), detail))
    };
    for (name, value) in amounts("capacity") {
        errors.extend(negative(value, &format!("status.capacity[{name}]")));
    }
    for (name, value) in amounts("allocatedResourceStatuses") {
        let path = "status.allocatedResourceStatus";
        errors.extend(claim_resource(name, path));
        if !value.as_str().is_some_and(|status| RESIZE_STATUSES.contains(&status)) {
            errors.push(FieldError::not_supported(path, name.as_str(), &RESIZE_STATUSES));
        }
    }
    for (name, value) in amounts("allocatedResources") {
        let wrong = claim_resource(name, "status.allocatedResources");
        if wrong.is_empty() {
            errors.extend(negative(value, &format!("status.allocatedResources[{name}]")));
        }
        errors.extend(wrong);
    }
    errors
}

/// What a claim can be resized in: its storage, or something of a driver's.
fn claim_resource(name: &str, path: &str) -> Vec<FieldError> {
    let errors = invalid(path, name, &label_key(name));
    if errors.is_empty() && crate::usage::is_native(name) && name != "storage" {
        return vec![FieldError::not_supported(path, name, &["storage"])];
    }
    errors
}
