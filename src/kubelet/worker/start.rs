//! Starting one container: image, environment, mounts, create, start (upstream: `startContainer`).

use crate::client::events::Level;
use crate::kubelet::container::{self, ConfigError, Parts, env};
use crate::kubelet::context::Context;
use crate::kubelet::hooks::{self, PreStop};
use crate::kubelet::images::ImageError;
use crate::kubelet::objects::{Objects, References};
use crate::kubelet::pod::{self, Role};
use crate::kubelet::sandbox;
use crate::kubelet::state::{FailureKind, StartFailure};
use crate::runtime::{ContainerConfig, ContainerState, ContainerStatus, Image, Sandbox};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

pub(super) struct Start {
    pub context: Arc<Context>,
    pub pod: Arc<Pod>,
    pub role: Role,
    pub container: Container,
    pub attempt: u32,
    /// Created but never started: removed first.
    pub replaces: Option<String>,
    /// Whose processes the container is to see: name, and id if it runs.
    pub target: Option<(String, Option<String>)>,
    pub sandbox: Sandbox,
    pub cancelled: CancellationToken,
}

pub(super) enum StartError {
    /// The pod is to end.
    Cancelled,
    Failed {
        failure: StartFailure,
        /// What the engine keeps of a container that did not start.
        container: Option<Box<ContainerStatus>>,
    },
}

impl Start {
    pub async fn run(self) -> Result<ContainerStatus, StartError> {
        let runtime = &self.context.runtime;
        let path = pod::field_path(self.role, &self.container.name);
        if let Some(id) = &self.replaces {
            let removed = runtime.remove_container(id).await;
            removed.map_err(|error| self.failed(FailureKind::Create, "CreateContainerError", error.to_string()))?;
        }
        let name = self.container.image.as_deref().unwrap_or_default();
        let policy = self.container.image_pull_policy.as_deref();
        let image = self.image(&path, Some(&path), name, policy).await?;
        self.mount_images(&path).await?;
        tokio::select! {
            () = self.context.services.synced() => {}
            () = self.cancelled.cancelled() => return Err(StartError::Cancelled),
        }
        let config = self.config(&image.user).await;
        let config = config.map_err(|error| {
            self.warn(&path, format!("Error: {error}"));
            self.failed(FailureKind::Config, "CreateContainerConfigError", error.to_string())
        })?;
        let permit = self.context.engine_starts.acquire().await.ok();
        if self.cancelled.is_cancelled() {
            return Err(StartError::Cancelled);
        }
        let handler = self
            .sandbox
            .annotations
            .get(sandbox::HANDLER)
            .map_or("", String::as_str);
        let sandbox_config = self
            .context
            .sandbox_config(&self.pod, self.sandbox.pod.attempt, handler);
        let sandbox_config = sandbox_config
            .map_err(|error| self.failed(FailureKind::Create, "CreateContainerError", error.to_string()))?;
        let created = runtime
            .create_container(&self.sandbox.id, &config, &sandbox_config)
            .await;
        let id = created.map_err(|error| {
            self.warn(&path, format!("Error: {error}"));
            self.failed(FailureKind::Create, "CreateContainerError", error.to_string())
        })?;
        let event = |reason, message: &str| {
            let recorder = &self.context.recorder;
            recorder.event_at(
                &*self.pod,
                Some(path.clone()),
                Level::Normal,
                reason,
                message.to_owned(),
            );
        };
        event("Created", "Container created");
        if let Err(error) = runtime.start_container(&id).await {
            let message = format!("failed to start container {:?}: {}", self.container.name, error.cause());
            self.warn(&path, format!("Error: {message}"));
            return Err(self.not_started(&id, message).await);
        }
        event("Started", "Container started");
        drop(permit);
        self.post_start(&id, &path).await?;
        match runtime.container_status(&id).await {
            Ok(status) => Ok(status),
            // It runs, so it is not started again: the next look says more.
            Err(error) => {
                tracing::warn!(pod = pod::full_name(&self.pod), id, %error, "A started container could not be looked at");
                Ok(self.assumed(id, &config))
            }
        }
    }

    /// An image, got as its policy demands. What is told of it is told of `about`, or of the pod.
    async fn image(
        &self,
        path: &str,
        about: Option<&str>,
        name: &str,
        policy: Option<&str>,
    ) -> Result<Image, StartError> {
        let got = tokio::select! {
            got = self.context.images.ensure(&self.pod, about, name, policy) => got,
            () = self.cancelled.cancelled() => return Err(StartError::Cancelled),
        };
        got.map_err(|error| {
            self.warn(path, format!("Error: {}", error.reason));
            self.no_image(name, error)
        })
    }

    /// Makes those volumes of the container that are images.
    async fn mount_images(&self, path: &str) -> Result<(), StartError> {
        let mounted = |name: &str| self.container.volume_mounts.iter().flatten().any(|m| m.name == name);
        let volumes = pod::spec(&self.pod).volumes.iter().flatten();
        for volume in volumes.filter(|volume| mounted(&volume.name)) {
            let Some(source) = &volume.image else {
                continue;
            };
            let reference = source.reference.as_deref().unwrap_or_default();
            self.image(path, None, reference, source.pull_policy.as_deref()).await?;
            let made = self.context.volumes.mount_image(&self.pod, volume, reference).await;
            made.map_err(|error| {
                self.warn(path, format!("Error: {error}"));
                self.failed(FailureKind::Create, "CreateContainerError", error.to_string())
            })?;
        }
        Ok(())
    }

    /// A hook that fails ends the container as any other end does, with the hook that is for that; meanwhile the container does not count as started.
    async fn post_start(&self, id: &str, path: &str) -> Result<(), StartError> {
        let Some(hook) = self
            .container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return Ok(());
        };
        let pod_ip = self.context.pod_ip(&self.pod, Some(&self.sandbox));
        let ran = tokio::select! {
            ran = hooks::run(&self.context, &self.pod, hook, &self.container, id, &pod_ip) => ran,
            // Deleted meanwhile: the worker stops what was started.
            () = self.cancelled.cancelled() => return Ok(()),
        };
        let Err(message) = ran else {
            return Ok(());
        };
        for (level, reason, text) in [
            (Level::Warning, "FailedPostStartHook", "PostStartHook failed"),
            (Level::Normal, "Killing", "FailedPostStartHook"),
        ] {
            let recorder = &self.context.recorder;
            recorder.event_at(&*self.pod, Some(path.to_owned()), level, reason, text.to_owned());
        }
        let runtime = &self.context.runtime;
        let mut grace = pod::grace_seconds(&self.pod);
        if let Some(hook) = PreStop::of(self.role, &self.container) {
            grace = hook.run(&self.context, &self.pod, id, &pod_ip, grace).await;
        }
        if let Err(error) = runtime.stop_container(id, grace).await {
            tracing::warn!(pod = pod::full_name(&self.pod), id, %error, "A container whose hook failed could not be stopped");
        }
        let failure = self.failure(FailureKind::Start, "PostStartHookError", message);
        let container = runtime.container_status(id).await.ok().map(Box::new);
        Err(StartError::Failed { failure, container })
    }

    fn assumed(&self, id: String, config: &ContainerConfig) -> ContainerStatus {
        let now = SystemTime::now();
        ContainerStatus {
            id,
            sandbox_id: self.sandbox.id.clone(),
            name: config.name.clone(),
            attempt: self.attempt,
            pod_uid: pod::uid(&self.pod).to_owned(),
            state: ContainerState::Running,
            created_at: now,
            started_at: Some(now),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: config.image.clone(),
            image_ref: String::new(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            tty: config.tty,
            user: None,
        }
    }

    async fn config(&self, image_user: &str) -> Result<ContainerConfig, ConfigError> {
        let context = &self.context;
        let mut references = References::default();
        references.add_environment(&self.container);
        let objects = Objects::fetch(&context.client, pod::namespace(&self.pod), references).await?;
        let pod_ips = match pod::host_network(&self.pod) {
            true => &context.host_ips,
            false => &self.sandbox.ips,
        };
        let services = context.services.list();
        let sources = env::Sources {
            objects: &objects,
            services: &services,
            pod_ips,
            host_ips: &context.host_ips,
            node: context.figures,
        };
        let env = env::environment(&self.pod, &self.container, &sources)?;
        let mut mounts = context.volumes.mounts(&self.pod, &self.container, &env).await?;
        mounts.extend(context.volumes.hosts(&self.pod, &self.container, pod_ips)?);
        let target = match &self.target {
            Some((name, None)) => return Err(ConfigError::NoTarget(name.clone())),
            Some((_, id)) => id.clone(),
            None => None,
        };
        container::config(Parts {
            target,
            seccomp: &context.seccomp,
            logs: context.policy.logs,
            pod: &self.pod,
            role: self.role,
            container: &self.container,
            attempt: self.attempt,
            image_user,
            env: &env,
            mounts,
            node_memory_bytes: context.node_memory_bytes,
        })
    }

    fn warn(&self, path: &str, message: String) {
        let recorder = &self.context.recorder;
        recorder.event_at(&*self.pod, Some(path.to_owned()), Level::Warning, "Failed", message);
    }

    fn failure(&self, kind: FailureKind, reason: &str, message: String) -> StartFailure {
        StartFailure {
            kind,
            reason: reason.to_owned(),
            message,
            image: self.container.image.clone().unwrap_or_default(),
            wanted: String::new(),
            at: SystemTime::now(),
            retry_at: None,
        }
    }

    fn failed(&self, kind: FailureKind, reason: &str, message: String) -> StartError {
        StartError::Failed {
            failure: self.failure(kind, reason, message),
            container: None,
        }
    }

    fn no_image(&self, wanted: &str, error: ImageError) -> StartError {
        let failure = self.failure(error.kind, error.reason, error.message);
        StartError::Failed {
            failure: StartFailure {
                wanted: wanted.to_owned(),
                retry_at: error.retry_at,
                ..failure
            },
            container: None,
        }
    }

    /// A container that could not be started counts as one that ended, as containerd shows it.
    async fn not_started(&self, id: &str, message: String) -> StartError {
        let now = SystemTime::now();
        let known = self.context.runtime.container_status(id).await.ok();
        let container = known.map(|status| ContainerStatus {
            state: ContainerState::Exited,
            exit_code: 128,
            reason: "StartError".to_owned(),
            message: message.clone(),
            started_at: None,
            finished_at: Some(now),
            ..status
        });
        let container = container.map(Box::new);
        StartError::Failed {
            failure: self.failure(FailureKind::Start, "RunContainerError", message),
            container,
        }
    }
}
