//! Deletes what has lost its owners, and ends deletions that wait for dependents or orphan them
//! (upstream: `pkg/controller/garbagecollector`).
//!
//! - [`monitors`]: a watch of metadata per resource feeds [`graph`], which knows who owns whom.
//! - [`worker`]: looks at what the graph points to, asks the API server itself, and acts as [`plan`] decides.
//! - [`cluster`]: the API server, as far as it is needed here; [`identity`], [`absent`]: names of objects.

mod absent;
mod cluster;
mod graph;
mod identity;
mod monitors;
mod plan;
#[cfg(test)]
mod simulation;
mod worker;

use super::Context;
use crate::client::events::{Level, Recorder};
use crate::client::work_queue::{Next, WorkQueue};
use cluster::{Failure, Server};
use graph::{Graph, Work};
use identity::{Identity, Uid};
use k8s_openapi::api::core::v1::ObjectReference;
use monitors::Monitors;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use worker::{Outcome, Worker};

/// As many as upstream.
const WORKERS: usize = 20;
/// How long the first lists may take; then it begins with what is there.
const SYNC_MAX: Duration = Duration::from_secs(30);
/// When to look again at what no watch has shown, though it is there.
const UNSEEN_AGAIN: Duration = Duration::from_secs(30);
/// The same at the first time: the watch is most likely on its way.
const DOUBT: Duration = Duration::from_secs(1);

/// Where the graph's work goes.
#[derive(Clone)]
struct Queues {
    examine: WorkQueue<Uid>,
    orphan: WorkQueue<Uid>,
    recorder: Recorder,
}

impl Queues {
    fn take(&self, work: Vec<Work>) {
        for work in work {
            match work {
                Work::Examine(uid) => self.examine.add(uid),
                Work::ExamineLater(uid) => self.examine.add_after(uid, DOUBT),
                Work::Orphan(uid) => self.orphan.add(uid),
                Work::WrongNamespace { dependent, owner } => self.report(&dependent, &owner),
            }
        }
    }

    fn report(&self, dependent: &Identity, owner: &Identity) {
        let reference = ObjectReference {
            api_version: Some(dependent.kind.api_version.to_string()),
            kind: Some(dependent.kind.kind.to_string()),
            namespace: Some(dependent.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: Some(dependent.name.to_string()),
            uid: Some(dependent.uid.to_string()),
            ..ObjectReference::default()
        };
        let message = format!("ownerRef {owner} does not exist in namespace {:?}", dependent.namespace);
        self.recorder
            .about(reference, Level::Warning, "OwnerRefInvalidNamespace", message);
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: &Context) {
    let client = context.client("generic-garbage-collector");
    let queues = Queues {
        examine: WorkQueue::new("garbage collector"),
        orphan: WorkQueue::new("garbage collector, orphans"),
        recorder: context.recorder_as("generic-garbage-collector", "garbage-collector-controller"),
    };
    let graph = Arc::new(Mutex::new(Graph::default()));
    let server = Server::new(client.clone(), context.discovery.clone());
    let worker = Worker::new(server, graph.clone());
    let monitors = Monitors::new(client, graph, queues.clone());
    let shutdown = &context.shutdown;
    let work = async {
        if !context
            .caught_up(tokio::time::timeout(SYNC_MAX, monitors.synced()))
            .await
        {
            return;
        }
        tokio::join!(
            queues
                .examine
                .run(WORKERS, shutdown, |uid| examine(&worker, &queues, uid)),
            queues
                .orphan
                .run(WORKERS, shutdown, |uid| orphan(&worker, &queues, uid)),
        );
    };
    tokio::join!(
        work,
        shutdown.run_until_cancelled(monitors.follow(&context.discovery, &worker)),
    );
    monitors.stop().await;
}

async fn examine(worker: &Worker<Server>, queues: &Queues, uid: Uid) -> Result<Next, Failure> {
    let outcome = worker.examine(&uid).await;
    queues.take(worker.graph.lock().take_work());
    match outcome {
        Ok(Outcome::Done) => Ok(Next::Done),
        Ok(Outcome::Unseen) => Ok(Next::After(UNSEEN_AGAIN)),
        Err(Failure::Conflict) => Ok(Next::Retry),
        Err(failure) => Err(failure),
    }
}

async fn orphan(worker: &Worker<Server>, queues: &Queues, uid: Uid) -> Result<Next, Failure> {
    let outcome = worker.orphan(&uid).await;
    queues.take(worker.graph.lock().take_work());
    match outcome {
        Ok(()) => Ok(Next::Done),
        Err(Failure::Conflict) => Ok(Next::Retry),
        Err(failure) => Err(failure),
    }
}
