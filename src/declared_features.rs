//! Features that nodes declare in their status, and what pods need of them (upstream:
//! `component-helpers/nodedeclaredfeatures`). A leaf: the kubelet declares, admission and the scheduler ask.

use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

pub const BIND_MOUNT_OPTIONS: &str = "VolumeBindMountOptions";
pub const INIT_CONTAINER_RESIZE: &str = "InPlacePodVerticalScalingInitContainers";
pub const MEMORY_VOLUME_RESIZE: &str = "InPlacePodVerticalScalingMemoryBackedVolumes";
pub const POD_RESIZE: &str = "InPlacePodLevelResourcesVerticalScaling";
pub const RESTART_ALL_CONTAINERS: &str = "RestartAllContainersOnContainerExits";
pub const USERS_ON_HOST_NETWORK: &str = "UserNamespacesHostNetworkSupport";
pub const WEB_SOCKETS: &str = "ExtendWebSocketsToKubelet";

/// What a node must declare to be given the pod, in upstream's order (upstream: `InferForPodScheduling`).
pub fn needed_to_run(spec: &PodSpec) -> Vec<&'static str> {
    let needed = [
        (RESTART_ALL_CONTAINERS, restarts_all(spec)),
        (
            USERS_ON_HOST_NETWORK,
            spec.host_network == Some(true) && spec.host_users == Some(false),
        ),
        (BIND_MOUNT_OPTIONS, has_mount_options(spec)),
    ];
    of(needed)
}

/// What the node of a pod must declare for a change of the pod, in upstream's order (upstream: `InferForPodUpdate`).
pub fn needed_to_become(old: &PodSpec, new: &PodSpec) -> Vec<&'static str> {
    let needed = [
        (POD_RESIZE, !are_same(old.resources.as_ref(), new.resources.as_ref())),
        (INIT_CONTAINER_RESIZE, resizes_init_containers(old, new)),
        (MEMORY_VOLUME_RESIZE, resizes_memory(old, new)),
    ];
    of(needed)
}

/// Those of `needed` that a node does not declare.
pub fn missing(needed: &[&'static str], declared: &[String]) -> Vec<&'static str> {
    let is_missing = |feature: &&&str| !declared.iter().any(|one| one == **feature);
    needed.iter().filter(is_missing).copied().collect()
}

fn of<const N: usize>(needed: [(&'static str, bool); N]) -> Vec<&'static str> {
    let needed = needed.into_iter().filter(|(_, is_needed)| *is_needed);
    needed.map(|(feature, _)| feature).collect()
}

fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

fn restarts_all(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(init_containers(spec));
    let mut rules = containers.flat_map(|container| container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == "RestartAllContainers")
}

fn has_mount_options(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(init_containers(spec));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let mounts = containers
        .map(|container| &container.volume_mounts)
        .chain(ephemeral.map(|container| &container.volume_mounts));
    let has = |mount: &VolumeMount| {
        mount
            .bind_mount_options
            .as_ref()
            .is_some_and(|options| !options.is_empty())
    };
    mounts.flatten().flatten().any(has)
}

fn value(quantity: &ApiQuantity) -> Option<Quantity> {
    quantity.0.parse().ok()
}

/// Compared by what the figures say: "1" is "1000m".
fn are_same(old: Option<&ResourceRequirements>, new: Option<&ResourceRequirements>) -> bool {
    let figures = |list: &Option<BTreeMap<String, ApiQuantity>>| -> Vec<(String, Option<Quantity>)> {
        let list = list.iter().flatten();
        list.map(|(name, quantity)| (name.clone(), value(quantity))).collect()
    };
    let claims = |one: &ResourceRequirements| one.claims.clone().unwrap_or_default();
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => {
            figures(&old.limits) == figures(&new.limits)
                && figures(&old.requests) == figures(&new.requests)
                && claims(old) == claims(new)
        }
        _ => false,
    }
}

/// Sidecars run beside the others and need nothing special.
fn resizes_init_containers(old: &PodSpec, new: &PodSpec) -> bool {
    let mut pairs = init_containers(old).iter().zip(init_containers(new));
    pairs.any(|(old, new)| old.restart_policy.as_deref() != Some("Always") && old.resources != new.resources)
}

/// Volumes of another name, or without a limit before or after, are not looked at: validation refuses such changes.
fn resizes_memory(old: &PodSpec, new: &PodSpec) -> bool {
    let volumes = |spec: &PodSpec| spec.volumes.clone().unwrap_or_default();
    let (old, new) = (volumes(old), volumes(new));
    let limit = |volume: &Volume| {
        let limit = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref());
        limit.and_then(value)
    };
    let is_in_memory = |volume: &Volume| {
        let dir = volume.empty_dir.as_ref();
        dir.is_some_and(|dir| dir.medium.as_deref() == Some("Memory"))
    };
    let resizes = |old: &Volume, new: &Volume| {
        let limits = limit(old).zip(limit(new));
        old.name == new.name && is_in_memory(new) && limits.is_some_and(|(old, new)| old != new)
    };
    old.len() == new.len() && old.iter().zip(&new).any(|(old, new)| resizes(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
    }

    #[test]
    fn what_pods_need() {
        let rule = |action: &str| json!({"name": "c", "restartPolicyRules": [{"action": action}]});
        let mount = |options: Value| {
            let mount = json!({"name": "v", "mountPath": "/v", "bindMountOptions": options});
            json!({"name": "c", "volumeMounts": [mount]})
        };
        for (value, expected) in [
            (json!({"containers": [{"name": "c"}]}), &[][..]),
            (json!({"containers": [rule("Restart")]}), &[]),
            (
                json!({"containers": [rule("RestartAllContainers")]}),
                &[RESTART_ALL_CONTAINERS],
            ),
            (
                json!({"containers": [], "initContainers": [rule("RestartAllContainers")]}),
                &[RESTART_ALL_CONTAINERS],
            ),
            (json!({"containers": [], "hostNetwork": true}), &[]),
            (json!({"containers": [], "hostUsers": false}), &[]),
            (
                json!({"containers": [], "hostNetwork": true, "hostUsers": false}),
                &[USERS_ON_HOST_NETWORK],
            ),
            (json!({"containers": [mount(json!([]))]}), &[]),
            (json!({"containers": [mount(json!(["noexec"]))]}), &[BIND_MOUNT_OPTIONS]),
            (
                json!({"containers": [], "ephemeralContainers": [mount(json!(["noexec"]))]}),
                &[BIND_MOUNT_OPTIONS],
            ),
            (
                json!({
                    "containers": [rule("RestartAllContainers")], "hostNetwork": true, "hostUsers": false,
                    "initContainers": [mount(json!(["noexec"]))],
                }),
                &[RESTART_ALL_CONTAINERS, USERS_ON_HOST_NETWORK, BIND_MOUNT_OPTIONS],
            ),
        ] {
            assert_eq!(needed_to_run(&spec(value.clone())), expected, "{value}");
        }
    }

    #[test]
    fn what_changes_need() {
        let old = json!({
            "containers": [{"name": "c"}],
            "resources": {"requests": {"cpu": "1"}},
            "initContainers": [
                {"name": "i", "resources": {}},
                {"name": "s", "restartPolicy": "Always", "resources": {}},
            ],
            "volumes": [
                {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "w", "emptyDir": {"medium": "Memory"}},
                {"name": "x", "emptyDir": {"sizeLimit": "1Mi"}},
            ],
        });
        let more = json!({"requests": {"cpu": "2"}});
        for (path, value, expected) in [
            ("/containers", json!([{"name": "c", "resources": more}]), &[][..]),
            ("/initContainers/1/resources", more.clone(), &[]),
            ("/initContainers/0/resources", more.clone(), &[INIT_CONTAINER_RESIZE]),
            ("/resources/requests/cpu", json!("1000m"), &[]),
            ("/resources", more, &[POD_RESIZE]),
            ("/resources", Value::Null, &[POD_RESIZE]),
            ("/volumes/0/emptyDir/sizeLimit", json!("1024Ki"), &[]),
            ("/volumes/0/emptyDir/sizeLimit", json!("2Mi"), &[MEMORY_VOLUME_RESIZE]),
            ("/volumes/1/emptyDir/sizeLimit", json!("2Mi"), &[]),
            ("/volumes/2/emptyDir/sizeLimit", json!("2Mi"), &[]),
            ("/volumes", json!([]), &[]),
        ] {
            let mut new = old.clone();
            let (parent, field) = path.rsplit_once('/').unwrap();
            match field.parse::<usize>() {
                Ok(index) => new.pointer_mut(parent).unwrap()[index] = value,
                Err(_) => new.pointer_mut(parent).unwrap()[field] = value,
            }
            let needed = needed_to_become(&spec(old.clone()), &spec(new));
            assert_eq!(needed, expected, "{path}");
            assert_eq!(missing(&needed, &[]), expected, "{path}");
            let declared: Vec<String> = expected.iter().map(|&feature| feature.to_owned()).collect();
            assert!(missing(&needed, &declared).is_empty(), "{path}");
        }
    }
}
