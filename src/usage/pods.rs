//! What pods use (upstream: `pkg/quota/v1/evaluator/core/pods.go`, `component-helpers/resource`).

use super::{Amounts, Measured, count_name, fits};
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodAffinityTerm, PodSpec, ResourceRequirements, ScopedResourceSelectorRequirement,
    WeightedPodAffinityTerm,
};
use std::collections::{BTreeMap, BTreeSet};

const TRACKED: [&str; 10] = [
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
];
/// A quota of these forces every container to say what it wants. No other may join them.
const DEMANDED: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];
/// The resources that have figures for requests and for limits.
const BOTH: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";
pub(super) const REQUESTS: &str = "requests.";
/// Devices of a class, asked for as if they were an extended resource of that name.
pub const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

pub(super) fn tracks(resource: &str) -> bool {
    TRACKED.contains(&resource)
        || resource.starts_with(HUGE_PAGES)
        || resource
            .strip_prefix(REQUESTS)
            .is_some_and(|of| of.starts_with(HUGE_PAGES))
        || tracks_extended(resource)
}

/// What quotas call an extended resource, `requests.example.com/gpu`, and devices of a class that are asked for so.
pub(super) fn tracks_extended(resource: &str) -> bool {
    let of = resource.strip_prefix(REQUESTS);
    of.is_some_and(|of| !is_native(resource) || of.starts_with(DEVICE_CLASS))
}

/// Kubernetes' own resources, as opposed to those of devices: without a domain, or in Kubernetes' own.
pub fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

impl Measured for Pod {
    /// A pod that has ended, or should be gone by now, only takes its place.
    fn usage(&self, now: jiff::Timestamp) -> Amounts {
        let mut usage = Amounts::default();
        usage.count(&count_name("", "pods"), 1);
        if !has_ended(self, now) {
            let (requests, limits) = (resources(self, Part::Requests), resources(self, Part::Limits));
            usage.add(&figures(&requests, &limits));
        }
        usage
    }

    fn is_in(&self, scope: &ScopedResourceSelectorRequirement) -> bool {
        let terminating = || is_terminating(self);
        match scope.scope_name.as_str() {
            "Terminating" => terminating(),
            "NotTerminating" => !terminating(),
            "BestEffort" => is_best_effort(self),
            "NotBestEffort" => !is_best_effort(self),
            "PriorityClass" => {
                let class = spec(self).and_then(|spec| spec.priority_class_name.as_deref());
                let names: Vec<&str> = class.into_iter().filter(|name| !name.is_empty()).collect();
                fits(scope, &names)
            }
            "CrossNamespacePodAffinity" => looks_into_other_namespaces(self),
            _ => false,
        }
    }

    fn scope_facts(&self) -> Vec<String> {
        let class = spec(self).and_then(|spec| spec.priority_class_name.clone());
        let flags = [
            is_terminating(self),
            is_best_effort(self),
            looks_into_other_namespaces(self),
        ];
        flags.iter().map(bool::to_string).chain(class).collect()
    }

    fn lacks(&self, required: &[&str]) -> Option<String> {
        let spec = spec(self)?;
        if has_resources(spec.resources.as_ref()) {
            return None;
        }
        let demanded: Vec<&str> = DEMANDED.into_iter().filter(|name| required.contains(name)).collect();
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let own = container.resources.as_ref();
            let said = figures(
                &Amounts::from_api(own.and_then(|own| own.requests.as_ref())),
                &Amounts::from_api(own.and_then(|own| own.limits.as_ref())),
            );
            for name in demanded.iter().filter(|name| said.get(name).is_none()) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
        if missing.is_empty() {
            return None;
        }
        let parts: Vec<String> = missing
            .into_iter()
            .map(|(name, containers)| {
                let containers: Vec<&str> = containers.into_iter().collect();
                format!("{name} for: {}", containers.join(","))
            })
            .collect();
        Some(format!("must specify {}", parts.join("; ")))
    }
}

fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

/// A pod that will not run for ever.
fn is_terminating(pod: &Pod) -> bool {
    spec(pod).is_some_and(|spec| spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0))
}

fn has_ended(pod: &Pod, now: jiff::Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return true;
    }
    let metadata = &pod.metadata;
    match (&metadata.deletion_timestamp, metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => {
            let end = at.0.checked_add(jiff::SignedDuration::from_secs(grace));
            end.is_ok_and(|end| now > end)
        }
        _ => false,
    }
}

/// The names under which quotas count what a container, or a pod, asks for.
fn figures(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut figures = Amounts::default();
    figures.count("pods", 1);
    for name in BOTH {
        if let Some(request) = requests.get(name) {
            figures.set(name, request);
            figures.set(&format!("{REQUESTS}{name}"), request);
        }
        if let Some(limit) = limits.get(name) {
            figures.set(&format!("limits.{name}"), limit);
        }
    }
    for (name, request) in &requests.0 {
        if name.starts_with(HUGE_PAGES) {
            figures.set(name, *request);
            figures.set(&format!("{REQUESTS}{name}"), *request);
        }
        if (!is_native(name) && !name.starts_with(REQUESTS)) || name.starts_with(DEVICE_CLASS) {
            figures.set(&format!("{REQUESTS}{name}"), *request);
        }
    }
    figures
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Requests,
    Limits,
}

impl Part {
    fn of(self, resources: Option<&ResourceRequirements>) -> Amounts {
        Amounts::from_api(resources.and_then(|resources| match self {
            Part::Requests => resources.requests.as_ref(),
            Part::Limits => resources.limits.as_ref(),
        }))
    }
}

/// What the pod needs as a whole: containers and sidecars side by side, other init containers before them; what is
/// said for the whole pod counts instead; the overhead comes on top.
fn resources(pod: &Pod, part: Part) -> Amounts {
    let Some(spec) = spec(pod) else {
        return Amounts::default();
    };
    let status = pod.status.as_ref();
    let infeasible = status.is_some_and(|status| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|one| one.type_ == "PodResizePending" && one.reason.as_deref() == Some("Infeasible"))
    });
    let of = |container: &Container, statuses: Option<&Vec<ContainerStatus>>| {
        let status = statuses.and_then(|list| list.iter().find(|status| status.name == container.name));
        of_container(container, status, part, infeasible)
    };
    let (mut total, mut sidecars, mut peak) = (Amounts::default(), Amounts::default(), Amounts::default());
    let running = status.and_then(|status| status.container_statuses.as_ref());
    for container in &spec.containers {
        total.add(&of(container, running));
    }
    let starting = status.and_then(|status| status.init_container_statuses.as_ref());
    for container in spec.init_containers.iter().flatten() {
        let mut needs = of(container, starting);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&needs);
            sidecars.add(&needs);
            needs = sidecars.clone();
        } else {
            needs.add(&sidecars);
        }
        peak.raise_to(&needs);
    }
    total.raise_to(&peak);
    for (name, amount) in part.of(spec.resources.as_ref()).0 {
        total.set(&name, amount);
    }
    let overhead = Amounts::from_api(spec.overhead.as_ref());
    total.add(&match part {
        Part::Requests => overhead,
        // What has no limit gets none by its overhead.
        Part::Limits => overhead.only(|name| total.get(name).is_some_and(|limit| !limit.is_zero())),
    });
    total
}

/// While a container is resized it uses the larger of what it has and what it asks for.
fn of_container(container: &Container, status: Option<&ContainerStatus>, part: Part, infeasible: bool) -> Amounts {
    let wanted = part.of(container.resources.as_ref());
    let Some(status) = status else {
        return wanted;
    };
    let mut used = part.of(status.resources.as_ref());
    if part == Part::Requests {
        used.raise_to(&Amounts::from_api(status.allocated_resources.as_ref()));
    }
    if !infeasible || used.0.is_empty() {
        used.raise_to(&wanted);
    }
    used
}

fn has_resources(resources: Option<&ResourceRequirements>) -> bool {
    let set = |list: Option<&BTreeMap<_, _>>| list.is_some_and(|list| !list.is_empty());
    resources.is_some_and(|resources| set(resources.requests.as_ref()) || set(resources.limits.as_ref()))
}

/// No container says anything of processor or memory.
fn is_best_effort(pod: &Pod) -> bool {
    if let Some(class) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        return class == "BestEffort";
    }
    let Some(spec) = spec(pod) else {
        return true;
    };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut all = containers
        .map(|container| container.resources.as_ref())
        .chain([spec.resources.as_ref()]);
    let says = |amounts: Amounts| {
        ["cpu", "memory"]
            .iter()
            .any(|name| amounts.get(name).is_some_and(|amount| amount > Quantity::ZERO))
    };
    !all.any(|resources| says(Part::Requests.of(resources)) || says(Part::Limits.of(resources)))
}

fn looks_into_other_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = spec(pod).and_then(|spec| spec.affinity.as_ref()) else {
        return false;
    };
    let looks = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let any = |required: Option<&Vec<PodAffinityTerm>>, preferred: Option<&Vec<WeightedPodAffinityTerm>>| {
        required.into_iter().flatten().any(&looks)
            || preferred
                .into_iter()
                .flatten()
                .any(|term| looks(&term.pod_affinity_term))
    };
    affinity.pod_affinity.as_ref().is_some_and(|affinity| {
        any(
            affinity.required_during_scheduling_ignored_during_execution.as_ref(),
            affinity.preferred_during_scheduling_ignored_during_execution.as_ref(),
        )
    }) || affinity.pod_anti_affinity.as_ref().is_some_and(|affinity| {
        any(
            affinity.required_during_scheduling_ignored_during_execution.as_ref(),
            affinity.preferred_during_scheduling_ignored_during_execution.as_ref(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    fn usage(value: Value) -> String {
        pod(value).usage(NOW.parse().unwrap()).to_string()
    }

    fn container(name: &str, requests: Value, limits: Value) -> Value {
        json!({"name": name, "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn what_a_pod_uses() {
        let one = container(
            "a",
            json!({"cpu": "500m", "memory": "1Gi", "example.com/gpu": "2"}),
            json!({"cpu": "1"}),
        );
        assert_eq!(
            usage(json!({"spec": {"containers": [one]}})),
            "count/pods=1,cpu=500m,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=500m,requests.example.com/gpu=2,\
             requests.memory=1Gi"
        );
        let of_class = container("a", json!({"deviceclass.resource.kubernetes.io/gpu": "2"}), json!({}));
        assert_eq!(
            usage(json!({"spec": {"containers": [of_class]}})),
            "count/pods=1,pods=1,requests.deviceclass.resource.kubernetes.io/gpu=2"
        );
        let bare = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(usage(bare.clone()), "count/pods=1,pods=1");
        for phase in ["Failed", "Succeeded"] {
            let mut ended = bare.clone();
            ended["status"] = json!({ "phase": phase });
            assert_eq!(usage(ended), "count/pods=1");
        }
        let stuck = |at: &str| {
            json!({"metadata": {"deletionTimestamp": at, "deletionGracePeriodSeconds": 30},
                "spec": {"containers": [{"name": "a"}]}})
        };
        assert_eq!(usage(stuck("2026-01-01T00:00:00Z")), "count/pods=1");
        assert_eq!(usage(stuck("2026-01-01T00:00:50Z")), "count/pods=1,pods=1");
    }

    #[test]
    fn init_containers_overhead_and_the_pods_own_figures() {
        let cpu = |figure: &str| json!({"cpu": figure});
        let spec = json!({
            "containers": [container("a", cpu("1"), json!({}))],
            "initContainers": [container("i", cpu("3"), json!({}))],
            "overhead": {"cpu": "250m"}});
        assert_eq!(
            usage(json!({"spec": spec})),
            "count/pods=1,cpu=3250m,pods=1,requests.cpu=3250m"
        );
        let mut whole = spec;
        whole["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(
            usage(json!({"spec": whole})),
            "count/pods=1,cpu=2250m,pods=1,requests.cpu=2250m"
        );
    }

    #[test]
    fn a_resize_counts_the_larger_until_it_is_done() {
        let resized = |wanted: &str, has: &str, pending: Option<&str>| {
            let conditions =
                pending.map(|reason| json!([{"type": "PodResizePending", "status": "True", "reason": reason}]));
            usage(json!({
                "spec": {"containers": [container("a", json!({"cpu": wanted}), json!({}))]},
                "status": {"conditions": conditions, "containerStatuses": [{"name": "a", "image": "", "imageID": "",
                    "ready": true, "restartCount": 0, "resources": {"requests": {"cpu": has}},
                    "allocatedResources": {"cpu": has}}]}}))
        };
        let of = |figure: &str| format!("count/pods=1,cpu={figure},pods=1,requests.cpu={figure}");
        assert_eq!(resized("2", "1", None), of("2"));
        assert_eq!(resized("1", "2", None), of("2"));
        assert_eq!(resized("9", "1", Some("Infeasible")), of("1"));
        assert_eq!(resized("9", "1", Some("Deferred")), of("9"));
    }

    #[test]
    fn scopes() {
        let scope = |name: &str, operator: &str, values: &[&str]| ScopedResourceSelectorRequirement {
            scope_name: name.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let bare = pod(json!({"spec": {"containers": [{"name": "a"}]}}));
        let rich = pod(json!({"spec": {
            "containers": [container("a", json!({"cpu": "1"}), json!({}))],
            "activeDeadlineSeconds": 10, "priorityClassName": "high",
            "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "k", "namespaces": ["x"]}}]}}}}));
        for (name, operator, values, of_bare, of_rich) in [
            ("Terminating", "Exists", &[][..], false, true),
            ("NotTerminating", "Exists", &[], true, false),
            ("BestEffort", "Exists", &[], true, false),
            ("NotBestEffort", "Exists", &[], false, true),
            ("PriorityClass", "Exists", &[], false, true),
            ("PriorityClass", "In", &["high"], false, true),
            ("PriorityClass", "In", &["low"], false, false),
            ("PriorityClass", "NotIn", &["high"], true, false),
            ("PriorityClass", "DoesNotExist", &[], true, false),
            ("CrossNamespacePodAffinity", "Exists", &[], false, true),
            ("VolumeAttributesClass", "Exists", &[], false, false),
        ] {
            let scope = scope(name, operator, values);
            assert_eq!(
                (bare.is_in(&scope), rich.is_in(&scope)),
                (of_bare, of_rich),
                "{name} {operator}"
            );
        }
    }

    #[test]
    fn what_must_be_said() {
        let both = pod(json!({"spec": {
            "containers": [container("b", json!({"memory": "1Gi"}), json!({})), container("a", json!({}), json!({"cpu": "1"}))],
            "initContainers": [{"name": "i"}]}}));
        assert_eq!(
            both.lacks(&["limits.cpu", "requests.memory", "pods", "requests.ephemeral-storage"])
                .as_deref(),
            Some("must specify limits.cpu for: b,i; requests.memory for: a,i")
        );
        assert_eq!(both.lacks(&["pods"]), None);
        let whole = pod(json!({"spec": {"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "1"}}}}));
        assert_eq!(whole.lacks(&["cpu"]), None);
    }
}
