//! Containers of all three lists (upstream: `validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers`).

use super::super::defaults::CONTAINER_LISTS;
use super::{env, invalid, one_of, probes, resources, security, volumes};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, port_name, port_number};
use crate::registry::json::{integer, is_set, objects, text};
use crate::registry::strategy::Object;
use std::collections::BTreeSet;

/// What an ephemeral container may not have.
const FORBIDDEN_IN_EPHEMERAL: [&str; 8] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
];

/// What depends on the pod around a container.
pub struct Context<'a> {
    pub volumes: &'a volumes::Known<'a>,
    pub grace_seconds: Option<i64>,
    pub restart_policy: &'a str,
    pub host_users: bool,
    pub claims: BTreeSet<&'a str>,
}

pub fn validate(spec: &Object, path: &str, volumes: &volumes::Known<'_>) -> Vec<FieldError> {
    let context = Context {
        volumes,
        grace_seconds: integer(spec, &["terminationGracePeriodSeconds"]),
        restart_policy: text(spec, &["restartPolicy"]),
        host_users: spec
            .get("hostUsers")
            .and_then(serde_json::Value::as_bool)
            .unwrap_or(true),
        claims: objects(spec, &["resourceClaims"])
            .map(|(_, claim)| text(claim, &["name"]))
            .collect(),
    };
    let mut errors = regular(spec, &format!("{path}.containers"), &context);
    errors.extend(init(spec, &format!("{path}.initContainers"), &context));
    errors.extend(ephemeral(spec, &format!("{path}.ephemeralContainers"), &context));
    errors
}

fn regular(spec: &Object, path: &str, context: &Context<'_>) -> Vec<FieldError> {
    let (mut errors, mut names, mut ports) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut any = false;
    for (index, container) in objects(spec, &["containers"]) {
        any = true;
        let path = format!("{path}[{index}]");
        errors.extend(common(container, &path, context));
        let name = text(container, &["name"]);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        errors.extend(probes::validate(container, &path, context.grace_seconds));
        if container.contains_key("restartPolicy") && text(container, &["restartPolicy"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.restartPolicy"), ""));
        } else if container.contains_key("restartPolicy") {
            errors.extend(one_of(
                container,
                "restartPolicy",
                &["Always", "Never", "OnFailure"],
                &path,
            ));
        }
    }
    if !any {
        errors.push(FieldError::required(path, ""));
    }
    for (index, container) in objects(spec, &["containers"]) {
        errors.extend(host_port_conflicts(container, &format!("{path}[{index}]"), &mut ports));
    }
    errors
}

fn init(spec: &Object, path: &str, context: &Context<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut names: BTreeSet<&str> = objects(spec, &["containers"])
        .map(|(_, container)| text(container, &["name"]))
        .collect();
    for (index, container) in objects(spec, &["initContainers"]) {
        let path = format!("{path}[{index}]");
        errors.extend(common(container, &path, context));
        let name = text(container, &["name"]);
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        // One after another, so only a container's own ports can clash.
        errors.extend(host_port_conflicts(container, &path, &mut BTreeSet::new()));
        if container.contains_key("restartPolicy") {
            errors.extend(one_of(
                container,
                "restartPolicy",
                &["Always", "Never", "OnFailure"],
                &path,
            ));
        }
        if text(container, &["restartPolicy"]) == "Always" {
            errors.extend(probes::validate(container, &path, context.grace_seconds));
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.contains_key(field) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
            }
        }
    }
    errors
}

fn ephemeral(spec: &Object, path: &str, context: &Context<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let others: BTreeSet<&str> = CONTAINER_LISTS
        .iter()
        .filter(|list| **list != "ephemeralContainers")
        .flat_map(|list| objects(spec, std::slice::from_ref(list)))
        .map(|(_, container)| text(container, &["name"]))
        .collect();
    let mut names = others.clone();
    let detail = "cannot be set for an Ephemeral Container";
    for (index, container) in objects(spec, &["ephemeralContainers"]) {
        let path = format!("{path}[{index}]");
        errors.extend(common(container, &path, context));
        errors.extend(image_whitespace(container, &path));
        let name = text(container, &["name"]);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(format!("{path}.targetContainerName"), target));
        }
        for field in FORBIDDEN_IN_EPHEMERAL {
            if is_set(container, field) {
                errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
            }
        }
        for (mount_index, mount) in objects(container, &["volumeMounts"]) {
            for field in ["subPath", "subPathExpr"] {
                if is_set(mount, field) {
                    let path = format!("{path}.volumeMounts[{mount_index}].{field}");
                    errors.push(FieldError::forbidden(path, detail));
                }
            }
        }
    }
    errors
}

/// Rules that all containers share.
fn common(container: &Object, path: &str, context: &Context<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(container, &["name"]) {
        "" => errors.push(FieldError::required(format!("{path}.name"), "")),
        name => errors.extend(invalid(&format!("{path}.name"), name, &dns1123_label(name, false))),
    }
    if text(container, &["image"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    }
    let policies = ["File", "FallbackToLogsOnError"];
    errors.extend(one_of(container, "terminationMessagePolicy", &policies, path));
    errors.extend(ports(container, &format!("{path}.ports")));
    errors.extend(env::validate(container, path));
    errors.extend(volumes::mounts(container, path, context.volumes));
    errors.extend(volumes::devices(container, path, context.volumes));
    errors.extend(one_of(
        container,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        path,
    ));
    errors.extend(resources::container(
        container,
        &format!("{path}.resources"),
        &context.claims,
    ));
    errors.extend(resources::resize_policy(
        container,
        &format!("{path}.resizePolicy"),
        context.restart_policy,
    ));
    errors.extend(security::container(
        container,
        &format!("{path}.securityContext"),
        context.host_users,
    ));
    errors
}

fn ports(container: &Object, path: &str) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    for (index, port) in objects(container, &["ports"]) {
        let at = |field: &str| format!("{path}[{index}].{field}");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let problems = port_name(name);
            if !problems.is_empty() {
                errors.extend(invalid(&at("name"), name, &problems));
            } else if !names.insert(name) {
                errors.push(FieldError::duplicate(at("name"), name));
            }
        }
        match integer(port, &["containerPort"]).unwrap_or_default() {
            0 => errors.push(FieldError::required(at("containerPort"), "")),
            number => errors.extend(port_errors(&at("containerPort"), number)),
        }
        match integer(port, &["hostPort"]).unwrap_or_default() {
            0 => {}
            number => errors.extend(port_errors(&at("hostPort"), number)),
        }
        errors.extend(one_of(
            port,
            "protocol",
            &["SCTP", "TCP", "UDP"],
            &format!("{path}[{index}]"),
        ));
    }
    errors
}

pub fn port_errors(path: &str, number: i64) -> Vec<FieldError> {
    port_number(number)
        .iter()
        .map(|problem| FieldError::invalid(path, number, problem))
        .collect()
}

/// Two ports of the same protocol and address cannot take one port of the host.
fn host_port_conflicts(container: &Object, path: &str, taken: &mut BTreeSet<String>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, port) in objects(container, &["ports"]) {
        let Some(number) = integer(port, &["hostPort"]).filter(|number| *number != 0) else {
            continue;
        };
        let key = format!("{}/{}/{number}", text(port, &["protocol"]), text(port, &["hostIP"]));
        if !taken.insert(key.clone()) {
            errors.push(FieldError::duplicate(format!("{path}.ports[{index}].hostPort"), key));
        }
    }
    errors
}

/// Checked in pods only; templates may carry such images.
pub fn image_whitespace(container: &Object, path: &str) -> Option<FieldError> {
    let image = text(container, &["image"]);
    let detail = "must not have leading or trailing whitespace";
    (image.trim() != image).then(|| FieldError::invalid(format!("{path}.image"), image, detail))
}
