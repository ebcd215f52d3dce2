//! Nodes that are silent are not known to be well; taints say what conditions mean for pods, and pods of silent nodes
//! are not ready (upstream: `pkg/controller/nodelifecycle`). Who must leave is the business of `tainteviction`.
//!
//! Upstream looks at all nodes every five seconds. Here each node has its own time at which its silence becomes a
//! concern, and is looked at when it changes or when that time has come.

mod plan;
mod zones;

use super::{Context, pods};
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use plan::{Drive, Health};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use zones::{Zones, zone_of};

const NAME: &str = "node-controller";
const WORKERS: usize = 8;
const LEASES: &str = "kube-node-lease";
/// Labels under their old names follow those of the new.
const LABELS: [(&str, &str); 2] = [
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
];

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("writing node {node}: {source}")]
    Node { node: String, source: kube::Error },
    #[error("marking pod {pod} of node {node} not ready: {source}")]
    Pod {
        pod: String,
        node: String,
        source: kube::Error,
    },
}

/// Runs until shutdown.
pub async fn run(ctx: &Context) {
    let (nodes, leases) = (ctx.informers.of::<Node>(), ctx.informers.of::<Lease>());
    let pods = ctx.informers.of::<Pod>();
    let by_node = pods.index(|pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        node.into_iter().filter(|node| !node.is_empty()).collect()
    });
    // What a few nodes say is not what all say.
    let synced = async {
        tokio::join!(nodes.synced(), leases.synced(), pods.synced());
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    let queue: WorkQueue<String> = WorkQueue::new("nodelifecycle");
    let known: Arc<Mutex<Known>> = Arc::default();
    {
        let mut known = known.lock();
        for node in nodes.list() {
            known
                .zones
                .note(&node.name_any(), &node, plan::ready(&node) == Some("True"));
        }
    }
    let renewals = known.clone();
    leases.on_change(move |change| {
        let renewed = |lease: &Option<Arc<Lease>>| {
            let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
            spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0)
        };
        let lease = change
            .new
            .as_ref()
            .filter(|lease| lease.metadata.namespace.as_deref() == Some(LEASES));
        if let Some(lease) = lease
            && renewed(&change.old) < renewed(&change.new)
        {
            renewals.lock().renewed.insert(lease.name_any(), Timestamp::now());
        }
    });
    let of_nodes = queue.clone();
    nodes.on_change(move |change| {
        if let Some(node) = change.object() {
            of_nodes.add(node.name_any());
        }
    });
    let of_pods = (queue.clone(), nodes.clone());
    pods.on_change(move |change| {
        // A pod that comes to a silent node, or says there that it is ready.
        let (queue, nodes) = &of_pods;
        let pod = change.new.as_ref().filter(|pod| pods::is_ready(pod));
        let node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_deref());
        let node = node.and_then(|name| nodes.get("", name));
        if let Some(node) = node.filter(|node| plan::ready(node) == Some("Unknown")) {
            queue.add(node.name_any());
        }
    });
    let keeper = Keeper {
        client: ctx.client(NAME),
        recorder: ctx.recorder(NAME),
        nodes,
        by_node,
        known,
        queue: queue.clone(),
    };
    let keeper = &keeper;
    queue.run(WORKERS, &ctx.shutdown, |name| keeper.look(name)).await;
}

/// What is known of all nodes.
#[derive(Default)]
struct Known {
    health: HashMap<String, Health>,
    /// The nodes that were told of, for when they are gone.
    told: HashMap<String, Node>,
    /// When a lease was last seen renewed, by our clock.
    renewed: HashMap<String, Timestamp>,
    zones: Zones,
}

struct Keeper {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    by_node: Index<Pod>,
    known: Arc<Mutex<Known>>,
    queue: WorkQueue<String>,
}

impl Keeper {
    async fn look(&self, name: String) -> Result<Next, Error> {
        let Some(node) = self.nodes.get("", &name) else {
            self.gone(&name);
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        let health = self.hear(&name, &node, now);
        let mut ready = plan::ready(&node).map(str::to_owned);
        if health.patience() <= now
            && let Some(conditions) = plan::silent(&node, now)
        {
            let was_ready = ready.as_deref() == Some("True");
            let mut silent = Node::clone(&node);
            silent.status.get_or_insert_default().conditions = Some(conditions);
            let api: Api<Node> = Api::all(self.client.clone());
            match api.replace_status(&name, &PostParams::default(), &silent).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Next::Done),
                // It has spoken after all, or the cache is behind.
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(Next::Retry),
                Err(source) => return Err(Error::Node { node: name, source }),
            }
            if was_ready {
                let message = format!("Node {name} status is now: NodeNotReady");
                self.recorder.event(&*node, Level::Normal, "NodeNotReady", message);
            }
            ready = Some("Unknown".to_owned());
        }
        if ready.as_deref() == Some("Unknown") {
            self.mark_pods(&name).await?;
        }
        let again = self.taint(&name, &node, now).await?;
        let silence = health.patience();
        let next = again.into_iter().chain((silence > now).then_some(silence)).min();
        Ok(match next {
            Some(next) => Next::After(next.duration_since(now).unsigned_abs() + Duration::from_millis(5)),
            None => Next::Done,
        })
    }

    fn gone(&self, name: &str) {
        let (node, others) = {
            let mut known = self.known.lock();
            known.health.remove(name);
            known.renewed.remove(name);
            let others = known.zones.forget(name);
            (known.told.remove(name), others)
        };
        if let Some(node) = node {
            let message = format!("Node {name} event: Removing Node {name} from Controller");
            self.recorder.event(&node, Level::Normal, "RemovingNode", message);
        }
        if others {
            self.look_at_all();
        }
    }

    /// Takes in what the node says.
    fn hear(&self, name: &str, node: &Node, now: Timestamp) -> Health {
        let (health, told, others) = {
            let mut known = self.known.lock();
            let renewed = known.renewed.get(name).copied();
            let before = known
                .told
                .get(name)
                .filter(|told| told.metadata.uid == node.metadata.uid);
            let told = before.is_some();
            let health = known.health.get(name).filter(|_| told);
            let health = Health::after(health, node, renewed, now);
            known.health.insert(name.to_owned(), health.clone());
            known.told.insert(name.to_owned(), reference(node));
            let all_ill = known.zones.all_ill();
            let others = known.zones.note(name, node, plan::ready(node) == Some("True"));
            if all_ill && !known.zones.all_ill() {
                // It was us: everybody is given time to speak.
                known
                    .health
                    .values_mut()
                    .for_each(|health| health.heard = health.heard.max(now));
            }
            (health, told, others)
        };
        if !told {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder.event(node, Level::Normal, "RegisteredNode", message);
        }
        if others {
            self.look_at_all();
        }
        health
    }

    fn look_at_all(&self) {
        for node in self.nodes.list() {
            self.queue.add(node.name_any());
        }
    }

    /// Makes taints and labels say what conditions say. When to look again, if it must wait with something.
    async fn taint(&self, name: &str, node: &Node, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let zone = zone_of(node);
        let driven = plan::ready(node).and_then(plan::driving);
        let tainted = |key: &str| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            taints
                .into_iter()
                .any(|taint| taint.key == key && taint.effect == "NoExecute")
        };
        let begins = driven.is_some_and(|(key, opposite)| !tainted(key) && !tainted(opposite));
        let (drive, again) = {
            let mut known = self.known.lock();
            let (drive, again) = known.zones.may_drive(&zone, now);
            if begins && drive == Drive::Allowed {
                known.zones.drove(&zone, now);
            }
            (drive, again.filter(|_| begins))
        };
        let mut patch = json!({});
        if let Some(taints) = plan::taints(node, drive, now) {
            patch["spec"] = json!({ "taints": taints });
        }
        let labels = labels(node);
        if labels != json!({}) {
            patch["metadata"] = json!({ "labels": labels });
        }
        if patch == json!({}) {
            return Ok(again);
        }
        patch["metadata"]["resourceVersion"] = json!(node.metadata.resource_version);
        let api: Api<Node> = Api::all(self.client.clone());
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(again),
            // Its next version is on its way, and comes here.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(again),
            Err(source) => Err(Error::Node {
                node: name.to_owned(),
                source,
            }),
        }
    }

    /// Nobody knows whether the pods of a silent node are ready, so that they are not.
    async fn mark_pods(&self, node: &str) -> Result<(), Error> {
        for pod in self.by_node.get(node) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now())});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            match api
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(_) => {
                    self.recorder
                        .event(&*pod, Level::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(source) => {
                    return Err(Error::Pod {
                        pod: format!("{namespace}/{name}"),
                        node: node.to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

/// As much of a node as events need of it.
fn reference(node: &Node) -> Node {
    let mut reference = Node::default();
    reference.metadata.name.clone_from(&node.metadata.name);
    reference.metadata.uid.clone_from(&node.metadata.uid);
    reference
}

/// The old labels that are missing or say something else.
fn labels(node: &Node) -> Value {
    let has = |key: &str| node.labels().get(key);
    let wrong = LABELS.iter().filter_map(|(key, old)| {
        let value = has(key).filter(|value| has(old) != Some(value))?;
        Some(((*old).to_owned(), json!(value)))
    });
    Value::Object(wrong.collect())
}
