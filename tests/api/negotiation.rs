//! Forms of answers.

use crate::harness::{CONFIG_MAPS, PODS, Server, as_item, pod};
use poem::http::Method;
use serde_json::json;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn tables_of_lists_and_objects() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.expect(201);
    let table = server.get_as(PODS, TABLE).await.expect(200);
    assert_eq!(
        (table["kind"].as_str(), table["apiVersion"].as_str()),
        (Some("Table"), Some("meta.k8s.io/v1"))
    );
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(columns[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    let row = &table["rows"][0];
    assert_eq!(
        row["cells"].as_array().unwrap()[..3],
        [json!("p"), json!("0/1"), json!("Pending")]
    );
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["resourceVersion"].is_string());
    let one = server
        .get_as(&format!("{PODS}/p?includeObject=Object"), TABLE)
        .await
        .expect(200);
    assert_eq!(one["rows"][0]["object"]["kind"], "Pod");
    let none = server
        .get_as(&format!("{PODS}?includeObject=None"), TABLE)
        .await
        .expect(200);
    assert_eq!(none["rows"][0]["object"], json!(null));
}

#[tokio::test]
async fn metadata_only() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let answer = server.get_as(CONFIG_MAPS, list).await.expect(200);
    assert_eq!(answer["kind"], "PartialObjectMetadataList");
    assert!(answer["items"][0].get("data").is_none());
    server
        .get_as(&format!("{CONFIG_MAPS}/a"), list)
        .await
        .failure(406, "NotAcceptable");
}

#[tokio::test]
async fn yaml_out() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let answer = server.get_as(&format!("{CONFIG_MAPS}/a"), "application/yaml").await;
    assert_eq!(answer.header("content-type"), "application/yaml");
    assert!(
        answer
            .text()
            .starts_with("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn every_answer_carries_its_headers() {
    let server = Server::start().await;
    let answer = server.get(CONFIG_MAPS).await;
    assert_eq!(answer.header("cache-control"), "no-cache, private");
    assert_eq!(answer.header("audit-id").len(), 36);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let curl = server
        .send(Method::GET, CONFIG_MAPS, &[("user-agent", "curl/8.0")], ())
        .await;
    assert!(curl.text().starts_with("{\n  \"kind\""), "{}", curl.text());
}

#[tokio::test]
async fn large_lists_are_compressed_for_those_who_ask() {
    let server = Server::start().await;
    for n in 0..3 {
        let body = json!({"metadata": {"name": format!("big{n}")}, "data": {"k": "x".repeat(60_000)}});
        server.post(CONFIG_MAPS, body).await.expect(201);
    }
    let answer = server
        .send(Method::GET, CONFIG_MAPS, &[("accept-encoding", "gzip")], ())
        .await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert!(answer.body.len() < 10_000);
    let plain = server.get(CONFIG_MAPS).await;
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(plain.expect(200)["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn both_event_groups_show_the_same_objects() {
    let server = Server::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "hello",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "source": {"component": "kubelet"},
    });
    server
        .post("/api/v1/namespaces/default/events", event)
        .await
        .expect(201);
    let new = server
        .get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .expect(200);
    assert_eq!(new["apiVersion"], "events.k8s.io/v1");
    assert_eq!(
        (&new["note"], &new["regarding"]["name"]),
        (&json!("hello"), &json!("p"))
    );
    let list = server.get("/apis/events.k8s.io/v1/events").await.expect(200);
    assert_eq!(list["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list["items"][0], as_item(&new));
}
