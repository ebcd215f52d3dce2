//! containerStatuses (upstream: `convertToAPIContainerStatuses`).

use super::Seen;
use crate::kubelet::pod::{self, Role};
use crate::kubelet::state::is_alive;
use crate::kubelet::volumes;
use crate::runtime::{self, oci::user::ResolvedUser};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, Pod, PodStatus, VolumeMountStatus,
};
use std::time::SystemTime;

pub fn app(seen: &Seen<'_>) -> Option<Vec<ContainerStatus>> {
    let old = seen.pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let list = pod::app_containers(seen.pod).iter();
    non_empty(list.map(|c| one(seen, Role::App, c, old)).collect())
}

pub fn init(seen: &Seen<'_>) -> Option<Vec<ContainerStatus>> {
    let old = seen
        .pod
        .status
        .as_ref()
        .and_then(|s| s.init_container_statuses.as_ref());
    let list = pod::init_containers(seen.pod);
    non_empty(list.map(|(role, c)| one(seen, role, c, old)).collect())
}

pub fn ephemeral(seen: &Seen<'_>) -> Option<Vec<ContainerStatus>> {
    let old = seen
        .pod
        .status
        .as_ref()
        .and_then(|s| s.ephemeral_container_statuses.as_ref());
    let list = pod::ephemeral_containers(seen.pod);
    non_empty(list.iter().map(|c| one(seen, Role::Ephemeral, c, old)).collect())
}

fn non_empty(list: Vec<ContainerStatus>) -> Option<Vec<ContainerStatus>> {
    (!list.is_empty()).then_some(list)
}

fn one(seen: &Seen<'_>, role: Role, container: &Container, old: Option<&Vec<ContainerStatus>>) -> ContainerStatus {
    let old = old.into_iter().flatten().find(|status| status.name == container.name);
    let history = seen.runtime.history(&container.name);
    let Some(latest) = history.first() else {
        return without_record(seen, container, old);
    };
    let old_count = old.map_or(0, |old| old.restart_count);
    let id = format!("{}://{}", seen.runtime_name, latest.id);
    let before = history
        .iter()
        .skip(1)
        .find(|c| !is_alive(c.state) && c.state != runtime::ContainerState::Created);
    let mut last_state = match before {
        Some(before) => Some(terminated(seen, before)),
        // The engine's record is gone; the status still has it.
        None => old
            .filter(|old| old.container_id.as_ref() == Some(&id))
            .and_then(|old| old.last_state.clone()),
    };
    let held_back = seen.waiting.get(&container.name);
    let state = match latest.state {
        state if is_alive(state) => running(latest.started_at.unwrap_or(latest.created_at)),
        runtime::ContainerState::Exited => {
            let ended = terminated(seen, latest);
            match held_back {
                Some(held) if !seen.ending => {
                    last_state = Some(ended);
                    waiting(&held.reason, &held.message)
                }
                // Its end is not the container's: the API takes no end back where nothing is restarted.
                _ if !seen.ending && seen.replaced.contains(&latest.id) => {
                    let known = old.and_then(|old| old.state.clone());
                    known
                        .filter(|state| state.running.is_some())
                        .unwrap_or_else(|| waiting(default_reason(seen), ""))
                }
                _ => ended,
            }
        }
        _ => match held_back {
            Some(held) => waiting(&held.reason, &held.message),
            None => waiting(default_reason(seen), ""),
        },
    };
    let is_running = is_alive(latest.state);
    let (has, granted) = seen.resize.shown(&latest.id, container);
    // What does not run has what it would start with.
    let has = if is_running { has } else { granted.clone() };
    let completed = state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: latest.image.clone(),
        image_id: latest.image_ref.clone(),
        container_id: Some(id),
        ready: match role {
            Role::Init => completed,
            Role::Ephemeral => false,
            _ => is_running && !seen.verdicts.not_ready.contains(&latest.id),
        },
        started: Some(is_running && !seen.verdicts.not_started.contains(&latest.id)),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX).max(old_count),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        resources: has,
        allocated_resources: granted.and_then(|granted| granted.requests),
        volume_mounts: volume_mounts(container, seen.recursive_readonly),
        user: latest.user.as_ref().map(user),
        ..ContainerStatus::default()
    }
}

/// Who the container began as, where the engine says it (upstream: `convertContainerStatusUser`).
fn user(user: &ResolvedUser) -> ContainerUser {
    let groups = user.additional_gids.iter().map(|gid| i64::from(*gid)).collect();
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: i64::from(user.uid),
            gid: i64::from(user.gid),
            supplemental_groups: Some(groups),
        }),
    }
}

/// Nothing was created yet, or the engine has forgotten it.
fn without_record(seen: &Seen<'_>, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    let held_back = seen.waiting.get(&container.name);
    let ran = old.filter(|old| old.container_id.as_deref().is_some_and(|id| !id.is_empty()));
    if let (Some(ran), true) = (ran, seen.ending || pod::is_finished(seen.pod)) {
        let mut status = ran.clone();
        let ended = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
        if !ended {
            status.state = Some(vanished());
        }
        status.ready = false;
        status.started = Some(false);
        return status;
    }
    let last_state = ran.map(|ran| match ran.state.clone() {
        Some(state) if state.terminated.is_some() => state,
        Some(state) if state.running.is_some() => vanished(),
        _ => ran.last_state.clone().unwrap_or_default(),
    });
    let state = match held_back {
        Some(held) => waiting(&held.reason, &held.message),
        None => waiting(default_reason(seen), ""),
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        restart_count: old.map_or(0, |old| old.restart_count),
        ready: false,
        started: Some(false),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        container_id: ran.and_then(|ran| ran.container_id.clone()),
        volume_mounts: volume_mounts(container, seen.recursive_readonly),
        ..ContainerStatus::default()
    }
}

fn default_reason(seen: &Seen<'_>) -> &'static str {
    match pod::init_containers(seen.pod).next() {
        Some(_) => "PodInitializing",
        None => "ContainerCreating",
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        }),
        ..ContainerState::default()
    }
}

fn running(started_at: SystemTime) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning {
            started_at: Some(pod::api_time(started_at)),
        }),
        ..ContainerState::default()
    }
}

fn terminated(seen: &Seen<'_>, container: &runtime::ContainerStatus) -> ContainerState {
    let message = seen.messages.get(&container.id).filter(|text| !text.is_empty());
    let message = message.or(Some(&container.message)).filter(|text| !text.is_empty());
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: container.exit_code,
            reason: Some(reason.to_owned()),
            message: message.cloned(),
            started_at: Some(pod::api_time(container.started_at.unwrap_or(SystemTime::UNIX_EPOCH))),
            finished_at: Some(pod::api_time(container.finished_at.unwrap_or(SystemTime::UNIX_EPOCH))),
            container_id: Some(format!("{}://{}", seen.runtime_name, container.id)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// What is still said to wait or to run when the pod has come to its end has ended in an unknown way (upstream: `TerminatePod`).
/// Where init containers have not let the others begin, theirs is the end that tells.
pub fn end(pod: &Pod, status: &mut PodStatus) {
    let ended = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    // What the API was told last still knows of sidecars that ran.
    let initialized = is_initialized(pod, status) || pod.status.as_ref().is_some_and(|old| is_initialized(pod, old));
    if initialized {
        let apps = status.container_statuses.iter_mut().flatten();
        apps.filter(|app| !ended(app))
            .for_each(|app| app.state = Some(vanished()));
    }
    let inits = status.init_container_statuses.as_deref_mut().unwrap_or_default();
    // Those that the pod never came to still wait.
    let reached = inits.iter().rposition(has_begun).map_or(1, |last| last + 1);
    let reached = inits.iter_mut().take(reached).filter(|init| !ended(init));
    reached.for_each(|init| init.state = Some(vanished()));
}

fn has_begun(status: &ContainerStatus) -> bool {
    let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    !waits || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
}

/// Whether something tells that the app containers were let begin (upstream: `hasPodInitialized`).
fn is_initialized(pod: &Pod, status: &PodStatus) -> bool {
    let Some((role, last)) = pod::init_containers(pod).last() else {
        return true;
    };
    let mut inits = status.init_container_statuses.iter().flatten();
    let let_begin = inits.find(|init| init.name == last.name).is_some_and(|init| {
        let states = [&init.state, &init.last_state].into_iter().flatten();
        let mut ends = states.filter_map(|state| state.terminated.as_ref());
        match role {
            Role::Sidecar => {
                let runs = init.state.as_ref().is_some_and(|state| state.running.is_some());
                runs && init.started == Some(true)
            }
            _ => ends.any(|end| end.exit_code == 0),
        }
    });
    let_begin || status.container_statuses.iter().flatten().any(has_begun)
}

fn vanished() -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn volume_mounts(container: &Container, possible: bool) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?.iter();
    Some(
        mounts
            .map(|mount| VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: mount.read_only,
                recursive_read_only: mount.read_only.filter(|ro| *ro).map(|_| {
                    let recursive = volumes::recursive_readonly(mount, possible).unwrap_or(false);
                    if recursive { "Enabled" } else { "Disabled" }.to_owned()
                }),
                ..VolumeMountStatus::default()
            })
            .collect(),
    )
}
