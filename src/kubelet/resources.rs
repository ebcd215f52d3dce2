//! Quality of service and cgroup figures (upstream: `pkg/kubelet/cm/helpers_linux.go`, `qos/policy.go`).

use crate::kubelet::pod::{self, Role};
use crate::quantity::Quantity;
use crate::runtime::Resources;
use k8s_openapi::api::core::v1::{Container, Pod};
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

/// What the pod needs at the same time, in thousandths of a core or bytes: its containers and sidecars, or an init
/// container beside the sidecars before it (upstream: `component-helpers/resource` `PodRequests`).
pub fn pod_request(pod: &Pod, resource: &str) -> i64 {
    sum_of(pod, |container| request(container, resource), resource)
}

/// The same by what the node has granted, as far as the pod's status says that.
pub fn pod_granted(pod: &Pod, resource: &str) -> i64 {
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
    let amount = |quantity: Quantity| match resource {
        "cpu" => quantity.milli_value(),
        _ => quantity.value(),
    };
    let of = |container: &Container| of(container).map_or(0, amount);
    let (mut sidecars, mut initial) = (0_i64, 0_i64);
    for (role, container) in pod::init_containers(pod) {
        let with = of(container).saturating_add(sidecars);
        if role == Role::Sidecar {
            sidecars = with;
        }
        initial = initial.max(with);
    }
    let apps = pod::app_containers(pod).iter().map(of);
    let apps = apps.fold(sidecars, i64::saturating_add);
    let overhead = figure(pod::spec(pod).overhead.as_ref(), resource).map_or(0, amount);
    initial.max(apps).saturating_add(overhead)
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
            let own = burstable_score(container, node_memory_bytes);
            // A sidecar must not be killed before the containers it serves.
            match role {
                Role::Sidecar => {
                    let apps = pod::app_containers(pod).iter();
                    apps.map(|c| burstable_score(c, node_memory_bytes)).fold(own, i64::min)
                }
                _ => own,
            }
        }
    }
}

fn burstable_score(container: &Container, node_memory_bytes: u64) -> i64 {
    let request = i128::from(request(container, "memory").map_or(0, Quantity::value));
    let node = i128::from(node_memory_bytes.max(1));
    let score = 1000 - i64::try_from(1000 * request / node).unwrap_or(1000);
    score.clamp(3, OOM_BEST_EFFORT - 1)
}

/// What the engine sets on the container's cgroup.
pub fn for_container(pod: &Pod, role: Role, container: &Container, node_memory_bytes: u64) -> Resources {
    let cpu_request = request(container, "cpu").map_or(0, Quantity::milli_value);
    let cpu_limit = limit(container, "cpu").map_or(0, Quantity::milli_value);
    let memory = limit(container, "memory").map_or(0, Quantity::value);
    let quota = cpu_quota(cpu_limit);
    Resources {
        cpu_shares: cpu_shares(cpu_request),
        cpu_quota: quota,
        cpu_period: if quota == 0 { 0 } else { QUOTA_PERIOD_US.unsigned_abs() },
        memory_limit_bytes: memory.max(0).unsigned_abs(),
        oom_score_adj: oom_score_adj(pod, role, container, node_memory_bytes),
        huge_pages: huge_pages(container),
    }
}

/// Limits by the size of a page; requests are the same.
fn huge_pages(container: &Container) -> BTreeMap<u64, u64> {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
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
