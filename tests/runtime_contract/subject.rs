//! A backend under test, and shorthand for what the cases do with it.

use super::{containerd, dockerd, images};
use futures_util::StreamExt;
use krust::runtime::containerd::{ContainerdRuntime, Options};
use krust::runtime::docker::DockerRuntime;
use krust::runtime::fake::FakeRuntime;
use krust::runtime::*;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// No single step of a case takes longer, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Subject {
    pub runtime: Arc<dyn Runtime>,
    pub image: &'static str,
    /// Sandboxes of this case, so that they can be removed after it.
    sandboxes: Mutex<Vec<String>>,
}

/// All cases of the process share a runtime, so that they can share connections to engines.
pub fn run(case: impl Future<Output = ()>) {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());
    RUNTIME.block_on(async {
        tokio::time::timeout(PATIENCE * 3, case)
            .await
            .expect("the case takes too long");
    });
}

pub async fn on_fake() -> Subject {
    let runtime = FakeRuntime::new();
    runtime.add_image("busybox:test");
    Subject::new(runtime, "busybox:test")
}

pub async fn on_docker() -> Subject {
    Subject::new(docker().await, images::BUSYBOX)
}

pub async fn on_containerd() -> Subject {
    Subject::new(containerd_runtime().await, images::BUSYBOX)
}

/// The containerd backend on this test binary's daemon.
pub async fn containerd_runtime() -> Arc<ContainerdRuntime> {
    static SHARED: tokio::sync::OnceCell<Arc<ContainerdRuntime>> = tokio::sync::OnceCell::const_new();
    let connect = || async { ContainerdRuntime::connect(containerd_options().await).await.unwrap() };
    Arc::clone(SHARED.get_or_init(connect).await)
}

pub async fn containerd_options() -> Options {
    let engine = tokio::task::spawn_blocking(containerd::shared).await.unwrap();
    Options {
        address: engine.address.clone(),
        namespace: containerd::NAMESPACE.to_string(),
        image_namespaces: vec!["default".to_string()],
        cluster_id: "contract".to_string(),
        state_dir: engine.state_dir(),
        pod_range: engine.pod_range.clone(),
        pod_bridge: engine.pod_bridge.clone(),
        registries_dir: engine.state_dir().join("registries"),
        logger: Some(env!("CARGO_BIN_EXE_krust").into()),
    }
}

/// The Docker backend on this test binary's engine.
pub async fn docker() -> Arc<DockerRuntime> {
    static SHARED: tokio::sync::OnceCell<Arc<DockerRuntime>> = tokio::sync::OnceCell::const_new();
    let connect = || async {
        let engine = tokio::task::spawn_blocking(dockerd::shared).await.unwrap();
        DockerRuntime::connect(&engine.endpoint, "contract").await.unwrap()
    };
    Arc::clone(SHARED.get_or_init(connect).await)
}

impl Subject {
    pub fn new(runtime: Arc<dyn Runtime>, image: &'static str) -> Subject {
        Subject {
            runtime,
            image,
            sandboxes: Mutex::default(),
        }
    }

    /// A sandbox's configuration with an identity that no other case has.
    pub fn pod(&self, name: &str) -> SandboxConfig {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        SandboxConfig {
            pod: PodIdentity {
                name: name.to_string(),
                namespace: "default".to_string(),
                uid: format!("{name}-{}-{count}", std::process::id()),
                attempt: 0,
            },
            hostname: name.to_string(),
            ..Default::default()
        }
    }

    pub async fn sandbox(&self, config: &SandboxConfig) -> String {
        let id = self.runtime.run_pod_sandbox(config).await.unwrap();
        self.sandboxes.lock().unwrap().push(id.clone());
        id
    }

    /// A container that runs a shell script.
    pub fn script(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: name.to_string(),
            image: self.image.to_string(),
            command: vec!["sh".to_string(), "-c".to_string(), script.to_string()],
            ..Default::default()
        }
    }

    /// A sandbox and a started container in it.
    pub async fn start(&self, pod: &str, script: &str) -> (String, String) {
        let config = self.pod(pod);
        let sandbox = self.sandbox(&config).await;
        let id = self.start_in(&sandbox, &config, &self.script("app", script)).await;
        (sandbox, id)
    }

    pub async fn start_in(&self, sandbox: &str, config: &SandboxConfig, container: &ContainerConfig) -> String {
        let id = self.runtime.create_container(sandbox, container, config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    pub async fn status(&self, id: &str) -> ContainerStatus {
        self.runtime.container_status(id).await.unwrap()
    }

    /// Waits for the end of a container by its events.
    pub async fn exited(&self, id: &str) -> ContainerStatus {
        let mut events = self.runtime.events();
        loop {
            let status = self.status(id).await;
            if status.state == ContainerState::Exited {
                return status;
            }
            // An event between the two is not lost: the stream was opened before.
            tokio::time::timeout(PATIENCE, events.next())
                .await
                .unwrap_or_else(|_| panic!("no event for {id}: {:?}", status.state));
        }
    }

    /// Waits until a container has logged as many lines.
    pub async fn logged(&self, id: &str, lines: usize) -> Vec<LogLine> {
        let options = LogOptions {
            follow: true,
            ..Default::default()
        };
        let log = self.runtime.logs(id, &options).await.unwrap();
        let lines = tokio::time::timeout(PATIENCE, log.take(lines).collect::<Vec<_>>()).await;
        lines
            .expect("the log stays short")
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }

    pub async fn log(&self, id: &str, options: LogOptions) -> Vec<LogLine> {
        let log = self.runtime.logs(id, &options).await.unwrap();
        let lines = tokio::time::timeout(PATIENCE, log.collect::<Vec<_>>()).await;
        lines
            .expect("the log does not end")
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }

    /// Runs a command without stdin: stdout, stderr, exit code.
    pub async fn exec(&self, id: &str, command: &[&str]) -> (String, String, i32) {
        let session = self.runtime.exec(id, &exec_request(command)).await.unwrap();
        output(session).await
    }

    pub async fn clean(&self) {
        let sandboxes = std::mem::take(&mut *self.sandboxes.lock().unwrap());
        for id in sandboxes {
            self.runtime.remove_pod_sandbox(&id).await.unwrap();
        }
    }
}

pub fn exec_request(command: &[&str]) -> ExecRequest {
    ExecRequest {
        command: command.iter().map(|word| word.to_string()).collect(),
        stdout: true,
        stderr: true,
        ..Default::default()
    }
}

/// Reads a session to its end.
pub async fn output(session: ExecSession) -> (String, String, i32) {
    let ExecSession {
        stdin,
        stdout,
        stderr,
        control,
    } = session;
    drop(stdin);
    let read = |reader: Option<Reader>| async move {
        let mut text = Vec::new();
        if let Some(mut reader) = reader {
            reader.read_to_end(&mut text).await.unwrap();
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let all = async { tokio::join!(read(stdout), read(stderr), control.wait()) };
    let (stdout, stderr, code) = tokio::time::timeout(PATIENCE, all)
        .await
        .expect("the session does not end");
    (stdout, stderr, code.unwrap())
}

pub fn texts(lines: &[LogLine]) -> Vec<String> {
    lines
        .iter()
        .map(|line| String::from_utf8_lossy(&line.text).into_owned())
        .collect()
}

pub fn is_not_found<T>(result: Result<T>) -> bool {
    matches!(result, Err(RuntimeError::NotFound { .. }))
}
