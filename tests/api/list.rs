//! Lists: order, chunks, selectors, old states, tokens that expire.

use crate::harness::{CONFIG_MAPS, PODS, Server, as_item, pod, revision};
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn with_five() -> Server {
    let server = Server::start().await;
    for (name, app) in [("c", "x"), ("a", "x"), ("e", "y"), ("b", "y"), ("d", "x")] {
        server.config_map(name, json!({"app": app})).await;
    }
    server
}

#[tokio::test]
async fn everything_in_order_with_a_version() {
    let server = with_five().await;
    let list = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(
        (list["kind"].as_str(), list["apiVersion"].as_str()),
        (Some("ConfigMapList"), Some("v1"))
    );
    assert_eq!(names(&list), ["a", "b", "c", "d", "e"]);
    assert_eq!(revision(&list), server.api.storage.revision());
    assert_eq!(
        server.get("/api/v1/configmaps").await.expect(200)["items"],
        list["items"]
    );
    // Read whole and in part, as upstream's typed lists.
    for query in ["", "?limit=9", "?labelSelector=app"] {
        let list = server.get(&format!("{CONFIG_MAPS}{query}")).await.expect(200);
        let one = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
        assert_eq!(one["kind"], "ConfigMap");
        assert_eq!(list["items"][0], as_item(&one), "{query}");
    }
    let empty = server.get("/api/v1/namespaces/elsewhere/configmaps").await.expect(200);
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn chunks_show_one_revision() {
    let server = with_five().await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    server.delete(&format!("{CONFIG_MAPS}/c")).await.expect(200);
    server.config_map("bb", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&second), ["c", "d"], "as it was when the first chunk was read");
    assert_eq!(revision(&second), revision(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&third), ["e"]);
    assert!(third["metadata"].get("continue").is_none());
    assert!(third["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn selectors_and_limits_go_together() {
    let server = with_five().await;
    let first = server
        .get(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx&limit=2"))
        .await
        .expect(200);
    assert_eq!(names(&first), ["a", "c"]);
    assert!(first["metadata"].get("remainingItemCount").is_none());
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx&limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&rest), ["d"]);
    let one = server
        .get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3De"))
        .await
        .expect(200);
    assert_eq!(names(&one), ["e"]);
}

#[tokio::test]
async fn fields_of_a_kind_select() {
    let server = Server::start().await;
    server.post(PODS, pod("free")).await.expect(201);
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n1");
    server.post(PODS, bound).await.expect(201);
    let on_node = server
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
        .await
        .expect(200);
    assert_eq!(names(&on_node), ["bound"]);
    let pending = server
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3D,status.phase%3DPending")
        .await
        .expect(200);
    assert_eq!(names(&pending), ["free"]);
}

#[tokio::test]
async fn old_states_can_be_listed_exactly() {
    let server = with_five().await;
    let then = revision(&server.get(CONFIG_MAPS).await.expect(200));
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let old = server
        .get(&format!(
            "{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact"
        ))
        .await
        .expect(200);
    assert_eq!((names(&old).len(), revision(&old)), (5, then));
    let now = server
        .get(&format!("{CONFIG_MAPS}?resourceVersion={then}"))
        .await
        .expect(200);
    assert_eq!(names(&now).len(), 4, "not older than");
}

#[tokio::test]
async fn a_version_that_never_comes_is_a_timeout() {
    let server = Server::start().await;
    let status = server
        .get(&format!("{CONFIG_MAPS}?resourceVersion=999999"))
        .await
        .failure(504, "Timeout");
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
}

#[tokio::test]
async fn tokens_that_cannot_be_honoured() {
    let server = with_five().await;
    server
        .get(&format!("{CONFIG_MAPS}?continue=nonsense"))
        .await
        .failure(400, "BadRequest");
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    server
        .get(&format!("{CONFIG_MAPS}?continue={token}&resourceVersion=5"))
        .await
        .failure(400, "BadRequest");
}

#[tokio::test]
async fn an_expired_token_comes_with_another_to_go_on() {
    let server = Server::with_history(4).await;
    for name in ["a", "b", "c", "d", "e"] {
        server.config_map(name, json!({})).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    for n in 0..20 {
        let change = json!({"data": {"k": n.to_string()}});
        server
            .patch(&format!("{CONFIG_MAPS}/e"), "merge", change)
            .await
            .expect(200);
    }
    server.history_reaches(revision(&first) + 1).await;
    let expired = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    let status = expired.failure(410, "Expired");
    let fresh = status["metadata"]["continue"].as_str().unwrap();
    let rest = server.get(&format!("{CONFIG_MAPS}?continue={fresh}")).await.expect(200);
    assert_eq!(names(&rest), ["c", "d", "e"], "goes on with what is there now");
}
