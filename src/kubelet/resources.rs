//! Quality of service and cgroup figures (upstream: `pkg/kubelet/cm/helpers_linux.go`, `qos/policy.go`).

use crate::kubelet::pod::{self, Role};
use crate::quantity::Quantity;
use crate::runtime::Resources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

const SHARES_PER_CPU: i64 = 1024;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const QUOTA_PERIOD_US: i64 = 100_000;
const QUOTA_MIN_US: i64 = 1_000;
const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

type List = BTreeMap<String, ApiQuantity>;

fn figure(list: Option<&List>, resource: &str) -> Option<Quantity> {
    list?.get(resource)?.0.parse().ok()
}

pub fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    figure(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// The request; where only a limit is given, that.
pub fn request(container: &Container, resource: &str) -> Option<Quantity> {
    figure(container.resources.as_ref()?.requests.as_ref(), resource).or_else(|| limit(container, resource))
}

/// The class the API server gave the pod, else worked out here.
pub fn qos(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => return Qos::Guaranteed,
        Some("Burstable") => return Qos::Burstable,
        Some("BestEffort") => return Qos::BestEffort,
        _ => {}
    }
    let positive = |q: Option<Quantity>| q.filter(|q| !q.is_zero());
    let (mut any, mut all_guaranteed) = (false, true);
    let init = pod::init_containers(pod).map(|(_, c)| c);
    for container in init.chain(pod::app_containers(pod)) {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (
                positive(request(container, resource)),
                positive(limit(container, resource)),
            );
            any |= request.is_some() || limit.is_some();
            let equal =
                matches!((request, limit), (Some(r), Some(l)) if r.partial_cmp(&l) == Some(std::cmp::Ordering::Equal));
            all_guaranteed &= equal;
        }
    }
    match (any, all_guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// A figure that the spec has of the pod as a whole.
fn of_pod(pod: &Pod, list: impl Fn(&ResourceRequirements) -> Option<&List>, resource: &str) -> Option<Quantity> {
    figure(list(pod::spec(pod).resources.as_ref()?), resource)
}

fn request_of_pod(pod: &Pod, resource: &str) -> Option<Quantity> {
    of_pod(pod, |own| own.requests.as_ref(), resource)
}

fn limit_of_pod(pod: &Pod, resource: &str) -> Option<Quantity> {
    of_pod(pod, |own| own.limits.as_ref(), resource).filter(|limit| !limit.is_zero())
}

/// A container that has no limit has the pod's.
fn limit_within(pod: &Pod, container: &Container, resource: &str) -> Option<Quantity> {
    let own = limit(container, resource).filter(|limit| !limit.is_zero());
    own.or_else(|| limit_of_pod(pod, resource))
}

/// Something of the pod as a whole counts for the container, too, as it says nothing of its own.
pub fn follows_pod(container: &Container) -> bool {
    ["cpu", "memory"]
        .into_iter()
        .any(|resource| limit(container, resource).is_none_or(Quantity::is_zero))
}

/// The pod may use less than its containers by themselves.
pub fn is_bounded(pod: &Pod) -> bool {
    let limits = pod::spec(pod).resources.as_ref().and_then(|own| own.limits.as_ref());
    limits.is_some_and(|limits| !limits.is_empty())
}

fn amount(quantity: Quantity, resource: &str) -> i64 {
    match resource {
        "cpu" => quantity.milli_value(),
        _ => quantity.value(),
    }
}

fn overhead(pod: &Pod, resource: &str) -> i64 {
    figure(pod::spec(pod).overhead.as_ref(), resource).map_or(0, |overhead| amount(overhead, resource))
}

/// What the pod needs, in thousandths of a core or bytes: what it says as a whole, else what it needs at the same time:
/// its containers and sidecars, or an init container beside the sidecars before it (upstream:
/// `component-helpers/resource` `PodRequests`).
pub fn pod_request(pod: &Pod, resource: &str) -> i64 {
    match request_of_pod(pod, resource) {
        Some(own) => amount(own, resource).saturating_add(overhead(pod, resource)),
        None => sum_of(pod, |container| request(container, resource), resource),
    }
}

/// What the pod may use, if there is a bound to it: its own limit, else that of all its containers, if all have one.
fn pod_limit(pod: &Pod, resource: &str) -> Option<i64> {
    if let Some(own) = limit_of_pod(pod, resource) {
        return Some(amount(own, resource).saturating_add(overhead(pod, resource)));
    }
    let init = pod::init_containers(pod).map(|(_, container)| container);
    let mut all = init.chain(pod::app_containers(pod));
    let limited = all.all(|container| limit(container, resource).is_some_and(|limit| !limit.is_zero()));
    limited.then(|| sum_of(pod, |container| limit(container, resource), resource))
}

/// The same by what the node has granted, as far as the pod's status says that.
pub fn pod_granted(pod: &Pod, resource: &str) -> i64 {
    if request_of_pod(pod, resource).is_some() {
        let granted = pod
            .status
            .as_ref()
            .and_then(|status| status.allocated_resources.as_ref());
        return match figure(granted, resource) {
            Some(granted) => amount(granted, resource).saturating_add(overhead(pod, resource)),
            None => pod_request(pod, resource),
        };
    }
    let lists = pod
        .status
        .iter()
        .flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let statuses: Vec<_> = lists.flatten().flatten().collect();
    let granted = |container: &Container| {
        let status = statuses.iter().find(|status| status.name == container.name);
        match status.and_then(|status| status.allocated_resources.as_ref()) {
            Some(granted) => figure(Some(granted), resource),
            None => request(container, resource),
        }
    };
    sum_of(pod, granted, resource)
}

fn sum_of(pod: &Pod, of: impl Fn(&Container) -> Option<Quantity>, resource: &str) -> i64 {
    let sum = at_once(pod, of).map_or(0, |sum| amount(sum, resource));
    sum.saturating_add(overhead(pod, resource))
}

/// The most that containers have at the same time; None where none has any.
fn at_once(pod: &Pod, of: impl Fn(&Container) -> Option<Quantity>) -> Option<Quantity> {
    let plus = |one: Option<Quantity>, other: Option<Quantity>| match (one, other) {
        (Some(one), Some(other)) => Some(one.plus(other)),
        (one, other) => one.or(other),
    };
    let (mut sidecars, mut initial) = (None, None);
    for (role, container) in pod::init_containers(pod) {
        let with = plus(sidecars, of(container));
        if role == Role::Sidecar {
            sidecars = with;
        }
        initial = initial.max(with);
    }
    let apps = pod::app_containers(pod).iter().map(of).fold(sidecars, plus);
    apps.max(initial)
}

/// What the pod requests as a whole, by resource: what it says itself, else what its containers request together. Without
/// what it takes for itself (upstream: `PodRequests`).
pub fn requests_together(pod: &Pod) -> List {
    together(pod, |own| own.requests.as_ref())
}

/// The same of limits; a container without one does not count (upstream: `PodLimits`).
pub fn limits_together(pod: &Pod) -> List {
    together(pod, |own| own.limits.as_ref())
}

fn together(pod: &Pod, list: fn(&ResourceRequirements) -> Option<&List>) -> List {
    let init = pod::init_containers(pod).map(|(_, container)| container);
    let all = init.chain(pod::app_containers(pod));
    let named = all.filter_map(|container| list(container.resources.as_ref()?));
    let mut together = List::new();
    for name in named.flat_map(BTreeMap::keys) {
        if !together.contains_key(name) {
            let of = |container: &Container| figure(list(container.resources.as_ref()?), name);
            if let Some(sum) = at_once(pod, of) {
                together.insert(name.clone(), ApiQuantity(sum.to_string()));
            }
        }
    }
    let own = pod::spec(pod).resources.as_ref().and_then(list);
    together.extend(
        own.into_iter()
            .flatten()
            .map(|(name, quantity)| (name.clone(), quantity.clone())),
    );
    together
}

/// What a control group of such pods has of cpu and memory: what limits all of its containers (upstream:
/// `convertToAPIPodLevelResourcesStatus`).
pub fn in_force_together(pod: &Pod) -> ResourceRequirements {
    let own = pod::spec(pod).resources.clone().unwrap_or_default();
    let own_or = |list: Option<List>, found: List, counts: &dyn Fn(&str) -> bool| {
        let mut list = list.unwrap_or_default();
        let found = found.into_iter().filter(|(name, _)| counts(name));
        list.extend(found);
        Some(list).filter(|list| !list.is_empty())
    };
    let of_group = |name: &str| matches!(name, "cpu" | "memory");
    let limited = |name: &str| of_group(name) && pod_limit(pod, name).is_some();
    ResourceRequirements {
        requests: own_or(own.requests, requests_together(pod), &of_group),
        limits: own_or(own.limits, limits_together(pod), &limited),
        ..own
    }
}

/// The same amounts, however they are written.
pub fn same(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    let equal = |one: Option<&List>, other: Option<&List>| {
        let amounts = |list: Option<&List>| -> BTreeMap<String, Result<Quantity, String>> {
            let all = list.into_iter().flatten();
            all.map(|(name, text)| (name.clone(), text.0.parse().map_err(|_| text.0.clone())))
                .collect()
        };
        one == other || amounts(one) == amounts(other)
    };
    equal(one.requests.as_ref(), other.requests.as_ref()) && equal(one.limits.as_ref(), other.limits.as_ref())
}

pub fn cpu_shares(milli_cpu: i64) -> u64 {
    let shares = milli_cpu.saturating_mul(SHARES_PER_CPU) / 1000;
    shares.clamp(SHARES_MIN, SHARES_MAX).unsigned_abs()
}

/// Microseconds per 100 ms; 0 is no limit.
pub fn cpu_quota(milli_cpu: i64) -> i64 {
    match milli_cpu {
        0 => 0,
        milli => (milli.saturating_mul(QUOTA_PERIOD_US) / 1000).max(QUOTA_MIN_US),
    }
}

pub fn oom_score_adj(pod: &Pod, role: Role, container: &Container, node_memory_bytes: u64) -> i64 {
    let critical = pod::spec(pod)
        .priority
        .is_some_and(|priority| priority >= 2_000_000_000);
    if critical {
        return OOM_GUARANTEED;
    }
    match qos(pod) {
        Qos::Guaranteed => OOM_GUARANTEED,
        Qos::BestEffort => OOM_BEST_EFFORT,
        Qos::Burstable => {
            let spare = spare_memory(pod);
            let burstable_score = |container: &Container| burstable_score(container, spare, node_memory_bytes);
            let own = burstable_score(container);
            // A sidecar must not be killed before the containers it serves.
            match role {
                Role::Sidecar => {
                    let apps = pod::app_containers(pod).iter();
                    apps.map(burstable_score).fold(own, i64::min)
                }
                _ => own,
            }
        }
    }
}

/// Each container's part of the memory that the pod asks for beyond what its containers do.
fn spare_memory(pod: &Pod) -> i64 {
    let Some(own) = request_of_pod(pod, "memory").filter(|own| !own.is_zero()) else {
        return 0;
    };
    let of_containers = sum_of(pod, |container| request(container, "memory"), "memory");
    let of_containers = of_containers.saturating_sub(overhead(pod, "memory"));
    let containers = pod::init_containers(pod).count() + pod::app_containers(pod).len();
    let spare = own.value().saturating_sub(of_containers).max(0);
    spare / i64::try_from(containers.max(1)).unwrap_or(i64::MAX)
}

fn burstable_score(container: &Container, spare_memory: i64, node_memory_bytes: u64) -> i64 {
    let request = i128::from(request(container, "memory").map_or(0, Quantity::value)) + i128::from(spare_memory);
    let node = i128::from(node_memory_bytes.max(1));
    let score = 1000 - i64::try_from(1000 * request / node).unwrap_or(1000);
    score.clamp(3, OOM_BEST_EFFORT - 1)
}

/// What a container of the pod may use of memory; 0 is no limit.
pub fn memory_limit_bytes(pod: &Pod, container: &Container) -> u64 {
    let limit = limit_within(pod, container, "memory").map_or(0, Quantity::value);
    limit.max(0).unsigned_abs()
}

/// What the engine sets on the container's cgroup.
pub fn for_container(pod: &Pod, role: Role, container: &Container, node_memory_bytes: u64) -> Resources {
    let limit = |resource: &str| limit_within(pod, container, resource);
    let cpu_request = request(container, "cpu").or_else(|| limit("cpu"));
    let cpu_limit = limit("cpu").map_or(0, Quantity::milli_value);
    let own_pages = huge_pages(container.resources.as_ref());
    Resources {
        oom_score_adj: oom_score_adj(pod, role, container, node_memory_bytes),
        huge_pages: match own_pages.is_empty() {
            true => huge_pages(pod::spec(pod).resources.as_ref()),
            false => own_pages,
        },
        ..shares_and_limits(
            cpu_request.map_or(0, Quantity::milli_value),
            cpu_limit,
            limit("memory").map_or(0, Quantity::value),
        )
    }
}

/// What the engine sets on the control group of all the pod's containers (upstream: `ResourceConfigForPod`).
pub fn for_pod(pod: &Pod) -> Resources {
    let request = pod_request(pod, "cpu");
    let limit = |resource: &str| pod_limit(pod, resource).unwrap_or(0);
    let limited = match qos(pod) {
        Qos::BestEffort => shares_and_limits(0, 0, 0),
        Qos::Burstable | Qos::Guaranteed => shares_and_limits(request, limit("cpu"), limit("memory")),
    };
    Resources {
        huge_pages: huge_pages(pod::spec(pod).resources.as_ref()),
        ..limited
    }
}

fn shares_and_limits(cpu_request: i64, cpu_limit: i64, memory_limit: i64) -> Resources {
    let quota = cpu_quota(cpu_limit);
    Resources {
        cpu_shares: cpu_shares(cpu_request),
        cpu_quota: quota,
        cpu_period: if quota == 0 { 0 } else { QUOTA_PERIOD_US.unsigned_abs() },
        memory_limit_bytes: memory_limit.max(0).unsigned_abs(),
        ..Resources::default()
    }
}

/// Limits by the size of a page; requests are the same.
fn huge_pages(resources: Option<&ResourceRequirements>) -> BTreeMap<u64, u64> {
    let limits = resources.and_then(|r| r.limits.as_ref());
    let bytes = |quantity: Quantity| u64::try_from(quantity.value()).ok();
    let pages = limits.into_iter().flatten().filter_map(|(name, limit)| {
        let size = page_size(name)?;
        Some((bytes(size)?, bytes(limit.0.parse().ok()?)?))
    });
    pages.collect()
}

/// The size of a page that a resource counts: `hugepages-2Mi`.
pub fn page_size(resource: &str) -> Option<Quantity> {
    resource.strip_prefix("hugepages-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap()
    }

    #[test]
    fn classes() {
        let guaranteed = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        for (resources, class) in [
            (json!({}), Qos::BestEffort),
            (guaranteed, Qos::Guaranteed),
            (json!({"limits": {"cpu": "1"}}), Qos::Burstable),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                Qos::Burstable,
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                Qos::Guaranteed,
            ),
        ] {
            assert_eq!(qos(&pod(resources.clone())), class, "{resources}");
        }
    }

    #[test]
    fn a_pod_needs_the_most_that_it_needs_at_once() {
        let cpu = |milli: u32| json!({"requests": {"cpu": format!("{milli}m")}});
        let pod: Pod = serde_json::from_value(json!({
            "spec": {
                "overhead": {"cpu": "1m"},
                "initContainers": [
                    {"name": "a", "resources": cpu(300)},
                    {"name": "s", "resources": cpu(100), "restartPolicy": "Always"},
                    {"name": "b", "resources": cpu(250)},
                ],
                "containers": [{"name": "c", "resources": cpu(50)}, {"name": "d", "resources": cpu(50)}],
            },
            "status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                 "allocatedResources": {"cpu": "400m"}},
            ]},
        }))
        .unwrap();
        assert_eq!(pod_request(&pod, "cpu"), 351);
        assert_eq!(pod_granted(&pod, "cpu"), 551);
        assert_eq!(pod_request(&pod, "memory"), 0);
    }

    #[test]
    fn what_containers_have_together() {
        let limited = |cpu: &str| json!({"requests": {"cpu": "100m"}, "limits": {"cpu": cpu, "memory": "64Mi"}});
        let of = |own: serde_json::Value, containers: Vec<serde_json::Value>| -> Pod {
            let containers: Vec<_> = (0..)
                .zip(containers)
                .map(|(n, r)| json!({"name": format!("c{n}"), "resources": r}))
                .collect();
            serde_json::from_value(json!({"spec": {"resources": own, "containers": containers}})).unwrap()
        };
        let mib = 1 << 20;
        for (own, containers, shares, quota, memory) in [
            (json!(null), vec![json!({})], 2, 0, 0),
            (
                json!(null),
                vec![limited("200m"), limited("300m")],
                204,
                50_000,
                128 * mib,
            ),
            (json!(null), vec![limited("200m"), json!({})], 102, 0, 0),
            (
                json!({"requests": {"cpu": "500m"}}),
                vec![limited("200m")],
                512,
                20_000,
                64 * mib,
            ),
            (
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
                vec![limited("1"), json!({})],
                1024,
                0,
                1024 * mib,
            ),
        ] {
            let pod = of(own, containers);
            let pod = Pod { status: None, ..pod };
            let found = for_pod(&pod);
            assert_eq!((found.cpu_shares, found.cpu_quota), (shares, quota), "{pod:?}");
            assert_eq!(found.memory_limit_bytes, memory, "{pod:?}");
        }
    }

    #[test]
    fn what_the_pod_says_counts_for_containers_that_say_nothing() {
        let gib = 1 << 30;
        let pod: Pod = serde_json::from_value(json!({
            "spec": {
                "resources": {"requests": {"memory": "2Gi"}, "limits": {"cpu": "500m", "memory": "3Gi", "hugepages-2Mi": "4Mi"}},
                "containers": [
                    {"name": "a", "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}},
                    {"name": "b"},
                ],
            },
            "status": {"qosClass": "Burstable"},
        }))
        .unwrap();
        let of = |index: usize| for_container(&pod, Role::App, &pod::app_containers(&pod)[index], 8 * gib);
        assert_eq!((of(0).memory_limit_bytes, of(1).memory_limit_bytes), (gib, 3 * gib));
        assert_eq!((of(1).cpu_quota, of(1).cpu_shares), (50_000, 512));
        // Each has half of the gigabyte that the pod asks for and no container does.
        assert_eq!((of(0).oom_score_adj, of(1).oom_score_adj), (1000 - 187, 1000 - 62));
        assert_eq!(of(1).huge_pages, BTreeMap::from([(2 << 20, 4 << 20)]));
        assert_eq!(pod_request(&pod, "memory"), 2 << 30);
        assert!(is_bounded(&pod));
    }

    #[test]
    fn shares_and_quota_have_upstreams_bounds() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(250), 256);
        assert_eq!(cpu_shares(1_000_000), 262_144);
        assert_eq!(cpu_quota(0), 0);
        assert_eq!(cpu_quota(1), 1000);
        assert_eq!(cpu_quota(1500), 150_000);
    }

    #[test]
    fn huge_pages_are_limited_by_size() {
        let pod = pod(json!({"limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi", "hugepages-1Gi": "0"}}));
        let resources = for_container(&pod, Role::App, &pod::app_containers(&pod)[0], 1 << 30);
        assert_eq!(resources.huge_pages, BTreeMap::from([(2 << 20, 4 << 20), (1 << 30, 0)]));
    }

    #[test]
    fn figures_of_a_burstable_container() {
        let gib = 1 << 30;
        let pod = pod(json!({"requests": {"memory": "1Gi"}, "limits": {"cpu": "500m"}}));
        let resources = for_container(&pod, Role::App, &pod::app_containers(&pod)[0], 4 * gib);
        assert_eq!(resources.cpu_quota, 50_000);
        assert_eq!(resources.cpu_period, 100_000);
        assert_eq!(resources.cpu_shares, 512, "a limit without a request is the request");
        assert_eq!(resources.memory_limit_bytes, 0);
        assert_eq!(resources.oom_score_adj, 750);
    }
}
