//! Taints that drive pods from their node.

use crate::cluster::{Cluster, eventually};
use crate::pods::sleeper;
use crate::resource::{Resource, json_patch};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const KEY: &str = "kubernetes.io/e2e-evict-taint-key";

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-node] NoExecuteTaintManager Multiple Pods evicts pods with minTolerationSeconds",
            each_after_its_time,
        )
        .alone(),
        pod_test(
            "[sig-node] NoExecuteTaintManager Single Pod removing taint cancels eviction",
            removal_cancels,
        )
        .alone(),
    ]
}

/// A pod that bears the taint for so long.
fn tolerant(name: &str, seconds: u64) -> Value {
    let mut pod = sleeper(name);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod["spec"]["tolerations"] = json!([
        {"key": KEY, "value": "evictTaintVal", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    pod
}

async fn taint(nodes: &Resource, node: &str) {
    let taint = json!({"key": KEY, "value": "evictTaintVal", "effect": "NoExecute"});
    nodes.merge(node, json!({"spec": {"taints": [taint]}})).await.unwrap();
}

async fn untaint(nodes: &Resource, node: &str) {
    let gone = json_patch(json!([{"op": "replace", "path": "/spec/taints", "value": []}]));
    nodes.patch(node, &gone).await.unwrap();
}

async fn each_after_its_time(cluster: Cluster) {
    let (pods, nodes) = (cluster.pods("taints").await, cluster.core("nodes", None));
    let node = cluster.node().await;
    for (name, seconds) in [("soon", 2), ("late", 6)] {
        pods.ready(&tolerant(name, seconds)).await;
    }
    taint(&nodes, &node).await;
    let begin = Instant::now();
    for (name, seconds) in [("soon", 2), ("late", 6)] {
        let going = async || {
            let pod = pods.resource.get(name).await.ok();
            pod.as_ref()
                .is_none_or(|pod| pod["metadata"]["deletionTimestamp"].is_string())
                .then_some(pod)
        };
        let what = format!("{name} leaves");
        let leaving = eventually(&what, going).await;
        assert!(begin.elapsed() >= Duration::from_secs(seconds), "{name} left too early");
        if let Some(pod) = leaving {
            let conditions = pod["status"]["conditions"].as_array().unwrap();
            let disrupted = conditions
                .iter()
                .find(|one| one["type"] == "DisruptionTarget")
                .expect("a condition");
            assert_eq!(
                (&disrupted["status"], &disrupted["reason"]),
                (&json!("True"), &json!("DeletionByTaintManager"))
            );
        }
    }
    untaint(&nodes, &node).await;
}

async fn removal_cancels(cluster: Cluster) {
    let (pods, nodes) = (cluster.pods("taints").await, cluster.core("nodes", None));
    let node = cluster.node().await;
    let ready = pods.ready(&tolerant("stays", 4)).await;
    taint(&nodes, &node).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    untaint(&nodes, &node).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pod = pods.resource.get("stays").await.unwrap();
    assert_eq!(pod["metadata"]["uid"], ready["metadata"]["uid"]);
    assert!(pod["metadata"]["deletionTimestamp"].is_null());
    let events = cluster.core("events", pod["metadata"]["namespace"].as_str());
    eventually("the cancellation is told", async || {
        let list = events.list(&kube::api::ListParams::default()).await.unwrap();
        let told = list["items"].as_array().unwrap().iter().any(|event| {
            event["reason"] == "TaintManagerEviction"
                && event["message"]
                    .as_str()
                    .is_some_and(|message| message.starts_with("Cancelling deletion of Pod "))
        });
        told.then_some(())
    })
    .await;
}
