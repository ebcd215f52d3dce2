//! Tokens of service accounts in pods that run.

use crate::cluster::{Cluster, eventually};
use crate::pods::{pod, sleeper, with_spec};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};

const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-auth] ServiceAccounts should mount an API token into pods",
            mounted,
        ),
        pod_test(
            "[sig-auth] ServiceAccounts should mount projected service account token",
            projected,
        ),
    ]
}

/// What the API server says of a token.
async fn review(cluster: &Cluster, token: &str) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviews = cluster.resource("authentication.k8s.io/v1", "tokenreviews", None);
    reviews.create(&review).await.unwrap()["status"].clone()
}

async fn mounted(cluster: Cluster) {
    let pods = cluster.pods("tokens").await;
    let accounts = pods.core("serviceaccounts");
    accounts.create(&json!({"metadata": {"name": "robot"}})).await.unwrap();
    let ready = pods
        .ready(&with_spec(sleeper("holder"), json!({"serviceAccountName": "robot"})))
        .await;
    let read = async |file: &str| pods.shell("holder", "main", &format!("cat {PLACE}/{file}")).await;
    assert_eq!(read("namespace").await, pods.namespace);
    let map = eventually("the root certificate", async || {
        pods.core("configmaps").get("kube-root-ca.crt").await.ok()
    })
    .await;
    assert_eq!(json!(read("ca.crt").await), map["data"]["ca.crt"]);
    let status = review(&cluster, &read("token").await).await;
    assert_eq!(status["authenticated"], true, "{status}");
    let user = &status["user"];
    assert_eq!(
        user["username"],
        format!("system:serviceaccount:{}:robot", pods.namespace)
    );
    let extra = &user["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["holder"]));
    assert_eq!(
        extra["authentication.kubernetes.io/pod-uid"],
        json!([ready["metadata"]["uid"]])
    );
}

async fn projected(cluster: Cluster) {
    let pods = cluster.pods("tokens").await;
    let volume = json!({"name": "own", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "elsewhere"}}]}});
    let mut reader = pod("reader", "cat /own/token");
    reader["spec"]["volumes"] = json!([volume]);
    reader["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
    let token = pods.output(&reader).await;
    let claims: Value = {
        use base64::Engine;
        let part = token.split('.').nth(1).expect("a JWT");
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    assert_eq!(claims["aud"], json!(["elsewhere"]));
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "reader");
    // It is for somebody else.
    assert_ne!(review(&cluster, &token).await["authenticated"], true);
}
