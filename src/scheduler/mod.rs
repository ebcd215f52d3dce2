//! The scheduler: gives every pending pod a node, through the API (upstream: `pkg/scheduler`).
//!
//! - [`resources`]: what a pod requests and a node offers.
//! - [`cache`]: nodes with the pods on them, assumed ones included.
//! - [`queue`]: pods that wait: active, or unschedulable until something changes.
//! - [`plugins`]: filters and scores, one per file; `plugins::all()` is the list.
//! - [`plan`]: the pure decision.
//! - [`bind`]: the calls to the API.
//!
//! One task owns cache and queue; it wakes on watch events, on finished calls and when a back-off ends.

mod bind;
pub mod cache;
pub mod plan;
pub mod plugins;
pub mod queue;
pub mod resources;

use bind::{Binder, CallResult};
use cache::Cache;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use plan::Decision;
use queue::Queue;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The name in `spec.schedulerName` of the pods that this scheduler takes.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// Calls to the API under way at once; more pods wait in the queue.
const CALLS_MAX: usize = 64;

/// Runs until `shutdown`. Bindings under way are finished before it returns.
pub async fn run(client: kube::Client, shutdown: CancellationToken) {
    let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).default_backoff();
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut scheduler = Scheduler {
        cache: Cache::default(),
        queue: Queue::default(),
        binder: Binder::new(client),
    };
    scheduler.run(nodes, pods, shutdown).await;
}

struct Scheduler {
    cache: Cache,
    queue: Queue,
    binder: Binder,
}

impl Scheduler {
    async fn run(
        &mut self,
        nodes: impl Stream<Item = watcher::Result<Event<Node>>>,
        pods: impl Stream<Item = watcher::Result<Event<Pod>>>,
        shutdown: CancellationToken,
    ) {
        let (mut nodes, mut pods) = (pin!(nodes), pin!(pods));
        // Nothing is placed before both lists are in: a pod must not go to a node that looks empty only to us.
        let (mut nodes_listed, mut pods_listed) = (false, false);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = nodes.next() => nodes_listed |= self.on_node(event),
                Some(event) = pods.next() => pods_listed |= self.on_pod(event),
                Some(result) = self.binder.next() => self.on_call(result),
                () = sleep_until(self.queue.next_wake()) => {}
            }
            if nodes_listed && pods_listed {
                self.schedule();
            }
        }
        while let Some(result) = self.binder.next().await {
            self.on_call(result);
        }
    }

    /// True once the initial list is complete.
    fn on_node(&mut self, event: watcher::Result<Event<Node>>) -> bool {
        match event {
            Ok(Event::Init) => self.cache.begin_node_list(),
            Ok(Event::InitApply(node)) => {
                self.cache.put_node(Arc::new(node));
            }
            Ok(Event::InitDone) => {
                self.cache.end_node_list();
                self.queue.something_changed();
                return true;
            }
            // Heartbeats change nothing that a filter reads: only real changes wake the waiting pods.
            Ok(Event::Apply(node)) => {
                if self.cache.put_node(Arc::new(node)) {
                    self.queue.something_changed();
                }
            }
            Ok(Event::Delete(node)) => self.cache.remove_node(&node),
            Err(error) => tracing::warn!(%error, "the scheduler's watch of nodes broke and is retried"),
        }
        false
    }

    fn on_pod(&mut self, event: watcher::Result<Event<Pod>>) -> bool {
        match event {
            Ok(Event::Init) => {
                self.cache.begin_pod_list();
                self.queue.clear();
            }
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => self.put_pod(Arc::new(pod)),
            Ok(Event::InitDone) => {
                self.cache.end_pod_list();
                return true;
            }
            Ok(Event::Delete(pod)) => {
                self.queue.remove(&pod);
                if self.cache.remove_pod(&pod) {
                    self.queue.something_changed();
                }
            }
            Err(error) => tracing::warn!(%error, "the scheduler's watch of pods broke and is retried"),
        }
        false
    }

    fn put_pod(&mut self, pod: Arc<Pod>) {
        if cache::node_name(&pod).is_some() {
            self.queue.remove(&pod);
            if self.cache.put_pod(pod) {
                self.queue.something_changed();
            }
        } else if wants_scheduling(&pod) && !self.cache.is_assumed(&pod) {
            self.queue.put(pod);
        } else {
            self.queue.remove(&pod);
        }
    }

    fn on_call(&mut self, result: CallResult) {
        match result {
            CallResult::Bound => {}
            CallResult::BindFailed { pod } => {
                self.cache.forget(&pod);
                self.queue.retry(pod, Instant::now());
                self.queue.something_changed();
            }
            CallResult::Reported => {}
        }
    }

    fn schedule(&mut self) {
        let now = Instant::now();
        while self.binder.under_way() < CALLS_MAX {
            let Some(pod) = self.queue.pop(now) else { return };
            match plan::decide(&pod, &self.cache) {
                Decision::Bind { node } => {
                    self.cache.assume(pod.clone(), &node);
                    self.binder.bind(pod, node);
                }
                Decision::Unschedulable { message } => {
                    self.binder.report_unschedulable(pod.clone(), message);
                    self.queue.put_unschedulable(pod, now);
                }
            }
        }
    }
}

/// Pending, ours, not gated and not going away.
fn wants_scheduling(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == SCHEDULER_NAME);
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    ours && !gated && pod.metadata.deletion_timestamp.is_none() && !cache::is_terminal(pod)
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
