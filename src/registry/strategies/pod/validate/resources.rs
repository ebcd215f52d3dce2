//! Requests and limits (upstream: `ValidateContainerResourceRequirements` and what it calls).

use super::one_of;
use crate::quantity::Quantity;
use crate::registry::field::FieldError;
use crate::registry::formats::label_key;
use crate::registry::json::{is_set, map, objects, quantity, text};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::BTreeSet;

/// What a container can ask for without a domain in the name, besides huge pages.
const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Whole names without a domain that exist for any purpose (quotas, storage, nodes).
const STANDARD_RESOURCES: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// The resources that only come in whole units.
const WHOLE_RESOURCES: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Without a domain, or in Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Devices and the like.
fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && label_key(&format!("requests.{name}")).is_empty()
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_hugepages(name)
}

/// The `resources` of a container at `path`, with the claims of the pod that it may name.
pub fn container(container: &Object, path: &str, claims: &BTreeSet<&str>) -> Vec<FieldError> {
    let Some(resources) = map(container, &["resources"]) else {
        return Vec::new();
    };
    let mut errors = container_resources(resources, path);
    let mut seen = BTreeSet::new();
    for (index, claim) in objects(resources, &["claims"]) {
        let (name, path) = (text(claim, &["name"]), format!("{path}.claims[{index}]"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !seen.insert((name, text(claim, &["request"]))) {
            errors.push(FieldError::duplicate(path, Value::Object(claim.clone())));
        } else if !claims.contains(name) {
            errors.push(FieldError::not_found(format!("{path}.name"), name));
        }
    }
    errors
}

/// Limits and requests at `path`.
pub fn container_resources(resources: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = Object::new();
    let list = |name: &str| map(resources, &[name]).unwrap_or(&empty);
    let (limits, requests) = (list("limits"), list("requests"));
    let (limits_path, requests_path) = (format!("{path}.limits"), format!("{path}.requests"));
    for (name, value) in limits {
        errors.extend(entry(name, value, &format!("{limits_path}[{name}]")));
    }
    for (name, value) in requests {
        errors.extend(entry(name, value, &format!("{requests_path}[{name}]")));
        let request = quantity(value).unwrap_or(Quantity::ZERO);
        match limits.get(name).and_then(quantity) {
            Some(limit) if request != limit && !may_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(
                    requests_path.as_str(),
                    request.to_string(),
                    &detail,
                ));
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(
                    requests_path.as_str(),
                    request.to_string(),
                    &detail,
                ));
            }
            None if !may_overcommit(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(limits_path.as_str(), detail));
            }
            _ => {}
        }
    }
    let names = || limits.keys().chain(requests.keys());
    let compute = names().any(|name| name == "cpu" || name == "memory");
    if !compute && names().any(|name| is_hugepages(name)) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    errors
}

fn entry(name: &str, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = container_resource_name(name, path);
    errors.extend(quantity_value(name, value, path));
    errors
}

/// The name of a resource that a container asks for.
pub fn container_resource_name(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = resource_name(name, path);
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !is_hugepages(name) {
            errors.push(FieldError::invalid(
                path,
                name,
                "must be a standard resource for containers",
            ));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(
            path,
            name,
            "doesn't follow extended resource name standard",
        ));
    }
    errors
}

/// The name of a resource for any purpose.
pub fn resource_name(name: &str, path: &str) -> Vec<FieldError> {
    let errors = super::invalid(path, name, &label_key(name));
    let known = name.contains('/') || STANDARD_RESOURCES.contains(&name) || is_hugepages(name);
    if errors.is_empty() && !known {
        let detail = "must be a standard resource type or fully qualified";
        return vec![FieldError::invalid(path, name, detail)];
    }
    errors
}

/// Not below zero, and whole where only whole units exist.
pub fn quantity_value(name: &str, value: &Value, path: &str) -> Vec<FieldError> {
    let Some(amount) = quantity(value) else {
        return vec![FieldError::invalid(
            path,
            value.clone(),
            &crate::quantity::ParseQuantityError.to_string(),
        )];
    };
    let mut errors = Vec::new();
    if amount.is_negative() {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path, amount.to_string(), detail));
    }
    if (WHOLE_RESOURCES.contains(&name) || is_extended(name)) && amount.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
    errors
}

/// `spec.resources` of a pod: the same lists without claims.
pub fn pod_level(spec: &Object, path: &str) -> Vec<FieldError> {
    let Some(resources) = map(spec, &["resources"]) else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    if is_set(resources, "claims") {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(FieldError::forbidden(format!("{path}.claims"), detail));
    }
    errors.extend(container_resources(resources, path));
    errors
}

/// How resizing cpu and memory restarts the container.
pub fn resize_policy(container: &Object, path: &str, restart_policy: &str) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, policy) in objects(container, &["resizePolicy"]) {
        let name = text(policy, &["resourceName"]);
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), name));
        }
        for (field, values) in [
            ("resourceName", ["cpu", "memory"]),
            ("restartPolicy", ["NotRequired", "RestartContainer"]),
        ] {
            // Upstream blames the list, not the field.
            if let Some(error) = one_of(policy, field, &values, path) {
                errors.push(FieldError {
                    path: path.to_owned(),
                    ..error
                });
            }
        }
        let restart = text(policy, &["restartPolicy"]);
        if restart_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart, detail));
        }
    }
    errors
}
