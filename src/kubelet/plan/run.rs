//! Keeping a pod as its spec says: volumes, sandbox, init containers, sidecars, app containers, restarts.

use super::stop::{self, kill_because};
use super::{Action, KillReason, Plan, restart};
use crate::kubelet::container::definition_changed;
use crate::kubelet::pod::{self, Role};
use crate::kubelet::resize::Need;
use crate::kubelet::state::{FailureKind, Memory, StartFailure, Step, back_off_key, is_alive};
use crate::runtime::{ContainerState, ContainerStatus, Sandbox, SandboxState};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// How long ErrImagePull and RunContainerError are shown before the back-off that follows them.
const FIRST_ERROR_SHOWN: Duration = Duration::from_secs(1);

pub(super) fn plan(pod: &Pod, memory: &Memory, now: SystemTime) -> Plan {
    let mut plan = Plan::default();
    if memory.restarts_all {
        restart::plan(pod, memory, now, &mut plan);
        return plan;
    }
    if finished(pod, memory) {
        plan.finished = true;
        stop::plan(pod, memory, pod::grace_seconds(pod), now, now, &mut plan);
        return plan;
    }
    let Some(sandbox) = memory.runtime.sandbox() else {
        prepare(memory, None, now, &mut plan);
        return plan;
    };
    if sandbox.state == SandboxState::NotReady {
        // What still runs lost its network: it ends before the new sandbox begins.
        let alive: Vec<_> = memory.runtime.running().collect();
        for container in &alive {
            kill_because(
                memory,
                container,
                pod::grace_seconds(pod),
                KillReason::SandboxChanged,
                &mut plan,
            );
        }
        if alive.is_empty() {
            prepare(memory, Some(sandbox), now, &mut plan);
        }
        return plan;
    }
    let mut view = Run {
        pod,
        memory,
        sandbox_id: &sandbox.id,
        now,
        plan,
    };
    view.containers();
    let mut plan = view.plan;
    collect_garbage(pod, memory, &sandbox.id, &mut plan);
    plan
}

/// Volumes, then the sandbox: what containers need before them. `lost` is the sandbox that the pod had.
fn prepare(memory: &Memory, lost: Option<&Sandbox>, now: SystemTime, plan: &mut Plan) {
    if !memory.volumes_ready {
        match &memory.volumes_failure {
            Some(failure) if failure.retry_at > now => plan.wake(failure.retry_at),
            _ if memory.in_flight.contains(&Step::Volumes) => {}
            _ => plan.actions.push(Action::PrepareVolumes),
        }
        return;
    }
    match &memory.sandbox_failure {
        Some(failure) if failure.retry_at > now => plan.wake(failure.retry_at),
        _ if memory.in_flight.contains(&Step::Sandbox) => {}
        _ => plan.actions.push(Action::CreateSandbox {
            attempt: lost.map_or(0, |sandbox| sandbox.pod.attempt + 1),
            replaces: lost.map(|sandbox| sandbox.id.clone()),
        }),
    }
}

/// Every app container ended for good, or an init container failed for good.
fn finished(pod: &Pod, memory: &Memory) -> bool {
    let runtime = &memory.runtime;
    let ended_for_good = |role: Role, c: &Container| {
        runtime.latest(&c.name).is_some_and(|latest| {
            latest.state == ContainerState::Exited
                && !memory.in_flight.contains(&Step::Start(c.name.clone()))
                && !memory.replaced.contains(&latest.id)
                && !pod::restarts(pod, role, c, latest.exit_code)
        })
    };
    let init_failed = pod::init_containers(pod).any(|(role, c)| {
        role == Role::Init
            && ended_for_good(role, c)
            && runtime.latest(&c.name).is_some_and(|latest| latest.exit_code != 0)
    });
    let apps = pod::app_containers(pod);
    init_failed || (!apps.is_empty() && apps.iter().all(|c| ended_for_good(Role::App, c)))
}

struct Run<'a> {
    pod: &'a Pod,
    memory: &'a Memory,
    sandbox_id: &'a str,
    now: SystemTime,
    plan: Plan,
}

impl<'a> Run<'a> {
    /// The newest container of that name if it belongs to the current sandbox.
    fn current(&self, name: &str) -> Option<&'a ContainerStatus> {
        let latest = self.memory.runtime.latest(name);
        latest.filter(|c| c.sandbox_id == self.sandbox_id)
    }

    fn containers(&mut self) {
        if !self.memory.volumes_ready {
            // Adopted after a restart of krust: the files are made again before anything else starts.
            prepare(self.memory, None, self.now, &mut self.plan);
            return;
        }
        for container in pod::ephemeral_containers(self.pod) {
            if self.memory.runtime.latest(&container.name).is_none() {
                self.start(&container);
            }
        }
        if !self.initialized() {
            return;
        }
        for container in pod::app_containers(self.pod) {
            self.keep(Role::App, container);
        }
    }

    /// Brings the init containers on by one step; true once the app containers may run.
    fn initialized(&mut self) -> bool {
        let app_started = pod::app_containers(self.pod)
            .iter()
            .any(|c| self.current(&c.name).is_some() || self.memory.in_flight.contains(&Step::Start(c.name.clone())));
        for (role, container) in pod::init_containers(self.pod) {
            match role {
                Role::Sidecar => {
                    self.keep(role, container);
                    let not_started = &self.memory.verdicts.not_started;
                    let started = self
                        .current(&container.name)
                        .is_some_and(|c| c.state == ContainerState::Running && !not_started.contains(&c.id));
                    if !started && !app_started {
                        return false;
                    }
                }
                _ if app_started => {}
                _ => {
                    let done = self
                        .current(&container.name)
                        .is_some_and(|c| c.state == ContainerState::Exited && c.exit_code == 0);
                    if !done {
                        self.keep(role, container);
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Starts, restarts or replaces one container as its state asks for.
    fn keep(&mut self, role: Role, container: &Container) {
        if self.memory.in_flight.contains(&Step::Start(container.name.clone())) {
            self.keep_showing(container);
            return;
        }
        let Some(latest) = self.memory.runtime.latest(&container.name) else {
            self.start(container);
            return;
        };
        match latest.state {
            ContainerState::Running if latest.sandbox_id == self.sandbox_id => {
                let grace = pod::grace_seconds(self.pod);
                if definition_changed(container, latest) {
                    let reason = KillReason::DefinitionChanged;
                    kill_because(self.memory, latest, grace, reason, &mut self.plan);
                } else if let Some((probe, own_grace)) = self.memory.verdicts.unhealthy.get(&latest.id) {
                    let grace = own_grace.unwrap_or(grace);
                    kill_because(self.memory, latest, grace, KillReason::Unhealthy(probe), &mut self.plan);
                } else {
                    self.resize(container, latest);
                }
            }
            ContainerState::Running | ContainerState::Unknown => {
                let grace = pod::grace_seconds(self.pod);
                kill_because(self.memory, latest, grace, KillReason::SandboxChanged, &mut self.plan);
            }
            ContainerState::Created => self.start(container),
            ContainerState::Exited => {
                let again = latest.sandbox_id != self.sandbox_id && role == Role::Init;
                let replaced = self.memory.replaced.contains(&latest.id);
                if again || replaced || pod::restarts(self.pod, role, container, latest.exit_code) {
                    self.restart(container, latest);
                }
            }
        }
    }

    /// Brings a running container to the resources that were granted to it.
    fn resize(&mut self, container: &Container, running: &ContainerStatus) {
        match self.memory.resize.need(container, running, self.now) {
            None => {}
            Some(Need::Wait(until)) => self.plan.wake(until),
            Some(Need::Restart) => {
                let grace = pod::grace_seconds(self.pod);
                kill_because(self.memory, running, grace, KillReason::Resized, &mut self.plan);
            }
            Some(Need::Update) if self.memory.in_flight.contains(&Step::Resize(running.id.clone())) => {}
            Some(Need::Update) => self.plan.actions.push(Action::ResizeContainer {
                id: running.id.clone(),
                name: container.name.clone(),
            }),
        }
    }

    fn restart(&mut self, container: &Container, latest: &ContainerStatus) {
        let (name, now) = (&container.name, self.now);
        let ended = latest.finished_at.unwrap_or(latest.created_at);
        let key = back_off_key(container);
        let Some(until) = self.memory.crash_back_off.blocked_until(&key, ended, now) else {
            self.start(container);
            return;
        };
        self.plan.wake(until);
        let failure = self.memory.start_failures.get(name);
        let fresh = |failure: &&StartFailure| now < failure.at + FIRST_ERROR_SHOWN;
        if let Some(failure) = failure.filter(|f| f.kind == FailureKind::Start).filter(fresh) {
            self.plan.wake(failure.at + FIRST_ERROR_SHOWN);
            self.plan.wait(name, &failure.reason, &failure.message);
            return;
        }
        let delay = self.memory.crash_back_off.delay(&key, ended).unwrap_or_default();
        let message = back_off_message(self.pod, name, delay);
        self.plan.wait(name, "CrashLoopBackOff", message);
    }

    /// Plans the start unless the last try failed too short a time ago.
    fn start(&mut self, container: &Container) {
        let name = &container.name;
        if self.memory.in_flight.contains(&Step::Start(name.clone())) {
            self.keep_showing(container);
            return;
        }
        if self.held_back(container) {
            return;
        }
        let latest = self.memory.runtime.latest(name);
        let replaces = latest.filter(|c| c.state == ContainerState::Created);
        let attempt = match (latest, replaces) {
            (_, Some(created)) => created.attempt,
            (Some(latest), None) => latest.attempt + 1,
            (None, None) => {
                let next = self.memory.next_attempts.get(name).copied().unwrap_or(0);
                attempt_from_status(self.pod, name).max(next)
            }
        };
        self.plan.actions.push(Action::StartContainer {
            name: name.clone(),
            attempt,
            replaces: replaces.map(|c| c.id.clone()),
        });
    }

    /// True while the last failed try forbids the next one; says what the container waits for.
    fn held_back(&mut self, container: &Container) -> bool {
        let Some(failure) = self.memory.start_failures.get(&container.name) else {
            return false;
        };
        let same_image = container.image.as_deref().unwrap_or_default() == failure.image;
        let due = failure.retry_at.is_some_and(|at| at <= self.now);
        if !same_image || failure.kind == FailureKind::Start {
            return false;
        }
        self.show(container);
        if due {
            return false;
        }
        if let Some(at) = failure.retry_at {
            self.plan.wake(at);
        }
        true
    }

    /// While a try is under way, the failure of the last one stays visible.
    fn keep_showing(&mut self, container: &Container) {
        if self.memory.start_failures.contains_key(&container.name) {
            self.show(container);
        }
    }

    fn show(&mut self, container: &Container) {
        let Some(failure) = self.memory.start_failures.get(&container.name) else {
            return;
        };
        if failure.kind == FailureKind::ImagePull && self.now >= failure.at + FIRST_ERROR_SHOWN {
            let message = format!(
                "Back-off pulling image {:?}: {}: {}",
                failure.wanted, failure.reason, failure.message
            );
            self.plan.wait(&container.name, "ImagePullBackOff", message);
            return;
        }
        if failure.kind == FailureKind::ImagePull {
            self.plan.wake(failure.at + FIRST_ERROR_SHOWN);
        }
        self.plan.wait(&container.name, &failure.reason, &failure.message);
    }
}

/// Why a container waits for its next start.
pub(super) fn back_off_message(pod: &Pod, name: &str, delay: Duration) -> String {
    format!(
        "back-off {} restarting failed container={name} pod={}",
        pod::go_duration(delay),
        pod::full_name(pod)
    )
}

/// Where the runtime has forgotten the container (its data was wiped) the count goes on from the pod's status.
fn attempt_from_status(pod: &Pod, name: &str) -> u32 {
    let Some(status) = pod.status.as_ref() else {
        return 0;
    };
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|c| c.name == name);
    match known {
        Some(c) if c.container_id.as_deref().is_some_and(|id| !id.is_empty()) => {
            u32::try_from(c.restart_count).unwrap_or(0) + 1
        }
        _ => 0,
    }
}

/// Keeps one dead container per name (for `logs --previous`) and the sandboxes those need.
fn collect_garbage(pod: &Pod, memory: &Memory, sandbox_id: &str, plan: &mut Plan) {
    let names: BTreeSet<&str> = memory.runtime.containers.iter().map(|c| c.name.as_str()).collect();
    let mut kept_sandboxes = BTreeSet::from([sandbox_id]);
    let mut removed = Vec::new();
    for name in names {
        let known = pod::find_container(pod, name).is_some();
        let mut dead_kept = 0;
        for (position, container) in memory.runtime.history(name).into_iter().enumerate() {
            let keep = is_alive(container.state) || position == 0 || (known && dead_kept == 0);
            if !is_alive(container.state) && position > 0 {
                dead_kept += 1;
            }
            if keep {
                kept_sandboxes.insert(&container.sandbox_id);
            } else {
                removed.push(container);
            }
        }
    }
    for container in removed {
        if kept_sandboxes.contains(container.sandbox_id.as_str()) {
            push_removal(
                memory,
                &container.id,
                Action::RemoveContainer {
                    id: container.id.clone(),
                },
                plan,
            );
        }
    }
    for sandbox in &memory.runtime.sandboxes {
        if !kept_sandboxes.contains(sandbox.id.as_str()) {
            push_removal(
                memory,
                &sandbox.id,
                Action::RemoveSandbox { id: sandbox.id.clone() },
                plan,
            );
        }
    }
}

fn push_removal(memory: &Memory, id: &str, action: Action, plan: &mut Plan) {
    if !memory.in_flight.contains(&Step::Remove(id.to_owned())) {
        plan.actions.push(action);
    }
}
