//! What an update of a pod may change (upstream: `ValidatePodUpdate`,
//! `ValidatePodEphemeralContainersUpdate` in `pkg/apis/core/validation/validation.go`).

use super::validate::annotations::{self, is_mirror};
use super::validate::tolerations;
use crate::registry::field::FieldError;
use crate::registry::formats::range_error;
use crate::registry::json::{child, children, integer, items, map, objects, restore, text};
use crate::registry::strategy::Object;
use serde_json::Value;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
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
        "resize" => super::resize::keep_only(spec, written),
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
    errors.extend(annotations::update(pod, old));
    if let Some(error) = active_deadline(spec, old_spec) {
        errors.push(error);
    }
    errors.extend(added_tolerations(spec, old_spec));
    errors.extend(removed_gates(spec, old_spec));
    if !items(old_spec, &["schedulingGates"]).is_empty() {
        errors.extend(gated(spec, old_spec));
    }

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
    // A pod that waits at a gate may be told more precisely where to run; how, was checked before.
    if !items(old, &["schedulingGates"]).is_empty() {
        restore(spec, old, "nodeSelector");
        let old_affinity = map(old, &["affinity"])
            .and_then(|affinity| affinity.get("nodeAffinity"))
            .cloned();
        let mut affinity = map(spec, &["affinity"]).cloned().unwrap_or_default();
        match old_affinity {
            Some(nodes) => affinity.insert("nodeAffinity".into(), nodes),
            None => affinity.remove("nodeAffinity"),
        };
        spec.insert("affinity".into(), Value::Object(affinity));
    }
}

/// Node selector and node affinity of a pod at a gate may only get stricter.
fn gated(spec: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let selector = map(spec, &["nodeSelector"]);
    let kept = map(old, &["nodeSelector"])
        .into_iter()
        .flatten()
        .all(|(key, value)| selector.and_then(|selector| selector.get(key)) == Some(value));
    if !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let shown = Value::Object(selector.cloned().unwrap_or_default());
        errors.push(FieldError::invalid("spec.nodeSelector", shown, detail));
    }
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let path = format!("spec.affinity.nodeAffinity.{required}.nodeSelectorTerms");
    let terms = |spec| items(spec, &["affinity", "nodeAffinity", required, "nodeSelectorTerms"]);
    let (new, before) = (terms(spec), terms(old));
    if before.is_empty() {
        return errors;
    }
    if new.len() != before.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, new.to_vec(), detail));
        return errors;
    }
    for (index, (new, before)) in new.iter().zip(before).enumerate() {
        let list = |term: &Value, field: &str| term.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let fields = ["matchExpressions", "matchFields"];
        let grown = |field: &&str| list(new, field).starts_with(&list(before, field));
        let was_empty = fields.iter().all(|field| list(before, field).is_empty());
        let is_empty = fields.iter().all(|field| list(new, field).is_empty());
        if !fields.iter().all(grown) || (was_empty && !is_empty) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(format!("{path}[{index}]"), new.clone(), detail));
        }
    }
    errors
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
pub fn objects_equal(a: &Object, b: &Object) -> bool {
    differing(a, b).next().is_none()
}

fn differing<'a>(a: &'a Object, b: &'a Object) -> impl Iterator<Item = &'a str> {
    let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
    keys.filter(|key| !values_equal(a.get(*key), b.get(*key)))
        .map(String::as_str)
}

pub fn values_equal(a: Option<&Value>, b: Option<&Value>) -> bool {
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

/// Ephemeral containers can only be added.
pub fn validate_ephemeral_containers(pod: &Object, old: &Object) -> Vec<FieldError> {
    if is_mirror(old) {
        return vec![FieldError::forbidden(
            "",
            "static pods do not support ephemeral containers",
        )];
    }
    let mut errors = annotations::update(pod, old);
    for (_, before) in objects(old, &["spec", "ephemeralContainers"]) {
        let path = "spec.ephemeralContainers";
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
