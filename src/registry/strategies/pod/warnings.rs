//! Warnings of pods: fields that are accepted and not acted on yet, and upstream's own
//! (upstream: `pkg/api/pod/warnings.go`).

use super::defaults::CONTAINER_LISTS;
use crate::registry::formats::dns1123_label;
use crate::registry::json::{integer, is_set, items, map, objects, text};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::BTreeMap;

/// Pod fields that the node agent and the scheduler do not act on yet. Later work deletes rows.
const NOT_ACTED_ON: [&str; 15] = [
    "affinity",
    "hostUsers",
    "hostnameOverride",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "setHostnameAsFQDN",
    "subdomain",
    "topologySpreadConstraints",
    "schedulingGroup",
];

/// Container fields that the node agent does not act on yet.
const CONTAINER_NOT_ACTED_ON: [&str; 7] = [
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "resizePolicy",
    "restartPolicyRules",
    "startupProbe",
    "volumeDevices",
];

/// Fields of the container's security context that the node agent does not act on yet.
const CONTAINER_SECURITY_NOT_ACTED_ON: [&str; 4] = ["appArmorProfile", "procMount", "seLinuxOptions", "seccompProfile"];

/// Fields of the pod's security context that the node agent does not act on yet.
const POD_SECURITY_NOT_ACTED_ON: [&str; 5] = [
    "appArmorProfile",
    "fsGroupChangePolicy",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "seccompProfile",
];

/// Sources of environment variables that the node agent does not act on yet.
const ENV_NOT_ACTED_ON: [&str; 1] = ["fileKeyRef"];

/// Volumes that the node agent mounts.
const VOLUMES_ACTED_ON: [&str; 6] = [
    "emptyDir",
    "hostPath",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
];

fn not_acted_on(path: &str) -> String {
    format!("{path}: accepted, but not acted on yet")
}

/// Warnings of a written pod; on update only for what the stored pod does not have already.
pub fn pod(object: &Object, old: Option<&Object>) -> Vec<String> {
    let mut warnings = of_pod(object);
    if let Some(old) = old {
        let known = of_pod(old);
        warnings.retain(|warning| !known.contains(warning));
    }
    warnings
}

fn of_pod(object: &Object) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = text(object, &["metadata", "name"]);
    let problems = dns1123_label(name, false);
    if !name.is_empty() && !problems.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; \
             a DNS label is recommended: [{}]",
            problems.join(" ")
        ));
    }
    if let Some(spec) = map(object, &["spec"]) {
        warnings.extend(pod_spec(spec, "spec"));
    }
    warnings
}

/// Warnings of a pod spec at `path`, also in the template of a workload.
pub fn pod_spec(spec: &Object, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let unsupported = NOT_ACTED_ON.iter().filter(|field| is_set(spec, field));
    // Zero priority is what no priority is; the admission plug-in of priorities sets it.
    let unsupported = unsupported.filter(|field| **field != "priority" || spec.get("priority") != Some(&0.into()));
    warnings.extend(unsupported.map(|field| not_acted_on(&format!("{path}.{field}"))));
    if let Some(context) = map(spec, &["securityContext"]) {
        let fields = POD_SECURITY_NOT_ACTED_ON.iter().filter(|field| is_set(context, field));
        warnings.extend(fields.map(|field| not_acted_on(&format!("{path}.securityContext.{field}"))));
    }
    if integer(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for (index, volume) in objects(spec, &["volumes"]) {
        let sources = volume
            .keys()
            .filter(|key| *key != "name" && !VOLUMES_ACTED_ON.contains(&key.as_str()));
        warnings.extend(sources.map(|source| not_acted_on(&format!("{path}.volumes[{index}].{source}"))));
    }
    for list in CONTAINER_LISTS {
        for (index, item) in objects(spec, &[list]) {
            warnings.extend(container(item, &format!("{path}.{list}[{index}]")));
        }
    }
    warnings
}

fn container(container: &Object, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let fields = CONTAINER_NOT_ACTED_ON.iter().filter(|field| is_set(container, field));
    warnings.extend(fields.map(|field| not_acted_on(&format!("{path}.{field}"))));
    if let Some(context) = map(container, &["securityContext"]) {
        let fields = CONTAINER_SECURITY_NOT_ACTED_ON
            .iter()
            .filter(|field| is_set(context, field));
        warnings.extend(fields.map(|field| not_acted_on(&format!("{path}.securityContext.{field}"))));
    }
    let mut seen = BTreeMap::new();
    for (index, variable) in objects(container, &["env"]) {
        let name = text(variable, &["name"]);
        if seen.insert(name, index).is_some() {
            warnings.push(format!(
                "{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
        for source in ENV_NOT_ACTED_ON {
            if map(variable, &["valueFrom", source]).is_some() {
                warnings.push(not_acted_on(&format!("{path}.env[{index}].valueFrom.{source}")));
            }
        }
    }
    warnings.extend(duplicate_ports(items(container, &["ports"]), path));
    warnings
}

fn duplicate_ports(ports: &[Value], path: &str) -> Vec<String> {
    let key = |port: &Value| {
        let part = |name: &str| port.get(name).cloned().unwrap_or_default();
        [
            part("containerPort"),
            part("hostPort"),
            part("hostIP"),
            part("protocol"),
        ]
    };
    let mut warnings = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        if let Some(first) = ports.iter().take(index).position(|earlier| key(earlier) == key(port)) {
            warnings.push(format!(
                "{path}.ports[{index}]: duplicate port definition with {path}.ports[{first}]"
            ));
        }
    }
    warnings
}
