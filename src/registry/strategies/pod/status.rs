//! What the status of a pod may be (upstream: `ValidatePodStatusUpdate`).

use super::validate::annotations;
use super::validate::invalid;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key, user_id};
use crate::registry::json::{at, child, integer, items, map, number, objects, text};
use crate::registry::network::{is_dual_stack, legacy_ip};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LISTS: [&str; 3] = [
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
];
const IMAGE_REF_BYTES_MAX: usize = 256;

/// `podIP` is what older clients write, and the first of `podIPs`.
pub fn complete(pod: &mut Object) {
    let Some(status) = child(pod, "status") else { return };
    let first = objects(status, &["podIPs"])
        .next()
        .map(|(_, ip)| text(ip, &["ip"]).to_owned());
    let ip = text(status, &["podIP"]).to_owned();
    match (ip.as_str(), first) {
        ("", Some(first)) => {
            status.insert("podIP".into(), json!(first));
        }
        ("", None) => {}
        (ip, first) if first.as_deref() != Some(ip) => {
            status.insert("podIPs".into(), json!([{"ip": ip}]));
        }
        _ => {}
    }
}

pub fn validate(pod: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = annotations::update(pod, old);
    errors.extend(conditions(pod));
    let nominated = text(pod, &["status", "nominatedNodeName"]);
    if !nominated.is_empty() && nominated != text(old, &["status", "nominatedNodeName"]) {
        let path = "status.nominatedNodeName";
        errors.extend(invalid(path, nominated, &dns1123_subdomain(nominated, false)));
        if !text(old, &["spec", "nodeName"]).is_empty() {
            let detail = "may not be set on pods that are already bound to a node";
            errors.push(FieldError::forbidden(path, detail));
        }
    }
    errors.extend(generation(map(pod, &["status"]), "status"));
    let class = |pod| at(pod, &["status", "qosClass"]);
    errors.extend(immutable(class(pod), class(old), "status.qosClass"));
    for list in LISTS {
        errors.extend(terminated_stays(pod, old, list));
    }
    errors.extend(claim_statuses(pod));
    errors.extend(extended_claim(pod));
    errors.extend(addresses(pod, old, "podIP", "podIPs"));
    errors.extend(addresses(pod, old, "hostIP", "hostIPs"));
    for list in LISTS {
        for (index, status) in objects(pod, &["status", list]) {
            errors.extend(container_status(pod, status, &format!("status.{list}[{index}]"), list));
        }
    }
    errors
}

fn generation(owner: Option<&Object>, path: &str) -> Option<FieldError> {
    let generation = integer(owner?, &["observedGeneration"]).filter(|generation| *generation < 0)?;
    let detail = "must be a non-negative integer";
    Some(FieldError::invalid(
        format!("{path}.observedGeneration"),
        generation,
        detail,
    ))
}

fn conditions(pod: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, condition) in objects(pod, &["status", "conditions"]) {
        let path = format!("status.conditions[{index}]");
        errors.extend(generation(Some(condition), &path));
        let kind = text(condition, &["type"]);
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.extend(invalid(&format!("{path}.Type"), kind, &label_key(kind)));
        }
    }
    errors
}

/// Whether a container may run again after it ended with `exit_code`: by its rules, its own policy, the pod's.
fn may_restart(spec: &Object, container: &Object, exit_code: i64) -> bool {
    for (_, rule) in objects(container, &["restartPolicyRules"]) {
        let listed = items(rule, &["exitCodes", "values"])
            .iter()
            .any(|code| code.as_i64() == Some(exit_code));
        let matches = match text(rule, &["exitCodes", "operator"]) {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches {
            return text(rule, &["action"]) == "Restart";
        }
    }
    let policy = match text(container, &["restartPolicy"]) {
        "" => text(spec, &["restartPolicy"]),
        own => own,
    };
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// A container that is not restarted cannot leave the terminated state.
fn terminated_stays(pod: &Object, old: &Object, list: &str) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(old, &["spec"]).unwrap_or(&empty);
    let containers: Vec<&Object> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| objects(spec, std::slice::from_ref(list)))
        .map(|(_, container)| container)
        .collect();
    let restarts_all = containers.iter().any(|container| {
        objects(container, &["restartPolicyRules"]).any(|(_, rule)| text(rule, &["action"]) == "RestartAllContainers")
    });
    if restarts_all && list != "ephemeralContainerStatuses" {
        return Vec::new();
    }
    let spec_list = list
        .strip_suffix("Statuses")
        .map(|list| format!("{list}s"))
        .unwrap_or_default();
    let mut errors = Vec::new();
    for (index, before) in objects(old, &["status", list]) {
        let name = text(before, &["name"]);
        let Some(terminated) = map(before, &["state", "terminated"]) else {
            continue;
        };
        let left = objects(pod, &["status", list])
            .any(|(_, after)| text(after, &["name"]) == name && at(after, &["state", "terminated"]).is_none());
        let container = objects(spec, &[&spec_list]).find(|(_, container)| text(container, &["name"]) == name);
        let allowed = list != "ephemeralContainerStatuses"
            && container.is_some_and(|(_, container)| may_restart(spec, container, number(terminated, &["exitCode"])));
        if left && !allowed {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(format!("status.{list}[{index}].state"), detail));
        }
    }
    errors
}

fn claim_statuses(pod: &Object) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    for (index, status) in objects(pod, &["status", "resourceClaimStatuses"]) {
        let path = format!("status.resourceClaimStatuses[{index}]");
        let name = text(status, &["name"]);
        if !objects(pod, &["spec", "resourceClaims"]).any(|(_, claim)| text(claim, &["name"]) == name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(format!("{path}.name"), name, detail));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        if let Some(claim) = status.get("resourceClaimName").and_then(Value::as_str) {
            let path = format!("{path}.resourceClaimName");
            errors.extend(invalid(&path, claim, &dns1123_subdomain(claim, false)));
        }
    }
    errors
}

fn extended_claim(pod: &Object) -> Vec<FieldError> {
    let path = "status.extendedResourceClaimStatus";
    let Some(status) = map(pod, &["status", "extendedResourceClaimStatus"]) else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    if items(status, &["requestMappings"]).is_empty() {
        let detail = "at least one request mapping is required";
        errors.push(FieldError::required(format!("{path}.requestMappings"), detail));
    }
    for (index, mapping) in objects(status, &["requestMappings"]) {
        let path = format!("{path}.requestMappings[{index}]");
        let (container, resource) = (text(mapping, &["containerName"]), text(mapping, &["resourceName"]));
        let found = ["initContainers", "containers"]
            .iter()
            .flat_map(|list| objects(pod, &["spec", list]).collect::<Vec<_>>())
            .find(|(_, other)| text(other, &["name"]) == container);
        match found {
            None => {
                let detail = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.push(FieldError::invalid(format!("{path}.containerName"), container, detail));
            }
            Some((_, found)) if at(found, &["resources", "requests", resource]).is_none() => {
                let detail = "must match the extended resource name of an entry in \
                    spec.initContainers.resources.requests or spec.containers.resources.requests";
                errors.push(FieldError::invalid(format!("{path}.resourceName"), resource, detail));
            }
            Some(_) => {}
        }
        let request = text(mapping, &["requestName"]);
        let field = "status.extendedResourceClaimStatus.requestName";
        errors.extend(invalid(field, request, &dns1123_label(request, false)));
    }
    match text(status, &["resourceClaimName"]) {
        "" => errors.push(FieldError::required(format!("{path}.resourceClaimName"), "")),
        name => {
            let path = format!("{path}.resourceClaimName");
            errors.extend(invalid(&path, name, &dns1123_subdomain(name, false)));
        }
    }
    errors
}

/// Addresses of the pod or of its host: one of each family, and the single field is the first.
fn addresses(pod: &Object, old: &Object, single: &str, list: &str) -> Vec<FieldError> {
    let path = format!("status.{list}");
    let ips = |pod| {
        objects(pod, &["status", list])
            .map(|(_, ip)| text(ip, &["ip"]))
            .collect::<Vec<&str>>()
    };
    let (new, known, first) = (ips(pod), ips(old), text(pod, &["status", single]));
    let shown = || json!(items(pod, &["status", list]));
    let mut errors = Vec::new();
    for (index, ip) in new.iter().enumerate() {
        errors.extend(legacy_ip(&format!("{path}[{index}]"), ip, &known));
    }
    if new.len() > 1 && (new.len() > 2 || !is_dual_stack(new.iter().copied())) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path.as_str(), shown(), detail));
    }
    if new.first().is_some_and(|ip| *ip != first) {
        let detail = format!("must be equal to `{single}`");
        errors.push(FieldError::invalid(format!("{path}[0].ip"), new[0], &detail));
    }
    errors
}

fn container_status(pod: &Object, status: &Object, path: &str, list: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(user) = map(status, &["user", "linux"]) {
        let path = format!("{path}.user.linux");
        if text(pod, &["spec", "os", "name"]) == "windows" {
            errors.push(FieldError::forbidden(path, "cannot be set for a windows pod"));
        } else {
            let uid = number(user, &["uid"]);
            if !(0..=i64::from(u32::MAX)).contains(&uid) {
                let detail = format!("must be between 0 and {}, inclusive", u32::MAX);
                errors.push(FieldError::invalid(format!("{path}.uid"), uid, &detail));
            }
            let mut group = |field: String, id: i64| {
                for problem in user_id(id) {
                    errors.push(FieldError::invalid(field.as_str(), id, &problem));
                }
            };
            group(format!("{path}.gid"), number(user, &["gid"]));
            for (index, id) in items(user, &["supplementalGroups"]).iter().enumerate() {
                group(format!("{path}.supplementalGroups[{index}]"), id.as_i64().unwrap_or(-1));
            }
        }
    }
    if list == "ephemeralContainerStatuses" && !items(status, &["allocatedResourcesStatus"]).is_empty() {
        let detail = "must not be specified in container status";
        errors.push(FieldError::forbidden(
            format!("{path}.allocatedResourcesStatus"),
            detail,
        ));
    }
    for (index, mount) in objects(status, &["volumeMounts"]) {
        let Some(image) = map(mount, &["volumeStatus", "image"]) else {
            continue;
        };
        let path = format!("{path}.volumeMounts[{index}].volumeStatus.imageVolumeStatus.imageRef");
        match text(image, &["imageRef"]).len() {
            0 => errors.push(FieldError::required(path, "imageRef must not be empty")),
            length if length > IMAGE_REF_BYTES_MAX => errors.push(FieldError::too_long(path, IMAGE_REF_BYTES_MAX)),
            _ => {}
        }
    }
    errors
}
