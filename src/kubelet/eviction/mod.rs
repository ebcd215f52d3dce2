//! Ends pods before the node runs out of something, where that is configured, and pods whose files are more than
//! they may have (upstream: `pkg/kubelet/eviction`). Looks every ten seconds, and only at what somebody set a limit for:
//! without thresholds and without such pods nothing wakes up.

mod plan;
mod pressure;
pub mod threshold;

pub use plan::FileLimits;

use crate::client::events::{Level, Recorder};
use crate::kubelet::images::garbage::Garbage;
use crate::kubelet::node::figures::Usage as NodeUsage;
use crate::kubelet::plan::PodFailure;
use crate::kubelet::pod;
use crate::kubelet::pods::Pods;
use crate::kubelet::record::Record;
use crate::kubelet::stats::Stats;
use crate::runtime::ContainerState;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use plan::{Candidate, Part, Used};
use pressure::Pressure;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use threshold::{Met, Signal, Threshold};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Upstream's monitoring interval.
const EVERY: Duration = Duration::from_secs(10);
/// After an eviction, until what the pods held is given back: at most so long, and looked at so often.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Until the containers of ended pods are gone: at most so long, and looked at so often.
const CLEAR_MAX: Duration = Duration::from_secs(10);
const CLEAR_EVERY: Duration = Duration::from_millis(100);
/// Files of pods that are ranked may have been measured this long ago.
const FILES_AGE_MAX: Duration = Duration::from_secs(10);

/// When pods are evicted for the node's sake.
#[derive(Clone, Debug)]
pub struct EvictionPolicy {
    /// Without any, no pod is, and the node's conditions follow upstream's default.
    pub thresholds: Vec<Threshold>,
    /// Seconds that a soft threshold leaves a pod at most; 0: as long as it says itself. `evictionMaxPodGracePeriod`.
    pub pod_grace_seconds_max: u32,
    /// How long conditions stay true after they were: `evictionPressureTransitionPeriod`.
    pub pressure_transition: Duration,
}

impl Default for EvictionPolicy {
    fn default() -> Self {
        Self {
            thresholds: Vec::new(),
            pod_grace_seconds_max: 0,
            pressure_transition: Duration::from_secs(300),
        }
    }
}

/// What the node is low on, and has been; shared by all that act on it.
pub struct Pressures {
    policy: EvictionPolicy,
    seen: Mutex<Pressure>,
}

impl Pressures {
    pub fn new(policy: EvictionPolicy) -> Arc<Pressures> {
        Arc::new(Pressures {
            policy,
            seen: Mutex::default(),
        })
    }

    fn conditions(&self) -> Vec<&'static str> {
        self.seen
            .lock()
            .conditions(self.policy.pressure_transition, Instant::now())
    }

    /// The node's conditions that are true. The figures decide where there are no thresholds.
    pub fn of_node(&self, usage: &NodeUsage) -> Vec<&'static str> {
        if self.policy.thresholds.is_empty() {
            self.seen.lock().note(pressure::by_default(usage), Instant::now());
        }
        self.conditions()
    }

    /// Why the node does not take the pod now; only where pods are evicted it takes all.
    pub fn refusal(&self, pod: &Pod) -> Option<PodFailure> {
        match self.policy.thresholds.is_empty() {
            true => None,
            false => plan::refusal(pod, &self.conditions()),
        }
    }

    /// What something must be done about, memory first.
    fn observe(&self, usage: &NodeUsage, memory_bytes: u64) -> Vec<Met> {
        let mut seen = self.seen.lock();
        seen.observe(&self.policy.thresholds, usage, memory_bytes, Instant::now())
    }

    /// Every threshold is kept, and what was to be made free besides is free.
    fn are_over(&self, usage: &NodeUsage, memory_bytes: u64) -> bool {
        let mut thresholds = self.policy.thresholds.iter();
        thresholds.all(|one| one.met(usage, memory_bytes, true).is_none())
    }
}

/// See the module's description.
pub struct Evictions {
    /// Go before pods, if they may.
    pub images: Arc<Garbage>,
    pub pressures: Arc<Pressures>,
    pub pods: Arc<Pods>,
    pub stats: Arc<Stats>,
    pub recorder: Recorder,
    pub node_name: String,
}

impl Evictions {
    /// Looks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let round = async {
            loop {
                if self.pressures.policy.thresholds.is_empty() {
                    self.pods.limited().await;
                }
                match self.look().await {
                    ended if ended.is_empty() => sleep(EVERY).await,
                    ended => settle(&ended).await,
                }
            }
        };
        tokio::select! {
            () = round => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Returns the pods that it ended.
    async fn look(&self) -> Vec<Arc<Record>> {
        let met = match self.pressures.policy.thresholds.is_empty() {
            true => Vec::new(),
            false => self.pressures.observe(&self.stats.node(), self.memory_bytes()),
        };
        let ended = self.evict_over_limit().await;
        match met.first() {
            Some(first) if ended.is_empty() => self.evict_for(first).await.into_iter().collect(),
            _ => ended,
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.stats.machine().1
    }

    /// Ends pods that have more files than they may have.
    async fn evict_over_limit(&self) -> Vec<Arc<Record>> {
        let mut ended = Vec::new();
        let limited = self.pods.all().into_iter().filter(|record| record.file_limits.any());
        for record in limited.filter(|record| may_go(record)) {
            // What containers wrote costs the engine a walk: it is asked for only where it counts.
            let containers = match record.file_limits.of_containers {
                true => running(&record),
                false => Vec::new(),
            };
            let files = self.stats.files.measure(&record.uid, &containers).await;
            if let Some(message) = plan::over_limit(&record.pod(), &files, self.stats.has_image_disk()) {
                let failure = PodFailure {
                    message,
                    grace_seconds: Some(plan::GRACE_SECONDS),
                    ..PodFailure::default()
                };
                evict(&record, failure);
                ended.push(record);
            }
        }
        ended
    }

    /// Makes free what the node is low on: without pods if that is enough, else with the first of them.
    async fn evict_for(&self, met: &Met) -> Option<Arc<Record>> {
        let resource = met.signal.resource();
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..ObjectReference::default()
        };
        let text = format!("Attempting to reclaim {resource}");
        self.recorder.about(about, Level::Warning, "EvictionThresholdMet", text);
        if self.reclaim(met.signal).await && self.pressures.are_over(&self.stats.node(), self.memory_bytes()) {
            tracing::info!(resource, "Removing what nobody uses was enough");
            return None;
        }
        let mut candidates = self.candidates(met.signal).await?;
        plan::rank(
            &mut candidates,
            met.signal,
            Part::of(met.signal, self.stats.has_image_disk()),
        );
        let Some(chosen) = candidates.first() else {
            tracing::warn!(
                resource,
                "The node is low on a resource, and there is no pod that may be evicted"
            );
            return None;
        };
        let (message, annotations) = plan::message(met, chosen);
        let record = self.pods.get(pod::uid(&chosen.pod))?;
        let failure = PodFailure {
            message,
            grace_seconds: plan::grace_seconds(met, self.pressures.policy.pod_grace_seconds_max),
            disruption: true,
            annotations,
            ..PodFailure::default()
        };
        evict(&record, failure);
        Some(record)
    }

    /// Removes what nobody uses; false if there is nothing of the kind where the node is low (upstream:
    /// `buildSignalToNodeReclaimFuncs`).
    async fn reclaim(&self, signal: Signal) -> bool {
        let of_disk = matches!(signal.resource(), "ephemeral-storage" | "inodes");
        if !of_disk || (self.stats.has_image_disk() && !signal.is_of_images()) {
            return false;
        }
        self.clear_ended().await;
        self.images.free_all().await;
        true
    }

    /// Removes the containers of pods that have ended: their layers and logs, and what holds their images.
    async fn clear_ended(&self) {
        let all = self.pods.all().into_iter();
        let ended: Vec<_> = all.filter(|record| record.left_remains()).collect();
        for record in &ended {
            record.post_clear();
        }
        let began = Instant::now();
        while ended.iter().any(|record| record.left_remains()) && began.elapsed() < CLEAR_MAX {
            sleep(CLEAR_EVERY).await;
        }
    }

    /// The pods that may go, with what they use; None: the engine does not say.
    async fn candidates(&self, signal: Signal) -> Option<Vec<Candidate>> {
        let resource = signal.resource();
        let snapshot = match self.stats.sampler.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(resource, %error, "The node is low on a resource, and it is not known who uses it");
                return None;
            }
        };
        let files = match resource {
            "ephemeral-storage" | "inodes" => self.stats.files_of(&snapshot, FILES_AGE_MAX).await,
            _ => BTreeMap::new(),
        };
        let used = |uid: &str| -> Option<Used> {
            let found = snapshot.pods.iter().find(|one| one.pod.uid == uid)?;
            let memory = found
                .containers
                .iter()
                .map(|one| (one.name.clone(), one.figures.usage.working_set_bytes));
            Some(Used {
                memory: memory.collect(),
                memory_of_pod: found.sum(|usage| usage.working_set_bytes),
                processes: found.sum(|usage| usage.processes),
                files: files.get(uid).cloned().unwrap_or_default(),
            })
        };
        let active = self.pods.all().into_iter().filter(|record| may_go(record));
        let candidates = active.map(|record| Candidate {
            pod: record.pod(),
            used: used(&record.uid),
        });
        Some(candidates.collect())
    }
}

fn evict(record: &Record, failure: PodFailure) {
    let message = failure.message.as_str();
    tracing::info!(pod = pod::full_name(&record.pod()), message, "Evicting a pod");
    record.post_failure(PodFailure {
        reason: plan::EVICTED,
        ..failure
    });
}

/// It runs, and is not one that the system cannot do without.
fn may_go(record: &Record) -> bool {
    let pod = record.pod();
    record.runs() && !pod::is_finished(&pod) && pod.metadata.deletion_timestamp.is_none() && !plan::is_critical(&pod)
}

/// Ids and names of the containers that run.
fn running(record: &Record) -> Vec<(String, String)> {
    let containers = record.view().containers.into_iter();
    let containers = containers.filter(|container| container.state == ContainerState::Running);
    containers.map(|container| (container.id, container.name)).collect()
}

/// Returns when none of the pods runs any more, or it has taken too long.
async fn settle(ended: &[Arc<Record>]) {
    let began = Instant::now();
    while began.elapsed() < SETTLE_MAX {
        sleep(SETTLE_EVERY).await;
        if !ended.iter().any(|record| record.runs()) {
            return;
        }
    }
}
