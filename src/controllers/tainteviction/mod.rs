//! Pods leave nodes whose NoExecute taints they do not bear, or bear no longer (upstream: `pkg/controller/tainteviction`).

mod plan;
mod state;

use super::Context;
use super::pods;
use crate::client::events::{Level, Recorder};
use crate::client::informer::Informer;
use crate::client::work_queue::{Next, WorkQueue};
use crate::client::{self, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use state::{Evictions, Step};
use std::time::Duration;

/// Upstream's runs under the account of the node controller, too.
const ACCOUNT: &str = "node-controller";
const NAME: &str = "taint-eviction-controller";
const WORKERS: usize = 8;

#[derive(Debug, thiserror::Error)]
#[error("evicting pod {pod}: {source}")]
struct Error {
    pod: ObjectKey,
    source: kube::Error,
}

/// Runs until shutdown.
pub async fn run(ctx: &Context) {
    let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<Pod>());
    let by_node = pods.index(|pod| pods::node_name(pod).map(str::to_owned).into_iter().collect());
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("tainteviction");
    let of_pods = queue.clone();
    pods.on_change(move |change| {
        let facts = |pod: &Pod| {
            let spec = pod.spec.as_ref();
            (
                pods::node_name(pod).map(str::to_owned),
                spec.and_then(|spec| spec.tolerations.clone()),
                pods::is_terminating(pod),
            )
        };
        let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if facts(old) == facts(new));
        if let Some(pod) = change.object().filter(|pod| !same && pods::node_name(pod).is_some()) {
            of_pods.add(ObjectKey::of(&**pod));
        }
    });
    let (of_nodes, on_node) = (queue.clone(), by_node.clone());
    nodes.on_change(move |change| {
        let taints =
            |node: &Option<std::sync::Arc<Node>>| node.as_ref().map(|node| plan::driving(node)).unwrap_or_default();
        if taints(&change.old) == taints(&change.new) {
            return;
        }
        let name = change.object().and_then(|node| node.metadata.name.as_deref());
        for pod in on_node.get(name.unwrap_or_default()) {
            of_nodes.add(ObjectKey::of(&*pod));
        }
    });
    let client = ctx.client(ACCOUNT);
    let (recorder, writing) = Recorder::new(client.clone(), NAME, None, ctx.shutdown.clone());
    ctx.recorders.spawn(writing);
    let evictor = Evictor {
        client,
        recorder,
        nodes,
        pods,
        evictions: Mutex::default(),
    };
    let evictor = &evictor;
    queue.run(WORKERS, &ctx.shutdown, |key| evictor.look(key)).await;
}

struct Evictor {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    evictions: Mutex<Evictions>,
}

impl Evictor {
    async fn look(&self, key: ObjectKey) -> Result<Next, Error> {
        let pod = self.pods.get_key(&key).filter(|pod| !pods::is_terminating(pod));
        let Some(pod) = pod else {
            self.evictions.lock().forget(&key);
            return Ok(Next::Done);
        };
        let node = pods::node_name(&pod).and_then(|name| self.nodes.get("", name));
        // Pods of a node that is gone are not the taints' business.
        let taints = node.map(|node| plan::driving(&node)).unwrap_or_default();
        let spec = pod.spec.as_ref();
        let tolerations = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let now = Timestamp::now();
        let step = self.evictions.lock().look(&key, uid, &taints, tolerations, now);
        match step {
            Step::Nothing => Ok(Next::Done),
            Step::Cancelled => {
                let message = format!("Cancelling deletion of Pod {key}");
                self.recorder
                    .event(&*pod, Level::Normal, "TaintManagerEviction", message);
                Ok(Next::Done)
            }
            Step::Wait(at) => {
                let left = at.duration_since(now).unsigned_abs();
                Ok(Next::After(left.max(Duration::from_millis(1))))
            }
            Step::Evict => {
                let message = format!("Marking for deletion Pod {key}");
                self.recorder
                    .event(&*pod, Level::Normal, "TaintManagerEviction", message);
                let evicted = evict(&self.client, &pod).await;
                evicted.map_err(|source| Error {
                    pod: key.clone(),
                    source,
                })?;
                self.evictions.lock().forget(&key);
                Ok(Next::Done)
            }
        }
    }
}

/// Says on the pod why it goes, and deletes it.
async fn evict(client: &Client, pod: &Pod) -> kube::Result<()> {
    let (metadata, name) = (&pod.metadata, pod.metadata.name.as_deref().unwrap_or_default());
    let api: Api<Pod> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let told = pods::condition(pod, "DisruptionTarget")
        .is_some_and(|one| one.status == "True" && one.reason.as_deref() == Some("DeletionByTaintManager"));
    if !told {
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "observedGeneration": metadata.generation, "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": metadata.uid}, "status": {"conditions": [condition]}});
        let patched = api
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        // 409: another pod of that name by now.
        if gone(patched)?.is_none() {
            return Ok(());
        }
    }
    gone(
        api.delete(
            name,
            &DeleteParams::default().preconditions(client::only(metadata.uid.clone())),
        )
        .await,
    )?;
    Ok(())
}

/// None if the pod is not there any more.
fn gone<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}
