//! Rules of pods and pod templates, in upstream's words (upstream: `ValidatePodCreate`, `ValidatePodSpec` in
//! `pkg/apis/core/validation/validation.go`).

mod affinity;
pub mod annotations;
mod containers;
mod env;
mod mounts;
mod probes;
mod resources;
mod security;
mod volumes;
mod windows;

pub use affinity::{label_selector, node_selector};
pub use probes::port;
pub use resources::{container_resource_name, container_resources, quantity_value, resource_name};

use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, ip_address, label_key, label_value, range_error};
use crate::registry::json::{boolean, integer, is_set, items, map, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::{annotations as annotations_at, labels};
use serde_json::Value;
use std::collections::BTreeSet;

const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const HOST_NAME_BYTES_MAX: usize = 64;
const SEARCH_LIST_CHARACTERS_MAX: usize = 2048;

/// Rules for every write of a pod.
pub fn pod(pod: &Object) -> Vec<FieldError> {
    let Some(spec) = map(pod, &["spec"]) else {
        return vec![FieldError::required("spec.containers", "")];
    };
    let annotations = map(pod, &["metadata", "annotations"]);
    let mut errors = annotations::of_pod(annotations, spec, "metadata.annotations");
    errors.extend(pod_spec(spec, "spec", Some(pod)));
    if text(spec, &["serviceAccountName"]).is_empty() {
        for (index, volume) in objects(spec, &["volumes"]) {
            for (source_index, source) in objects(volume, &["projected", "sources"]) {
                if source.contains_key("serviceAccountToken") {
                    let path = format!("spec.volumes[{index}].projected.sources[{source_index}].serviceAccountToken");
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.push(FieldError::forbidden(path, detail));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in objects(spec, &[list]) {
            errors.extend(containers::image_whitespace(
                container,
                &format!("spec.{list}[{index}]"),
            ));
        }
    }
    errors
}

/// Rules for new pods only.
pub fn pod_create(pod: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = map(pod, &["spec"]) else { return errors };
    if is_set(spec, "ephemeralContainers") {
        errors.push(FieldError::forbidden(
            "spec.ephemeralContainers",
            "cannot be set on create",
        ));
    }
    if is_set(spec, "nodeName") && is_set(spec, "schedulingGates") {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden("spec.nodeName", detail));
    }
    errors.extend(annotations::match_fields(
        map(pod, &["metadata", "annotations"]),
        spec,
        "spec",
    ));
    errors
}

/// Rules of a pod spec at `path`; `pod` is the pod that it is of, None in the template of a workload.
pub fn pod_spec(spec: &Object, path: &str, pod: Option<&Object>) -> Vec<FieldError> {
    let is_pod = pod.is_some();
    let pod_name = pod.map_or("", |pod| text(pod, &["metadata", "name"]));
    let at = |field: &str| format!("{path}.{field}");
    let mut errors = Vec::new();
    if integer(spec, &["terminationGracePeriodSeconds"]).is_none() {
        errors.push(FieldError::required(at("terminationGracePeriodSeconds"), ""));
    }
    let known_volumes = volumes::validate(spec, pod_name, &at("volumes"), &mut errors);
    let is_mirror = pod.is_some_and(annotations::is_mirror);
    errors.extend(resource_claims(spec, is_mirror, &at("resourceClaims")));
    errors.extend(containers::validate(spec, path, &known_volumes));
    errors.extend(resources::pod_level(spec, &at("resources")));
    errors.extend(host_network_ports(spec, path, is_pod));
    errors.extend(one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path));
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(one_of(spec, "dnsPolicy", &policies, path));
    if let Some(selector) = map(spec, &["nodeSelector"]) {
        errors.extend(labels(selector, &at("nodeSelector")));
    }
    errors.extend(security::pod(spec, path));
    if let Some(affinity) = map(spec, &["affinity"]) {
        errors.extend(affinity::validate(affinity, &at("affinity")));
    }
    errors.extend(dns_config(spec, &at("dnsConfig")));
    for (index, gate) in objects(spec, &["readinessGates"]) {
        let path = format!("{path}.readinessGates[{index}].conditionType");
        errors.extend(invalid(
            &path,
            text(gate, &["conditionType"]),
            &label_key(text(gate, &["conditionType"])),
        ));
    }
    errors.extend(scheduling_gates(spec, &at("schedulingGates")));
    errors.extend(affinity::topology_spread(spec, &at("topologySpreadConstraints")));
    errors.extend(windows::host_process(spec, path));
    errors.extend(host_name(spec, path));
    errors.extend(names(spec, path));
    let deadline = integer(spec, &["activeDeadlineSeconds"]);
    if let Some(deadline) = deadline.filter(|deadline| !(1..=i64::from(i32::MAX)).contains(deadline)) {
        let problem = range_error(1, i32::MAX);
        errors.push(FieldError::invalid(at("activeDeadlineSeconds"), deadline, &problem));
    }
    errors.extend(tolerations(items(spec, &["tolerations"]), &at("tolerations")));
    errors.extend(host_aliases(spec, &at("hostAliases")));
    if spec.contains_key("preemptionPolicy") {
        errors.extend(one_of(
            spec,
            "preemptionPolicy",
            &["PreemptLowerPriority", "Never"],
            path,
        ));
    }
    if let Some(overhead) = spec.get("overhead") {
        let limits = Object::from_iter([("limits".to_owned(), overhead.clone())]);
        errors.extend(resources::container_resources(&limits, &at("overhead")));
    }
    errors.extend(windows::os(spec, path));
    if let Some(group) = map(spec, &["schedulingGroup"]) {
        let path = at("schedulingGroup.podGroupName");
        match group.get("podGroupName").and_then(Value::as_str) {
            None => {
                let detail = "must specify one of: `podGroupName`";
                errors.push(FieldError::invalid(path, Value::Null, detail));
            }
            Some(name) => errors.extend(invalid(&path, name, &dns1123_subdomain(name, false))),
        }
    }
    errors.extend(env::file_volumes(spec, path));
    errors
}

/// Every container of the spec at `path`, with its own path, in upstream's order of visiting.
pub fn containers_of<'a>(spec: &'a Object, path: &str) -> Vec<(String, &'a Object)> {
    let mut all = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in objects(spec, &[list]) {
            all.push((format!("{path}.{list}[{index}]"), container));
        }
    }
    all
}

/// Claims of devices, each by name or by template.
fn resource_claims(spec: &Object, is_mirror: bool, path: &str) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    for (index, claim) in objects(spec, &["resourceClaims"]) {
        if is_mirror {
            errors.push(FieldError::forbidden("", "static pods do not support resource claims"));
            continue;
        }
        let path = format!("{path}[{index}]");
        match text(claim, &["name"]) {
            "" => errors.push(FieldError::required(format!("{path}.name"), "")),
            name if !names.insert(name) => errors.push(FieldError::duplicate(format!("{path}.name"), name)),
            name => errors.extend(invalid(&format!("{path}.name"), name, &dns1123_label(name, false))),
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let given = |field: &str| claim.get(field).and_then(Value::as_str);
        let shown = || {
            serde_json::json!({
                "Name": text(claim, &["name"]),
                "ResourceClaimName": given(sources[0]),
                "ResourceClaimTemplateName": given(sources[1]),
            })
        };
        match sources.iter().filter(|field| given(field).is_some()).count() {
            0 => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(path.as_str(), shown(), detail));
            }
            1 => {}
            _ => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(path.as_str(), shown(), detail));
            }
        }
        for field in sources {
            if let Some(name) = given(field) {
                errors.extend(invalid(
                    &format!("{path}.{field}"),
                    name,
                    &dns1123_subdomain(name, false),
                ));
            }
        }
    }
    errors
}

/// The template of a claim that is made with its owner.
pub fn claim_template(template: &Object, path: &str) -> Vec<FieldError> {
    let empty = Object::new();
    let metadata = map(template, &["metadata"]).unwrap_or(&empty);
    let mut errors = claim_metadata(metadata, &format!("{path}.metadata"));
    let spec = map(template, &["spec"]).unwrap_or(&empty);
    errors.extend(crate::registry::strategies::volumes::claim_spec(
        spec,
        &format!("{path}.spec"),
    ));
    errors
}

/// The metadata of a template, which can only have labels and annotations.
pub fn claim_metadata(metadata: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(found) = map(metadata, &["annotations"]) {
        errors.extend(annotations_at(found, &format!("{path}.annotations")));
    }
    if let Some(found) = map(metadata, &["labels"]) {
        errors.extend(labels(found, &format!("{path}.labels")));
    }
    let others = metadata
        .keys()
        .filter(|field| !matches!(field.as_str(), "annotations" | "labels"));
    for field in others.filter(|field| is_set(metadata, field)) {
        errors.push(FieldError::forbidden(format!("{path}.{field}"), "cannot be set"));
    }
    errors
}

/// The id of a user in an optional field.
pub fn user(object: &Object, field: &str, path: &str) -> Vec<FieldError> {
    let Some(id) = integer(object, &[field]) else {
        return Vec::new();
    };
    let problems = crate::registry::formats::user_id(id);
    problems
        .iter()
        .map(|problem| FieldError::invalid(format!("{path}.{field}"), id, problem))
        .collect()
}

/// An optional string with a fixed set of values.
pub fn supported(object: &Object, field: &str, values: &[&str], path: &str) -> Option<FieldError> {
    let value = object.get(field).and_then(Value::as_str)?;
    (!values.contains(&value)).then(|| FieldError::not_supported(format!("{path}.{field}"), value, values))
}

/// One error per problem with `value`.
pub fn invalid(path: &str, value: &str, problems: &[String]) -> Vec<FieldError> {
    problems
        .iter()
        .map(|problem| FieldError::invalid(path, value, problem))
        .collect()
}

/// A required string with a fixed set of values.
pub fn one_of(object: &Object, field: &str, values: &[&str], path: &str) -> Option<FieldError> {
    let path = format!("{path}.{field}");
    match text(object, &[field]) {
        "" => Some(FieldError::required(path, "")),
        value if values.contains(&value) => None,
        value => Some(FieldError::not_supported(path, value, values)),
    }
}

/// A name of the pod's own choice, which nothing else may decide then.
fn host_name(spec: &Object, path: &str) -> Vec<FieldError> {
    let Some(name) = spec.get("hostnameOverride").and_then(Value::as_str) else {
        return Vec::new();
    };
    let path = format!("{path}.hostnameOverride");
    let mut errors = Vec::new();
    for field in ["setHostnameAsFQDN", "hostNetwork"]
        .iter()
        .filter(|field| boolean(spec, &[field]))
    {
        let detail = format!("may not be specified when {field} is true");
        errors.push(FieldError::forbidden(path.as_str(), &detail));
    }
    if name.len() > HOST_NAME_BYTES_MAX {
        errors.push(FieldError::too_long(path.as_str(), HOST_NAME_BYTES_MAX));
    }
    errors.extend(invalid(&path, name, &dns1123_subdomain(name, false)));
    errors
}

/// Names of other objects and of the pod in the network.
fn names(spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        let name = text(spec, &[field]);
        if !name.is_empty() {
            errors.extend(invalid(
                &format!("{path}.{field}"),
                name,
                &dns1123_subdomain(name, false),
            ));
        }
    }
    for field in ["hostname", "subdomain"] {
        let name = text(spec, &[field]);
        if !name.is_empty() {
            errors.extend(invalid(&format!("{path}.{field}"), name, &dns1123_label(name, false)));
        }
    }
    errors
}

/// On the host's network a container's port is the host's. In templates it is filled in later.
fn host_network_ports(spec: &Object, path: &str, is_pod: bool) -> Vec<FieldError> {
    if !boolean(spec, &["hostNetwork"]) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    for (index, container) in objects(spec, &["containers"]) {
        for (port_index, port) in objects(container, &["ports"]) {
            let host = integer(port, &["hostPort"]).unwrap_or_default();
            if (is_pod || host != 0) && host != integer(port, &["containerPort"]).unwrap_or_default() {
                let path = format!("{path}.containers[{index}].ports[{port_index}].hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(path, host, detail));
            }
        }
    }
    errors
}

fn scheduling_gates(spec: &Object, path: &str) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, gate) in objects(spec, &["schedulingGates"]) {
        let name = text(gate, &["name"]);
        let path = format!("{path}[{index}]");
        errors.extend(invalid(&path, name, &label_key(name)));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    errors
}

fn dns_config(spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let config = map(spec, &["dnsConfig"]);
    let none = text(spec, &["dnsPolicy"]) == "None";
    let Some(config) = config else {
        if none {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(path, detail));
        }
        return errors;
    };
    let texts = |field: &str| -> Vec<&str> { items(config, &[field]).iter().filter_map(Value::as_str).collect() };
    let (nameservers, searches) = (texts("nameservers"), texts("searches"));
    if none && nameservers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return vec![FieldError::required(format!("{path}.nameservers"), detail)];
    }
    if nameservers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(FieldError::invalid(
            format!("{path}.nameservers"),
            nameservers.clone(),
            &detail,
        ));
    }
    for (index, nameserver) in nameservers.iter().enumerate() {
        errors.extend(invalid(
            &format!("{path}.nameservers[{index}]"),
            nameserver,
            &ip_address(nameserver),
        ));
    }
    if searches.len() > SEARCH_PATHS_MAX {
        let detail = format!("must not have more than {SEARCH_PATHS_MAX} search paths");
        errors.push(FieldError::invalid(
            format!("{path}.searches"),
            searches.clone(),
            &detail,
        ));
    }
    if searches.join(" ").len() > SEARCH_LIST_CHARACTERS_MAX {
        let detail = format!(
            "must not have more than {SEARCH_LIST_CHARACTERS_MAX} characters (including spaces) in the search list"
        );
        errors.push(FieldError::invalid(
            format!("{path}.searches"),
            searches.clone(),
            &detail,
        ));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Underscores are allowed here, and nothing else that names do not have.
        let problems = dns1123_subdomain(&name.replace('_', "a"), false);
        errors.extend(invalid(&format!("{path}.searches[{index}]"), name, &problems));
    }
    for (index, option) in objects(config, &["options"]) {
        if text(option, &["name"]).is_empty() {
            errors.push(FieldError::required(
                format!("{path}.options[{index}]"),
                "must not be empty",
            ));
        }
    }
    errors
}

fn host_aliases(spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, alias) in objects(spec, &["hostAliases"]) {
        let ip = text(alias, &["ip"]);
        errors.extend(invalid(&format!("{path}[{index}].ip"), ip, &ip_address(ip)));
        for (name_index, name) in items(alias, &["hostnames"]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let path = format!("{path}[{index}].hostnames[{name_index}]");
            errors.extend(invalid(&path, name, &dns1123_subdomain(name, false)));
        }
    }
    errors
}

/// Tolerations of a pod, also those an update adds.
pub fn tolerations(tolerations: &[Value], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let objects = tolerations
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, item.as_object()?)));
    for (index, toleration) in objects {
        let at = |field: &str| format!("{path}[{index}].{field}");
        let part = |field: &str| text(toleration, &[field]);
        let (key, operator, value, effect) = (part("key"), part("operator"), part("value"), part("effect"));
        if !key.is_empty() {
            errors.extend(invalid(&at("key"), key, &label_key(key)));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(at("operator"), operator, detail));
        }
        if integer(toleration, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(at("effect"), effect, detail));
        }
        match operator {
            "Equal" | "" => {
                let problems = label_value(value);
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(at("operator"), value, &problems.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(at("operator"), value, detail));
            }
            "Exists" => {}
            "Lt" | "Gt" => {
                let operators = ["Equal", "Exists", "Lt", "Gt"];
                errors.push(FieldError::not_supported(at("operator"), operator, &operators));
            }
            other => errors.push(FieldError::not_supported(at("operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            errors.extend(taint_effect(effect, &at("effect")));
        }
    }
    errors
}

/// The effect of a taint or toleration.
pub fn taint_effect(effect: &str, path: &str) -> Option<FieldError> {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    (!effects.contains(&effect)).then(|| FieldError::not_supported(path, effect, &effects))
}
