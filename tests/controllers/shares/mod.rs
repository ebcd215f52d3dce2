//! What the cluster is asked for: each file is the share of a few controllers, with its objects (`begin`), what somebody
//! changes about them (`change`), and what must have come of it in the end (`wrong`).

mod apps;
mod attached;
mod batch;
mod cluster_wide;
mod devices;
mod namespaces;
mod network;
mod nodes;
mod owners;
mod policy;
mod volumes;

use crate::cluster::{Cluster, Kind};
pub use nodes::prepare;
pub use policy::METERED;
use serde_json::{Value, json};

pub const PODS: Kind = ("v1", "pods");
pub const CONFIG_MAPS: Kind = ("v1", "configmaps");
const SERVICES: Kind = ("v1", "services");
const DEPLOYMENTS: Kind = ("apps/v1", "deployments");
const REPLICA_SETS: Kind = ("apps/v1", "replicasets");
const CLAIMS: Kind = ("v1", "persistentvolumeclaims");
const VOLUMES: Kind = ("v1", "persistentvolumes");
const NAMESPACES: Kind = ("v1", "namespaces");
const DEFINITIONS: Kind = ("apiextensions.k8s.io/v1", "customresourcedefinitions");

/// What is deleted in the end; what belongs to it goes with it.
pub const DELETED: [Kind; 12] = [
    DEPLOYMENTS,
    ("apps/v1", "statefulsets"),
    ("apps/v1", "daemonsets"),
    ("batch/v1", "cronjobs"),
    ("batch/v1", "jobs"),
    ("v1", "replicationcontrollers"),
    SERVICES,
    ("policy/v1", "poddisruptionbudgets"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    CLAIMS,
    CONFIG_MAPS,
    DEFINITIONS,
];

/// What is gone in the end, and was not deleted by itself.
pub const GONE: [Kind; 6] = [
    PODS,
    REPLICA_SETS,
    ("apps/v1", "controllerrevisions"),
    ("discovery.k8s.io/v1", "endpointslices"),
    ("v1", "endpoints"),
    devices::RESOURCE_CLAIMS,
];

/// The same, of no namespace.
pub const GONE_TOO: [Kind; 3] = [VOLUMES, NAMESPACES, attached::ATTACHMENTS];

/// What nobody deletes.
pub const IN_EVERY_CLUSTER: [&str; 6] = [
    "kube-root-ca.crt",
    "kubernetes",
    "default",
    "kube-system",
    "kube-public",
    "kube-node-lease",
];

/// What is not as it was asked for, in words.
#[derive(Default)]
pub struct Wrong(pub Vec<String>);

impl Wrong {
    pub fn expect(&mut self, what: &str, found: impl Into<Value>, expected: impl Into<Value>) {
        let (found, expected) = (found.into(), expected.into());
        if found != expected {
            self.0.push(format!("{what}: {found} instead of {expected}"));
        }
    }
}

pub async fn begin(cluster: &Cluster) {
    owners::begin(cluster).await;
    apps::begin(cluster).await;
    policy::begin(cluster).await;
    batch::begin(cluster).await;
    network::begin(cluster).await;
    volumes::begin(cluster).await;
    attached::begin(cluster).await;
    devices::begin(cluster).await;
    namespaces::begin(cluster).await;
    nodes::begin(cluster).await;
    cluster_wide::begin(cluster).await;
}

pub async fn change(cluster: &Cluster) {
    apps::change(cluster).await;
    owners::change(cluster).await;
    policy::change(cluster).await;
    network::change(cluster).await;
    volumes::change(cluster).await;
    attached::change(cluster).await;
    devices::change(cluster).await;
    namespaces::change(cluster).await;
    nodes::change(cluster).await;
    cluster_wide::change(cluster).await;
}

pub async fn change_again(cluster: &Cluster) {
    apps::change_again(cluster).await;
    attached::change_again(cluster).await;
}

pub async fn wrong(cluster: &Cluster) -> Vec<String> {
    let mut wrong = Wrong::default();
    apps::wrong(cluster, &mut wrong).await;
    batch::wrong(cluster, &mut wrong).await;
    network::wrong(cluster, &mut wrong).await;
    policy::wrong(cluster, &mut wrong).await;
    volumes::wrong(cluster, &mut wrong).await;
    attached::wrong(cluster, &mut wrong).await;
    devices::wrong(cluster, &mut wrong).await;
    namespaces::wrong(cluster, &mut wrong).await;
    owners::wrong(cluster, &mut wrong).await;
    nodes::wrong(cluster, &mut wrong).await;
    cluster_wide::wrong(cluster, &mut wrong).await;
    wrong.0
}

/// Takes away what nothing else does.
pub async fn end(cluster: &Cluster) {
    nodes::end(cluster).await;
    attached::end(cluster).await;
    devices::end(cluster).await;
    volumes::end(cluster).await;
    namespaces::end(cluster).await;
    cluster_wide::end(cluster).await;
}

/// A pod of `app`, or the template of one.
fn pod(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": "registry.example.com/app:1"}]}})
}

fn selector(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

fn named(name: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = json!(name);
    object
}

/// A reference to `owner`, of that API version and kind, as the API server has made it.
fn reference(api_version: &str, kind: &str, owner: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]})
}

fn of_app<'a>(pods: &'a [Value], app: &str) -> Vec<&'a Value> {
    pods.iter()
        .filter(|pod| pod["metadata"]["labels"]["app"] == app)
        .collect()
}

fn names<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Value {
    let mut names: Vec<&str> = objects
        .into_iter()
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    names.sort_unstable();
    json!(names)
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == kind));
    found.map_or(&Value::Null, |condition| &condition["status"])
}
