//! Pods that the node does not take, and says why.

use crate::cluster::{Cluster, POLITE, app};
use serde_json::{Value, json};

#[tokio::test]
async fn what_the_node_cannot_do_fails_with_upstreams_words() {
    let cluster = Cluster::start().await;
    let with = |context: Value| {
        let mut spec = app(&POLITE);
        spec["securityContext"] = context;
        spec
    };
    for (name, context, reason, message) in [
        (
            "sysctl",
            json!({"sysctls": [{"name": "kernel.sem", "value": "1"}]}),
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.sem\" not allowlisted",
        ),
        (
            "groups",
            json!({"supplementalGroupsPolicy": "Strict"}),
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        ),
    ] {
        cluster.create(name, with(context)).await;
        let status = cluster.wait_phase(name, "Failed").await.status.unwrap();
        assert_eq!(status.reason.as_deref(), Some(reason));
        assert_eq!(status.message.unwrap(), format!("Pod was rejected: {message}"));
        let event = cluster.wait_event(reason, message).await;
        assert_eq!(event.message.as_deref(), Some(message));
    }
    assert!(cluster.container_ids().await.is_empty());
}

#[tokio::test]
async fn no_sandbox_has_users_of_its_own() {
    let cluster = Cluster::start().await;
    let mut spec = app(&POLITE);
    spec["hostUsers"] = json!(false);
    cluster.create("users", spec).await;
    let text =
        "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    cluster.wait_event("FailedCreatePodSandBox", text).await;
}
