//! Nodes: one of them falls ill. Who does not bear that leaves it; and nobody waits for a pod that was on none.

use super::*;
use crate::cluster::NODES;

const NODE_OBJECTS: Kind = ("v1", "nodes");
const ILL: &str = "node.kubernetes.io/not-ready";

/// The node that will fall ill.
fn node() -> String {
    format!("hollow-{NODES:04}")
}

/// Before anything acts: it is for few only.
pub async fn prepare(cluster: &Cluster) {
    let taint = json!({"spec": {"taints": [{"key": "test/only", "effect": "NoSchedule"}]}});
    cluster.patch(NODE_OBJECTS, &node(), taint).await;
}

pub async fn begin(cluster: &Cluster) {
    let visitor = json!([{"key": "test/only", "operator": "Exists", "effect": "NoSchedule"},
        {"key": ILL, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]);
    let inhabitant = json!([{"operator": "Exists"}]);
    for (name, tolerations) in [("visitor", visitor), ("inhabitant", inhabitant)] {
        let mut pod = named(name, pod("bare"));
        pod["spec"]["tolerations"] = tolerations;
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node()});
        cluster.create(PODS, pod).await;
    }
    let mut gated = named("gated", pod("bare"));
    gated["metadata"]["finalizers"] = json!(["test/held"]);
    gated["spec"]["schedulingGates"] = json!([{"name": "test/never"}]);
    cluster.create(PODS, gated).await;
}

pub async fn change(cluster: &Cluster) {
    cluster.delete(PODS, "gated").await;
    let now = k8s_openapi::jiff::Timestamp::now();
    let ill = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady",
        "lastHeartbeatTime": format!("{now:.0}"), "lastTransitionTime": format!("{now:.0}")}]}});
    cluster.patch_status(NODE_OBJECTS, &node(), ill).await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let node = cluster.get(NODE_OBJECTS, &node()).await;
    let mut taints: Vec<(&Value, &Value)> = node["spec"]["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|taint| (&taint["key"], &taint["effect"]))
        .collect();
    taints.sort_by_key(|(key, effect)| format!("{key}{effect}"));
    let expected = json!([[ILL, "NoExecute"], [ILL, "NoSchedule"], ["test/only", "NoSchedule"]]);
    wrong.expect("taints of the ill node", json!(taints), expected);
    let pods = cluster.list(PODS).await;
    wrong.expect(
        "bare pods",
        names(of_app(&pods, "bare")),
        json!(["gated", "inhabitant"]),
    );
    let phase = |name: &str| {
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
        pod.map_or(Value::Null, |pod| pod["status"]["phase"].clone())
    };
    wrong.expect("phase of inhabitant", phase("inhabitant"), "Running");
    wrong.expect("phase of gated", phase("gated"), "Failed");
}

pub async fn end(cluster: &Cluster) {
    cluster.delete(PODS, "inhabitant").await;
    cluster
        .patch(PODS, "gated", json!({"metadata": {"finalizers": null}}))
        .await;
}
