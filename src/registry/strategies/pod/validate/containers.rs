//! Containers of all three lists (upstream: `validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers`).

use super::super::defaults::CONTAINER_LISTS;
use super::{env, invalid, mounts, one_of, probes, resources, security, volumes};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, port_name, port_number};
use crate::registry::json::{integer, is_set, items, map, objects, text};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::BTreeSet;

/// What an ephemeral container may not have.
const FORBIDDEN_IN_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What depends on the pod around a container.
pub struct Context<'a> {
    pub volumes: &'a volumes::Known<'a>,
    pub grace_seconds: Option<i64>,
    pub restart_policy: &'a str,
    pub host_users: bool,
    /// `spec.os.name`, if `spec.os` is there.
    pub os: Option<&'a str>,
    pub claims: BTreeSet<&'a str>,
}

pub fn validate(spec: &Object, path: &str, volumes: &volumes::Known<'_>) -> Vec<FieldError> {
    let context = Context {
        volumes,
        grace_seconds: integer(spec, &["terminationGracePeriodSeconds"]),
        restart_policy: text(spec, &["restartPolicy"]),
        host_users: spec.get("hostUsers").and_then(Value::as_bool).unwrap_or(true),
        os: map(spec, &["os"]).map(|os| text(os, &["name"])),
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
        errors.extend(probes::validate(container, &path, context));
        errors.extend(restart_policy(container, &path));
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
        errors.extend(restart_policy(container, &path));
        if text(container, &["restartPolicy"]) == "Always" {
            errors.extend(probes::validate(container, &path, context));
            continue;
        }
        for (policy_index, policy) in objects(container, &["resizePolicy"]) {
            if text(policy, &["restartPolicy"]) == "RestartContainer" {
                let path = format!("{path}.resizePolicy[{policy_index}].restartPolicy");
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.push(FieldError::invalid(path, "RestartContainer", detail));
            }
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

/// When a container is started again, which can depend on how it ended.
fn restart_policy(container: &Object, path: &str) -> Vec<FieldError> {
    let rules: Vec<(usize, &Object)> = objects(container, &["restartPolicyRules"]).collect();
    let mut errors = Vec::new();
    match container.get("restartPolicy").and_then(Value::as_str) {
        None if rules.is_empty() => return errors,
        None => {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(format!("{path}.restartPolicy"), detail));
        }
        Some(policy) if !RESTART_POLICIES.contains(&policy) => {
            errors.push(FieldError::not_supported(
                format!("{path}.restartPolicy"),
                policy,
                &RESTART_POLICIES,
            ));
        }
        Some(_) => {}
    }
    let path = format!("{path}.restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errors.push(FieldError::too_many(path.as_str(), rules.len(), RESTART_RULES_MAX));
    }
    for (index, rule) in rules {
        let path = format!("{path}[{index}]");
        let (action, actions) = (text(rule, &["action"]), ["Restart", "RestartAllContainers"]);
        if !actions.contains(&action) {
            errors.push(FieldError::not_supported(format!("{path}.action"), action, &actions));
        }
        let Some(codes) = map(rule, &["exitCodes"]) else {
            errors.push(FieldError::required(format!("{path}.exitCodes"), "must be specified"));
            continue;
        };
        let (operator, operators) = (text(codes, &["operator"]), ["In", "NotIn"]);
        if !operators.contains(&operator) {
            let path = format!("{path}.exitCodes.operator");
            errors.push(FieldError::not_supported(path, operator, &operators));
        }
        let count = items(codes, &["values"]).len();
        if count > EXIT_CODES_MAX {
            errors.push(FieldError::too_many(
                format!("{path}.exitCodes.values"),
                count,
                EXIT_CODES_MAX,
            ));
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
    errors.extend(mounts::mounts(container, path, context.volumes));
    errors.extend(mounts::devices(container, path, context.volumes));
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
