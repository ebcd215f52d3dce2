//! Ending a pod: app containers at once, then sidecars in reverse order, then the sandbox
//! (upstream: `killContainersWithSyncResult`, `terminationOrdering`).

use super::{Action, KillReason, Plan};
use crate::kubelet::pod::{self, Role};
use crate::kubelet::state::{Memory, Step};
use crate::runtime::{ContainerStatus, SandboxState};
use k8s_openapi::api::core::v1::Pod;
use std::time::SystemTime;

/// Sidecars get at least this long after the app containers, as upstream.
const GRACE_MIN_SECONDS: u32 = 2;

pub(super) fn plan(
    pod: &Pod,
    memory: &Memory,
    grace_seconds: u32,
    since: SystemTime,
    now: SystemTime,
    plan: &mut Plan,
) {
    let starting = |step: &Step| matches!(step, Step::Start(_) | Step::Sandbox | Step::Volumes);
    let starting = memory.in_flight.iter().any(starting);
    let (sidecars, others): (Vec<_>, Vec<_>) = memory.runtime.running().partition(|c| is_sidecar(pod, c));
    for container in &others {
        kill(memory, container, grace_seconds, plan);
    }
    if !others.is_empty() {
        return;
    }
    if !sidecars.is_empty() {
        let elapsed = now.duration_since(since).unwrap_or_default().as_secs();
        let left = grace_seconds.saturating_sub(u32::try_from(elapsed).unwrap_or(u32::MAX));
        if let Some(last) = pod::init_containers(pod)
            .rev()
            .find_map(|(_, spec)| sidecars.iter().find(|c| c.name == spec.name))
        {
            kill(memory, last, left.max(GRACE_MIN_SECONDS.min(grace_seconds)), plan);
        }
        return;
    }
    if starting {
        // The worker cancelled it; its outcome may still be a running container.
        return;
    }
    let ready: Vec<_> = memory
        .runtime
        .sandboxes
        .iter()
        .filter(|s| s.state == SandboxState::Ready)
        .collect();
    for sandbox in &ready {
        if !memory.in_flight.contains(&Step::Kill(sandbox.id.clone())) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    plan.stopped = ready.is_empty();
}

fn is_sidecar(pod: &Pod, container: &ContainerStatus) -> bool {
    pod::init_containers(pod).any(|(role, c)| role == Role::Sidecar && c.name == container.name)
}

/// Kills the container unless that is under way with no more grace than now.
pub(super) fn kill(memory: &Memory, container: &ContainerStatus, grace_seconds: u32, plan: &mut Plan) {
    kill_because(memory, container, grace_seconds, KillReason::Stopping, plan);
}

pub(super) fn kill_because(
    memory: &Memory,
    container: &ContainerStatus,
    grace_seconds: u32,
    reason: KillReason,
    plan: &mut Plan,
) {
    let under_way = memory.kill_grace.get(&container.id);
    if under_way.is_some_and(|grace| *grace <= grace_seconds) {
        return;
    }
    plan.actions.push(Action::KillContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        grace_seconds,
        reason,
    });
}
