//! Custom resources whose versions a webhook converts: on every way in and out.

use crate::custom_resources::establish;
use crate::harness::Server;
use crate::webhooks::Hooks;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const FIRST: &str = "/apis/stable.example.com/v1/namespaces/default/places";
const SECOND: &str = "/apis/stable.example.com/v2/namespaces/default/places";

/// Stored in v1, which has `hostPort`; v2 has `host` and `port`.
fn definition(hooks: &Hooks, path: &str) -> Value {
    let of = |fields: &[&str]| {
        let mut properties = json!({});
        fields
            .iter()
            .for_each(|field| properties[*field] = json!({"type": "string"}));
        json!({"openAPIV3Schema": {"type": "object", "properties": properties}})
    };
    json!({
        "metadata": {"name": "places.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "places", "kind": "Place"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": hooks.client(path),
            }},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": of(&["hostPort"])},
                {"name": "v2", "served": true, "storage": false, "schema": of(&["host", "port"]),
                    "selectableFields": [{"jsonPath": ".host"}]},
            ],
        },
    })
}

fn first(name: &str) -> Value {
    json!({
        "apiVersion": "stable.example.com/v1", "kind": "Place", "metadata": {"name": name}, "hostPort": "a:1",
    })
}

fn second(name: &str, host: &str) -> Value {
    json!({
        "apiVersion": "stable.example.com/v2", "kind": "Place", "metadata": {"name": name},
        "host": host, "port": "2",
    })
}

fn parts(object: &Value) -> [&Value; 4] {
    ["apiVersion", "hostPort", "host", "port"].map(|field| &object[field])
}

fn is_first(object: &Value, both: &str) {
    let (version, none) = (json!("stable.example.com/v1"), Value::Null);
    assert_eq!(parts(object), [&version, &json!(both), &none, &none], "{object}");
}

fn is_second(object: &Value, host: &str, port: &str) {
    let (version, none) = (json!("stable.example.com/v2"), Value::Null);
    assert_eq!(parts(object), [&version, &none, &json!(host), &json!(port)], "{object}");
}

#[tokio::test]
async fn objects_are_converted_on_every_way_in_and_out() {
    let (server, hooks) = (Server::with_extensions().await, Hooks::start().await);
    establish(&server, definition(&hooks, "convert")).await;
    let mut watch = server.watch(&format!("{SECOND}?watch=true"), "application/json").await;
    is_first(&server.post(FIRST, first("one")).await.expect(201), "a:1");
    let read = server.get(&format!("{SECOND}/one")).await.expect(200);
    is_second(&read, "a", "1");
    // Its metadata is the stored one, all of it.
    let stored = server.get(&format!("{FIRST}/one")).await.expect(200);
    assert_eq!(read["metadata"], stored["metadata"]);
    // Written in the other version, stored in the first.
    is_second(&server.post(SECOND, second("two", "b")).await.expect(201), "b", "2");
    is_first(&server.get(&format!("{FIRST}/two")).await.expect(200), "b:2");
    let mut changed = server.get(&format!("{SECOND}/two")).await.expect(200);
    changed["port"] = json!("3");
    is_second(
        &server.put(&format!("{SECOND}/two"), changed).await.expect(200),
        "b",
        "3",
    );
    let patched = server
        .patch(&format!("{SECOND}/one"), "merge", json!({"host": "c"}))
        .await;
    is_second(&patched.expect(200), "c", "1");
    is_first(&server.get(&format!("{FIRST}/one")).await.expect(200), "c:1");
    // Lists are converted at once, and selected by fields of their version.
    hooks.asked.lock().clear();
    let list = server.get(SECOND).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .for_each(|item| assert!(item["hostPort"].is_null(), "{item}"));
    let asked: Vec<Value> = hooks.asked.lock().drain(..).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["objects"].as_array().unwrap().len(), 2);
    assert_eq!(asked[0]["desiredAPIVersion"], "stable.example.com/v2");
    let selected = server
        .get(&format!("{SECOND}?fieldSelector=host%3Db"))
        .await
        .expect(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    is_second(&selected["items"][0], "b", "3");
    // What is stored in the version that is asked for is nobody's business.
    hooks.asked.lock().clear();
    server.get(FIRST).await.expect(200);
    assert!(hooks.asked.lock().is_empty());
    server.delete(&format!("{SECOND}/two")).await.expect(200);
    for (kind, name, host, port) in [
        ("ADDED", "one", "a", "1"),
        ("ADDED", "two", "b", "2"),
        ("MODIFIED", "two", "b", "3"),
        ("MODIFIED", "one", "c", "1"),
        ("DELETED", "two", "b", "3"),
    ] {
        let event = watch.next().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!(kind), &json!(name))
        );
        is_second(&event["object"], host, port);
    }
    let mut again = server.watch(&format!("{SECOND}?watch=true"), "application/json").await;
    is_second(&again.next().await.unwrap()["object"], "c", "1");
}

#[tokio::test]
async fn what_is_stored_in_two_versions_is_listed_in_one() {
    let (server, hooks) = (Server::with_extensions().await, Hooks::start().await);
    establish(&server, definition(&hooks, "convert")).await;
    server.post(FIRST, first("one")).await.expect(201);
    let versions = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let uri = format!("{DEFINITIONS}/places.stable.example.com");
    server.patch(&uri, "json", versions).await.expect(200);
    server.post(FIRST, first("two")).await.expect(201);
    for (uri, check) in [
        (FIRST, (|item: &Value| is_first(item, "a:1")) as fn(&Value)),
        (SECOND, |item: &Value| is_second(item, "a", "1")),
    ] {
        let list = server.get(uri).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        list["items"].as_array().unwrap().iter().for_each(check);
    }
}

#[tokio::test]
async fn failures_of_conversions_are_told_in_upstreams_words() {
    for (path, why) in [
        (
            "convert-refused",
            "conversion webhook for stable.example.com/v1, Kind=Place failed: not today",
        ),
        (
            "convert-renamed",
            "conversion webhook for stable.example.com/v1, Kind=Place returned invalid object: must have the same name: \
             one != other",
        ),
        (
            "convert-none",
            "conversion webhook for stable.example.com/v1, Kind=Place returned 0 objects, expected 1",
        ),
        (
            "broken",
            "conversion webhook for stable.example.com/v1, Kind=Place failed: an error on the server (\"oops\") has \
             prevented the request from succeeding",
        ),
    ] {
        let (server, hooks) = (Server::with_extensions().await, Hooks::start().await);
        establish(&server, definition(&hooks, path)).await;
        server.post(FIRST, first("one")).await.expect(201);
        let status = server.get(&format!("{SECOND}/one")).await.expect(500);
        assert_eq!(status["message"], why);
        assert!(status.get("reason").is_none(), "{status}");
        assert_eq!(server.get(SECOND).await.expect(500)["message"], why);
        // It can be deleted in the version that it is stored in.
        server.delete(&format!("{FIRST}/one")).await.expect(200);
    }
}

#[tokio::test]
async fn admission_webhooks_see_the_version_that_they_are_for() {
    let (server, hooks) = (Server::with_extensions().await, Hooks::start().await);
    establish(&server, definition(&hooks, "convert")).await;
    let rules = json!([{
        "apiGroups": ["stable.example.com"], "apiVersions": ["v1"], "resources": ["places"], "operations": ["*"],
    }]);
    let watching = hooks.hook("allow", json!({"rules": rules}));
    hooks.configure(&server, "validating", "places", &[watching]).await;
    let labelling = hooks.hook("label", json!({"rules": rules}));
    hooks.configure(&server, "mutating", "places", &[labelling]).await;
    let made = server.post(SECOND, second("one", "b")).await.expect(201);
    is_second(&made, "b", "2");
    assert_eq!(made["metadata"]["labels"], json!({"by": "webhook"}));
    let asked: Vec<Value> = hooks
        .asked
        .lock()
        .drain(..)
        .filter(|asked| asked.get("operation").is_some())
        .collect();
    assert_eq!(asked.len(), 2);
    for asked in asked {
        is_first(&asked["object"], "b:2");
        assert_eq!(asked["kind"]["version"], "v1");
        assert_eq!(asked["requestKind"]["version"], "v2");
    }
}
