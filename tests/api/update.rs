//! Updates: compare-and-swap, no-ops, names and uids, status apart from the rest.

use crate::harness::{CONFIG_MAPS, PODS, Server, pod, revision};
use serde_json::json;

#[tokio::test]
async fn writes_are_compare_and_swap() {
    let server = Server::start().await;
    let uri = format!("{CONFIG_MAPS}/a");
    let first = server.config_map("a", json!({})).await;
    let mut second = first.clone();
    second["data"]["k"] = json!("2");
    let updated = server.put(&uri, second).await.expect(200);
    assert!(revision(&updated) > revision(&first));
    assert_eq!(updated["metadata"]["uid"], first["metadata"]["uid"]);
    let mut stale = first;
    stale["data"]["k"] = json!("3");
    let status = server.put(&uri, stale).await.failure(409, "Conflict");
    assert_eq!(
        status["message"],
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    let unconditional = server
        .put(&uri, json!({"metadata": {"name": "a"}, "data": {"k": "4"}}))
        .await
        .expect(200);
    assert_eq!(unconditional["data"]["k"], "4");
}

#[tokio::test]
async fn writing_the_same_again_changes_nothing() {
    let server = Server::start().await;
    let first = server.config_map("a", json!({})).await;
    let same = server.put(&format!("{CONFIG_MAPS}/a"), first.clone()).await.expect(200);
    assert_eq!(same, first);
}

#[tokio::test]
async fn names_and_uids_must_fit() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let status = server
        .put(&uri, json!({"metadata": {"name": "b"}}))
        .await
        .failure(400, "BadRequest");
    assert_eq!(
        status["message"],
        "the name of the object (b) does not match the name on the URL (a)"
    );
    let nameless = server
        .put(&uri, json!({"metadata": {}}))
        .await
        .failure(400, "BadRequest");
    assert_eq!(
        nameless["message"],
        "the name of the object (a based on URL) was undeterminable: name must be provided"
    );
    server
        .put(&uri, json!({"metadata": {"name": "a", "uid": "other"}}))
        .await
        .failure(409, "Conflict");
    server
        .put(
            &format!("{CONFIG_MAPS}/absent"),
            json!({"metadata": {"name": "absent"}}),
        )
        .await
        .failure(404, "NotFound");
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = Server::start().await;
    let created = server.post(PODS, pod("p")).await.expect(201);
    let uri = format!("{PODS}/p");
    let mut status = created.clone();
    status["status"] = json!({"phase": "Running", "podIP": "10.0.0.1"});
    status["spec"]["terminationGracePeriodSeconds"] = json!(99);
    let updated = server.put(&format!("{uri}/status"), status).await.expect(200);
    assert_eq!(updated["status"]["phase"], "Running");
    assert_eq!(updated["spec"], created["spec"], "status does not write the spec");
    let mut main = updated.clone();
    main["status"] = json!({"phase": "Failed"});
    main["metadata"]["labels"] = json!({"new": "label"});
    let updated = server.put(&uri, main).await.expect(200);
    assert_eq!(
        updated["status"]["phase"], "Running",
        "the main resource does not write the status"
    );
    assert_eq!(updated["metadata"]["labels"]["new"], "label");
}

#[tokio::test]
async fn a_put_that_creates_drops_the_version() {
    let server = Server::start().await;
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc",
        "metadata": {"name": "a", "resourceVersion": "999999"},
    });
    let uri = "/apis/node.k8s.io/v1/runtimeclasses/a";
    let created = server.put(uri, class.clone()).await.expect(201);
    assert_ne!(created["metadata"]["resourceVersion"], "999999");
    let status = server
        .post("/apis/node.k8s.io/v1/runtimeclasses", class)
        .await
        .failure(400, "BadRequest");
    assert_eq!(
        status["message"],
        "resourceVersion should not be set on objects to be created"
    );
}
