//! Kinds that are questions: who am I, may I, may somebody, what may I.

use crate::harness::Server;
use poem::http::Method;
use serde_json::{Value, json};

const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";
const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";

async fn ask(server: &Server, user: &str, groups: &[&str], uri: &str, spec: Value) -> crate::harness::Answer {
    let body = json!({ "spec": spec }).to_string();
    server.send_as(user, groups, Method::POST, uri, body).await
}

async fn prepared() -> Server {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    let binding = json!({
        "metadata": {"name": "viewers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    server
        .post(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            binding,
        )
        .await
        .expect(201);
    server
}

#[tokio::test]
async fn who_am_i() {
    let server = prepared().await;
    let uri = format!("{AUTHENTICATION}/selfsubjectreviews");
    let answer = ask(&server, "jane", &["dev"], &uri, Value::Null).await.expect(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "jane", "groups": ["dev", "system:authenticated"]})
    );
    let nobody = ask(
        &server,
        "system:anonymous",
        &["system:unauthenticated"],
        &uri,
        Value::Null,
    );
    nobody.await.failure(403, "Forbidden");
}

#[tokio::test]
async fn may_i() {
    let server = prepared().await;
    let uri = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    let status = async |spec: Value| ask(&server, "jane", &[], &uri, spec).await.expect(201)["status"].clone();
    let pods = |verb: &str, namespace: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": namespace}});
    assert_eq!(
        status(pods("list", "default")).await,
        json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"viewers/default\" of ClusterRole \"view\" to User \"jane\""})
    );
    assert_eq!(status(pods("delete", "default")).await, json!({"allowed": false}));
    assert_eq!(status(pods("list", "")).await, json!({"allowed": false}));
    let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/version"}});
    assert_eq!(status(path).await["allowed"], true);
    for bad in [
        json!({}),
        json!({"resourceAttributes": {}, "nonResourceAttributes": {"path": "/"}}),
    ] {
        ask(&server, "jane", &[], &uri, bad).await.failure(422, "Invalid");
    }
}

#[tokio::test]
async fn may_somebody() {
    let server = prepared().await;
    let uri = format!("{AUTHORIZATION}/subjectaccessreviews");
    let attributes = json!({"verb": "get", "resource": "secrets", "namespace": "default", "name": "x"});
    let review =
        |user: &str, groups: Value| json!({"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}});
    let answer = server.post(&uri, review("jane", json!([]))).await.expect(201);
    assert_eq!(answer["status"], json!({"allowed": false}));
    assert_eq!(answer["spec"]["user"], "jane");
    let answer = server
        .post(&uri, review("", json!(["system:masters"])))
        .await
        .expect(201);
    assert_eq!(answer["status"], json!({"allowed": true}));
    let node = server
        .post(&uri, review("system:node:n1", json!(["system:nodes"])))
        .await
        .expect(201);
    assert_eq!(
        node["status"],
        json!({"allowed": false, "reason": "no relationship found between node 'n1' and this object"})
    );
    let invalid = server.post(&uri, review("", json!([]))).await.failure(422, "Invalid");
    assert!(
        invalid["message"]
            .as_str()
            .unwrap()
            .contains("at least one of user or group must be specified"),
        "{invalid}"
    );
    ask(&server, "jane", &[], &uri, json!({}))
        .await
        .failure(403, "Forbidden");
}

#[tokio::test]
async fn may_somebody_here() {
    let server = prepared().await;
    let uri = format!("{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    let review = |namespace: &str| {
        json!({"spec": {"user": "jane",
        "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}}})
    };
    let answer = server.post(&uri, review("default")).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    let invalid = server.post(&uri, review("other")).await.failure(422, "Invalid");
    assert!(
        invalid["message"]
            .as_str()
            .unwrap()
            .contains("must match metadata.namespace"),
        "{invalid}"
    );
    let path = json!({"spec": {"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/"}}});
    server.post(&uri, path).await.failure(422, "Invalid");
}

#[tokio::test]
async fn what_may_i() {
    let server = prepared().await;
    let uri = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let spec = json!({"namespace": "default"});
    let status = ask(&server, "jane", &[], &uri, spec.clone()).await.expect(201)["status"].clone();
    assert_eq!(status["incomplete"], false);
    let rules = status["resourceRules"].as_array().unwrap();
    let allows = |resource: &str| {
        rules
            .iter()
            .any(|rule| rule["resources"].as_array().unwrap().contains(&json!(resource)))
    };
    assert!(allows("pods") && allows("selfsubjectreviews") && !allows("secrets"));
    let paths = status["nonResourceRules"].as_array().unwrap();
    assert!(
        paths
            .iter()
            .any(|rule| rule["nonResourceURLs"].as_array().unwrap().contains(&json!("/api/*")))
    );
    let node = ask(&server, "system:node:n1", &["system:nodes"], &uri, spec)
        .await
        .expect(201);
    assert_eq!(node["status"]["incomplete"], true);
    assert_eq!(
        node["status"]["evaluationError"],
        "node authorizer does not support user rule resolution"
    );
    ask(&server, "jane", &[], &uri, json!({}))
        .await
        .failure(400, "BadRequest");
}
