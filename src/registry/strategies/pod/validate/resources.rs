//! Requests and limits (upstream: `ValidateContainerResourceRequirements` and what it calls).

use super::super::aggregate;
use super::one_of;
use crate::quantity::Quantity;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, label_key};
use crate::registry::json::{map, objects, quantity, text};
use crate::registry::strategy::Object;
use crate::usage::is_native;
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
    let mut errors = requirements(resources, container_resource_name, path);
    errors.extend(claim_names(resources, claims, &format!("{path}.claims")));
    errors
}

/// Each entry names a claim of the pod, or one request of it, and nothing twice.
fn claim_names(resources: &Object, claims: &BTreeSet<&str>, path: &str) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::<String>::new());
    for (index, claim) in objects(resources, &["claims"]) {
        let (name, request) = (text(claim, &["name"]), text(claim, &["request"]));
        let path = format!("{path}[{index}]");
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if seen.contains(name) {
            errors.push(FieldError::duplicate(path.as_str(), name));
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                let problems = dns1123_label(request, false);
                errors.extend(super::invalid(&format!("{path}.request"), request, &problems));
                key = format!("{name}/{request}");
            }
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(path.as_str(), key.as_str()));
            } else if request.is_empty() {
                let part = format!("{name}/");
                let parts = seen.iter().filter(|other| other.starts_with(&part)).count();
                errors.extend((0..parts).map(|_| FieldError::duplicate(path.as_str(), name)));
            }
            seen.insert(key);
        }
        if !claims.contains(name) {
            let known: Vec<&str> = claims.iter().copied().collect();
            let detail = match known.as_slice() {
                [] => "must be one of the names in pod.spec.resourceClaims which is empty".to_owned(),
                known => format!(
                    "must be one of the names in pod.spec.resourceClaims: {}",
                    known.join(", ")
                ),
            };
            errors.push(FieldError::not_found_because(path, name, &detail));
        }
    }
    errors
}

/// Limits of a container or the overhead of a pod at `path`.
pub fn container_resources(resources: &Object, path: &str) -> Vec<FieldError> {
    requirements(resources, container_resource_name, path)
}

/// Limits and requests at `path`.
fn requirements(resources: &Object, check_name: fn(&str, &str) -> Vec<FieldError>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let entry = |name: &str, value: &Value, path: &str| {
        let mut errors = check_name(name, path);
        errors.extend(quantity_value(name, value, path));
        errors.extend(huge_pages(name, value, path));
        errors
    };
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

/// Huge pages come whole: a multiple of the size in the name.
fn huge_pages(name: &str, value: &Value, path: &str) -> Option<FieldError> {
    let size: Quantity = name.strip_prefix("hugepages-")?.parse().ok()?;
    let amount = quantity(value)?;
    let whole = size.value() > 0 && amount.is_integer() && amount.value() % size.value() == 0;
    let detail = format!("{amount} is not positive integer multiple of {name}");
    (!whole).then(|| FieldError::invalid(path, amount.to_string(), &detail))
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

/// The name of a resource that a pod as a whole asks for.
fn pod_resource_name(name: &str, path: &str) -> Vec<FieldError> {
    let errors = resource_name(name, path);
    let known = matches!(name, "cpu" | "memory") || is_hugepages(name);
    if errors.is_empty() && !known {
        return vec![FieldError::not_supported(path, name, &["cpu", "hugepages-", "memory"])];
    }
    errors
}

/// `spec.resources` of a pod, which bound those of its containers.
pub fn pod_level(spec: &Object, path: &str) -> Vec<FieldError> {
    let Some(resources) = map(spec, &["resources"]) else {
        return Vec::new();
    };
    if text(spec, &["os", "name"]) == "windows" {
        return vec![FieldError::forbidden(path, "may not be set for a windows pod")];
    }
    let mut errors = Vec::new();
    if resources.contains_key("claims") {
        let detail = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(format!("{path}.claims"), detail));
    }
    errors.extend(requirements(resources, pod_resource_name, path));
    let of_pod = |list: &str, name: &str| resources.get(list).and_then(|list| list.get(name)).and_then(quantity);
    for (name, total) in aggregate::requests(spec) {
        if let Some(request) = of_pod("requests", &name).filter(|request| total > *request) {
            let detail = format!("must be greater than or equal to aggregate container requests of {total}");
            errors.push(FieldError::invalid(
                format!("{path}.requests[{name}]"),
                request.to_string(),
                &detail,
            ));
        }
    }
    for (name, total) in aggregate::limits(spec)
        .into_iter()
        .filter(|(name, _)| is_hugepages(name))
    {
        if let Some(limit) = of_pod("limits", &name).filter(|limit| total > *limit) {
            let detail = format!("must be greater than or equal to aggregate container limits of {total}");
            errors.push(FieldError::invalid(
                format!("{path}.limits[{name}]"),
                limit.to_string(),
                &detail,
            ));
        }
    }
    for (index, container) in objects(spec, &["containers"]) {
        for (name, value) in map(container, &["resources", "limits"]).into_iter().flatten() {
            let (Some(limit), Some(bound)) = (quantity(value), of_pod("limits", name)) else {
                continue;
            };
            if limit > bound {
                let detail = format!("must be less than or equal to pod limits of {bound}");
                let path = format!("{path}.containers[{index}][{name}].limits");
                errors.push(FieldError::invalid(path, limit.to_string(), &detail));
            }
        }
    }
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
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart, detail));
        }
    }
    errors
}
