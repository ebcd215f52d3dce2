//! Patches of the three kinds: what they do, retries, and what they refuse.

use crate::harness::{CONFIG_MAPS, PODS, Server, pod};
use poem::http::Method;
use serde_json::json;

#[tokio::test]
async fn the_three_kinds_of_patches() {
    let server = Server::start().await;
    server.config_map("a", json!({"old": "1"})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let merged = server
        .patch(
            &uri,
            "merge",
            json!({"metadata": {"labels": {"old": null, "new": "2"}}}),
        )
        .await
        .expect(200);
    assert_eq!(merged["metadata"]["labels"], json!({"new": "2"}));
    let patched = server
        .patch(
            &uri,
            "json",
            json!([{"op": "replace", "path": "/data/k", "value": "w"}]),
        )
        .await
        .expect(200);
    assert_eq!(patched["data"]["k"], "w");
    server.post(PODS, pod("p")).await.expect(201);
    let change = json!({"spec": {"containers": [{"name": "app", "image": "busybox:2"}]}});
    let strategic = server
        .patch(&format!("{PODS}/p"), "strategic-merge", change)
        .await
        .expect(200);
    assert_eq!(strategic["spec"]["containers"][0]["image"], "busybox:2");
    assert_eq!(strategic["spec"]["containers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_empty_patch_writes_nothing() {
    let server = Server::start().await;
    let before = server.config_map("a", json!({})).await;
    let after = server
        .patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({}))
        .await
        .expect(200);
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_version_in_the_patch_is_a_precondition() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let patch = json!({"metadata": {"resourceVersion": "1"}, "data": {"k": "x"}});
    server
        .patch(&format!("{CONFIG_MAPS}/a"), "merge", patch)
        .await
        .failure(409, "Conflict");
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let patches = (0..32).map(|n| server.patch(&uri, "merge", json!({"data": {format!("k{n}"): "v"}})));
    for answer in futures_util::future::join_all(patches).await {
        answer.expect(200);
    }
    let data = server.get(&uri).await.expect(200)["data"].as_object().unwrap().len();
    assert_eq!(data, 33);
}

#[tokio::test]
async fn what_cannot_be_applied_says_so() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let failed = server
        .patch(&uri, "json", json!([{"op": "test", "path": "/data/k", "value": "no"}]))
        .await;
    let status = failed.failure(422, "Invalid");
    assert_eq!(
        status["message"],
        "the server rejected our request due to an error in our request"
    );
    let wrong_type = server
        .patch(&uri, "merge", json!({"data": {"k": 1}}))
        .await
        .failure(422, "Invalid");
    assert!(
        wrong_type["message"]
            .as_str()
            .unwrap()
            .starts_with(r#" "" is invalid: patch: Invalid value: "#)
    );
    server
        .patch(&uri, "merge", json!({"metadata": {"name": "b"}}))
        .await
        .failure(400, "BadRequest");
    server
        .patch(&uri, "merge", json!({"kind": "Secret"}))
        .await
        .failure(400, "BadRequest");
    server
        .patch(&format!("{CONFIG_MAPS}/absent"), "merge", json!({}))
        .await
        .failure(404, "NotFound");
    server
        .patch(&uri, "json", json!([{"op": "explode"}]))
        .await
        .failure(422, "Invalid");
}

#[tokio::test]
async fn unknown_fields_in_patches() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let warned = server.patch(&uri, "merge", json!({"dataa": {}})).await;
    warned.expect(200);
    assert_eq!(warned.warnings(), [r#"299 - "unknown field \"dataa\"""#]);
    let strict = server
        .patch(&format!("{uri}?fieldValidation=Strict"), "merge", json!({"dataa": {}}))
        .await;
    let status = strict.failure(422, "Invalid");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains(r#"strict decoding error: unknown field "dataa""#)
    );
}

#[tokio::test]
async fn other_patches_are_refused_with_the_list() {
    let server = Server::start().await;
    let headers = [("content-type", "application/json")];
    let answer = server
        .send(Method::PATCH, &format!("{CONFIG_MAPS}/a"), &headers, "{}")
        .await;
    let status = answer.failure(415, "UnsupportedMediaType");
    assert_eq!(
        status["message"],
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
         application/apply-patch+yaml"
    );
}

#[tokio::test]
async fn keys_given_twice_in_patches_are_seen() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let send = |kind: &str, query: &str, text: &'static str| {
        let content_type = format!("application/{kind}+json");
        let (server, uri) = (&server, format!("{uri}?{query}"));
        async move {
            let headers = [("content-type", content_type.as_str())];
            server.send(Method::PATCH, &uri, &headers, text).await
        }
    };
    let twice = r#"{"data":{"x":"1","x":"2"}}"#;
    let warned = send("merge-patch", "", twice).await;
    assert_eq!(warned.expect(200)["data"]["x"], "2");
    assert_eq!(warned.warnings(), [r#"299 - "duplicate field \"data.x\"""#]);
    let refused = send("merge-patch", "fieldValidation=Strict", twice)
        .await
        .failure(422, "Invalid");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.ends_with(r#"strict decoding error: duplicate field "data.x""#),
        "{message}"
    );
    let refused = send("strategic-merge-patch", "fieldValidation=Strict", twice).await;
    let refused = refused.failure(422, "Invalid");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains(r#"Invalid value: "map[data:map[x:2]]": strict decoding error"#),
        "{message}"
    );
    let operations = r#"[{"op":"add","op":"add","path":"/data/y","value":"1"}]"#;
    let refused = send("json-patch", "fieldValidation=Strict", operations)
        .await
        .failure(422, "Invalid");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.ends_with(r#"strict decoding error: json patch duplicate field "[0].op""#),
        "{message}"
    );
    let ignored = send("json-patch", "fieldValidation=Ignore", operations).await;
    assert!(ignored.warnings().is_empty());
    assert_eq!(ignored.expect(200)["data"]["y"], "1");
}

#[tokio::test]
async fn strategic_patches_are_shown_as_upstream_does() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.expect(201);
    let uri = format!("{PODS}/p?fieldValidation=Strict");
    let patch = json!({"spec": {"containers": [{"name": "app", "imagee": "x"}]}});
    let status = server
        .patch(&uri, "strategic-merge", patch)
        .await
        .failure(422, "Invalid");
    assert_eq!(
        status["message"],
        r#" "" is invalid: patch: Invalid value: "map[spec:map[containers:[map[imagee:x name:app]]]]": strict decoding error: unknown field "spec.containers[0].imagee""#
    );
}
