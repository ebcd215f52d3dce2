//! The status of a pod, worked out from what runs (upstream: `kubelet_pods.go` `generateAPIPodStatus`,
//! `pkg/kubelet/status`).

mod conditions;
mod containers;
pub mod patch;
mod phase;
#[cfg(test)]
mod tests;

use crate::kubelet::plan::{PodFailure, Waiting, restart};
use crate::kubelet::probes::Verdicts;
use crate::kubelet::resize::Resizes;
use crate::kubelet::state::PodRuntime;
use crate::kubelet::{pod, resources};
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus, ResourceRequirements};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// Upstream's `MaxPodTerminationMessageLogLength`.
const TERMINATION_MESSAGES_BYTES_MAX: usize = 12 << 10;

/// All that a status is made from.
pub struct Seen<'a> {
    /// The pod with the status that the API server has.
    pub pod: &'a Pod,
    pub runtime: &'a PodRuntime,
    /// Ids of containers that will start again whatever the policy.
    pub replaced: &'a BTreeSet<String>,
    pub resize: &'a Resizes,
    /// All containers are being killed and forgotten, to begin anew.
    pub restarts_all: bool,
    /// Containers that a plan holds back, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// The kubelet ended the pod.
    pub failure: Option<&'a PodFailure>,
    /// Nothing will be started again: what ended decides between Succeeded and Failed.
    pub ending: bool,
    /// Nothing runs any more, and nothing is on its way.
    pub stopped: bool,
    /// Termination messages by container id.
    pub messages: &'a BTreeMap<String, String>,
    pub verdicts: &'a Verdicts,
    /// Whether the engine can make all that is mounted in a volume read-only.
    pub recursive_readonly: bool,
    /// The scheme of container ids: `docker`, `containerd`.
    pub runtime_name: &'a str,
    pub host_ips: &'a [String],
    /// When the kubelet first saw the pod: startTime, unless it has one.
    pub first_seen: SystemTime,
    pub now: SystemTime,
}

/// The status as it should be. What the kubelet does not own is kept.
pub fn compute(seen: &Seen<'_>) -> PodStatus {
    let pod = seen.pod;
    let old = pod.status.clone().unwrap_or_default();
    let mut status = old.clone();
    // A pod that was refused never had containers, and shows its reason instead of what they would wait for.
    let refused = seen.failure.is_some() && seen.runtime.is_empty() && old.container_statuses.is_none();
    if !refused {
        status.container_statuses = containers::app(seen);
        status.init_container_statuses = containers::init(seen);
        status.ephemeral_container_statuses = containers::ephemeral(seen);
    }
    if seen.stopped {
        containers::end(pod, &mut status);
    }
    shorten_messages(&mut status);
    let phase = match seen.failure {
        Some(_) => "Failed",
        None => match phase::compute(pod, &status, seen.ending) {
            "Succeeded" | "Failed" if starts_again(seen) => "Running",
            // What ran before does not count.
            _ if !seen.ending && restart::is_under_way(pod, seen.runtime, seen.restarts_all) => "Pending",
            // What has come to its end without success has failed, also before it began.
            "Pending" | "Running" if seen.stopped && seen.ending => "Failed",
            phase => phase,
        },
    };
    let alive = seen.runtime.running().next().is_some();
    if pod::is_finished(pod) {
        // Final phases stay, whatever the runtime remembers.
    } else if alive && matches!(phase, "Succeeded" | "Failed") {
        // A phase is final when nothing runs any more, sidecars included.
        let known = old.phase.as_deref().filter(|phase| !phase.is_empty());
        status.phase = Some(known.unwrap_or("Pending").to_owned());
    } else {
        status.phase = Some(phase.to_owned());
        if let Some(failure) = seen.failure {
            status.reason = Some(failure.reason.to_owned());
            status.message = Some(failure.message.clone());
        }
    }
    if !refused {
        of_pod(seen, &mut status);
    }
    status.qos_class = Some(resources::qos(pod).as_str().to_owned());
    status.observed_generation = pod.metadata.generation;
    status.start_time.get_or_insert_with(|| pod::api_time(seen.first_seen));
    addresses(seen, &mut status);
    status.conditions = Some(conditions::compute(seen, &status));
    status
}

/// What the pod was granted as a whole, and what it has of it (upstream: `convertToAPIPodLevelResourcesStatus`).
fn of_pod(seen: &Seen<'_>, status: &mut PodStatus) {
    let granted = seen.resize.granted_pod(seen.pod);
    let requests = resources::requests_together(&granted);
    status.resources = Some(match status.phase.as_deref() {
        Some("Running") => resources::in_force_together(&seen.resize.actuated_pod(seen.pod, seen.runtime)),
        _ => ResourceRequirements {
            requests: Some(requests.clone()).filter(|list| !list.is_empty()),
            limits: Some(resources::limits_together(&granted)).filter(|list| !list.is_empty()),
            claims: None,
        },
    });
    status.allocated_resources = Some(requests).filter(|list| !list.is_empty());
}

/// Keeps the termination messages of a pod within a size that the API takes: each container has its share (upstream:
/// `normalizeStatus`).
fn shorten_messages(status: &mut PodStatus) {
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    let mut all: Vec<_> = lists.into_iter().flatten().flatten().collect();
    let share = TERMINATION_MESSAGES_BYTES_MAX / all.len().max(1);
    let states = all
        .iter_mut()
        .flat_map(|container| [&mut container.state, &mut container.last_state]);
    let ended = states.flatten().filter_map(|state| state.terminated.as_mut());
    for message in ended.filter_map(|terminated| terminated.message.as_mut()) {
        let end = (0..=share.min(message.len()))
            .rev()
            .find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
    }
}

/// A container that the kubelet ended to put another in its place has not ended the pod.
fn starts_again(seen: &Seen<'_>) -> bool {
    let latest = |name: &str| seen.runtime.latest(name);
    let mut containers = pod::init_containers(seen.pod)
        .map(|(_, c)| c)
        .chain(pod::app_containers(seen.pod));
    !seen.ending && containers.any(|c| latest(&c.name).is_some_and(|latest| seen.replaced.contains(&latest.id)))
}

fn addresses(seen: &Seen<'_>, status: &mut PodStatus) {
    if let Some(first) = seen.host_ips.first() {
        status.host_ip = Some(first.clone());
        status.host_ips = Some(seen.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    }
    let sandbox = seen.runtime.ready_sandbox();
    let pod_ips = match (pod::host_network(seen.pod), sandbox) {
        (true, Some(_)) => seen.host_ips,
        (false, Some(sandbox)) => sandbox.ips.as_slice(),
        // A pod that ended keeps the addresses it had.
        (_, None) => return,
    };
    if let Some(first) = pod_ips.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    }
}
