//! Watches: state, changes, resumption, selectors, bookmarks, transforms, the end.

use crate::harness::{CONFIG_MAPS, Server, revision};
use serde_json::json;

const JSON: &str = "application/json";

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn state_first_and_then_every_change() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1"), JSON).await;
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
    server.config_map("b", json!({})).await;
    assert_eq!(events.next_name().await, pair("ADDED", "b"));
    let patched = server
        .patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"data": {"k": "2"}}))
        .await
        .expect(200);
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "MODIFIED");
    assert_eq!(event["object"], patched);
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert!(
        revision(&event["object"]) > revision(&patched),
        "a deletion has a revision of its own"
    );
    assert_eq!(event["object"]["data"]["k"], "2");
}

#[tokio::test]
async fn a_watch_resumes_where_it_ended() {
    let server = Server::start().await;
    let first = server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    server.config_map("c", json!({})).await;
    let uri = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&first));
    let mut events = server.watch(&uri, JSON).await;
    assert_eq!(events.next_name().await, pair("ADDED", "b"));
    assert_eq!(events.next_name().await, pair("ADDED", "c"));
    events.expect_silence().await;
}

#[tokio::test]
async fn selectors_turn_changes_into_other_events() {
    let server = Server::start().await;
    let uri = format!("{CONFIG_MAPS}?watch=1&labelSelector=app%3Dx");
    let mut events = server.watch(&uri, JSON).await;
    server.config_map("a", json!({"app": "y"})).await;
    let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
    let object = format!("{CONFIG_MAPS}/a");
    server.patch(&object, "merge", label("x")).await.expect(200);
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
    server
        .patch(&object, "merge", json!({"data": {"k": "2"}}))
        .await
        .expect(200);
    assert_eq!(events.next_name().await, pair("MODIFIED", "a"));
    let left = server.patch(&object, "merge", label("z")).await.expect(200);
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "x", "the version before");
    assert_eq!(revision(&event["object"]), revision(&left), "at the change's revision");
    server.delete(&object).await.expect(200);
    events.expect_silence().await;
}

#[tokio::test]
async fn a_streaming_list_ends_with_a_bookmark() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut events = server.watch(&uri, JSON).await;
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(
        (&bookmark["object"]["kind"], &bookmark["object"]["apiVersion"]),
        (&json!("ConfigMap"), &json!("v1"))
    );
    assert_eq!(revision(&bookmark["object"]), server.api.storage.revision());
    server.config_map("b", json!({})).await;
    assert_eq!(events.next_name().await, pair("ADDED", "b"));
}

#[tokio::test]
async fn the_time_of_a_watch_runs_out_after_a_last_bookmark() {
    let server = Server::start().await;
    let uri = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=3&allowWatchBookmarks=true");
    let mut events = server.watch(&uri, JSON).await;
    let state = events.next().await.unwrap();
    assert_eq!(state["type"], "BOOKMARK", "the state, which is empty, ends here");
    assert_eq!(
        state["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let last = events.next().await.unwrap();
    assert_eq!(last["type"], "BOOKMARK");
    assert!(last["object"]["metadata"].get("annotations").is_none());
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn watches_end_when_the_server_goes() {
    let server = Server::start().await;
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1"), JSON).await;
    server.api.begin_shutdown();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn tables_and_metadata_can_be_watched() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1"), table).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    server.config_map("b", json!({})).await;
    let second = events.next().await.unwrap();
    assert_eq!(
        second["object"]["columnDefinitions"],
        json!(null),
        "only the first table has columns"
    );
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1"), metadata).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert!(event["object"].get("data").is_none());
}

#[tokio::test]
async fn the_old_prefix_watches_one_object() {
    let server = Server::start().await;
    let mut events = server
        .watch("/api/v1/watch/namespaces/default/configmaps/b", JSON)
        .await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    assert_eq!(events.next_name().await, pair("ADDED", "b"));
}

#[tokio::test]
async fn pretty_clients_still_get_one_line_per_event() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1&pretty=true"), JSON).await;
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
}

#[tokio::test]
async fn a_version_whose_history_is_gone_is_told_in_the_stream() {
    let server = Server::with_history(4).await;
    let first = server.config_map("a", json!({})).await;
    for n in 0..20 {
        let change = json!({"data": {"k": n.to_string()}});
        server
            .patch(&format!("{CONFIG_MAPS}/a"), "merge", change)
            .await
            .expect(200);
    }
    server.history_reaches(revision(&first) + 1).await;
    let uri = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&first));
    let mut events = server.watch(&uri, JSON).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_from_the_future_hears_what_comes_behind_it() {
    let server = Server::start().await;
    let first = server.config_map("a", json!({})).await;
    let future = revision(&first) + 3;
    let uri = format!("{CONFIG_MAPS}?watch=1&resourceVersion={future}");
    let mut events = server.watch(&uri, JSON).await;
    for name in ["b", "c", "d", "e", "f"] {
        server.config_map(name, json!({})).await;
    }
    let heard = events.next().await.unwrap();
    assert_eq!(heard["type"], "ADDED");
    assert!(revision(&heard["object"]) > future, "{heard}");
    // The state is no older than the version: that cannot be kept, and the stream says so.
    let uri = format!(
        "{CONFIG_MAPS}?watch=1&resourceVersion=999999&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&\
         allowWatchBookmarks=true"
    );
    let mut events = server.watch(&uri, JSON).await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(504))
    );
    let cause = &event["object"]["details"]["causes"][0];
    assert_eq!(cause["reason"], "ResourceVersionTooLarge");
}
