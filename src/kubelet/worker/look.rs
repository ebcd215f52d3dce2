//! Looking at what the runtime has: adopted containers, changed ones, how they ended.

use super::Worker;
use crate::kubelet::pod;
use crate::kubelet::probes::Target;
use crate::kubelet::state::{Step, StepFailure};
use crate::runtime::{ContainerState, ContainerStatus, LogOptions, RuntimeError, SandboxState};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Container;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// When a container that the runtime could not be asked about is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Upstream's limits of a termination message taken from the log.
const LOG_MESSAGE_BYTES_MAX: usize = 2048;
const LOG_MESSAGE_LINES: u64 = 80;

impl Worker {
    /// Containers that ended before krust started have messages to be read.
    pub(super) async fn look_at_adopted(&mut self) {
        for container in self.memory.runtime.containers.clone() {
            self.read_message(&container).await;
        }
    }

    /// Takes in the news since the last look.
    pub(super) async fn read_mail(&mut self) {
        let mail = self.record.take_mail();
        if let Some(pod) = mail.pod {
            self.adopt(pod);
        }
        self.gone |= mail.gone;
        let now = SystemTime::now();
        let mut ids = mail.dirty;
        ids.extend(
            self.look_again
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(id, _)| id.clone()),
        );
        self.look_again.retain(|_, at| *at > now);
        for id in ids {
            self.look_at(&id).await;
        }
        for ((id, kind), ok) in mail.probes {
            let name = self
                .memory
                .runtime
                .containers
                .iter()
                .find(|c| c.id == id)
                .map(|c| c.name.clone());
            let Some((_, container)) = name.and_then(|name| pod::find_container(&self.pod, &name)) else {
                continue;
            };
            self.probes.learn(&container, &id, kind, ok, &mut self.memory.verdicts);
        }
        self.stale_volumes |= mail.refresh_volumes;
        // Everything else that they show tells of itself when it changes.
        let anew = || self.refresh_failed || self.context.volumes.tokens_are_due(&self.record.uid);
        self.stale_volumes |= mail.look_over_volumes && anew();
        if mail.clear {
            self.clear();
        }
        let ends = self.failure.is_some() || self.gone || pod::is_finished(&self.pod);
        if let Some(failure) = mail.failure.filter(|_| !ends) {
            self.fail(failure);
        }
    }

    /// Begins to probe what has started to run, and ends it for what has stopped.
    pub(super) fn probe(&mut self) {
        let memory = &mut self.memory;
        let containers = &memory.runtime.containers;
        let runs = |id: &str| {
            containers
                .iter()
                .any(|c| c.id == id && c.state == ContainerState::Running)
        };
        self.probes.retain(runs, &mut memory.verdicts);
        for running in containers.iter().filter(|c| c.state == ContainerState::Running) {
            if self.probes.knows(&running.id) {
                continue;
            }
            let Some((role, container)) = pod::find_container(&self.pod, &running.name) else {
                continue;
            };
            let probes = [
                &container.startup_probe,
                &container.liveness_probe,
                &container.readiness_probe,
            ];
            if probes.iter().all(|probe| probe.is_none()) {
                continue;
            }
            let id = format!("{}://{}", self.context.runtime_name, running.id);
            let statuses = self
                .pod
                .status
                .iter()
                .flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
            let mut statuses = statuses.flatten().flatten();
            let known = statuses.find(|status| status.container_id.as_ref() == Some(&id));
            let target = Target {
                context: self.context.clone(),
                record: self.record.clone(),
                role,
                container: container.into_owned(),
                container_id: running.id.clone(),
                pod_ip: self.context.pod_ip(&self.pod, memory.runtime.sandbox()),
                started_at: running.started_at.unwrap_or(running.created_at),
                known: known.map(|status| (status.started.unwrap_or(false), status.ready)),
            };
            self.probes.begin(target, &mut memory.verdicts);
        }
    }

    /// Watch and answers race: the higher resourceVersion is the newer one.
    pub(super) fn adopt(&mut self, pod: Arc<k8s_openapi::api::core::v1::Pod>) {
        let revision = |pod: &k8s_openapi::api::core::v1::Pod| -> u64 {
            let version = pod.metadata.resource_version.as_deref();
            version.and_then(|version| version.parse().ok()).unwrap_or(0)
        };
        if revision(&pod) >= revision(&self.pod) {
            // What volumes may show of the pod itself.
            let (new, known) = (&pod.metadata, &self.pod.metadata);
            self.stale_volumes |=
                (&new.labels, &new.annotations) != (&known.labels, &known.annotations) || pod.spec != self.pod.spec;
            self.pod = pod;
        }
    }

    /// Looks at one sandbox or container again.
    async fn look_at(&mut self, id: &str) {
        if self.memory.runtime.sandboxes.iter().any(|sandbox| sandbox.id == id) {
            match self.context.runtime.pod_sandbox_status(id).await {
                Ok(sandbox) => self.memory.runtime.put_sandbox(sandbox),
                Err(RuntimeError::NotFound { .. }) => self.lost_sandbox(id),
                Err(error) => self.look_later(id, &error),
            }
            return;
        }
        match self.context.runtime.container_status(id).await {
            Ok(container) if container.pod_uid == self.record.uid => self.put(container).await,
            // An event of the sandbox's own process, or of a sandbox that is being made.
            Ok(_) => {}
            Err(RuntimeError::NotFound { .. }) => self.memory.runtime.remove(id),
            Err(error) => self.look_later(id, &error),
        }
    }

    /// Somebody removed the sandbox: its containers went with it, but how they ended stays known.
    fn lost_sandbox(&mut self, id: &str) {
        if let Some(sandbox) = self.memory.runtime.sandboxes.iter_mut().find(|s| s.id == id) {
            sandbox.state = SandboxState::NotReady;
        }
        let now = SystemTime::now();
        let lost = self.memory.runtime.containers.iter_mut().filter(|c| c.sandbox_id == id);
        for container in lost.filter(|c| c.state != ContainerState::Exited) {
            container.state = ContainerState::Exited;
            container.exit_code = 137;
            container.reason = "ContainerStatusUnknown".to_owned();
            container.message = "The container could not be located when the pod was terminated".to_owned();
            container.finished_at = Some(now);
        }
    }

    fn look_later(&mut self, id: &str, error: &RuntimeError) {
        tracing::warn!(pod = pod::full_name(&self.pod), id, %error, "The runtime could not be asked about a container");
        self.look_again.insert(id.to_owned(), SystemTime::now() + LOOK_AGAIN);
    }

    /// Takes in a container's state; reads what it said when it ended.
    pub(super) async fn put(&mut self, container: ContainerStatus) {
        self.read_message(&container).await;
        self.memory.runtime.put_container(container);
    }

    async fn read_message(&mut self, container: &ContainerStatus) {
        if container.state != ContainerState::Exited || self.messages.contains_key(&container.id) {
            return;
        }
        let Some((_, spec)) = pod::find_container(&self.pod, &container.name) else {
            return;
        };
        let message = termination_message(&*self.context.runtime, &spec, container).await;
        self.messages.insert(container.id.clone(), message);
        // Messages of containers that were removed since are forgotten.
        let runtime = &self.memory.runtime;
        let known = |id: &str| id == container.id || runtime.containers.iter().any(|c| c.id == *id);
        self.messages.retain(|id, _| known(id));
    }

    pub(super) fn step_failed(&mut self, key: &str) -> StepFailure {
        let now = SystemTime::now();
        StepFailure {
            retry_at: now + self.step_back_off.advance(key, now, now),
        }
    }

    pub(super) fn begin(&mut self, step: Step) -> bool {
        self.memory.in_flight.insert(step)
    }
}

async fn termination_message(
    runtime: &dyn crate::runtime::Runtime,
    spec: &Container,
    container: &ContainerStatus,
) -> String {
    let written = runtime
        .read_termination_message(&container.id)
        .await
        .unwrap_or_default();
    if !written.is_empty() {
        return String::from_utf8_lossy(&written).into_owned();
    }
    let from_log = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if !from_log || container.exit_code == 0 {
        return String::new();
    }
    let options = LogOptions {
        tail_lines: Some(LOG_MESSAGE_LINES),
        ..LogOptions::default()
    };
    let Ok(mut lines) = runtime.logs(&container.id, &options).await else {
        return String::new();
    };
    let mut text = Vec::new();
    while let Some(Ok(line)) = lines.next().await {
        text.extend_from_slice(&line.text);
    }
    let start = text.len().saturating_sub(LOG_MESSAGE_BYTES_MAX);
    String::from_utf8_lossy(&text[start..]).into_owned()
}
