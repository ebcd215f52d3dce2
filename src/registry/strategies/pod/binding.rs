//! Binding a pod to a node (upstream: `pkg/registry/core/pod/storage/storage.go`, `BindingREST`).

use crate::registry::field::FieldError;
use crate::registry::json::{child_or_new, is_set, map, text};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

/// What is wrong with a Binding itself.
pub fn validate_binding(binding: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(binding, &["target", "kind"]) {
        "" | "Node" => {}
        other => errors.push(FieldError::not_supported("target.kind", other, &["Node", "<empty>"])),
    }
    if text(binding, &["target", "name"]).is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    errors
}

/// Assigns the pod to the binding's target and says it is scheduled; `now` is an RFC 3339 time.
///
/// The error says why the pod cannot be bound: a conflict.
pub fn bind(pod: &mut Object, binding: &Object, now: &str) -> Result<(), String> {
    let name = text(pod, &["metadata", "name"]);
    if !text(pod, &["metadata", "deletionTimestamp"]).is_empty() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if map(pod, &["spec"]).is_some_and(|spec| is_set(spec, "schedulingGates")) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let target = json!(text(binding, &["target", "name"]));
    child_or_new(pod, "spec").insert("nodeName".into(), target);
    let metadata = child_or_new(pod, "metadata");
    if let Some(annotations) = map(binding, &["metadata", "annotations"]).filter(|map| !map.is_empty()) {
        child_or_new(metadata, "annotations").extend(annotations.clone());
    }
    if let Some(labels) = map(binding, &["metadata", "labels"]).filter(|map| !map.is_empty()) {
        let existing = child_or_new(metadata, "labels");
        for (key, value) in labels {
            existing.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    set_scheduled(child_or_new(pod, "status"), now);
    Ok(())
}

/// Condition PodScheduled becomes True; its transition time only changes with the status.
fn set_scheduled(status: &mut Object, now: &str) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now});
    match conditions
        .iter_mut()
        .find(|condition| condition.get("type").and_then(Value::as_str) == Some("PodScheduled"))
    {
        Some(condition) => {
            if condition.get("status").and_then(Value::as_str) == Some("True") {
                scheduled["lastTransitionTime"] = condition.get("lastTransitionTime").cloned().unwrap_or_default();
            }
            *condition = scheduled;
        }
        None => conditions.push(scheduled),
    }
}
