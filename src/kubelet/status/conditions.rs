//! The conditions of a pod that the kubelet owns (upstream: `pkg/kubelet/status/generate.go`).

use super::Seen;
use crate::kubelet::plan::restart;
use crate::kubelet::pod::{self, Role};
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

/// What a condition says: true, or a reason and a message.
type Verdict = Result<Option<&'static str>, (&'static str, String)>;

/// The pod's conditions with ours brought up to date; those of others stay.
pub fn compute(seen: &Seen<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let mut conditions = seen
        .pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    let containers_ready = containers_ready(seen, status);
    let ready = containers_ready
        .clone()
        .and_then(|ok| readiness_gates(seen, &conditions).map(|()| ok));
    let verdicts = [
        ("PodReadyToStartContainers", sandbox_ready(seen)),
        ("Initialized", initialized(seen, status)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Ok(None)),
    ];
    for (kind, verdict) in verdicts {
        put(seen, &mut conditions, kind, verdict);
    }
    restart_all(seen, status, &mut conditions);
    resize(seen, &mut conditions);
    disruption(seen, &mut conditions);
    conditions
}

/// The node takes the pod away for reasons of its own.
fn disruption(seen: &Seen<'_>, conditions: &mut Vec<PodCondition>) {
    let Some(failure) = seen.failure.filter(|failure| failure.disruption) else {
        return;
    };
    let position = conditions.iter().position(|c| c.type_ == "DisruptionTarget");
    let known = position
        .map(|index| conditions.remove(index))
        .filter(|known| known.status == "True");
    let since = known.and_then(|known| known.last_transition_time);
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("TerminationByKubelet".to_owned()),
        message: Some(failure.message.clone()),
        last_transition_time: Some(since.unwrap_or_else(|| pod::api_time(seen.now))),
        observed_generation: seen.pod.metadata.generation,
        last_probe_time: None,
    });
}

/// Of pods whose rules may ask for it (upstream: `GenerateAllContainersRestartingCondition`).
fn restart_all(seen: &Seen<'_>, status: &PodStatus, conditions: &mut Vec<PodCondition>) {
    if !restart::is_possible(seen.pod) {
        return;
    }
    let verdict = match status.phase.as_deref() {
        Some("Succeeded") => Err(("PodCompleted", String::new())),
        Some("Failed") => Err(("PodFailed", String::new())),
        _ if seen.restarts_all => Ok(Some("RestartAllContainersStarted")),
        _ => Err(("", String::new())),
    };
    put(seen, conditions, restart::CONDITION, verdict);
    let ours = conditions
        .iter_mut()
        .find(|condition| condition.type_ == restart::CONDITION);
    if let Some(condition) = ours.filter(|condition| condition.status == "True") {
        condition.message = Some("container exited with restart policy rule".to_owned());
    }
}

/// There only while there is something to say.
fn resize(seen: &Seen<'_>, conditions: &mut Vec<PodCondition>) {
    let pending = seen.resize.pending.as_ref();
    let pending = pending.map(|p| (Some(p.reason.to_owned()), Some(p.message.clone()), p.generation));
    let progress = seen.resize.progress.as_ref();
    let progress = progress.map(|p| {
        (
            p.error.as_ref().map(|_| "Error".to_owned()),
            p.error.clone(),
            p.generation,
        )
    });
    for (kind, wanted) in [("PodResizePending", pending), ("PodResizeInProgress", progress)] {
        let position = conditions.iter().position(|c| c.type_ == kind);
        let known = position.map(|index| conditions.remove(index));
        let Some((reason, message, generation)) = wanted else {
            continue;
        };
        let since = known.and_then(|known| known.last_transition_time);
        conditions.push(PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason,
            message,
            last_transition_time: Some(since.unwrap_or_else(|| pod::api_time(seen.now))),
            observed_generation: Some(generation),
            last_probe_time: None,
        });
    }
}

fn put(seen: &Seen<'_>, conditions: &mut Vec<PodCondition>, kind: &str, verdict: Verdict) {
    let (status, reason, message) = match verdict {
        Ok(reason) => ("True", reason.map(str::to_owned), None),
        Err((reason, message)) => (
            "False",
            Some(reason.to_owned()).filter(|text| !text.is_empty()),
            Some(message).filter(|text| !text.is_empty()),
        ),
    };
    let position = conditions.iter().position(|c| c.type_ == kind);
    let known = position.map(|index| &conditions[index]);
    // The scheduler's word stands; the kubelet only speaks for pods that were bound by other means.
    if kind == "PodScheduled" && known.is_some_and(|known| known.status == "True") {
        return;
    }
    let since = known
        .filter(|known| known.status == status)
        .and_then(|known| known.last_transition_time.clone());
    let condition = PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason,
        message,
        last_transition_time: Some(since.unwrap_or_else(|| pod::api_time(seen.now))),
        observed_generation: seen.pod.metadata.generation,
        last_probe_time: None,
    };
    match position {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

fn sandbox_ready(seen: &Seen<'_>) -> Verdict {
    let sandbox = seen.runtime.ready_sandbox();
    match sandbox.is_some_and(|sandbox| pod::host_network(seen.pod) || !sandbox.ips.is_empty()) {
        true => Ok(None),
        false => Err(("", String::new())),
    }
}

fn find<'a>(list: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    list.into_iter().flatten().find(|status| status.name == name)
}

fn named(what: &str, names: &[&str]) -> String {
    format!("containers with {what} status: [{}]", names.join(" "))
}

fn initialized(seen: &Seen<'_>, status: &PodStatus) -> Verdict {
    if status.phase.as_deref() == Some("Succeeded") && pod::init_containers(seen.pod).next().is_some() {
        return Ok(Some("PodCompleted"));
    }
    let ran = |status: &&ContainerStatus| {
        let seen = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            state
                .as_ref()
                .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        seen(&status.state) || seen(&status.last_state)
    };
    if status.container_statuses.iter().flatten().any(|status| ran(&status)) {
        return Ok(None);
    }
    let incomplete: Vec<&str> = pod::init_containers(seen.pod)
        .filter(|(role, container)| {
            let status = find(status.init_container_statuses.as_ref(), &container.name);
            !status.is_some_and(|status| match role {
                Role::Sidecar => status.started == Some(true),
                _ => status.ready,
            })
        })
        .map(|(_, container)| container.name.as_str())
        .collect();
    match incomplete.is_empty() {
        true => Ok(None),
        false => Err(("ContainersNotInitialized", named("incomplete", &incomplete))),
    }
}

fn containers_ready(seen: &Seen<'_>, status: &PodStatus) -> Verdict {
    match status.phase.as_deref() {
        Some("Succeeded") => return Err(("PodCompleted", String::new())),
        Some("Failed") => return Err(("PodFailed", String::new())),
        _ => {}
    }
    let sidecars = pod::init_containers(seen.pod)
        .filter(|(role, _)| *role == Role::Sidecar)
        .map(|(_, c)| (c, status.init_container_statuses.as_ref()));
    let apps = pod::app_containers(seen.pod)
        .iter()
        .map(|c| (c, status.container_statuses.as_ref()));
    let unready: Vec<&str> = sidecars
        .chain(apps)
        .filter(|(container, list)| !find(*list, &container.name).is_some_and(|status| status.ready))
        .map(|(container, _)| container.name.as_str())
        .collect();
    match unready.is_empty() {
        true => Ok(None),
        false => Err(("ContainersNotReady", named("unready", &unready))),
    }
}

fn readiness_gates(seen: &Seen<'_>, conditions: &[PodCondition]) -> Result<(), (&'static str, String)> {
    let gates = pod::spec(seen.pod).readiness_gates.iter().flatten();
    let closed: Vec<String> = gates
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match conditions.iter().find(|c| c.type_ == *name) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {name:?} does not exist."
                )),
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    match closed.is_empty() {
        true => Ok(()),
        false => Err(("ReadinessGatesNotReady", closed.join(", "))),
    }
}
