//! The phase of a pod from its containers' states (upstream: `kubelet_pods.go` `getPhase`).

use crate::kubelet::pod::{self, Role};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

/// How a container counts for the phase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Not started yet.
    Waiting,
    Running,
    /// Ended, with this exit code; perhaps waiting for its next start.
    Stopped(i32),
    Unknown,
}

fn count(list: Option<&Vec<ContainerStatus>>, name: &str) -> Count {
    let Some(status) = list.into_iter().flatten().find(|status| status.name == name) else {
        return Count::Unknown;
    };
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        Count::Running
    } else if let Some(terminated) = state.terminated {
        Count::Stopped(terminated.exit_code)
    } else if state.waiting.is_some() {
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        last.map_or(Count::Waiting, |terminated| Count::Stopped(terminated.exit_code))
    } else {
        Count::Unknown
    }
}

/// `ending`: the pod is being finished, nothing is restarted.
pub fn compute(pod: &Pod, status: &PodStatus, ending: bool) -> &'static str {
    let apps: Vec<Count> = pod::app_containers(pod)
        .iter()
        .map(|c| count(status.container_statuses.as_ref(), &c.name))
        .collect();
    let initialized = apps
        .iter()
        .any(|count| matches!(count, Count::Running | Count::Stopped(_)));
    for (role, container) in pod::init_containers(pod) {
        let state = count(status.init_container_statuses.as_ref(), &container.name);
        match (role, state) {
            (Role::Init, Count::Stopped(0)) => {}
            (Role::Init, Count::Stopped(code)) if !pod::restarts(pod, role, container, code) => return "Failed",
            (Role::Init, _) if !initialized => return "Pending",
            (Role::Sidecar, state) if state != Count::Running && !initialized => return "Pending",
            _ => {}
        }
    }
    let any = |wanted: fn(&Count) -> bool| apps.iter().any(wanted);
    if any(|count| *count == Count::Waiting) {
        return "Pending";
    }
    if any(|count| *count == Count::Unknown) || apps.is_empty() {
        return "Pending";
    }
    if any(|count| *count == Count::Running) {
        return "Running";
    }
    let all_succeeded = apps.iter().all(|count| *count == Count::Stopped(0));
    let again = |(container, count): (&Container, &Count)| match count {
        Count::Stopped(code) => pod::restarts(pod, Role::App, container, *code),
        _ => false,
    };
    match all_succeeded {
        _ if !ending && pod::app_containers(pod).iter().zip(&apps).any(again) => "Running",
        true => "Succeeded",
        false => "Failed",
    }
}
