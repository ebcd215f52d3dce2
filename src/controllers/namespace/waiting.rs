//! Waits for what is left of a namespace's content: somebody's grace or finalizer.

use super::content::Remaining;
use crate::client::ObjectKey;
use crate::client::discovery::Metadata;
use crate::client::work_queue::WorkQueue;
use futures_util::stream::{self, StreamExt};
use kube::Client;
use kube::api::{Api, WatchEvent, WatchParams};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Then everything is looked at again, whatever the watches say.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// One change is seldom the last: others that come within this time are part of the same look.
/// More resources than a cluster has; what is beyond is looked at when the time is over.
const RESOURCES_MAX: usize = 1_000;
const SETTLE: Duration = Duration::from_millis(100);

pub struct Waiting {
    client: Client,
    queue: WorkQueue<ObjectKey>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// By namespace.
    running: Mutex<HashMap<String, CancellationToken>>,
}

impl Waiting {
    pub fn new(client: Client, queue: WorkQueue<ObjectKey>, shutdown: CancellationToken) -> Self {
        Self {
            client,
            queue,
            shutdown,
            tasks: TaskTracker::new(),
            running: Mutex::default(),
        }
    }

    /// Adds the namespace to the queue when something of what remains has changed.
    pub fn wait(&self, namespace: &str, remaining: Vec<Remaining>) {
        let stop = self.shutdown.child_token();
        if let Some(before) = self.running.lock().insert(namespace.to_owned(), stop.clone()) {
            before.cancel();
        }
        let (client, queue) = (self.client.clone(), self.queue.clone());
        let name = namespace.to_owned();
        self.tasks.spawn(async move {
            let changed = async {
                let _ = tokio::time::timeout(WAIT_MAX, first_change(&client, &name, remaining)).await;
                tokio::time::sleep(SETTLE).await;
                queue.add(ObjectKey::new("", name.as_str()));
            };
            stop.run_until_cancelled(changed).await
        });
    }

    pub fn forget(&self, namespace: &str) {
        if let Some(stop) = self.running.lock().remove(namespace) {
            stop.cancel();
        }
    }

    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Returns when one of the resources has changed, or when its watch ends.
async fn first_change(client: &Client, namespace: &str, remaining: Vec<Remaining>) {
    let watches = remaining.into_iter().map(|remaining| async move {
        let api: Api<Metadata> = remaining.resource.api_in(client.clone(), namespace);
        let params = WatchParams::default();
        let Ok(events) = api.watch(&params, &remaining.resource_version).await else {
            // It cannot be watched: time will tell.
            return std::future::pending().await;
        };
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let event: kube::Result<WatchEvent<Metadata>> = event;
            if !matches!(event, Ok(WatchEvent::Bookmark(_))) {
                return;
            }
        }
    });
    let mut watches = stream::iter(watches).buffer_unordered(RESOURCES_MAX);
    watches.next().await;
}
