//! The storage.k8s.io kinds: classes, drivers, attachments
//! (upstream: `pkg/apis/storage/v1/defaults.go` and `…/validation/validation.go`).

use super::Stored;
use super::pod::validate::{invalid, label_selector, quantity_value};
use super::volumes;
use crate::registry::columns::storage as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_subdomain, label_key};
use crate::registry::json::{
    at, child_or_new, default_text, default_to, integer, is_set, items, map, objects, text, texts,
};
use crate::registry::strategy::Object;
use crate::registry::validation::{IMMUTABLE, immutable, non_negative};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const ATTACHMENT_BYTES_MAX: usize = 256 * 1024;
const ERROR_BYTES_MAX: usize = 1024;
const DRIVER_NAME_BYTES_MAX: usize = 63;
const NODE_ID_BYTES_MAX: usize = 256;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_PERIOD_SECONDS_MIN: i64 = 10;
const NO_DRIVERS: &str = "storage objects are stored, but no storage driver is asked to act on them yet";

pub fn storage_class() -> Stored {
    Stored::new(printers::STORAGE_CLASS)
        .returns_deleted()
        .defaults(|class| {
            default_text(class, "reclaimPolicy", "Delete");
            default_text(class, "volumeBindingMode", "Immediate");
        })
        .rules(class_rules)
        .declared(|class, old| {
            let provisioner = "provisioner";
            let given = !text(class, &[provisioner]).is_empty();
            let mut errors = Vec::from_iter((!given).then(|| FieldError::required(provisioner, "")));
            if let Some(old) = old {
                let fixed = [provisioner, "parameters", "reclaimPolicy", "volumeBindingMode"];
                let changed = fixed.iter().filter(|field| !same(class.get(**field), old.get(**field)));
                errors.extend(changed.map(|field| FieldError::fixed(*field)));
            }
            errors
        })
}

/// Whether two fields say the same: a list or a map without anything in it is as good as none.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let told = |value: Option<&Value>| value.filter(|value| !is_nothing(value)).cloned();
    told(one) == told(other)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn class_rules(class: &Object) -> Vec<FieldError> {
    let mut errors = qualified(text(class, &["provisioner"]), "provisioner");
    errors.extend(parameters(class, "parameters"));
    for (field, values) in [
        ("reclaimPolicy", ["Delete", "Retain"]),
        ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
    ] {
        let value = text(class, &[field]);
        if !values.contains(&value) {
            errors.push(FieldError::not_supported(field, value, &values));
        }
    }
    // Upstream compares with as many terms that ask for nothing, too.
    let mut seen = vec![BTreeMap::new()];
    for (index, term) in objects(class, &["allowedTopologies"]) {
        let path = format!("allowedTopologies[{index}].matchLabelExpressions");
        errors.extend(topology_term(term, &path));
        let asked = asked_of(term);
        if seen.contains(&asked) {
            errors.push(FieldError::duplicate(path, ""));
        }
        seen.push(asked);
    }
    errors
}

/// The values that a term allows, by key; the last of several for one key counts.
fn asked_of(term: &Object) -> BTreeMap<&str, BTreeSet<&str>> {
    let requirements = objects(term, &["matchLabelExpressions"]);
    requirements
        .map(|(_, requirement)| {
            let values = items(requirement, &["values"]).iter().filter_map(Value::as_str);
            (text(requirement, &["key"]), values.collect())
        })
        .collect()
}

/// A name of some kind of storage, which may be in capitals; whether there must be one is asked elsewhere.
fn qualified(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return Vec::new();
    }
    invalid(path, &name.to_lowercase(), &label_key(&name.to_lowercase()))
}

fn parameters(class: &Object, path: &str) -> Vec<FieldError> {
    if map(class, &["parameters"]).is_some_and(|parameters| parameters.len() > PARAMETERS_MAX) {
        return vec![FieldError::too_long(path, PARAMETERS_MAX)];
    }
    let (mut errors, mut bytes) = (Vec::new(), 0);
    for (key, value) in texts(class, &["parameters"]) {
        if key.is_empty() {
            errors.push(FieldError::invalid(path, key, "field can not be empty."));
        }
        bytes += key.len() + value.len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        errors.push(FieldError::too_long(path, PARAMETERS_BYTES_MAX));
    }
    errors
}

fn topology_term(term: &Object, path: &str) -> Vec<FieldError> {
    let (mut errors, mut keys) = (Vec::new(), BTreeSet::new());
    for (index, requirement) in objects(term, &["matchLabelExpressions"]) {
        let path = format!("{path}[{index}]");
        let (key, values) = (text(requirement, &["key"]), items(requirement, &["values"]));
        if values.is_empty() {
            errors.push(FieldError::required(format!("{path}.values"), ""));
        }
        let mut seen = BTreeSet::new();
        for (index, value) in values.iter().enumerate() {
            let (value, path) = (value.as_str().unwrap_or_default(), format!("{path}.values[{index}]"));
            if !seen.insert(value) {
                errors.push(FieldError::duplicate(path, value));
            }
        }
        errors.extend(invalid(&format!("{path}.key"), key, &label_key(key)));
        if !keys.insert(key) {
            errors.push(FieldError::duplicate(format!("{path}.key"), key));
        }
    }
    errors
}

pub fn volume_attributes_class() -> Stored {
    Stored::new(printers::VOLUME_ATTRIBUTES_CLASS)
        .returns_deleted()
        .rules(|class| {
            // Upstream names a spec here, which the kind does not have.
            let (path, driver) = ("spec.driverName", text(class, &["driverName"]));
            let mut errors = Vec::from_iter(driver.is_empty().then(|| FieldError::required(path, "")));
            errors.extend(qualified(driver, path));
            errors.extend(parameters(class, "spec.parameters"));
            if !is_set(class, "parameters") {
                let detail = "must contain at least one key/value pair";
                errors.push(FieldError::required("spec.parameters", detail));
            }
            errors
        })
        .update_rules(|new, old| {
            let fixed = ["driverName", "parameters"];
            let changed = fixed.iter().filter(|field| new.get(**field) != old.get(**field));
            changed
                .map(|field| FieldError::forbidden(*field, &format!("updates to {field} are forbidden.")))
                .collect()
        })
        .unattended(NO_DRIVERS)
}

pub fn volume_attachment() -> Stored {
    Stored::new(printers::VOLUME_ATTACHMENT)
        .conditional()
        .returns_deleted()
        .rules(|attachment| {
            let mut errors = attachment_spec(attachment);
            errors.extend(attachment_status(attachment));
            errors
        })
        .declared(|attachment, old| match old {
            Some(old) if attachment.get("spec") == old.get("spec") => Vec::new(),
            Some(_) => vec![FieldError::fixed("spec")],
            None => attacher(text(attachment, &["spec", "attacher"])),
        })
        .status_rules(|new, _| attachment_status(new))
        .status(|| json!({"attached": false}))
        .unattended(NO_DRIVERS)
}

fn attachment_spec(attachment: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(attachment, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let path = "spec.source";
    let volume = at(spec, &["source", "persistentVolumeName"]).and_then(|name| name.as_str());
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (volume, map(spec, &["source", "inlineVolumeSpec"])) {
        (None, None) => errors.push(FieldError::required(path, one)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(path, one)),
        (Some(""), None) => {
            let detail = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(format!("{path}.persistentVolumeName"), detail));
        }
        (Some(_), None) => {}
        (None, Some(inline)) => errors.extend(volumes::volume_spec(
            inline,
            "",
            true,
            &format!("{path}.inlineVolumeSpec"),
        )),
    }
    let node = text(spec, &["nodeName"]);
    errors.extend(invalid("spec.nodeName", node, &dns1123_subdomain(node, false)));
    if let Some(name) = volume {
        let path = format!("{path}.persistentVolumeName");
        errors.extend(invalid(&path, name, &dns1123_subdomain(name, false)));
    }
    errors
}

/// The name of the driver that attaches, as upstream's type asks for it.
fn attacher(name: &str) -> Vec<FieldError> {
    let path = "spec.attacher";
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if name.chars().count() > DRIVER_NAME_BYTES_MAX {
        errors.push(FieldError::too_long_characters(path, DRIVER_NAME_BYTES_MAX));
    }
    errors.extend(invalid(path, name, &dns1123_subdomain(&name.to_lowercase(), false)));
    errors
}

fn attachment_status(attachment: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = texts(attachment, &["status", "attachmentMetadata"]);
    let bytes: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ATTACHMENT_BYTES_MAX {
        errors.push(FieldError::too_long("status.attachmentMetadata", ATTACHMENT_BYTES_MAX));
    }
    for field in ["attachError", "detachError"] {
        if text(attachment, &["status", field, "message"]).len() > ERROR_BYTES_MAX {
            errors.push(FieldError::too_long(format!("status.{field}.message"), ERROR_BYTES_MAX));
        }
        if let Some(code) = integer(attachment, &["status", field, "errorCode"]).filter(|code| *code < 0) {
            let detail = format!("must be between 0 and {}, inclusive", i32::MAX);
            errors.push(FieldError::invalid(format!("status.{field}.errorCode"), code, &detail));
        }
    }
    errors
}

/// The name of a CSI driver where it is referred to (upstream: `ValidateCSIDriverName`).
pub fn driver_name(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if name.len() > DRIVER_NAME_BYTES_MAX {
        errors.push(FieldError::too_long(path, DRIVER_NAME_BYTES_MAX));
    }
    errors.extend(invalid(path, name, &dns1123_subdomain(&name.to_lowercase(), false)));
    errors
}

pub fn csi_node() -> Stored {
    Stored::new(printers::CSI_NODE)
        .conditional()
        .returns_deleted()
        .rules(node_rules)
        .update_rules(|new, old| {
            let mut errors = Vec::new();
            for (_, before) in objects(old, &["spec", "drivers"]) {
                let same = |driver: &&Object| text(driver, &["name"]) == text(before, &["name"]);
                let now = objects(new, &["spec", "drivers"]).map(|(_, driver)| driver).find(same);
                if let Some(now) = now.filter(|now| shown_driver(now) != shown_driver(before)) {
                    errors.push(FieldError::invalid("spec.drivers", shown_driver(now), IMMUTABLE));
                }
            }
            errors
        })
}

/// What stays as it is of a driver of a node, in upstream's internal form, whose members are named as in Go.
fn shown_driver(driver: &Object) -> Value {
    let keys = items(driver, &["topologyKeys"]);
    json!({
        "Name": text(driver, &["name"]),
        "NodeID": text(driver, &["nodeID"]),
        "TopologyKeys": if keys.is_empty() { Value::Null } else { json!(keys) },
        "Allocatable": null,
    })
}

fn node_rules(node: &Object) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    for (index, driver) in objects(node, &["spec", "drivers"]) {
        let path = format!("spec.drivers[{index}]");
        let (name, id) = (text(driver, &["name"]), text(driver, &["nodeID"]));
        errors.extend(driver_name(name, &format!("{path}.name")));
        if id.is_empty() {
            errors.push(FieldError::required(format!("{path}.nodeID"), ""));
        }
        if id.len() > NODE_ID_BYTES_MAX {
            let detail = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            errors.push(FieldError::invalid(format!("{path}.nodeID"), id, &detail));
        }
        let count = at(driver, &["allocatable", "count"]);
        errors.extend(non_negative(count, &format!("{path}.allocatable.count")));
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let mut keys = BTreeSet::new();
        for key in items(driver, &["topologyKeys"]) {
            let key = key.as_str().unwrap_or_default();
            if key.is_empty() {
                errors.push(FieldError::required(path.as_str(), ""));
            }
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(path.as_str(), key));
            }
            errors.extend(invalid(&path, key, &label_key(key)));
        }
    }
    errors
}

pub fn csi_driver() -> Stored {
    Stored::new(printers::CSI_DRIVER)
        .conditional()
        .returns_deleted()
        .defaults(|driver| {
            let spec = child_or_new(driver, "spec");
            default_to(spec, "attachRequired", true);
            for field in [
                "podInfoOnMount",
                "storageCapacity",
                "requiresRepublish",
                "seLinuxMount",
                "preventPodSchedulingIfMissing",
            ] {
                default_to(spec, field, false);
            }
            default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if !is_set(spec, "volumeLifecycleModes") {
                spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
            }
        })
        .rules(driver_rules)
        .update_rules(|new, old| {
            // The first is upstream's path of it.
            let fixed = [
                ("attachRequired", "spec.attachedRequired"),
                ("volumeLifecycleModes", "spec.volumeLifecycleModes"),
            ];
            let spec = |driver, field| at(driver, &["spec", field]);
            let changed = fixed.iter();
            changed
                .filter_map(|(field, path)| immutable(spec(new, field), spec(old, field), path))
                .collect()
        })
        .unattended(NO_DRIVERS)
}

fn driver_rules(driver: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(driver, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    let policy = text(spec, &["fsGroupPolicy"]);
    if !policies.contains(&policy) {
        errors.push(FieldError::not_supported("spec.fsGroupPolicy", policy, &policies));
    }
    let mut audiences = BTreeSet::new();
    for (index, request) in objects(spec, &["tokenRequests"]) {
        let path = format!("spec.tokenRequests[{index}]");
        let audience = text(request, &["audience"]);
        if !audiences.insert(audience) {
            errors.push(FieldError::duplicate(format!("{path}.audience"), audience));
            continue;
        }
        let problem = match integer(request, &["expirationSeconds"]) {
            Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
                Some((seconds, "may not specify a duration less than 10 minutes"))
            }
            Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
                Some((seconds, "may not specify a duration larger than 2^32 seconds"))
            }
            _ => None,
        };
        if let Some((seconds, problem)) = problem {
            errors.push(FieldError::invalid(
                format!("{path}.expirationSeconds"),
                seconds,
                problem,
            ));
        }
    }
    for mode in items(spec, &["volumeLifecycleModes"]) {
        let modes = ["Persistent", "Ephemeral"];
        if !mode.as_str().is_some_and(|mode| modes.contains(&mode)) {
            errors.push(FieldError::not_supported(
                "spec.volumeLifecycleModes",
                mode.clone(),
                &modes,
            ));
        }
    }
    let period = integer(spec, &["nodeAllocatableUpdatePeriodSeconds"]);
    if let Some(period) = period.filter(|period| *period < UPDATE_PERIOD_SECONDS_MIN) {
        let detail = format!("must be greater than or equal to {UPDATE_PERIOD_SECONDS_MIN} seconds");
        errors.push(FieldError::invalid(
            "spec.nodeAllocatableUpdatePeriodSeconds",
            period,
            &detail,
        ));
    }
    let field = "serviceAccountTokenInSecrets";
    if let Some(value) = spec.get(field).filter(|_| !is_set(spec, "tokenRequests")) {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(format!("spec.{field}"), value.clone(), detail));
    }
    errors
}

pub fn csi_storage_capacity() -> Stored {
    Stored::new(printers::CSI_STORAGE_CAPACITY)
        .conditional()
        .rules(|capacity| {
            let selector = map(capacity, &["nodeTopology"]);
            let mut errors = selector.map_or_else(Vec::new, |selector| label_selector(selector, "nodeTopology"));
            let class = text(capacity, &["storageClassName"]);
            errors.extend(invalid("storageClassName", class, &dns1123_subdomain(class, false)));
            if let Some(value) = capacity.get("capacity") {
                errors.extend(quantity_value("storage", value, "capacity"));
            }
            errors
        })
        .update_rules(|new, old| {
            let fixed = ["nodeTopology", "storageClassName"].iter();
            fixed
                .filter_map(|field| immutable(new.get(*field), old.get(*field), field))
                .collect()
        })
}
