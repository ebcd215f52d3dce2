//! Disruption budgets with running pods.

use crate::cluster::{Cluster, refused};
use crate::pods::{Pods, sleeper};
use crate::resource::{Resource, json_patch, merge_into};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it",
            blocked,
        ),
        pod_test(
            "[sig-apps] DisruptionController should observe PodDisruptionBudget status updated",
            observed,
        ),
        pod_test(
            "[sig-apps] DisruptionController should update/patch PodDisruptionBudget status",
            status,
        ),
    ]
}

async fn budget(cluster: &Cluster, pods: &Pods, min_available: i32) -> Resource {
    let budgets = cluster.resource("policy/v1", "poddisruptionbudgets", Some(&pods.namespace));
    let spec = json!({"selector": {"matchLabels": {"app": "x"}}, "minAvailable": min_available});
    let budget = json!({"metadata": {"name": "foo"}, "spec": spec});
    budgets.create(&budget).await.unwrap();
    budgets
}

async fn run_pods(pods: &Pods, count: usize) {
    for index in 0..count {
        let mut pod = sleeper(&format!("pod-{index}"));
        merge_into(&mut pod, json!({"metadata": {"labels": {"app": "x"}}}));
        pods.create(&pod).await;
    }
    for index in 0..count {
        pods.until_ready(&format!("pod-{index}")).await;
    }
}

/// The budget once its status is so, for its current spec.
async fn until(budgets: &Resource, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let budget = budgets.get("foo").await.unwrap();
        let observed = budget["status"]["observedGeneration"] == budget["metadata"]["generation"];
        if observed && so(&budget["status"]) {
            return budget;
        }
        assert!(Instant::now() < deadline, "not {what}: {}", budget["status"]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn evict(pods: &Pods, name: &str) -> Result<Value, crate::resource::Status> {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    pods.resource.create_sub(name, "eviction", &eviction).await
}

async fn blocked(cluster: Cluster) {
    let pods = cluster.pods("evict").await;
    let budgets = budget(&cluster, &pods, 3).await;
    run_pods(&pods, 3).await;
    until(&budgets, "counted", |status| status["currentHealthy"] == 3).await;
    let status = refused(evict(&pods, "pod-0").await, 429, "TooManyRequests");
    assert_eq!(
        status.message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    let cause = &status.details.as_ref().expect("details").causes[0];
    assert_eq!(cause.reason, "DisruptionBudget");
    assert_eq!(
        cause.message,
        "The disruption budget foo needs 3 healthy pods and has 3 currently"
    );

    let at_least = |number: i32| json!({"spec": {"minAvailable": number}});
    budgets.merge("foo", at_least(2)).await.unwrap();
    until(&budgets, "allowing one", |status| status["disruptionsAllowed"] == 1).await;
    evict(&pods, "pod-0").await.unwrap();
    pods.gone("pod-0").await;
    until(&budgets, "counted", |status| status["currentHealthy"] == 2).await;
    refused(evict(&pods, "pod-1").await, 429, "TooManyRequests");
    budgets.delete("foo").await.unwrap();
    evict(&pods, "pod-1").await.unwrap();
    pods.gone("pod-1").await;
}

async fn observed(cluster: Cluster) {
    let pods = cluster.pods("observe").await;
    let budgets = budget(&cluster, &pods, 1).await;
    until(&budgets, "empty", |status| status["expectedPods"] == 0).await;
    run_pods(&pods, 3).await;
    let counted = until(&budgets, "counted", |status| status["currentHealthy"] == 3).await;
    let status = &counted["status"];
    for (member, expected) in [("disruptionsAllowed", 2), ("desiredHealthy", 1), ("expectedPods", 3)] {
        assert_eq!(status[member], expected, "{status}");
    }
    let condition = &status["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("DisruptionAllowed"), &json!("True"), &json!("SufficientPods"))
    );
}

async fn status(cluster: Cluster) {
    let pods = cluster.pods("status").await;
    let budgets = budget(&cluster, &pods, 1).await;
    run_pods(&pods, 1).await;
    let mut counted = until(&budgets, "counted", |status| status["currentHealthy"] == 1).await;
    // A pod that is there and not going is taken as about to go, until it is late.
    let now = k8s_openapi::jiff::Timestamp::now();
    counted["status"]["disruptedPods"] = json!({"pod-0": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let updated = budgets.replace_sub("status", &counted).await.unwrap();
    assert!(updated["status"]["disruptedPods"]["pod-0"].is_string());
    until(&budgets, "expecting a disruption", |status| {
        status["currentHealthy"] == 0
    })
    .await;
    let removed = json_patch(json!([{"op": "remove", "path": "/status/disruptedPods"}]));
    let patched = budgets.patch_sub("foo", "status", &removed).await.unwrap();
    assert!(patched["status"]["disruptedPods"].is_null());
    until(&budgets, "counted again", |status| status["currentHealthy"] == 1).await;
}
