//! Binding, eviction, and subresources that are not there.

use crate::harness::{PODS, Server, pod};
use serde_json::json;

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.expect(201);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    });
    let uri = format!("{PODS}/p/binding");
    let status = server.post(&uri, binding.clone()).await.expect(201);
    assert_eq!(status["status"], "Success");
    let bound = server.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    server.post(&uri, binding.clone()).await.failure(409, "Conflict");
    server
        .post(&uri, json!({"metadata": {"name": "p"}, "target": {"name": ""}}))
        .await
        .failure(422, "Invalid");
    server
        .post(&format!("{PODS}/absent/binding"), json!({"target": {"name": "n1"}}))
        .await
        .failure(404, "NotFound");
    server
        .post(&format!("{PODS}/q/binding"), binding)
        .await
        .failure(400, "BadRequest");
}

#[tokio::test]
async fn an_eviction_deletes_the_pod() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.expect(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let uri = format!("{PODS}/p/eviction");
    server
        .post(&format!("{uri}?dryRun=All"), eviction.clone())
        .await
        .expect(201);
    server.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(
        server.post(&uri, eviction.clone()).await.expect(201)["status"],
        "Success"
    );
    server.get(&format!("{PODS}/p")).await.failure(404, "NotFound");
    server.post(&uri, eviction).await.failure(404, "NotFound");
}

#[tokio::test]
async fn logs_need_a_node_and_exec_an_upgrade() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.expect(201);
    server
        .get(&format!("{PODS}/p/log"))
        .await
        .failure(503, "ServiceUnavailable");
    server.get(&format!("{PODS}/p/nothing")).await.failure(404, "NotFound");
}
