//! Restarting all containers of a pod, as one of them ended in a way for which its rules ask that (upstream:
//! `ShouldAllContainersRestart`, `kuberuntime_manager.go` `computePodActions`): everything is killed without grace and
//! forgotten, and the pod begins anew in its sandbox.

use super::stop::kill_because;
use super::{Action, KillReason, Plan};
use crate::kubelet::pod::{self, Role, RuleAction};
use crate::kubelet::state::{Memory, PodRuntime, Step, back_off_key};
use crate::runtime::{ContainerState, ContainerStatus};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::time::SystemTime;

/// The condition that says it.
pub const CONDITION: &str = "AllContainersRestarting";

fn rerun(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let apps = pod::app_containers(pod).iter().map(|container| (Role::App, container));
    pod::init_containers(pod).chain(apps)
}

/// Some rule of the pod may ask for it.
pub fn is_possible(pod: &Pod) -> bool {
    let mut rules = rerun(pod).flat_map(|(_, container)| container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == "RestartAllContainers")
}

/// What an earlier krust had begun.
pub fn was_begun(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    is_possible(pod) && conditions.any(|condition| condition.type_ == CONDITION && condition.status == "True")
}

/// The container whose end asks for it.
fn cause<'a>(pod: &'a Pod, runtime: &'a PodRuntime) -> Option<(&'a Container, &'a ContainerStatus)> {
    rerun(pod).find_map(|(_, container)| {
        let latest = runtime.latest(&container.name)?;
        let asks = pod::matching_rule(container, latest.exit_code) == Some(RuleAction::RestartAllContainers);
        (latest.state == ContainerState::Exited && asks).then_some((container, latest))
    })
}

fn remains<'a>(pod: &'a Pod, runtime: &'a PodRuntime) -> impl Iterator<Item = &'a ContainerStatus> {
    let of_pod = |container: &&ContainerStatus| rerun(pod).any(|(_, spec)| spec.name == container.name);
    runtime.containers.iter().filter(of_pod)
}

/// Begins when something asks for it, and ends when nothing is left of the containers.
pub fn advance(pod: &Pod, memory: &mut Memory) {
    memory.restarts_all = match memory.restarts_all {
        true => remains(pod, &memory.runtime).next().is_some(),
        false => is_possible(pod) && cause(pod, &memory.runtime).is_some(),
    };
}

/// Whether the pod is on its way to run again: its phase is not final whatever its containers were before.
pub fn is_under_way(pod: &Pod, runtime: &PodRuntime, restarts_all: bool) -> bool {
    let unborn = || {
        pod::app_containers(pod)
            .iter()
            .any(|app| runtime.latest(&app.name).is_none())
    };
    is_possible(pod) && (restarts_all || unborn())
}

pub(super) fn plan(pod: &Pod, memory: &Memory, now: SystemTime, plan: &mut Plan) {
    let mut alive = memory.runtime.running().peekable();
    let any = alive.peek().is_some();
    for container in alive {
        kill_because(memory, container, 0, KillReason::RestartingAll, plan);
    }
    let under_way = |step: &Step| matches!(step, Step::Start(_) | Step::Remove(_));
    if any || memory.in_flight.iter().any(under_way) {
        return;
    }
    let cause = cause(pod, &memory.runtime);
    if let Some((container, ended)) = cause {
        let at = ended.finished_at.unwrap_or(ended.created_at);
        let key = back_off_key(container);
        if let Some(until) = memory.crash_back_off.blocked_until(&key, at, now) {
            plan.wake(until);
            let delay = memory.crash_back_off.delay(&key, at).unwrap_or_default();
            let message = super::run::back_off_message(pod, &container.name, delay);
            plan.wait(&container.name, "CrashLoopBackOff", message);
            return;
        }
    }
    plan.actions.push(Action::StartOver {
        cause: cause.map(|(container, _)| container.name.clone()),
        ids: remains(pod, &memory.runtime)
            .map(|container| container.id.clone())
            .collect(),
    });
}
