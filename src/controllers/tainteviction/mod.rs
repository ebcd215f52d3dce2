//! Pods leave nodes whose NoExecute taints they do not bear, or bear no longer (upstream: `pkg/controller/tainteviction`).

mod plan;
#[cfg(test)]
mod random;

use super::Context;
use super::leaving::{self, Evictor, Words};
use super::pods;
use crate::client::ObjectKey;
use crate::client::events::Recorder;
use crate::client::informer::Informer;
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use plan::{Since, decide};

/// Upstream's runs under the account of the node controller, too.
const ACCOUNT: &str = "node-controller";
const NAME: &str = "taint-eviction-controller";
const WORKERS: usize = 8;

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
    let words = Words {
        event: "TaintManagerEviction",
        with_name: true,
        reason: "DeletionByTaintManager",
        message: "Taint manager: deleting due to NoExecute taint",
    };
    let evictor = Evictor {
        client,
        recorder,
        words,
        leaving: Mutex::default(),
    };
    let controller = &Controller { nodes, pods, evictor };
    queue.run(WORKERS, &ctx.shutdown, |key| controller.look(key)).await;
}

struct Controller {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    evictor: Evictor<Since>,
}

impl Controller {
    async fn look(&self, key: ObjectKey) -> Result<Next, leaving::Error> {
        let pod = self.pods.get_key(&key).filter(|pod| !pods::is_terminating(pod));
        let Some(pod) = pod else {
            self.evictor.leaving.lock().forget(&key);
            return Ok(Next::Done);
        };
        let node = pods::node_name(&pod).and_then(|name| self.nodes.get("", name));
        // Pods of a node that is gone are not the taints' business.
        let taints = node.map(|node| plan::driving(&node)).unwrap_or_default();
        let spec = pod.spec.as_ref();
        let tolerations = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let leaves = {
            let leaving = self.evictor.leaving.lock();
            decide(&taints, tolerations, leaving.why(&key, uid), Timestamp::now())
        };
        self.evictor.act(&key, &pod, leaves).await.map(Next::from)
    }
}
