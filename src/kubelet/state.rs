//! What a pod's worker knows besides the Pod object: the runtime's side, failed steps, back-off
//! (upstream: `kubecontainer.PodStatus`, `reasonCache`).

use crate::kubelet::back_off::BackOff;
use crate::kubelet::probes::Verdicts;
use crate::kubelet::resize::Resizes;
use crate::runtime::{ContainerState, ContainerStatus, Sandbox, SandboxState};
use k8s_openapi::api::core::v1::Container;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// The pod's sandboxes and containers as the runtime last showed them.
#[derive(Clone, Debug, Default)]
pub struct PodRuntime {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<ContainerStatus>,
}

impl PodRuntime {
    /// The newest sandbox, in whatever state.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().max_by_key(|s| s.pod.attempt)
    }

    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandbox().filter(|s| s.state == SandboxState::Ready)
    }

    /// All containers of that name, newest first.
    pub fn history(&self, name: &str) -> Vec<&ContainerStatus> {
        let mut found: Vec<_> = self.containers.iter().filter(|c| c.name == name).collect();
        found.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        found
    }

    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        let of_name = self.containers.iter().filter(|c| c.name == name);
        of_name.max_by_key(|c| (c.attempt, c.created_at))
    }

    /// The latest of that name, if a process of it may be there.
    pub fn alive(&self, name: &str) -> Option<&ContainerStatus> {
        self.latest(name).filter(|latest| is_alive(latest.state))
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|c| is_alive(c.state))
    }

    pub fn put_sandbox(&mut self, sandbox: Sandbox) {
        self.sandboxes.retain(|s| s.id != sandbox.id);
        self.sandboxes.push(sandbox);
    }

    /// A container that ended never runs again: an older look at it that comes late is ignored.
    pub fn put_container(&mut self, container: ContainerStatus) {
        let ended = |c: &ContainerStatus| c.id == container.id && c.state == ContainerState::Exited;
        if container.state != ContainerState::Exited && self.containers.iter().any(ended) {
            return;
        }
        self.containers.retain(|c| c.id != container.id);
        self.containers.push(container);
    }

    pub fn remove(&mut self, id: &str) {
        self.sandboxes.retain(|s| s.id != id);
        self.containers.retain(|c| c.id != id && c.sandbox_id != id);
    }

    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

/// A process may be there: it has to be stopped before the pod counts as stopped.
pub fn is_alive(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Unknown)
}

/// A container with another image starts without the old one's back-off.
pub fn back_off_key(container: &Container) -> String {
    format!("{} {}", container.name, container.image.as_deref().unwrap_or_default())
}

/// Which kind of step failed; decides the waiting reason and when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The pull failed: ErrImagePull, then ImagePullBackOff.
    ImagePull,
    /// Nothing to pull: ErrImageNeverPull, InvalidImageName, ImageInspectError.
    Image,
    /// CreateContainerConfigError.
    Config,
    /// CreateContainerError.
    Create,
    /// RunContainerError: the engine now has a container that ended.
    Start,
}

/// The last failed try to start a container; forgotten when one succeeds.
#[derive(Clone, Debug)]
pub struct StartFailure {
    pub kind: FailureKind,
    pub reason: String,
    pub message: String,
    /// The spec's image at that time: a new one is tried at once.
    pub image: String,
    /// The image that could not be got: the container's own, or that of one of its volumes.
    pub wanted: String,
    pub at: SystemTime,
    /// None: only a change of the pod helps.
    pub retry_at: Option<SystemTime>,
}

/// A pod-level step (volumes, sandbox) that failed.
#[derive(Clone, Debug)]
pub struct StepFailure {
    pub retry_at: SystemTime,
}

/// A step that is being executed right now; at most one of each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Volumes,
    Sandbox,
    Start(String),
    Kill(String),
    Remove(String),
    Resize(String),
}

/// Everything a worker remembers between two plans.
#[derive(Debug)]
pub struct Memory {
    pub runtime: PodRuntime,
    pub volumes_ready: bool,
    pub volumes_failure: Option<StepFailure>,
    pub sandbox_failure: Option<StepFailure>,
    pub start_failures: BTreeMap<String, StartFailure>,
    /// By [`back_off_key`], advanced with every restart.
    pub crash_back_off: BackOff,
    pub verdicts: Verdicts,
    pub in_flight: BTreeSet<Step>,
    /// Ids of containers that were killed because their definition or their resources changed: they start again whatever the policy.
    pub replaced: BTreeSet<String>,
    /// Resources that were granted, and those that containers have.
    pub resize: Resizes,
    /// Grace of the kills in flight, by container id: a shorter one is sent again.
    pub kill_grace: BTreeMap<String, u32>,
    /// All containers are being killed and forgotten, to begin anew.
    pub restarts_all: bool,
    /// How often containers that were forgotten had been started, by name.
    pub next_attempts: BTreeMap<String, u32>,
}

impl Memory {
    pub fn new(runtime: PodRuntime) -> Self {
        Self {
            runtime,
            volumes_ready: false,
            volumes_failure: None,
            sandbox_failure: None,
            start_failures: BTreeMap::new(),
            crash_back_off: BackOff::upstream(),
            verdicts: Verdicts::default(),
            in_flight: BTreeSet::new(),
            replaced: BTreeSet::new(),
            resize: Resizes::default(),
            kill_grace: BTreeMap::new(),
            restarts_all: false,
            next_attempts: BTreeMap::new(),
        }
    }
}
