//! Ends the node's pods before its machine goes down, the least important first (upstream: `pkg/kubelet/nodeshutdown`).
//! Who hears of the machine's end is not decided here; without configured times, pods outlive krust.

mod plan;

pub use plan::{Period, periods};

use crate::kubelet::plan::PodFailure;
use crate::kubelet::pods::Pods;
use crate::kubelet::record::Record;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Reason and message of a pod that was ended.
pub(super) const ENDED: &str = "Terminated";
const ENDED_MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Why the node is not ready.
pub(super) const NOT_READY: &str = "node is shutting down";
/// Pods should not be made again on a node that seems ready; but their end does not wait longer for its status.
const STATUS_MAX: Duration = Duration::from_secs(2);
/// Engine and API take a moment, too, when the last one was killed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// In the end nobody waits behind those whose status the API does not have yet: nobody would write it later.
const LAST_STATUSES: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct NodeShutdown {
    periods: Vec<Period>,
    pods: Arc<Pods>,
    /// From then on the node takes no pods.
    pub(super) begun: CancellationToken,
    /// The node's status says so.
    pub(super) told: CancellationToken,
}

impl NodeShutdown {
    pub(super) fn new(periods: Vec<Period>, pods: Arc<Pods>) -> Arc<Self> {
        Arc::new(Self {
            periods,
            pods,
            begun: CancellationToken::new(),
            told: CancellationToken::new(),
        })
    }

    /// Whether pods have times to end in.
    pub fn is_configured(&self) -> bool {
        !self.periods.is_empty()
    }

    /// Ends all pods, group by group; returns when they have ended or their time is over.
    pub async fn run(&self) {
        self.begun.cancel();
        if timeout(STATUS_MAX, self.told.cancelled()).await.is_err() {
            tracing::warn!("The node's status does not say yet that it shuts down");
        }
        for (index, period) in self.periods.iter().enumerate() {
            let of_group = |record: &Arc<Record>| plan::group(&self.periods, &record.pod()) == index;
            let group: Vec<_> = self.pods.all().into_iter().filter(of_group).collect();
            let group: Vec<_> = group.into_iter().filter(|record| !record.view().over).collect();
            if group.is_empty() {
                continue;
            }
            tracing::info!(
                pods = group.len(),
                priority = period.priority,
                seconds = period.seconds,
                "Ending pods, as the node shuts down"
            );
            for record in &group {
                record.post_failure(PodFailure {
                    reason: ENDED,
                    message: ENDED_MESSAGE.to_owned(),
                    grace_seconds: Some(period.seconds),
                    disruption: true,
                    ..PodFailure::default()
                });
            }
            let limit = Duration::from_secs(period.seconds.into()) + LAST_WORDS;
            if timeout(limit, join_all(group.iter().map(|record| record.over())))
                .await
                .is_err()
            {
                tracing::warn!(priority = period.priority, "Not all pods ended in their time");
            }
        }
        let all = self.pods.all().into_iter();
        let left: Vec<_> = all.filter(|record| !record.view().over).collect();
        if timeout(LAST_STATUSES, join_all(left.iter().map(|record| record.over())))
            .await
            .is_err()
        {
            tracing::warn!("The API does not know of all pods how they ended");
        }
    }

    /// Why a new pod is not taken, if so.
    pub(super) fn rejection(&self) -> Option<PodFailure> {
        self.begun.is_cancelled().then(|| PodFailure {
            reason: "NodeShutdown",
            message: "Pod was rejected: Pod was rejected as the node is shutting down.".to_owned(),
            ..PodFailure::default()
        })
    }
}
