//! DELETE of one object and of collections.

use crate::harness::{CONFIG_MAPS, PODS, Server, pod, revision};
use serde_json::json;

#[tokio::test]
async fn config_maps_go_at_once_and_answer_with_a_status() {
    let server = Server::start().await;
    let created = server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let status = server.delete(&uri).await.expect(200);
    assert_eq!(status["status"], "Success");
    assert_eq!(
        status["details"],
        json!({"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]})
    );
    server.get(&uri).await.failure(404, "NotFound");
    server.delete(&uri).await.failure(404, "NotFound");
}

#[tokio::test]
async fn preconditions_must_hold() {
    let server = Server::start().await;
    let created = server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    server
        .delete_with(&uri, json!({"preconditions": {"uid": "other"}}))
        .await
        .failure(409, "Conflict");
    server
        .delete_with(&uri, json!({"preconditions": {"resourceVersion": "1"}}))
        .await
        .failure(409, "Conflict");
    let right = json!({"preconditions": {
        "uid": created["metadata"]["uid"], "resourceVersion": revision(&created).to_string(),
    }});
    server.delete_with(&uri, right).await.expect(200);
}

#[tokio::test]
async fn a_dry_run_deletes_nothing() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    server.delete(&format!("{uri}?dryRun=All")).await.expect(200);
    server.delete_with(&uri, json!({"dryRun": ["All"]})).await.expect(200);
    server.get(&uri).await.expect(200);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Server::start().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["example.com/one", "example.com/two"]}});
    server.post(CONFIG_MAPS, body).await.expect(201);
    let uri = format!("{CONFIG_MAPS}/a");
    let marked = server.delete(&uri).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = server.delete(&uri).await.expect(200);
    assert_eq!(
        again["metadata"]["resourceVersion"],
        marked["metadata"]["resourceVersion"]
    );
    let more = json!({"metadata": {"finalizers": ["example.com/one", "example.com/two", "example.com/three"]}});
    server.patch(&uri, "merge", more).await.failure(422, "Invalid");
    server
        .patch(&uri, "merge", json!({"metadata": {"finalizers": ["example.com/two"]}}))
        .await
        .expect(200);
    server.get(&uri).await.expect(200);
    server
        .patch(&uri, "merge", json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    server.get(&uri).await.failure(404, "NotFound");
}

#[tokio::test]
async fn a_pod_on_a_node_waits_for_its_kubelet() {
    let server = Server::start().await;
    let mut body = pod("p");
    body["spec"]["nodeName"] = json!("n1");
    server.post(PODS, body).await.expect(201);
    let uri = format!("{PODS}/p");
    let marked = server.delete(&uri).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = server
        .delete_with(&uri, json!({"gracePeriodSeconds": 5}))
        .await
        .expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server
        .delete_with(&uri, json!({"gracePeriodSeconds": 60}))
        .await
        .expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    let gone = server
        .delete_with(&uri, json!({"gracePeriodSeconds": 0}))
        .await
        .expect(200);
    assert_eq!(gone["kind"], "Pod");
    server.get(&uri).await.failure(404, "NotFound");
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.expect(201);
    server.delete(&format!("{PODS}/p")).await.expect(200);
    server.get(&format!("{PODS}/p")).await.failure(404, "NotFound");
}

#[tokio::test]
async fn collections_go_by_selector() {
    let server = Server::start().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        server.config_map(name, json!({"app": app})).await;
    }
    let deleted = server
        .delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx"))
        .await
        .expect(200);
    assert_eq!(deleted["kind"], "ConfigMapList");
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_is_emptied_before_it_goes() {
    let server = Server::start().await;
    let created = server
        .post("/api/v1/namespaces", json!({"metadata": {"name": "n"}}))
        .await
        .expect(201);
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let marked = server.delete("/api/v1/namespaces/n").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let body = json!({"metadata": {"name": "a"}});
    let status = server
        .post("/api/v1/namespaces/n/configmaps", body)
        .await
        .failure(403, "Forbidden");
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = marked;
    finalized["spec"]["finalizers"] = json!([]);
    server.put("/api/v1/namespaces/n/finalize", finalized).await.expect(200);
    server.get("/api/v1/namespaces/n").await.failure(404, "NotFound");
}

#[tokio::test]
async fn the_systems_namespaces_stay() {
    let server = Server::start().await;
    server
        .delete("/api/v1/namespaces/default")
        .await
        .failure(403, "Forbidden");
}

#[tokio::test]
async fn deletions_say_what_becomes_of_dependents() {
    let server = Server::start().await;
    for (options, finalizers) in [
        (
            json!({"propagationPolicy": "Foreground"}),
            json!(["foregroundDeletion"]),
        ),
        (json!({"propagationPolicy": "Orphan"}), json!(["orphan"])),
        (json!({"orphanDependents": true}), json!(["orphan"])),
    ] {
        server.config_map("a", json!({})).await;
        let uri = format!("{CONFIG_MAPS}/a");
        let marked = server.delete_with(&uri, options).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], finalizers);
        assert!(marked["metadata"]["deletionTimestamp"].is_string());
        server.get(&uri).await.expect(200);
        // A later deletion may want something else.
        let status = server
            .delete_with(&uri, json!({"propagationPolicy": "Background"}))
            .await
            .expect(200);
        assert_eq!(status["status"], "Success");
    }
    for name in ["a", "b"] {
        server.config_map(name, json!({"app": "x"})).await;
    }
    server
        .delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx&propagationPolicy=Orphan"))
        .await
        .expect(200);
    let left = server.get(CONFIG_MAPS).await.expect(200);
    let left = left["items"].as_array().unwrap();
    assert_eq!(left.len(), 2);
    assert!(
        left.iter()
            .all(|map| map["metadata"]["finalizers"] == json!(["orphan"]))
    );
}

#[tokio::test]
async fn jobs_and_replication_controllers_leave_their_pods_behind_by_default() {
    let server = Server::start().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let container = json!({"name": "c", "image": "i"});
    let job = json!({
        "metadata": {"name": "j"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    });
    server.post(jobs, job.clone()).await.expect(201);
    let deleted = server.delete(&format!("{jobs}/j")).await;
    assert_eq!(deleted.expect(200)["metadata"]["finalizers"], json!(["orphan"]));
    assert!(
        deleted
            .warnings()
            .iter()
            .any(|warning| warning.contains("child pods are preserved by default")),
        "{:?}",
        deleted.warnings()
    );
    let background = server.delete(&format!("{jobs}/j?propagationPolicy=Background")).await;
    assert_eq!(background.expect(200)["status"], "Success");
    assert_eq!(background.warnings(), [""; 0]);
}
