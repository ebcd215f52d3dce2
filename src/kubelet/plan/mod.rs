//! What to do next for one pod, decided without I/O (upstream: `kuberuntime_manager.go` `computePodActions`,
//! `kubelet.go` `SyncPod`/`SyncTerminatingPod`).
//!
//! The worker executes the actions, learns from their outcome and plans again. A plan made twice from the same
//! situation is the same, and no action is planned while it is in flight.

pub mod restart;
mod run;
mod stop;
#[cfg(test)]
mod tests;

use crate::kubelet::pod;
use crate::kubelet::state::Memory;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::time::SystemTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    Run,
    /// Stop everything; `since` is when this was decided.
    Stop {
        grace_seconds: u32,
        since: SystemTime,
    },
}

/// Why a container is killed; the text of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod ends.
    Stopping,
    DefinitionChanged,
    SandboxChanged,
    /// Its resources changed, and it asks for a restart then.
    Resized,
    /// All containers of the pod begin anew.
    RestartingAll,
    /// A probe failed; its name.
    Unhealthy(&'static str),
}

impl KillReason {
    pub fn message(&self, container: &str) -> String {
        match self {
            Self::Stopping | Self::SandboxChanged | Self::RestartingAll => format!("Stopping container {container}"),
            Self::Unhealthy(probe) => format!("Container {container} failed {probe} probe, will be restarted"),
            Self::Resized => format!("Container {container} resize requires restart"),
            Self::DefinitionChanged => format!("Container {container} definition changed, will be restarted"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the volumes' directories and files.
    PrepareVolumes,
    CreateSandbox {
        attempt: u32,
        /// The one before, which does not run (any more): stopped first, as it still has its address and host ports.
        replaces: Option<String>,
    },
    StopSandbox {
        id: String,
    },
    /// Removes the sandbox with its containers.
    RemoveSandbox {
        id: String,
    },
    /// Pull the image if need be, create, start.
    StartContainer {
        name: String,
        attempt: u32,
        /// A container that was created but never started (krust stopped in between): removed first.
        replaces: Option<String>,
    },
    KillContainer {
        id: String,
        name: String,
        grace_seconds: u32,
        reason: KillReason,
    },
    RemoveContainer {
        id: String,
    },
    /// Forgets these containers, so that the pod begins anew; `cause` is the one whose end asked for it.
    StartOver {
        cause: Option<String>,
        ids: Vec<String>,
    },
    /// Gives a running container what was granted to it.
    ResizeContainer {
        id: String,
        name: String,
    },
}

/// state.waiting of a container that the plan holds back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When to plan again if nothing happens before.
    pub wake_at: Option<SystemTime>,
    /// Why containers that do not run are waiting, by name.
    pub waiting: BTreeMap<String, Waiting>,
    /// The pod's containers have run to their end by themselves.
    pub finished: bool,
    /// Nothing of the pod runs any more, and its network is given back.
    pub stopped: bool,
}

impl Plan {
    fn wake(&mut self, at: SystemTime) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    fn wait(&mut self, container: &str, reason: &str, message: impl Into<String>) {
        let waiting = Waiting {
            reason: reason.to_owned(),
            message: message.into(),
        };
        self.waiting.insert(container.to_owned(), waiting);
    }
}

/// A reason for which the kubelet ends a pod: status.reason and status.message of a Failed pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFailure {
    pub reason: &'static str,
    pub message: String,
    /// How long the pod may take to end; None: as long as it says itself.
    pub grace_seconds: Option<u32>,
    /// It is not the pod's fault: the condition DisruptionTarget says so.
    pub disruption: bool,
    /// Those of the event that tells of it.
    pub annotations: BTreeMap<String, String>,
}

/// Whether the pod's deadline is over; else when it will be.
pub fn deadline(pod: &Pod, now: SystemTime) -> Result<Option<SystemTime>, PodFailure> {
    match pod::deadline(pod) {
        Some(at) if at <= now => Err(PodFailure {
            reason: "DeadlineExceeded",
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
            ..PodFailure::default()
        }),
        other => Ok(other),
    }
}

/// The next actions for the pod.
pub fn plan(pod: &Pod, memory: &Memory, intent: Intent, now: SystemTime) -> Plan {
    match intent {
        Intent::Run => run::plan(pod, memory, now),
        Intent::Stop { grace_seconds, since } => {
            let mut plan = Plan::default();
            stop::plan(pod, memory, grace_seconds, since, now, &mut plan);
            plan
        }
    }
}
