//! A runtime in memory, for tests and benches: no processes, scripted behaviour, quick with ten thousand pods.
//!
//! Containers of an image without a [`Behaviour`] run their command through [`Script`]; a command which that
//! language does not know fails to start, as a missing program does. Time is tokio's, so tests may pause it.

mod process;
mod runtime;
mod script;

pub use script::{Script, Step};

use super::*;
use parking_lot::Mutex;
use process::LogBook;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

/// Events that a slow reader may be behind before it is told to list again.
const EVENT_BUFFER_EVENTS_MAX: usize = 4096;

/// What the containers of an image do.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// None: what the container's command says.
    pub script: Option<Script>,
    /// `create_container` fails with this.
    pub create_error: Option<String>,
    /// `start_container` fails with this.
    pub start_error: Option<String>,
    /// `pull_image` fails with this; the image is absent.
    pub pull_error: Option<String>,
    /// `pull_image` wants to see this password.
    pub password: Option<String>,
    /// An end with code 137 is reported as OOMKilled.
    pub oom_killed: bool,
    /// What a running container takes of a core, in thousandths, from its start on.
    pub cpu_milli: u64,
    /// Its working set and resident memory.
    pub memory_bytes: u64,
    /// What it wrote outside of its volumes.
    pub written_bytes: u64,
}

/// See the module's description.
pub struct FakeRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Default)]
struct State {
    /// Counts everything that gets an id or an address.
    serial: u64,
    sandboxes: BTreeMap<String, FakeSandbox>,
    containers: BTreeMap<String, FakeContainer>,
    images: BTreeMap<String, Image>,
    image_directory: Option<PathBuf>,
    behaviours: HashMap<String, Behaviour>,
    pulls: HashMap<String, u64>,
}

struct FakeSandbox {
    config: SandboxConfig,
    state: SandboxState,
    created_at: SystemTime,
    ip: String,
}

struct FakeContainer {
    config: ContainerConfig,
    sandbox_id: String,
    pod_uid: String,
    image_ref: String,
    state: ContainerState,
    created_at: SystemTime,
    started_at: Option<SystemTime>,
    finished_at: Option<SystemTime>,
    exit_code: i32,
    reason: String,
    message: String,
    termination_message: Vec<u8>,
    log: LogBook,
    /// What the stop signal does: `Some(None)` ignores it.
    on_stop: Option<Option<i32>>,
    /// The writing end of stdin, until an attach takes it.
    stdin: Option<tokio::io::DuplexStream>,
    task: Option<AbortHandle>,
}

impl FakeRuntime {
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Arc<FakeRuntime> {
        Arc::new(FakeRuntime {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                events: broadcast::channel(EVENT_BUFFER_EVENTS_MAX).0,
            }),
        })
    }

    /// Puts an image on the node.
    pub fn add_image(&self, image: &str) {
        self.inner.state.lock().add_image(image);
    }

    /// Keeps an image that is on the node from being removed.
    pub fn pin_image(&self, image: &str) {
        let mut state = self.inner.state.lock();
        let id = state.add_image(image).id;
        if let Some(image) = state.images.get_mut(&id) {
            image.pinned = true;
        }
    }

    /// Says where images are.
    pub fn set_image_directory(&self, directory: &Path) {
        self.inner.state.lock().image_directory = Some(directory.to_owned());
    }

    /// Says what containers of `image` (as the pod names it) do from now on.
    pub fn set_behaviour(&self, image: &str, behaviour: Behaviour) {
        self.inner.state.lock().behaviours.insert(image.to_string(), behaviour);
    }

    /// How often `image` was asked for from a registry.
    pub fn pulls(&self, image: &str) -> u64 {
        self.inner.state.lock().pulls.get(image).copied().unwrap_or(0)
    }

    /// Ends a running container, as if its process had ended by itself.
    pub fn exit_container(&self, id: &str, code: i32) {
        self.inner.finish(id, code);
    }

    /// Shares and limits of a container, or of a sandbox's containers together.
    pub fn resources(&self, id: &str) -> Option<Resources> {
        let state = self.inner.state.lock();
        let container = state.containers.get(id).map(|container| &container.config.resources);
        let sandbox = state.sandboxes.get(id).map(|sandbox| &sandbox.config.resources);
        container.or(sandbox).cloned()
    }

    /// Appends a line to a container's log.
    pub fn write_log(&self, id: &str, stream: LogStream, text: &str) {
        self.inner
            .log(id, stream, bytes::Bytes::copy_from_slice(text.as_bytes()));
    }

    /// Tells readers of events that some were lost.
    pub fn interrupt_events(&self) {
        self.inner.publish(RuntimeEventKind::Resync, "", "");
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn next_id(&mut self) -> String {
        let serial = self.next();
        // As long as an engine's ids, and different in the first digits, since people cut them.
        format!("{:016x}{serial:048x}", serial.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn add_image(&mut self, image: &str) -> Image {
        if let Some(image) = self.find_image(image) {
            return image.clone();
        }
        let id = format!("sha256:{}", self.next_id());
        let new = Image {
            id: id.clone(),
            repo_tags: vec![image.to_string()],
            repo_digests: Vec::new(),
            size_bytes: 1 << 20,
            ..Image::default()
        };
        self.images.insert(id, new.clone());
        new
    }

    fn find_image(&self, image: &str) -> Option<&Image> {
        self.images.get(image).or_else(|| {
            self.images
                .values()
                .find(|known| known.repo_tags.iter().any(|tag| tag == image))
        })
    }

    fn container(&mut self, id: &str) -> Result<&mut FakeContainer> {
        self.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound {
            what: "container",
            id: id.to_string(),
        })
    }

    fn sandbox(&mut self, id: &str) -> Result<&mut FakeSandbox> {
        self.sandboxes.get_mut(id).ok_or_else(|| RuntimeError::NotFound {
            what: "sandbox",
            id: id.to_string(),
        })
    }

    /// By the behaviour of a container's image; a sandbox uses nothing.
    fn usage(&self, id: &str, now: SystemTime) -> Option<Usage> {
        let mut usage = Usage::none(id, now);
        if let Some(sandbox) = self.sandboxes.get(id) {
            return (sandbox.state == SandboxState::Ready).then_some(usage);
        }
        let container = self.containers.get(id)?;
        if container.state != ContainerState::Running {
            return None;
        }
        let behaviour = self.behaviours.get(&container.config.image);
        let (milli, memory) = behaviour.map_or((0, 0), |set| (set.cpu_milli, set.memory_bytes));
        let since = now.duration_since(container.started_at?).unwrap_or_default();
        usage.cpu_nanos = u64::try_from(since.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_mul(milli)
            / 1000;
        (usage.memory_bytes, usage.working_set_bytes, usage.rss_bytes) = (memory, memory, memory);
        usage.processes = 1;
        Some(usage)
    }

    fn containers_of(&self, sandbox_id: &str) -> Vec<String> {
        self.containers
            .iter()
            .filter(|(_, container)| container.sandbox_id == sandbox_id)
            .map(|(id, _)| id.clone())
            .collect()
    }
}

impl Inner {
    fn publish(&self, kind: RuntimeEventKind, pod_uid: &str, container_id: &str) {
        // An error means that nobody listens.
        let _ = self.events.send(RuntimeEvent {
            kind,
            pod_uid: pod_uid.to_string(),
            container_id: container_id.to_string(),
        });
    }

    fn log(&self, id: &str, stream: LogStream, text: bytes::Bytes) {
        if let Ok(container) = self.state.lock().container(id) {
            container.log.append(stream, text);
        }
    }

    /// The end of a container's process; nothing if it does not run.
    fn finish(&self, id: &str, code: i32) {
        let pod_uid = {
            let mut state = self.state.lock();
            let oom_killed = state
                .containers
                .get(id)
                .and_then(|container| state.behaviours.get(&container.config.image))
                .is_some_and(|behaviour| behaviour.oom_killed);
            let Ok(container) = state.container(id) else { return };
            if container.state != ContainerState::Running {
                return;
            }
            container.state = ContainerState::Exited;
            container.finished_at = Some(SystemTime::now());
            container.exit_code = code;
            container.reason = match code {
                137 if oom_killed => "OOMKilled",
                0 => "Completed",
                _ => "Error",
            }
            .to_string();
            container.stdin = None;
            container.log.close();
            if let Some(task) = container.task.take() {
                task.abort();
            }
            container.pod_uid.clone()
        };
        self.publish(RuntimeEventKind::ContainerExited, &pod_uid, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Benches of the parts above use the fake with this many pods; it must not be what they measure.
    #[tokio::test]
    async fn ten_thousand_pods() {
        let runtime = FakeRuntime::new();
        runtime.add_image("app");
        runtime.set_behaviour(
            "job",
            Behaviour {
                script: Some(Script::exits_after(Duration::from_millis(10), 3)),
                ..Default::default()
            },
        );
        runtime.add_image("job");
        for number in 0..10_000u32 {
            let config = SandboxConfig {
                pod: PodIdentity {
                    name: format!("pod-{number}"),
                    uid: number.to_string(),
                    ..Default::default()
                },
                ..Default::default()
            };
            let sandbox = runtime.run_pod_sandbox(&config).await.unwrap();
            let container = ContainerConfig {
                name: "app".to_string(),
                image: if number % 2 == 0 { "app" } else { "job" }.to_string(),
                ..Default::default()
            };
            let id = runtime.create_container(&sandbox, &container, &config).await.unwrap();
            runtime.start_container(&id).await.unwrap();
        }
        let sandboxes = runtime.list_pod_sandboxes().await.unwrap();
        let addresses: std::collections::HashSet<_> = sandboxes.iter().map(|sandbox| &sandbox.ips[0]).collect();
        assert_eq!((sandboxes.len(), addresses.len()), (10_000, 10_000));
        let ended = async {
            loop {
                let listed = runtime.list_containers().await.unwrap();
                let ended = listed
                    .iter()
                    .filter(|status| status.exit_code == 3 && status.reason == "Error");
                if ended.count() == 5_000 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    }

    #[tokio::test]
    async fn failures_are_scripted() {
        let runtime = FakeRuntime::new();
        let fails = |what: fn(&mut Behaviour)| {
            let mut behaviour = Behaviour::default();
            what(&mut behaviour);
            behaviour
        };
        runtime.set_behaviour("absent", fails(|b| b.pull_error = Some("denied".into())));
        let error = runtime
            .pull_image("absent", None, &PullProgress::default())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("denied"), "{error}");
        assert_eq!((runtime.pulls("absent"), runtime.pulls("present")), (1, 0));
        assert!(runtime.image_status("absent").await.unwrap().is_none());

        let sandbox = runtime.run_pod_sandbox(&SandboxConfig::default()).await.unwrap();
        let create = async |image: &str| {
            runtime.add_image(image);
            let config = ContainerConfig {
                image: image.to_string(),
                ..Default::default()
            };
            runtime
                .create_container(&sandbox, &config, &SandboxConfig::default())
                .await
        };
        runtime.set_behaviour("uncreated", fails(|b| b.create_error = Some("no space".into())));
        assert!(create("uncreated").await.unwrap_err().to_string().contains("no space"));
        runtime.set_behaviour("unstarted", fails(|b| b.start_error = Some("no exec".into())));
        let id = create("unstarted").await.unwrap();
        assert!(
            runtime
                .start_container(&id)
                .await
                .unwrap_err()
                .to_string()
                .contains("no exec")
        );
        let status = runtime.container_status(&id).await.unwrap();
        assert_eq!(
            (status.reason.as_str(), status.message.as_str()),
            ("StartError", "no exec")
        );
        runtime.set_behaviour("hungry", fails(|b| b.oom_killed = true));
        let id = create("hungry").await.unwrap();
        runtime.start_container(&id).await.unwrap();
        runtime.exit_container(&id, 137);
        assert_eq!(runtime.container_status(&id).await.unwrap().reason, "OOMKilled");
    }
}
