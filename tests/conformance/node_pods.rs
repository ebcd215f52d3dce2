//! Pods on a node, by the simplest that they do: run, print, take commands.

use crate::cluster::Cluster;
use crate::pods::{container_status, pod, sleeper, with_main};
use crate::runner::{Test, pod_test};
use serde_json::json;

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs",
            output,
        ),
        pod_test(
            "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason",
            terminated_reason,
        ),
        pod_test(
            "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete",
            failing_is_deleted,
        ),
        pod_test(
            "[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem",
            read_only_root,
        ),
    ]
}

async fn output(cluster: Cluster) {
    let pods = cluster.pods("output").await;
    assert_eq!(pods.output(&pod("hello", "echo Hello World")).await, "Hello World\n");
}

async fn terminated_reason(cluster: Cluster) {
    let pods = cluster.pods("fails").await;
    pods.create(&pod("fails", "exit 7")).await;
    let failed = pods.phase("fails", "Failed").await;
    let terminated = &container_status(&failed, "main")["state"]["terminated"];
    assert_eq!(
        (&terminated["reason"], &terminated["exitCode"]),
        (&json!("Error"), &json!(7))
    );
}

async fn failing_is_deleted(cluster: Cluster) {
    let pods = cluster.pods("fails").await;
    let mut failing = pod("fails", "exit 1");
    failing["spec"]["restartPolicy"] = json!("Always");
    pods.create(&failing).await;
    let looping = |pod: &serde_json::Value| container_status(pod, "main")["restartCount"].as_i64() >= Some(1);
    pods.until("fails", "restarted", looping).await;
    pods.delete("fails").await;
}

async fn read_only_root(cluster: Cluster) {
    let pods = cluster.pods("readonly").await;
    let more = json!({"securityContext": {"readOnlyRootFilesystem": true}});
    pods.ready(&with_main(sleeper("ro"), more)).await;
    let refused = pods.exec("ro", "", &["sh", "-c", "echo x > /file"]).await;
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
}
