//! The node has too little of something, or a pod too many files: who goes, and what is said of it.

use crate::cluster::{Cluster, NODE, POLITE, app, eventually};
use k8s_openapi::api::core::v1::{Node, PodStatus};
use krust::kubelet::eviction::threshold;
use krust::runtime::Runtime;
use krust::runtime::fake::Behaviour;
use kube::api::Api;
use serde_json::json;

/// Each container has written so much.
const WRITTEN: u64 = 2 << 20;

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let writes = Behaviour {
        written_bytes: WRITTEN,
        ..Behaviour::default()
    };
    cluster.runtime.set_behaviour("app:1", writes);
    cluster
}

async fn failed(cluster: &Cluster, name: &str) -> PodStatus {
    cluster.wait_phase(name, "Failed").await.status.unwrap()
}

#[tokio::test]
async fn a_full_disk_takes_what_has_ended_and_a_pod_and_lets_none_in() {
    let mut cluster = cluster().await;
    let mut once = app(&["sh", "-c", "exit 0"]);
    once["restartPolicy"] = json!("Never");
    let once = cluster.create("once", once).await.metadata.uid.unwrap();
    cluster.create("goes", app(&POLITE)).await;
    cluster.wait_phase("once", "Succeeded").await;
    cluster.wait_phase("goes", "Running").await;
    let runtime = cluster.runtime.clone();
    let sandboxes = async || {
        let all = runtime.list_pod_sandboxes().await.unwrap();
        all.iter().filter(|sandbox| sandbox.pod.uid == once).count()
    };
    assert_eq!(sandboxes().await, 1);
    cluster.stop_kubelet().await;
    cluster.eviction.thresholds = threshold::parse("nodefs.available<1Ei", "", "", "").unwrap();
    cluster.start_kubelet();

    let status = failed(&cluster, "goes").await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let message = status.message.unwrap();
    let start = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Ei, available: ";
    let end = ". Container c was using 2Mi, request is 0, has larger consumption of ephemeral-storage. ";
    assert!(message.starts_with(start) && message.ends_with(end), "{message}");
    let target = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionTarget");
    assert_eq!(target.unwrap().reason.as_deref(), Some("TerminationByKubelet"));
    let event = cluster.wait_event("Evicted", start).await;
    assert_eq!(
        json!(event.metadata.annotations),
        json!({"offending_containers": "c", "offending_containers_usage": "2Mi", "starved_resource": "ephemeral-storage"})
    );
    // Its layers and logs take room. The first look may have come before the pods were known.
    eventually("what has ended is removed", async || sandboxes().await == 0).await;
    let status = cluster.wait_phase("once", "Succeeded").await.status.unwrap();
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(state.terminated.unwrap().reason.as_deref(), Some("Completed"));

    cluster.create("late", app(&POLITE)).await;
    let status = failed(&cluster, "late").await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was rejected: The node had condition: [DiskPressure]. ")
    );
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    eventually("the node says so", async || {
        let status = nodes.get(NODE).await.unwrap().status.unwrap();
        let conditions = status.conditions.unwrap_or_default();
        conditions
            .iter()
            .any(|c| c.type_ == "DiskPressure" && c.status == "True")
    })
    .await;
}

#[tokio::test]
async fn a_pod_with_too_many_files_goes_and_others_stay() {
    let cluster = cluster().await;
    let limited = |limit: &str| {
        let mut spec = app(&POLITE);
        spec["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": limit}});
        spec
    };
    cluster.create("stays", limited("3Mi")).await;
    cluster.create("goes", limited("1Mi")).await;
    let status = failed(&cluster, "goes").await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        status.message.as_deref(),
        Some("Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")
    );
    assert_eq!(
        cluster
            .wait_event("Evicted", "Pod ephemeral")
            .await
            .metadata
            .annotations,
        None
    );
    cluster.wait_phase("stays", "Running").await;
}
