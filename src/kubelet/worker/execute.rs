//! Executing a plan's actions, each in a task, and learning from how they ended.

use super::start::{Start, StartError};
use super::{Done, Worker};
use crate::client::events::Level;
use crate::kubelet::hooks::PreStop;
use crate::kubelet::plan::{Action, KillReason, Plan};
use crate::kubelet::resize::{self, Decrease};
use crate::kubelet::state::{FailureKind, StartFailure, Step, back_off_key};
use crate::kubelet::{pod, resources, sandbox};
use crate::runtime::{ContainerState, ContainerStatus, Resources, Runtime, RuntimeError, SandboxState};
use k8s_openapi::api::core::v1::Pod;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A kill that the runtime refuses is not sent again sooner.
const KILL_RETRY: Duration = Duration::from_secs(1);

/// How a kill ended.
pub(super) struct Killed {
    pub id: String,
    /// The container as it is now; None if it is gone.
    pub status: Result<Option<ContainerStatus>, RuntimeError>,
}

/// Refuses to take memory that is used (upstream: `validateMemoryResizeAction`).
async fn not_too_low(runtime: &dyn Runtime, decreases: &[Decrease]) -> Result<(), String> {
    let ids: Vec<String> = decreases.iter().flat_map(|decrease| decrease.ids.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let usage = runtime.usage(&ids).await;
    let usage = usage.map_err(|error| format!("cannot decrease memory limits: {error}"))?;
    let used = |id: &str| usage.iter().find(|used| used.id == id).map(|used| used.memory_bytes);
    resize::too_low(decreases, used).map_or(Ok(()), Err)
}

impl Worker {
    pub(super) fn spawn(&mut self, step: Step, task: impl Future<Output = Done> + Send + 'static) {
        if !self.begin(step.clone()) {
            return;
        }
        let handle = self.tasks.spawn(task);
        self.steps.insert(handle.id(), step);
    }

    pub(super) fn execute(&mut self, plan: &Plan) {
        for action in &plan.actions {
            match action.clone() {
                Action::PrepareVolumes => self.prepare_volumes(),
                Action::CreateSandbox { attempt, replaces } => self.create_sandbox(attempt, replaces),
                Action::StopSandbox { id } => self.stop_sandbox(id),
                Action::RemoveSandbox { id } => {
                    let runtime = self.context.runtime.clone();
                    self.spawn(Step::Remove(id.clone()), async move {
                        let removed = runtime.remove_pod_sandbox(&id).await;
                        Done::Removed(id, removed)
                    });
                }
                Action::RemoveContainer { id } => {
                    let runtime = self.context.runtime.clone();
                    self.spawn(Step::Remove(id.clone()), async move {
                        let removed = runtime.remove_container(&id).await;
                        Done::Removed(id, removed)
                    });
                }
                Action::StartOver { cause, ids } => self.start_over(cause, ids),
                Action::ResizeContainer { id, name } => self.resize_container(id, &name),
                Action::StartContainer {
                    name,
                    attempt,
                    replaces,
                } => self.start_container(name, attempt, replaces),
                Action::KillContainer {
                    id,
                    name,
                    grace_seconds,
                    reason,
                } => self.kill_container(id, &name, grace_seconds, &reason),
            }
        }
    }

    fn prepare_volumes(&mut self) {
        let (context, pod) = (self.context.clone(), self.pod.clone());
        self.spawn(Step::Volumes, async move {
            Done::Volumes(context.volumes.prepare(&pod, context.figures).await)
        });
    }

    /// Brings what has changed into the volumes of a running pod, and watches what they are made of.
    pub(super) fn refresh_volumes(&mut self) {
        if !self.memory.volumes_ready {
            return;
        }
        let written = std::mem::take(&mut self.written);
        self.watches
            .begin(&self.context.client, &self.pod, written, &self.record);
        if !self.stale_volumes || self.memory.in_flight.contains(&Step::Volumes) {
            return;
        }
        self.stale_volumes = false;
        let (context, pod) = (self.context.clone(), self.pod.clone());
        self.spawn(Step::Volumes, async move {
            Done::Refreshed(context.volumes.prepare(&pod, context.figures).await)
        });
    }

    fn create_sandbox(&mut self, attempt: u32, replaces: Option<String>) {
        if replaces.is_some() {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.context
                .recorder
                .event_at(&*self.pod, None, Level::Normal, "SandboxChanged", message);
        }
        let (context, pod) = (self.context.clone(), self.granted_pod());
        self.memory.resize.shared = Some(resources::for_pod(&pod));
        self.spawn(Step::Sandbox, async move {
            let made = async {
                let handler = sandbox::handler(&pod, &context.client).await?;
                let config = context.sandbox_config(&pod, attempt, &handler)?;
                let _permit = context.engine_starts.acquire().await.ok();
                if let Some(lost) = replaces {
                    context.runtime.stop_pod_sandbox(&lost).await?;
                }
                let id = context.runtime.run_pod_sandbox(&config).await?;
                Ok(context.runtime.pod_sandbox_status(&id).await?)
            };
            Done::Sandbox(made.await)
        });
    }

    fn stop_sandbox(&mut self, id: String) {
        let runtime = self.context.runtime.clone();
        self.spawn(Step::Kill(id.clone()), async move {
            let stopped = runtime.stop_pod_sandbox(&id).await;
            if stopped.is_err() {
                tokio::time::sleep(KILL_RETRY).await;
            }
            Done::SandboxStopped(id, stopped)
        });
    }

    fn start_container(&mut self, name: String, attempt: u32, replaces: Option<String>) {
        let Some((role, container)) = pod::find_container(&self.pod, &name) else {
            return;
        };
        let Some(sandbox) = self.memory.runtime.ready_sandbox() else {
            return;
        };
        if let Some(last) = self.memory.runtime.latest(&name).filter(|_| replaces.is_none()) {
            let ended = last.finished_at.unwrap_or(last.created_at);
            let key = back_off_key(&container);
            self.memory.crash_back_off.advance(&key, ended, SystemTime::now());
        }
        let container = self.memory.resize.granted(&container);
        self.memory.resize.starts(&container);
        let start = Start {
            context: self.context.clone(),
            pod: self.granted_pod(),
            role,
            container,
            attempt,
            replaces,
            target: self.target(&name),
            sandbox: sandbox.clone(),
            cancelled: self.starts.clone(),
        };
        self.spawn(Step::Start(name.clone()), async move {
            Done::Started(name, start.run().await)
        });
    }

    /// The pod with what was granted to it.
    fn granted_pod(&self) -> Arc<Pod> {
        match self.memory.resize.granted_pod(&self.pod) {
            Cow::Borrowed(_) => self.pod.clone(),
            Cow::Owned(pod) => Arc::new(pod),
        }
    }

    /// The container whose processes an ephemeral one is to see, with its id if it runs.
    fn target(&self, name: &str) -> Option<(String, Option<String>)> {
        let all = pod::spec(&self.pod).ephemeral_containers.as_deref().unwrap_or_default();
        let wanted = all.iter().find(|container| container.name == name)?;
        let target = wanted.target_container_name.clone().filter(|name| !name.is_empty())?;
        let latest = self.memory.runtime.latest(&target);
        let id = latest
            .filter(|c| c.state == ContainerState::Running)
            .map(|c| c.id.clone());
        Some((target, id))
    }

    fn resize_container(&mut self, id: String, name: &str) {
        let Some((role, container)) = pod::find_container(&self.pod, name) else {
            return;
        };
        let resize = &self.memory.resize;
        let (granted, given) = (resize.granted_pod(&self.pod), resize.to_give(&container));
        let container = resize.granted(&container);
        let wanted = resources::for_container(&granted, role, &container, self.context.node_memory_bytes);
        let decreases = resize.decreases(&self.pod, &self.memory.runtime);
        let together = self.while_resizing();
        if let Some((_, together)) = &together {
            self.memory.resize.shared = Some(together.clone());
        }
        let runtime = self.context.runtime.clone();
        self.spawn(Step::Resize(id.clone()), async move {
            let updated = async {
                not_too_low(&*runtime, &decreases).await?;
                if let Some((sandbox, together)) = together {
                    let updated = runtime.update_pod_sandbox_resources(&sandbox, &together).await;
                    updated.map_err(|error| error.to_string())?;
                }
                let updated = runtime.update_container_resources(&id, &wanted).await;
                updated.map_err(|error| error.to_string())
            };
            let updated = updated.await;
            Done::Resized(id, given, updated)
        });
    }

    /// What the containers have together until all of them have what was granted: the more of before and after, as a group
    /// must not have less than one of its members.
    fn while_resizing(&self) -> Option<(String, Resources)> {
        let sandbox = self.memory.runtime.ready_sandbox()?;
        let after = resources::for_pod(&self.memory.resize.granted_pod(&self.pod));
        // What an earlier krust gave is not known: no limit is enough for anybody.
        let before = self.memory.resize.shared.clone().unwrap_or_default();
        Some((sandbox.id.clone(), after.most(&before)))
    }

    /// At the end of a resize: what was granted to all containers is what they have together.
    pub(super) fn limit_pod(&mut self, together: Resources) {
        let Some(sandbox) = self.memory.runtime.ready_sandbox() else {
            return;
        };
        let (id, runtime) = (sandbox.id.clone(), self.context.runtime.clone());
        let decreases = self.memory.resize.decreases(&self.pod, &self.memory.runtime);
        self.spawn(Step::Resize(id.clone()), async move {
            let updated = async {
                not_too_low(&*runtime, &decreases).await?;
                let updated = runtime.update_pod_sandbox_resources(&id, &together).await;
                updated.map_err(|error| error.to_string())
            };
            let updated = updated.await;
            Done::Limited(id, together, updated)
        });
    }

    fn kill_container(&mut self, id: String, name: &str, grace_seconds: u32, reason: &KillReason) {
        if matches!(reason, KillReason::DefinitionChanged | KillReason::Resized) {
            // Only the newest kill of a container matters.
            let known = &self.memory.runtime;
            self.memory
                .replaced
                .retain(|id| known.containers.iter().any(|c| c.id == *id));
            self.memory.replaced.insert(id.clone());
        }
        let known = self.memory.kill_grace.insert(id.clone(), grace_seconds).is_some();
        if !known {
            let role = pod::find_container(&self.pod, name).map(|(role, _)| role);
            let path = role.map(|role| pod::field_path(role, name));
            let message = reason.message(name);
            self.context
                .recorder
                .event_at(&*self.pod, path, Level::Normal, "Killing", message);
        }
        // Those that begin anew at once end without grace.
        let hooked = !known && *reason != KillReason::RestartingAll;
        let hook = hooked.then(|| self.pre_stop(name)).flatten();
        let context = self.context.clone();
        let pod = self.pod.clone();
        let pod_ip = self.context.pod_ip(&self.pod, self.memory.runtime.sandbox());
        // Not a step: a shorter grace may overtake the first kill.
        self.tasks.spawn(async move {
            let mut grace_seconds = grace_seconds;
            if let Some(hook) = hook {
                grace_seconds = hook.run(&context, &pod, &id, &pod_ip, grace_seconds).await;
            }
            let runtime = &context.runtime;
            let status = match runtime.stop_container(&id, grace_seconds).await {
                Ok(()) | Err(RuntimeError::NotFound { .. }) => match runtime.container_status(&id).await {
                    Ok(status) => Ok(Some(status)),
                    Err(RuntimeError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            let stopped =
                matches!(&status, Ok(None)) || matches!(&status, Ok(Some(s)) if s.state == ContainerState::Exited);
            if !stopped {
                tokio::time::sleep(KILL_RETRY).await;
            }
            Done::Killed(Killed { id, status })
        });
    }

    fn pre_stop(&self, name: &str) -> Option<PreStop> {
        let (role, container) = pod::find_container(&self.pod, name)?;
        PreStop::of(role, &container)
    }

    /// Forgets the pod's containers: what is started next is the first of its kind, but for the count.
    fn start_over(&mut self, cause: Option<String>, ids: Vec<String>) {
        let memory = &mut self.memory;
        let cause = cause.and_then(|name| pod::find_container(&self.pod, &name));
        if let Some((_, container)) = cause
            && let Some(last) = memory.runtime.latest(&container.name)
        {
            let ended = last.finished_at.unwrap_or(last.created_at);
            memory
                .crash_back_off
                .advance(&back_off_key(&container), ended, SystemTime::now());
        }
        for container in memory
            .runtime
            .containers
            .iter()
            .filter(|container| ids.contains(&container.id))
        {
            let next = memory.next_attempts.entry(container.name.clone()).or_default();
            *next = (*next).max(container.attempt + 1);
        }
        memory.start_failures.clear();
        for id in ids {
            let runtime = self.context.runtime.clone();
            self.spawn(Step::Remove(id.clone()), async move {
                let removed = runtime.remove_container(&id).await;
                Done::Removed(id, removed)
            });
        }
    }

    pub(super) async fn learn(&mut self, done: Done) {
        let pod = self.pod.clone();
        let warn = |reason, message| {
            self.context
                .recorder
                .event_at(&*pod, None, Level::Warning, reason, message)
        };
        match done {
            Done::Volumes(Ok(written)) => {
                self.written = written;
                self.memory.volumes_ready = true;
                self.memory.volumes_failure = None;
                self.step_back_off.reset("volumes");
            }
            Done::Volumes(Err(error)) => {
                warn("FailedMount", error.to_string());
                self.memory.volumes_failure = Some(self.step_failed("volumes"));
            }
            Done::Refreshed(Ok(_)) => self.refresh_failed = false,
            // What is missing is no news to a running pod; the next change or look over them tries again.
            Done::Refreshed(Err(error)) => {
                self.refresh_failed = true;
                tracing::debug!(pod = pod::full_name(&pod), %error, "A pod's volumes could not be refreshed");
            }
            Done::Sandbox(Ok(sandbox)) => {
                self.memory.sandbox_failure = None;
                self.step_back_off.reset("sandbox");
                self.memory.runtime.put_sandbox(sandbox);
            }
            Done::Sandbox(Err(error)) => {
                warn(
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {error}"),
                );
                self.memory.sandbox_failure = Some(self.step_failed("sandbox"));
            }
            Done::SandboxStopped(id, Ok(()) | Err(RuntimeError::NotFound { .. })) => {
                if let Some(sandbox) = self.memory.runtime.sandboxes.iter_mut().find(|s| s.id == id) {
                    sandbox.state = SandboxState::NotReady;
                }
            }
            Done::SandboxStopped(_, Err(error)) => {
                warn(
                    "FailedKillPod",
                    format!("error killing pod: failed to \"KillPodSandbox\": {error}"),
                );
            }
            Done::Removed(id, Ok(()) | Err(RuntimeError::NotFound { .. })) => self.memory.runtime.remove(&id),
            Done::Removed(id, Err(error)) => {
                tracing::warn!(pod = pod::full_name(&pod), id, %error, "A dead container could not be removed");
                // Forgotten here; the next list finds it again.
                self.memory.runtime.remove(&id);
            }
            Done::Started(name, result) => {
                let id = result.as_ref().ok().map(|container| container.id.as_str());
                self.memory.resize.started(&name, id);
                self.learn_start(name, result).await;
            }
            Done::Resized(id, given, result) => {
                let now = SystemTime::now();
                let news = self.memory.resize.updated(&pod, &id, given, result, now);
                self.tell_of_resize(news);
            }
            Done::Limited(id, together, result) => {
                let now = SystemTime::now();
                let news = self.memory.resize.limited(&pod, &id, together, result, now);
                self.tell_of_resize(news);
            }
            Done::Killed(Killed { id, status }) => {
                self.memory.kill_grace.remove(&id);
                match status {
                    Ok(Some(container)) => self.put(container).await,
                    Ok(None) => self.memory.runtime.remove(&id),
                    Err(error) => warn(
                        "FailedKillPod",
                        format!("error killing pod: failed to \"KillContainer\": {error}"),
                    ),
                }
            }
            Done::Reported(result) => self.reported(result),
            Done::Deleted(result) => self.deleted(result),
            Done::Cleaned(result) => self.cleaned(result),
        }
    }

    async fn learn_start(&mut self, name: String, result: Result<ContainerStatus, StartError>) {
        let error = match result {
            Ok(container) => {
                self.memory.start_failures.remove(&name);
                self.put(container).await;
                return;
            }
            Err(StartError::Cancelled) => return,
            Err(StartError::Failed { failure, container }) => (failure, container),
        };
        let (failure, container) = error;
        if let Some(container) = container {
            self.put(*container).await;
        }
        let now = SystemTime::now();
        let retry_at = match failure.kind {
            FailureKind::Config | FailureKind::Create => {
                Some(now + self.step_back_off.advance(&format!("start {name}"), now, now))
            }
            _ => failure.retry_at,
        };
        self.memory
            .start_failures
            .insert(name, StartFailure { retry_at, ..failure });
    }
}
