//! Volumes that are attached to nodes, one after the other, and one that grows with its claim.

use super::*;
use krust::controllers::LOCAL_PATH;
use std::time::{Duration, Instant};

const CLASSES: Kind = ("storage.k8s.io/v1", "storageclasses");
pub const ATTACHMENTS: Kind = ("storage.k8s.io/v1", "volumeattachments");
const NODE_OBJECTS: Kind = ("v1", "nodes");
const VOLUME: &str = "remote";
const DRIVER: &str = "csi.example.com";
/// The first has the volume before the second may.
const HOLDERS: [(&str, &str); 2] = [("holder", "hollow-0000"), ("heir", "hollow-0001")];
const GROWER: &str = "grower";
const WAITS_MAX: Duration = Duration::from_secs(120);

pub fn claims() -> [&'static str; 2] {
    ["growing", VOLUME]
}

fn user(name: &str, claim: &str) -> Value {
    let mut user = named(name, pod("bare-with-volume"));
    user["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    user
}

pub async fn begin(cluster: &Cluster) {
    let volume = json!({"metadata": {"name": VOLUME}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "remote", "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": DRIVER, "volumeHandle": "handle"}}});
    cluster.create(VOLUMES, volume).await;
    let claim = |name: &str, class: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}}})
    };
    cluster.create(CLAIMS, claim(VOLUME, "remote")).await;
    for (name, node) in HOLDERS {
        let mut holder = user(name, VOLUME);
        holder["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        cluster.create(PODS, holder).await;
        // The second comes too late.
        is_there(cluster, |attachments| !attachments.is_empty()).await;
    }

    let class = json!({"metadata": {"name": "local"}, "provisioner": LOCAL_PATH, "allowVolumeExpansion": true,
        "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.create(CLASSES, class).await;
    cluster.create(CLAIMS, claim("growing", "local")).await;
    cluster.create(PODS, user(GROWER, "growing")).await;
}

pub async fn change(cluster: &Cluster) {
    // The driver's own program would do that.
    let attachments = is_there(cluster, |attachments| attachments.len() == 1).await;
    let attached = json!({"status": {"attached": true}});
    let name = attachments[0]["metadata"]["name"].as_str().unwrap();
    cluster.patch_status(ATTACHMENTS, name, attached).await;
    let began = Instant::now();
    while cluster.get(CLAIMS, "growing").await["status"]["phase"] != "Bound" {
        assert!(began.elapsed() < WAITS_MAX, "the claim of {GROWER} is not bound");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let more = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    cluster.patch(CLAIMS, "growing", more).await;
}

pub async fn change_again(cluster: &Cluster) {
    cluster.delete(PODS, HOLDERS[0].0).await;
    let of_heir = |attachments: &[Value]| attachments.iter().any(|one| one["spec"]["nodeName"] == HOLDERS[1].1);
    let attachments = is_there(cluster, of_heir).await;
    for attachment in attachments {
        let attached = json!({"status": {"attached": true}});
        let name = attachment["metadata"]["name"].as_str().unwrap();
        cluster.patch_status(ATTACHMENTS, name, attached).await;
    }
}

/// Waits for attachments; there is never more than one of a volume that only one node may have.
async fn is_there(cluster: &Cluster, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let attachments = cluster.list(ATTACHMENTS).await;
        assert!(attachments.len() <= 1, "attached to several nodes: {attachments:#?}");
        if enough(&attachments) {
            return attachments;
        }
        assert!(began.elapsed() < WAITS_MAX, "attachments: {attachments:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let attachments = cluster.list(ATTACHMENTS).await;
    let nodes: Vec<&Value> = attachments.iter().map(|one| &one["spec"]["nodeName"]).collect();
    wrong.expect("nodes with the volume", json!(nodes), json!([HOLDERS[1].1]));
    for ((_, node), count) in HOLDERS.into_iter().zip([0, 1]) {
        let status = &cluster.get(NODE_OBJECTS, node).await["status"];
        let listed = status["volumesAttached"].as_array().map_or(0, Vec::len);
        wrong.expect(&format!("volumes in the status of {node}"), listed, count);
    }

    let claim = cluster.get(CLAIMS, "growing").await;
    let status = &claim["status"];
    wrong.expect(
        "what the claim has",
        json!([status["capacity"], status["allocatedResources"]]),
        json!([{"storage": "3Gi"}, {"storage": "3Gi"}]),
    );
    for left in ["conditions", "allocatedResourceStatuses"] {
        let count = match &status[left] {
            Value::Array(items) => items.len(),
            Value::Object(items) => items.len(),
            _ => 0,
        };
        wrong.expect(&format!("{left} of the claim"), count, 0);
    }
    let volume = cluster
        .get(VOLUMES, claim["spec"]["volumeName"].as_str().unwrap_or("none"))
        .await;
    wrong.expect(
        "what its volume has",
        volume["spec"]["capacity"]["storage"].clone(),
        "3Gi",
    );
}

pub async fn end(cluster: &Cluster) {
    for name in [HOLDERS[1].0, GROWER] {
        cluster.delete(PODS, name).await;
    }
    cluster.delete(CLASSES, "local").await;
}
