//! Collects pods that nobody else would end: of nodes that are gone, that go without ever having been on a node, on
//! nodes out of service, and finished ones when there are too many (upstream: `pkg/controller/podgc`).

mod plan;

use super::Context;
use super::pods::node_name;
use crate::client::informer::{Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use crate::client::{self, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use plan::{Place, Why, surplus, why};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "pod-garbage-collector";
/// The upstream manager's default of `--terminated-pod-gc-threshold`.
const FINISHED_MAX: usize = 12_500;
/// A node may come to the cache later than its pods.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How often finished pods are counted at most.
const COUNTED_EVERY: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("looking up node {node}: {source}")]
    Node { node: String, source: kube::Error },
    #[error("collecting pod {pod}: {source}")]
    Pod { pod: ObjectKey, source: kube::Error },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Work {
    Pod(ObjectKey),
    /// One that pods name and the cache does not have.
    Node(String),
    Finished,
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(formatter, "pod {key}"),
            Self::Node(name) => write!(formatter, "node {name}"),
            Self::Finished => formatter.write_str("finished pods"),
        }
    }
}

struct Controller {
    client: Client,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// By the node's name.
    on_node: Index<Pod>,
    /// All under one word.
    finished: Index<Pod>,
    queue: WorkQueue<Work>,
}

/// Runs until `shutdown`.
pub async fn run(context: &Context) {
    let pods = context.informers.of::<Pod>();
    let controller = Arc::new(Controller {
        client: context.client(NAME),
        nodes: context.informers.of::<Node>(),
        on_node: pods.index(|pod| node_name(pod).map(str::to_owned).into_iter().collect()),
        finished: pods.index(|pod| {
            let finished = super::pods::is_finished(pod);
            finished.then(String::new).into_iter().collect()
        }),
        pods,
        queue: WorkQueue::new("pod_gc"),
    });
    let this = Arc::clone(&controller);
    controller.pods.on_change(move |change| {
        let Some(pod) = &change.new else { return };
        if super::pods::is_finished(pod) {
            this.queue.add_after(Work::Finished, COUNTED_EVERY);
        }
        if super::pods::is_terminating(pod) {
            this.queue.add(Work::Pod(ObjectKey::of(&**pod)));
        }
        if let Some(node) = node_name(pod).filter(|node| this.nodes.get("", node).is_none()) {
            this.queue.add_after(Work::Node(node.to_owned()), QUARANTINE);
        }
    });
    let this = Arc::clone(&controller);
    controller.nodes.on_change(move |change| {
        let Some(node) = change.object() else { return };
        let name = node.metadata.name.clone().unwrap_or_default();
        if change.new.is_none() {
            this.queue.add_after(Work::Node(name), QUARANTINE);
            return;
        }
        let going = this
            .on_node
            .get(&name)
            .into_iter()
            .filter(|pod| super::pods::is_terminating(pod));
        going.for_each(|pod| this.queue.add(Work::Pod(ObjectKey::of(&*pod))));
    });
    let synced = async { tokio::join!(controller.pods.synced(), controller.nodes.synced()) };
    if !context.caught_up(synced).await {
        return;
    }
    let this = &controller;
    this.queue.run(2, &context.shutdown, |work| this.sync(work)).await;
}

impl Controller {
    async fn sync(&self, work: Work) -> Result<Next, Error> {
        match work {
            Work::Pod(key) => {
                if let Some(pod) = self.pods.get_key(&key) {
                    self.look_at(&pod, false).await?;
                }
            }
            Work::Node(node) => {
                let pods = self.on_node.get(&node);
                if pods.is_empty() || self.nodes.get("", &node).is_some() || self.exists(&node).await? {
                    return Ok(Next::Done);
                }
                for pod in pods {
                    self.look_at(&pod, true).await?;
                }
            }
            Work::Finished => {
                for pod in surplus(self.finished.get(""), FINISHED_MAX) {
                    self.collect(&pod, None).await?;
                }
            }
        }
        Ok(Next::Done)
    }

    async fn exists(&self, node: &str) -> Result<bool, Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let live = api.get_opt(node).await.map_err(|source| Error::Node {
            node: node.to_owned(),
            source,
        })?;
        Ok(live.is_some())
    }

    async fn look_at(&self, pod: &Pod, node_is_gone: bool) -> Result<(), Error> {
        let node = node_name(pod).map(|name| self.nodes.get("", name));
        let place = match &node {
            None => Place::None,
            Some(Some(node)) => Place::There(node),
            Some(None) if node_is_gone => Place::Gone,
            Some(None) => Place::Unknown,
        };
        match why(pod, place) {
            Some(Why::Orphaned) => {
                let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": now()});
                self.collect(pod, Some(condition)).await
            }
            Some(Why::Unscheduled | Why::OutOfService) => self.collect(pod, None).await,
            None => Ok(()),
        }
    }

    /// Marks a pod as failed, so that whoever counts it knows, and deletes it without waiting for a node.
    async fn collect(&self, pod: &Pod, condition: Option<Value>) -> Result<(), Error> {
        let key = ObjectKey::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let uid = pod.metadata.uid.clone();
        let result = async {
            if !super::pods::is_finished(pod) {
                let mut status = json!({"phase": "Failed"});
                if let Some(condition) = condition {
                    status["conditions"] = json!([condition]);
                }
                let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": status}));
                api.patch_status(&key.name, &PatchParams::default(), &patch).await?;
            }
            let params = DeleteParams::default().grace_period(0).preconditions(client::only(uid));
            api.delete(&key.name, &params).await
        };
        match result.await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(Error::Pod { pod: key, source }),
        }
    }
}

/// In whole seconds, as times are in the API.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
