//! Environment variables and their sources (upstream: `ValidateEnv`, `ValidateEnvFrom`).

use super::invalid;
use crate::quantity::Quantity;
use crate::registry::field::FieldError;
use crate::registry::formats::{config_map_key, dns1123_label, dns1123_subdomain, env_var_name, label_key};
use crate::registry::json::{map, objects, quantity, text};
use crate::registry::strategies::volume_sources::no_backsteps;
use crate::registry::strategy::Object;

/// Fields of the pod that a variable can take.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that the downward API knows at all.
const DOWNWARD_FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Divisors of cpu, and of everything else.
const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];

pub fn validate(container: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, variable) in objects(container, &["env"]) {
        let path = format!("{path}.env[{index}]");
        match text(variable, &["name"]) {
            "" => errors.push(FieldError::required(format!("{path}.name"), "")),
            name => errors.extend(invalid(&format!("{path}.name"), name, &env_var_name(name))),
        }
        if let Some(from) = map(variable, &["valueFrom"]) {
            errors.extend(value_from(variable, from, &format!("{path}.valueFrom")));
        }
    }
    let env_from = format!("{path}.envFrom");
    for (index, source) in objects(container, &["envFrom"]) {
        errors.extend(from_source(source, &env_from, &format!("{env_from}[{index}]")));
    }
    errors
}

fn value_from(variable: &Object, from: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(field) = map(from, &["fieldRef"]) {
        errors.extend(field_selector(field, &ENV_FIELDS, &format!("{path}.fieldRef")));
    }
    if let Some(resource) = map(from, &["resourceFieldRef"]) {
        errors.extend(resource_selector(resource, false, &format!("{path}.resourceFieldRef")));
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(selector) = map(from, &[source]) {
            errors.extend(key_selector(selector, &format!("{path}.{source}")));
        }
    }
    if let Some(selector) = map(from, &["fileKeyRef"]) {
        errors.extend(file_selector(selector, &format!("{path}.fileKeyRef")));
    }
    let detail = match SOURCES.iter().filter(|source| from.contains_key(**source)).count() {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !text(variable, &["value"]).is_empty() => "may not be specified when `value` is not empty",
        1 => return errors,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(path, "", detail));
    errors
}

/// A field of the pod by path, out of `allowed` or with a subscript.
pub fn field_selector(selector: &Object, allowed: &[&str], path: &str) -> Vec<FieldError> {
    let (version, field) = (text(selector, &["apiVersion"]), text(selector, &["fieldPath"]));
    if version.is_empty() {
        return vec![FieldError::required(format!("{path}.apiVersion"), "")];
    }
    let field_path = format!("{path}.fieldPath");
    if field.is_empty() {
        return vec![FieldError::required(field_path, "")];
    }
    let (base, subscript) = match field.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        Some((base, subscript)) => (base, Some(subscript)),
        None => (field, None),
    };
    let problem = if version != "v1" {
        Some(format!("unsupported pod version: {version}"))
    } else if subscript.is_some() && !matches!(base, "metadata.annotations" | "metadata.labels") {
        Some(format!("field label does not support subscript: {field}"))
    } else if !DOWNWARD_FIELDS.contains(&base) {
        Some(format!("field label not supported: {field}"))
    } else {
        None
    };
    if let Some(problem) = problem {
        return vec![FieldError::invalid(
            field_path,
            field,
            &format!("error converting fieldPath: {problem}"),
        )];
    }
    match (subscript, base) {
        (Some(key), "metadata.annotations") => invalid(path, key, &label_key(&key.to_lowercase())),
        (Some(key), _) => invalid(path, key, &label_key(key)),
        (None, "spec.host") => Vec::new(),
        (None, base) if allowed.contains(&base) => Vec::new(),
        (None, base) => vec![FieldError::not_supported(field_path, base, allowed)],
    }
}

/// A resource of a container; a volume must name the container.
pub fn resource_selector(selector: &Object, volume: bool, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let resource = text(selector, &["resource"]);
    let hugepages = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|prefix| resource.starts_with(prefix));
    if volume && text(selector, &["containerName"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(format!("{path}.resource"), ""));
    } else if !RESOURCES.contains(&resource) && !hugepages {
        errors.push(FieldError::not_supported(
            format!("{path}.resource"),
            resource,
            &RESOURCES,
        ));
    }
    let divisor = selector.get("divisor").and_then(quantity).unwrap_or(Quantity::ZERO);
    if divisor.is_zero() {
        return errors;
    }
    let written = divisor.to_string();
    let detail = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" if !CPU_DIVISORS.contains(&written.as_str()) => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        "cpu" => return errors,
        name if !DIVISORS.contains(&written.as_str()) => {
            let what = match name {
                "ephemeral-storage" => "local ephemeral storage",
                "memory" => "memory",
                _ => "hugepages",
            };
            format!(
                "only divisor's values {} are supported with the {what} resource",
                DIVISORS.join(", ")
            )
        }
        _ => return errors,
    };
    errors.push(FieldError::invalid(format!("{path}.divisor"), resource, &detail));
    errors
}

fn key_selector(selector: &Object, path: &str) -> Vec<FieldError> {
    let name = text(selector, &["name"]);
    let mut errors = invalid(&format!("{path}.name"), name, &dns1123_subdomain(name, false));
    match text(selector, &["key"]) {
        "" => errors.push(FieldError::required(format!("{path}.key"), "")),
        key => errors.extend(invalid(&format!("{path}.key"), key, &config_map_key(key))),
    }
    errors
}

/// A key of a file of variables in a volume.
fn file_selector(selector: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, problems) in [
        ("key", env_var_name as fn(&str) -> Vec<String>),
        ("volumeName", |name| dns1123_label(name, false)),
        ("path", |_| Vec::new()),
    ] {
        let (path, value) = (format!("{path}.{field}"), text(selector, &[field]));
        if value.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else {
            errors.extend(invalid(&path, value, &problems(value)));
            errors.extend(no_backsteps(value, &path).filter(|_| field == "path"));
        }
    }
    errors
}

/// Files of variables can only stand in volumes that are made for the pod.
pub fn file_volumes(spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (path, container) in super::containers_of(spec, path) {
        for (index, variable) in objects(container, &["env"]) {
            let Some(selector) = map(variable, &["valueFrom", "fileKeyRef"]) else {
                continue;
            };
            let name = text(selector, &["volumeName"]);
            let path = format!("{path}.env[{index}].valueFrom.fileKeyRef.volumeName");
            let volume = objects(spec, &["volumes"]).find(|(_, volume)| text(volume, &["name"]) == name);
            match volume {
                None => errors.push(FieldError::not_found(path, name)),
                Some((_, volume)) if !volume.contains_key("emptyDir") => {
                    errors.push(FieldError::invalid(
                        path,
                        name,
                        "referenced volume must be of type emptyDir",
                    ));
                }
                Some(_) => {}
            }
        }
    }
    errors
}

fn from_source(source: &Object, list: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let prefix = text(source, &["prefix"]);
    if !prefix.is_empty() {
        errors.extend(invalid(&format!("{path}.prefix"), prefix, &env_var_name(prefix)));
    }
    let mut count = 0;
    for field in ["configMapRef", "secretRef"] {
        let Some(reference) = map(source, &[field]) else {
            continue;
        };
        count += 1;
        match text(reference, &["name"]) {
            "" => errors.push(FieldError::required(format!("{path}.{field}.name"), "")),
            name => errors.extend(invalid(
                &format!("{path}.{field}.name"),
                name,
                &dns1123_subdomain(name, true),
            )),
        }
    }
    match count {
        0 => errors.push(FieldError::invalid(
            list,
            "",
            "must specify one of: `configMapRef` or `secretRef`",
        )),
        1 => {}
        _ => errors.push(FieldError::invalid(
            list,
            "",
            "may not have more than one field specified at a time",
        )),
    }
    errors
}
