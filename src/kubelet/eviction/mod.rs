//! Ends pods before the node runs out of something, where that is configured, and pods whose files are more than
//! they may have (upstream: `pkg/kubelet/eviction`). Looks every ten seconds, and only at what somebody set a limit for.

mod plan;
pub mod threshold;

use crate::client::events::{Level, Recorder};
use crate::kubelet::images::garbage::Garbage;
use crate::kubelet::plan::PodFailure;
use crate::kubelet::pod;
use crate::kubelet::pods::Pods;
use crate::kubelet::record::Record;
use crate::kubelet::stats::Stats;
use crate::runtime::ContainerState;
use k8s_openapi::api::core::v1::ObjectReference;
use plan::{Candidate, Used};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use threshold::{Met, Threshold};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Upstream's monitoring interval.
const EVERY: Duration = Duration::from_secs(10);
/// After an eviction, until what the pod held is given back.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Evicted pods get this long to end.
const GRACE_SECONDS: u32 = 1;
/// Files of pods that are ranked may have been measured this long ago.
const FILES_AGE_MAX: Duration = Duration::from_secs(10);

/// See the module's description.
pub struct Evictions {
    /// Go before pods, if they may.
    pub images: Arc<Garbage>,
    pub thresholds: Vec<Threshold>,
    pub pods: Arc<Pods>,
    pub stats: Arc<Stats>,
    pub recorder: Recorder,
    pub node_name: String,
    /// The pod that was ended last, and when.
    pub last: Option<(Arc<Record>, Instant)>,
}

impl Evictions {
    /// Looks until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        if let Some((record, at)) = &self.last {
            if at.elapsed() < SETTLE_MAX && runs(record) {
                return;
            }
            self.last = None;
        }
        let active = self.pods.all().into_iter().filter(|record| {
            let pod = record.pod();
            !pod::is_finished(&pod)
                && pod.metadata.deletion_timestamp.is_none()
                && !plan::is_critical(&pod)
                && runs(record)
        });
        let active: Vec<Arc<Record>> = active.collect();
        if self.evict_over_limit(&active).await || self.thresholds.is_empty() {
            return;
        }
        let (_, memory_bytes) = self.stats.machine();
        let met = threshold::met(&self.thresholds, &self.stats.node(), memory_bytes);
        let Some(first) = met.first() else {
            return;
        };
        self.evict_for(first, memory_bytes, &active).await;
    }

    /// Whether a pod had more files than it may have.
    async fn evict_over_limit(&mut self, active: &[Arc<Record>]) -> bool {
        let mut any = false;
        for record in active {
            let pod = record.pod();
            let (of_volumes, of_containers) = plan::limits(&pod);
            if !of_volumes && !of_containers {
                continue;
            }
            // What containers wrote costs the engine a walk: it is asked for only where it counts.
            let containers = if of_containers { running(record) } else { Vec::new() };
            let files = self.stats.files.measure(&record.uid, &containers).await;
            if let Some(message) = plan::over_limit(&pod, &files) {
                self.evict(record, message, false);
                any = true;
            }
        }
        any
    }

    async fn evict_for(&mut self, met: &Met, memory_bytes: u64, active: &[Arc<Record>]) {
        let resource = met.signal.resource();
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..ObjectReference::default()
        };
        let text = format!("Attempting to reclaim {resource}");
        self.recorder.about(about, Level::Warning, "EvictionThresholdMet", text);
        let of_disk = matches!(resource, "ephemeral-storage" | "inodes");
        if of_disk && self.images.free_all().await > 0 {
            let now = threshold::met(&self.thresholds, &self.stats.node(), memory_bytes);
            if !now.iter().any(|still| still.signal == met.signal) {
                tracing::info!(resource, "Removing unused images was enough");
                return;
            }
        }
        let snapshot = match self.stats.sampler.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(resource, %error, "The node is low on a resource, and it is not known who uses it");
                return;
            }
        };
        let files = match of_disk {
            true => self.stats.files_of(&snapshot, FILES_AGE_MAX).await,
            false => BTreeMap::new(),
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
        let candidates = active.iter().map(|record| Candidate {
            pod: record.pod(),
            used: used(&record.uid),
        });
        let mut candidates: Vec<Candidate> = candidates.collect();
        plan::rank(&mut candidates, met.signal);
        let Some(chosen) = candidates.first() else {
            tracing::warn!(
                resource,
                "The node is low on a resource, and there is no pod that may be evicted"
            );
            return;
        };
        let message = plan::message(met, chosen);
        if let Some(record) = self.pods.get(pod::uid(&chosen.pod)) {
            self.evict(&record, message, true);
        }
    }

    fn evict(&mut self, record: &Arc<Record>, message: String, disruption: bool) {
        tracing::info!(pod = pod::full_name(&record.pod()), message, "Evicting a pod");
        record.post_failure(PodFailure {
            reason: "Evicted",
            message,
            grace_seconds: Some(GRACE_SECONDS),
            disruption,
        });
        self.last = Some((record.clone(), Instant::now()));
    }
}

/// Ids and names of the containers that run.
fn running(record: &Record) -> Vec<(String, String)> {
    let containers = record.view().containers.into_iter();
    let containers = containers.filter(|container| container.state == ContainerState::Running);
    containers.map(|container| (container.id, container.name)).collect()
}

fn runs(record: &Record) -> bool {
    !running(record).is_empty()
}
