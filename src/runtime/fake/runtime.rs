//! The `Runtime` trait on the fake's state.

use super::process::{self, LogBook};
use super::*;
use futures_util::StreamExt;
use std::time::Duration;
use tokio_stream::wrappers::BroadcastStream;

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<RuntimeVersion> {
        Ok(RuntimeVersion {
            name: "fake".to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
        })
    }

    async fn features(&self) -> Result<Features> {
        Ok(Features {
            pod_limits: true,
            ..Features::default()
        })
    }

    async fn update_pod_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        self.inner.state.lock().sandbox(id)?.config.resources = resources.clone();
        Ok(())
    }

    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        self.inner.state.lock().container(id)?.config.resources = resources.clone();
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        let id = {
            let mut state = self.inner.state.lock();
            let id = state.next_id();
            let ip = if config.host_network {
                String::new()
            } else {
                let serial = state.next();
                format!("10.{}.{}.{}", 64 + (serial >> 16 & 63), serial >> 8 & 255, serial & 255)
            };
            let sandbox = FakeSandbox {
                config: config.clone(),
                state: SandboxState::Ready,
                created_at: SystemTime::now(),
                ip,
            };
            state.sandboxes.insert(id.clone(), sandbox);
            id
        };
        self.inner
            .publish(RuntimeEventKind::SandboxStarted, &config.pod.uid, &id);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let (containers, pod_uid) = {
            let mut state = self.inner.state.lock();
            let containers = state.containers_of(id);
            match state.sandbox(id) {
                Ok(sandbox) if sandbox.state == SandboxState::Ready => {
                    sandbox.state = SandboxState::NotReady;
                    sandbox.ip.clear();
                    (containers, sandbox.config.pod.uid.clone())
                }
                _ => return Ok(()),
            }
        };
        for container in containers {
            self.inner.finish(&container, 137);
        }
        self.inner.publish(RuntimeEventKind::SandboxStopped, &pod_uid, id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.stop_pod_sandbox(id).await?;
        let containers = self.inner.state.lock().containers_of(id);
        for container in containers {
            self.remove_container(&container).await?;
        }
        self.inner.state.lock().sandboxes.remove(id);
        Ok(())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>> {
        let state = self.inner.state.lock();
        Ok(state
            .sandboxes
            .iter()
            .map(|(id, sandbox)| describe_sandbox(id, sandbox))
            .collect())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<Sandbox> {
        Ok(describe_sandbox(id, self.inner.state.lock().sandbox(id)?))
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        _sandbox: &SandboxConfig,
    ) -> Result<String> {
        let mut state = self.inner.state.lock();
        let sandbox = state.sandbox(sandbox_id)?;
        let pod_uid = sandbox.config.pod.uid.clone();
        if sandbox.state != SandboxState::Ready {
            return Err(failed("create", &config.name, "the sandbox does not run"));
        }
        if let Some(message) = state
            .behaviours
            .get(&config.image)
            .and_then(|b| b.create_error.as_deref())
        {
            return Err(failed("create", &config.name, message));
        }
        let image_ref = match state.find_image(&config.image) {
            Some(image) => image.id.clone(),
            None => {
                return Err(RuntimeError::NotFound {
                    what: "image",
                    id: config.image.clone(),
                });
            }
        };
        let id = state.next_id();
        let container = FakeContainer {
            config: config.clone(),
            sandbox_id: sandbox_id.to_string(),
            pod_uid,
            image_ref,
            state: ContainerState::Created,
            created_at: SystemTime::now(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            termination_message: Vec::new(),
            log: LogBook::new(),
            on_stop: None,
            stdin: None,
            task: None,
        };
        state.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let pod_uid = {
            let mut state = self.inner.state.lock();
            let image = state.container(id)?.config.image.clone();
            let behaviour = state.behaviours.get(&image).cloned().unwrap_or_default();
            let container = state.container(id)?;
            if container.state != ContainerState::Created {
                return Err(failed("start", id, "the container was started before"));
            }
            let command = [container.config.command.as_slice(), container.config.args.as_slice()].concat();
            let script = match (
                behaviour.start_error,
                behaviour.script.or_else(|| Script::parse(&command)),
            ) {
                (None, Some(script)) => Ok(script),
                (Some(message), _) => Err(message),
                (None, None) => Err(format!("exec: {:?}: no such program", command.join(" "))),
            };
            let now = SystemTime::now();
            let script = match script {
                Ok(script) => script,
                Err(message) => {
                    container.state = ContainerState::Exited;
                    container.exit_code = 128;
                    container.reason = "StartError".to_string();
                    container.message = message.clone();
                    container.finished_at = Some(now);
                    container.log.close();
                    return Err(failed("start", id, &message));
                }
            };
            container.state = ContainerState::Running;
            container.started_at = Some(now);
            if !(script.forever && script.steps.is_empty()) {
                let stdin = container.config.stdin.then(|| {
                    let (near, far) = tokio::io::duplex(64 * 1024);
                    container.stdin = Some(near);
                    far
                });
                let process = process::run_container(Arc::downgrade(&self.inner), id.to_string(), script, stdin);
                container.task = Some(tokio::spawn(process).abort_handle());
            }
            container.pod_uid.clone()
        };
        self.inner.publish(RuntimeEventKind::ContainerStarted, &pod_uid, id);
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace_seconds: u32) -> Result<()> {
        let on_stop = match self.inner.state.lock().container(id) {
            Ok(container) if container.state == ContainerState::Running => container.on_stop,
            _ => return Ok(()),
        };
        match on_stop {
            None => self.inner.finish(id, 143),
            Some(Some(code)) => self.inner.finish(id, code),
            Some(None) => {
                tokio::time::sleep(Duration::from_secs(u64::from(grace_seconds))).await;
                self.inner.finish(id, 137);
            }
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.inner.finish(id, 137);
        let removed = self.inner.state.lock().containers.remove(id);
        if let Some(mut container) = removed {
            container.log.close();
            self.inner
                .publish(RuntimeEventKind::ContainerRemoved, &container.pod_uid, id);
        }
        Ok(())
    }

    async fn usage(&self, ids: &[String]) -> Result<Vec<Usage>> {
        let (state, now) = (self.inner.state.lock(), SystemTime::now());
        Ok(ids.iter().filter_map(|id| state.usage(id, now)).collect())
    }

    async fn written(&self, id: &str) -> Result<Written> {
        let mut state = self.inner.state.lock();
        let image = state.container(id)?.config.image.clone();
        let bytes = state.behaviours.get(&image).map_or(0, |set| set.written_bytes);
        Ok(Written {
            bytes,
            ..Written::default()
        })
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>> {
        let state = self.inner.state.lock();
        Ok(state
            .containers
            .iter()
            .map(|(id, container)| describe(id, container))
            .collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        Ok(describe(id, self.inner.state.lock().container(id)?))
    }

    async fn read_termination_message(&self, id: &str) -> Result<Vec<u8>> {
        let mut state = self.inner.state.lock();
        let message = &state.container(id)?.termination_message;
        Ok(message[..message.len().min(TERMINATION_MESSAGE_BYTES_MAX)].to_vec())
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecSession> {
        if self.inner.state.lock().container(id)?.state != ContainerState::Running {
            return Err(failed("exec", id, "the container does not run"));
        }
        match Script::parse(&request.command) {
            Some(script) if !request.command.is_empty() => Ok(process::exec(script, request)),
            _ => Err(failed(
                "exec",
                id,
                &format!("{:?}: no such program", request.command.join(" ")),
            )),
        }
    }

    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<ExecSession> {
        let (stdin, progress) = {
            let mut state = self.inner.state.lock();
            let container = state.container(id)?;
            if container.state != ContainerState::Running {
                return Err(failed("attach", id, "the container does not run"));
            }
            let stdin = request.stdin.then(|| container.stdin.take()).flatten();
            (stdin, container.log.progress())
        };
        Ok(process::attach(&self.inner, id, request, stdin, progress))
    }

    /// Answers with what it is sent.
    async fn port_forward(&self, sandbox_id: &str, _port: u16) -> Result<Box<dyn Duplex>> {
        if self.inner.state.lock().sandbox(sandbox_id)?.state != SandboxState::Ready {
            return Err(failed("port-forward", sandbox_id, "the sandbox does not run"));
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        let echo = tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(far);
            // Ends when the other side goes.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        drop(echo);
        Ok(Box::new(near))
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        let (lines, next, progress) = {
            let mut state = self.inner.state.lock();
            let log = &state.container(id)?.log;
            let mut lines: Vec<LogLine> = log.lines.clone();
            if let Some(since) = options.since {
                lines.retain(|line| line.time >= since);
            }
            if let Some(tail) = options.tail_lines {
                let tail = usize::try_from(tail).unwrap_or(usize::MAX);
                lines.drain(..lines.len().saturating_sub(tail));
            }
            (lines, log.lines.len(), log.progress())
        };
        let before = futures_util::stream::iter(lines.into_iter().map(Ok));
        if !options.follow {
            return Ok(before.boxed());
        }
        let (inner, id) = (Arc::downgrade(&self.inner), id.to_string());
        let after = futures_util::stream::unfold(
            (inner, id, next, progress, false),
            |(inner, id, next, mut progress, last)| async move {
                if last {
                    return None;
                }
                loop {
                    let (lines, closed) = process::read_log(&inner, &id, next, &mut progress);
                    if closed || !lines.is_empty() {
                        let next = next + lines.len();
                        let lines = futures_util::stream::iter(lines.into_iter().map(Ok));
                        return Some((lines, (inner, id, next, progress, closed)));
                    }
                    if progress.changed().await.is_err() {
                        return None;
                    }
                }
            },
        );
        Ok(before.chain(after.flatten()).boxed())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        Ok(self.inner.state.lock().find_image(image).cloned())
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(self.inner.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        self.inner.state.lock().images.remove(id);
        Ok(())
    }

    async fn image_directory(&self) -> Result<PathBuf> {
        let directory = self.inner.state.lock().image_directory.clone();
        directory.ok_or(RuntimeError::Unsupported("the file system of images"))
    }

    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>, _progress: &PullProgress) -> Result<String> {
        let mut state = self.inner.state.lock();
        *state.pulls.entry(image.to_string()).or_default() += 1;
        let behaviour = state.behaviours.get(image);
        if let Some(password) = behaviour.and_then(|set| set.password.clone())
            && auth.is_none_or(|auth| auth.password != password)
        {
            return Err(failed("pull", image, "pull access denied"));
        }
        match behaviour.and_then(|b| b.pull_error.as_deref()) {
            Some(message) => Err(failed("pull", image, message)),
            None => Ok(state.add_image(image).id),
        }
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        BroadcastStream::new(self.inner.events.subscribe())
            .map(|event| event.unwrap_or_else(|_lagged| RuntimeEvent::resync()))
            .boxed()
    }
}

fn failed(operation: &'static str, subject: &str, message: &str) -> RuntimeError {
    RuntimeError::Failed {
        operation,
        subject: subject.to_string(),
        message: message.to_string(),
    }
}

fn describe_sandbox(id: &str, sandbox: &FakeSandbox) -> Sandbox {
    Sandbox {
        id: id.to_string(),
        pod: sandbox.config.pod.clone(),
        state: sandbox.state,
        created_at: sandbox.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        ips: Some(sandbox.ip.clone())
            .filter(|ip| !ip.is_empty())
            .into_iter()
            .collect(),
    }
}

fn describe(id: &str, container: &FakeContainer) -> ContainerStatus {
    ContainerStatus {
        id: id.to_string(),
        sandbox_id: container.sandbox_id.clone(),
        name: container.config.name.clone(),
        attempt: container.config.attempt,
        pod_uid: container.pod_uid.clone(),
        state: container.state,
        created_at: container.created_at,
        started_at: container.started_at,
        finished_at: container.finished_at,
        exit_code: container.exit_code,
        reason: container.reason.clone(),
        message: container.message.clone(),
        image: container.config.image.clone(),
        image_ref: container.image_ref.clone(),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        tty: container.config.tty,
        user: None,
    }
}
