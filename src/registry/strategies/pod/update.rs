//! What an update of a pod may change (upstream: `ValidatePodUpdate`, `ValidatePodStatusUpdate`,
//! `ValidatePodEphemeralContainersUpdate` in `pkg/apis/core/validation/validation.go`).

use super::validate::tolerations;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_subdomain, ip_address, label_key, range_error};
use crate::registry::json::{at, child, children, integer, items, map, objects, restore, text};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::Value;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// What the `resize` subresource may change in a container.
const RESIZABLE: [&str; 2] = ["resources", "resizePolicy"];

/// Restores from `old` all that the subresource does not write. Binding makes the pod itself, there is nothing to
/// restore.
pub fn keep_only(object: &mut Object, old: &Object, subresource: &str) {
    if !matches!(subresource, "ephemeralcontainers" | "resize") {
        return;
    }
    let written = object.get("spec").cloned().unwrap_or_default();
    restore(object, old, "spec");
    restore(object, old, "status");
    let (Some(spec), Some(written)) = (child(object, "spec"), written.as_object()) else {
        return;
    };
    match subresource {
        "ephemeralcontainers" => restore(spec, written, "ephemeralContainers"),
        "resize" => {
            for list in ["containers", "initContainers"] {
                for container in children(spec, list) {
                    let name = text(container, &["name"]).to_owned();
                    let wanted = objects(written, &[list]).find(|(_, other)| text(other, &["name"]) == name);
                    if let Some((_, wanted)) = wanted {
                        RESIZABLE.iter().for_each(|field| restore(container, wanted, field));
                    }
                }
            }
        }
        _ => {}
    }
}

/// Updates of the pod itself, after the rules for all pods.
pub fn validate(pod: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = Object::new();
    let (spec, old_spec) = (
        map(pod, &["spec"]).unwrap_or(&empty),
        map(old, &["spec"]).unwrap_or(&empty),
    );
    for list in ["containers", "initContainers"] {
        if items(spec, &[list]).len() != items(old_spec, &[list]).len() {
            let path = format!("spec.{list}");
            errors.push(FieldError::forbidden(
                path,
                "pod updates may not add or remove containers",
            ));
            return errors;
        }
    }
    if let Some(error) = active_deadline(spec, old_spec) {
        errors.push(error);
    }
    errors.extend(added_tolerations(spec, old_spec));
    errors.extend(removed_gates(spec, old_spec));

    let mut comparable = spec.clone();
    restore_updatable(&mut comparable, old_spec);
    if !objects_equal(&comparable, old_spec) {
        let changed: Vec<String> = differing(&comparable, old_spec)
            .map(|field| format!("spec.{field}"))
            .collect();
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\nchanged: {}",
            changed.join(", ")
        );
        errors.push(FieldError::forbidden("spec", &detail));
    }
    errors
}

/// Puts back everything that may change, so that what remains different may not.
fn restore_updatable(spec: &mut Object, old: &Object) {
    for list in ["containers", "initContainers"] {
        let images: Vec<Object> = objects(old, &[list]).map(|(_, container)| container.clone()).collect();
        for (container, old) in children(spec, list).zip(&images) {
            restore(container, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(spec, old, field);
    }
    let old_grace = integer(old, &["terminationGracePeriodSeconds"]);
    if old_grace.is_some_and(|grace| grace < 0) && integer(spec, &["terminationGracePeriodSeconds"]) == Some(1) {
        restore(spec, old, "terminationGracePeriodSeconds");
    }
    let gated = !items(old, &["schedulingGates"]).is_empty();
    if gated && keeps_entries(map(spec, &["nodeSelector"]), map(old, &["nodeSelector"])) {
        restore(spec, old, "nodeSelector");
    }
}

/// A pod that waits at a gate may get further node labels to select by.
fn keeps_entries(new: Option<&Object>, old: Option<&Object>) -> bool {
    old.into_iter()
        .flatten()
        .all(|(key, value)| new.and_then(|new| new.get(key)) == Some(value))
}

fn active_deadline(spec: &Object, old: &Object) -> Option<FieldError> {
    let path = "spec.activeDeadlineSeconds";
    let old_value = integer(old, &["activeDeadlineSeconds"]);
    match (integer(spec, &["activeDeadlineSeconds"]), old_value) {
        (Some(value), _) if !(0..=i64::from(i32::MAX)).contains(&value) => {
            Some(FieldError::invalid(path, value, &range_error(0, i32::MAX)))
        }
        (Some(value), Some(old)) if old < value => Some(FieldError::invalid(
            path,
            value,
            "must be less than or equal to previous value",
        )),
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            Some(FieldError::invalid(path, Value::Null, detail))
        }
        _ => None,
    }
}

/// Tolerations may be added; of those there, only the seconds may change.
fn added_tolerations(spec: &Object, old: &Object) -> Vec<FieldError> {
    let without_seconds = |toleration: &Object| {
        let mut toleration = toleration.clone();
        toleration.remove("tolerationSeconds");
        toleration
    };
    let new: Vec<Object> = objects(spec, &["tolerations"])
        .map(|(_, toleration)| without_seconds(toleration))
        .collect();
    let kept = objects(old, &["tolerations"])
        .all(|(_, toleration)| new.iter().any(|new| objects_equal(new, &without_seconds(toleration))));
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return vec![FieldError::forbidden("spec.tolerations", detail)];
    }
    tolerations(items(spec, &["tolerations"]), "spec.tolerations")
}

fn removed_gates(spec: &Object, old: &Object) -> Vec<FieldError> {
    let known: Vec<&str> = objects(old, &["schedulingGates"])
        .map(|(_, gate)| text(gate, &["name"]))
        .collect();
    objects(spec, &["schedulingGates"])
        .filter(|(_, gate)| !known.contains(&text(gate, &["name"])))
        .map(|(index, gate)| {
            let name = text(gate, &["name"]);
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            FieldError::forbidden(format!("spec.schedulingGates[{index}].name"), &detail)
        })
        .collect()
}

/// Equal but for what Go does not tell apart: absent and empty.
fn objects_equal(a: &Object, b: &Object) -> bool {
    differing(a, b).next().is_none()
}

fn differing<'a>(a: &'a Object, b: &'a Object) -> impl Iterator<Item = &'a str> {
    let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
    keys.filter(|key| !values_equal(a.get(*key), b.get(*key)))
        .map(String::as_str)
}

fn values_equal(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => objects_equal(a, b),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values_equal(Some(a), Some(b)))
        }
        (a, b) => a == b || (empty(a) && empty(b)),
    }
}

/// Updates of the status.
pub fn validate_status(pod: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, condition) in objects(pod, &["status", "conditions"]) {
        let kind = text(condition, &["type"]);
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let path = format!("metadata.conditions[{index}].Type");
            errors.extend(
                label_key(kind)
                    .iter()
                    .map(|problem| FieldError::invalid(path.as_str(), kind, problem)),
            );
        }
    }
    let nominated = text(pod, &["status", "nominatedNodeName"]);
    if !nominated.is_empty() && nominated != text(old, &["status", "nominatedNodeName"]) {
        for problem in dns1123_subdomain(nominated, false) {
            errors.push(FieldError::invalid("status.nominatedNodeName", nominated, &problem));
        }
    }
    let class = |pod| at(pod, &["status", "qosClass"]);
    errors.extend(immutable(class(pod), class(old), "status.qosClass"));
    let policy = text(old, &["spec", "restartPolicy"]);
    let sidecars: Vec<&str> = objects(old, &["spec", "initContainers"])
        .filter(|(_, container)| text(container, &["restartPolicy"]) == "Always")
        .map(|(_, container)| text(container, &["name"]))
        .collect();
    errors.extend(terminated_stays(pod, old, "containerStatuses", policy, &[]));
    errors.extend(terminated_stays(pod, old, "initContainerStatuses", policy, &sidecars));
    errors.extend(terminated_stays(pod, old, "ephemeralContainerStatuses", "Never", &[]));
    for list in ["podIPs", "hostIPs"] {
        for (index, entry) in objects(pod, &["status", list]) {
            let ip = text(entry, &["ip"]);
            let path = format!("status.{list}[{index}]");
            errors.extend(
                ip_address(ip)
                    .iter()
                    .map(|problem| FieldError::invalid(path.as_str(), ip, problem)),
            );
        }
    }
    errors
}

/// A container that is not restarted cannot leave the terminated state.
fn terminated_stays(pod: &Object, old: &Object, list: &str, policy: &str, sidecars: &[&str]) -> Vec<FieldError> {
    if policy == "Always" {
        return Vec::new();
    }
    let mut errors = Vec::new();
    for (index, before) in objects(old, &["status", list]) {
        let name = text(before, &["name"]);
        let Some(terminated) = map(before, &["state", "terminated"]) else {
            continue;
        };
        let failed = integer(terminated, &["exitCode"]).unwrap_or_default() != 0;
        if (failed && policy == "OnFailure") || sidecars.contains(&name) {
            continue;
        }
        let left = objects(pod, &["status", list])
            .any(|(_, after)| text(after, &["name"]) == name && at(after, &["state", "terminated"]).is_none());
        if left {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(format!("status.{list}[{index}].state"), detail));
        }
    }
    errors
}

/// Ephemeral containers can only be added.
pub fn validate_ephemeral_containers(pod: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, before) in objects(old, &["spec", "ephemeralContainers"]) {
        let path = format!("spec.ephemeralContainers[{index}]");
        let name = text(before, &["name"]);
        let after = objects(pod, &["spec", "ephemeralContainers"]).find(|(_, after)| text(after, &["name"]) == name);
        match after {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(path, &detail));
            }
            Some((_, after)) if !objects_equal(after, before) => {
                let changed: Vec<&str> = differing(after, before).collect();
                let detail = format!(
                    "existing ephemeral containers {name:?} may not be changed\nchanged: {}",
                    changed.join(", ")
                );
                errors.push(FieldError::forbidden(path, &detail));
            }
            Some(_) => {}
        }
    }
    errors
}
