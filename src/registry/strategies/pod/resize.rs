//! Changing what a running pod has (upstream: `ValidatePodResize`).

use super::qos_class;
use super::update::{objects_equal, values_equal};
use super::validate::annotations::is_mirror;
use crate::registry::field::FieldError;
use crate::registry::json::{at, child, children, items, map, objects, restore, text};
use crate::registry::strategy::Object;
use serde_json::Value;

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

pub fn validate(pod: &Object, old: &Object) -> Vec<FieldError> {
    let refuse = |detail: &str| vec![FieldError::forbidden("", detail)];
    if is_mirror(old) {
        return refuse("static pods cannot be resized");
    }
    if text(old, &["spec", "os", "name"]) == "windows" {
        return refuse("windows pods cannot be resized");
    }
    let empty = Object::new();
    let spec = |pod| map(pod, &["spec"]).unwrap_or(&empty);
    let (new_spec, old_spec) = (spec(pod), spec(old));
    let mut errors = Vec::new();
    let class = match text(old, &["status", "qosClass"]) {
        "" => qos_class(old_spec),
        class => class,
    };
    if class != qos_class(new_spec) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        let shown = text(pod, &["status", "qosClass"]);
        errors.push(FieldError::invalid("spec", shown, detail));
    }
    if !resizes_on_its_node(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "Pod running on node without support for resize",
        ));
    }
    errors.extend(pod_level(new_spec, old_spec));
    if !items(old, &["status", "nodeAllocatableResourceClaimStatuses"]).is_empty() {
        let detail = "pods with node allocatable resource claims cannot be resized";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let order = ordering(new_spec, old_spec);
    if !order.is_empty() {
        errors.extend(order);
        return errors;
    }
    for list in ["initContainers", "containers"] {
        for ((index, new), (_, before)) in objects(new_spec, &[list]).zip(objects(old_spec, &[list])) {
            let sidecar = text(before, &["restartPolicy"]) == "Always";
            let path = format!("spec.{list}[{index}].resources");
            for field in ["requests", "limits"] {
                if removed(new.get("resources"), before.get("resources"), field) {
                    let detail = format!("resource {field} cannot be removed");
                    errors.push(FieldError::forbidden(format!("{path}.{field}"), &detail));
                }
            }
            let (path, detail) = match list {
                "containers" => ("spec".to_owned(), "only cpu and memory resources are mutable"),
                _ => (
                    format!("spec.{list}[{index}]"),
                    "only cpu and memory resources for init or sidecar containers are mutable",
                ),
            };
            if !objects_equal(&masked(new, before), before) {
                errors.push(FieldError::forbidden(path, detail));
            }
            let restarts = objects(new, &["resizePolicy"])
                .any(|(_, policy)| text(policy, &["restartPolicy"]) == "RestartContainer");
            if list == "initContainers" && !sidecar && restarts && !objects_equal(new, before) {
                let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.push(FieldError::forbidden(format!("spec.{list}[{index}]"), detail));
            }
        }
    }
    errors
}

/// A container that runs and does not say with what is on a node that knows nothing of it.
fn resizes_on_its_node(pod: &Object) -> bool {
    let mut statuses = objects(pod, &["status", "containerStatuses"]);
    let running = statuses.find(|(_, status)| at(status, &["state", "running"]).is_some());
    running.is_none_or(|(_, status)| status.contains_key("resources"))
}

/// Resources of the pod as a whole: cpu and memory may change, nothing may go.
fn pod_level(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (resources, before) = (new.get("resources"), old.get("resources"));
    if resources.is_none() && before.is_some() {
        return vec![FieldError::forbidden(
            "spec.resources",
            "pod-level resources cannot be removed",
        )];
    }
    for field in ["requests", "limits"] {
        if removed(resources, before, field) {
            let detail = format!("pod-level resource {field} cannot be removed");
            errors.push(FieldError::forbidden(format!("spec.resources.{field}"), &detail));
        }
    }
    let masked = masked(new, old);
    if !values_equal(masked.get("resources"), before) {
        let detail = "only cpu and memory resources are mutable at pod-level";
        errors.push(FieldError::forbidden("spec", detail));
    }
    errors
}

fn removed(new: Option<&Value>, old: Option<&Value>, field: &str) -> bool {
    let names = |resources: Option<&Value>| -> Vec<String> {
        let list = resources
            .and_then(|resources| resources.get(field))
            .and_then(Value::as_object);
        list.map(|list| list.keys().cloned().collect()).unwrap_or_default()
    };
    let new = names(new);
    names(old).iter().any(|name| !new.contains(name))
}

/// `owner` with the stored amounts of what may be resized.
fn masked(owner: &Object, old: &Object) -> Object {
    let mut owner = owner.clone();
    let empty = Object::new();
    if let Some(resources) = child(&mut owner, "resources") {
        for list in ["limits", "requests"] {
            let before = map(old, &["resources", list]).unwrap_or(&empty);
            if !resources.contains_key(list) && !before.is_empty() {
                resources.insert(list.into(), Value::Object(Object::new()));
            }
            if let Some(amounts) = child(resources, list) {
                RESIZABLE.iter().for_each(|name| restore(amounts, before, name));
            }
        }
    }
    owner
}

fn ordering(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        if items(new, &[list]).len() != items(old, &[list]).len() {
            let detail = format!("{list} may not be added or removed on resize");
            errors.push(FieldError::forbidden(format!("spec.{list}"), &detail));
            continue;
        }
        for ((index, new), (_, old)) in objects(new, &[list]).zip(objects(old, &[list])) {
            if text(new, &["name"]) != text(old, &["name"]) {
                let detail = format!("{list} may not be renamed or reordered on resize");
                errors.push(FieldError::forbidden(format!("spec.{list}[{index}].name"), &detail));
            }
        }
    }
    errors
}

/// The subresource writes resources and how they are resized; where the containers are others, that is kept to be
/// refused.
pub fn keep_only(spec: &mut Object, written: &Object) {
    if !ordering(written, spec).is_empty() {
        for list in ["containers", "initContainers"] {
            restore(spec, written, list);
        }
        return;
    }
    restore(spec, written, "resources");
    for list in ["containers", "initContainers"] {
        let wanted: Vec<Object> = objects(written, &[list])
            .map(|(_, container)| container.clone())
            .collect();
        for (container, wanted) in children(spec, list).zip(&wanted) {
            restore(container, wanted, "resources");
            restore(container, wanted, "resizePolicy");
        }
    }
}
