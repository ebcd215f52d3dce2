//! Warnings of pods: fields that are accepted and not acted on yet, and upstream's own
//! (upstream: `pkg/api/pod/warnings.go`).

use super::defaults::CONTAINER_LISTS;
use crate::registry::formats::dns1123_label;
use crate::registry::json::{integer, is_set, items, map, objects, text};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::BTreeMap;

/// A field that neither the node agent nor the scheduler acts on yet. Later work deletes rows.
struct Unsupported {
    path: &'static [&'static str],
    /// Values that ask for what happens anyway.
    unless: &'static [&'static str],
}

const fn field(path: &'static [&'static str]) -> Unsupported {
    Unsupported { path, unless: &[] }
}

/// Fields of the pod spec.
const OF_POD: [Unsupported; 4] = [
    Unsupported {
        path: &["dnsPolicy"],
        unless: &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    },
    field(&["resourceClaims"]),
    field(&["schedulingGroup"]),
    field(&["securityContext", "seLinuxOptions"]),
];

/// Fields of a container of any list.
const OF_CONTAINER: [Unsupported; 2] = [field(&["securityContext", "seLinuxOptions"]), field(&["volumeDevices"])];

/// Fields of an environment variable.
const OF_VARIABLE: [Unsupported; 1] = [field(&["valueFrom", "fileKeyRef"])];

/// Volumes, and sources of projected volumes, that the node agent mounts.
const VOLUMES: [&str; 10] = [
    "emptyDir",
    "hostPath",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
    "image",
    "nfs",
    "persistentVolumeClaim",
    "ephemeral",
];
const PROJECTED: [&str; 4] = ["configMap", "secret", "downwardAPI", "serviceAccountToken"];

fn not_acted_on(path: &str) -> String {
    format!("{path}: accepted, but not acted on yet")
}

/// A warning for each unsupported field that `object` sets.
fn unsupported(object: &Object, rows: &[Unsupported], path: &str) -> Vec<String> {
    let wanted = rows.iter().filter(|row| {
        let Some((leaf, parents)) = row.path.split_last() else {
            return false;
        };
        let parent = if parents.is_empty() {
            Some(object)
        } else {
            map(object, parents)
        };
        parent.is_some_and(|parent| is_set(parent, leaf) && !row.unless.contains(&text(parent, &[leaf])))
    });
    wanted
        .map(|row| not_acted_on(&format!("{path}.{}", row.path.join("."))))
        .collect()
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
    let mut warnings = unsupported(spec, &OF_POD, path);
    if integer(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for (index, volume) in objects(spec, &["volumes"]) {
        let path = format!("{path}.volumes[{index}]");
        let others = volume
            .keys()
            .filter(|key| *key != "name" && !VOLUMES.contains(&key.as_str()));
        warnings.extend(others.map(|source| not_acted_on(&format!("{path}.{source}"))));
        for (source_index, source) in objects(volume, &["projected", "sources"]) {
            let others = source.keys().filter(|key| !PROJECTED.contains(&key.as_str()));
            let path = format!("{path}.projected.sources[{source_index}]");
            warnings.extend(others.map(|source| not_acted_on(&format!("{path}.{source}"))));
        }
    }
    for list in CONTAINER_LISTS {
        for (index, item) in objects(spec, &[list]) {
            warnings.extend(container(item, &format!("{path}.{list}[{index}]")));
        }
    }
    warnings
}

fn container(container: &Object, path: &str) -> Vec<String> {
    let mut warnings = unsupported(container, &OF_CONTAINER, path);
    let mut seen = BTreeMap::new();
    for (index, variable) in objects(container, &["env"]) {
        let name = text(variable, &["name"]);
        let path = format!("{path}.env[{index}]");
        if seen.insert(name, index).is_some() {
            warnings.push(format!(
                "{path}: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
        warnings.extend(unsupported(variable, &OF_VARIABLE, &path));
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
