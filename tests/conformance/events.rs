//! Events, in the core group and in their own.

use crate::cluster::{Cluster, refused};
use crate::lifecycle::{assert_contains, names};
use crate::resource::{json_patch, merge_into};
use crate::runner::{Test, test};
use kube::api::{ListParams, Patch};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-instrumentation] Events should delete a collection of events",
            core_collection,
        ),
        test(
            "[sig-instrumentation] Events should manage the lifecycle of an event",
            core_lifecycle,
        ),
        test(
            "[sig-instrumentation] Events API should delete a collection of events",
            own_collection,
        ),
        test(
            "[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed",
            own_lifecycle,
        ),
    ]
}

fn core_event(namespace: &str, name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"set": label}},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "p"},
        "reason": "Test", "message": "a test event", "type": "Normal", "count": 1,
        "source": {"component": "tests"},
        "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z",
    })
}

fn own_event(namespace: &str, name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"set": label}},
        "regarding": {"kind": "Pod", "namespace": namespace, "name": "p"},
        "eventTime": "2026-01-02T03:04:05.000000Z", "note": "a test event", "type": "Normal",
        "reason": "Test", "action": "Do", "reportingController": "tests", "reportingInstance": "tests-1",
    })
}

async fn collection(cluster: Cluster, api_version: &str, event: fn(&str, &str, &str) -> Value) {
    let namespace = cluster.namespace("events").await;
    let label = cluster.unique("events");
    let selector = format!("set={label}");
    let events = cluster.resource(api_version, "events", Some(&namespace));
    for name in ["e1", "e2", "e3"] {
        events.create(&event(&namespace, name, &label)).await.unwrap();
    }
    events.create(&event(&namespace, "kept", "other")).await.unwrap();
    assert_eq!(events.labelled(&selector).await.len(), 3);
    events.delete_collection(&selector).await.unwrap();
    assert!(events.labelled(&selector).await.is_empty());
    let rest = events.list(&ListParams::default()).await.unwrap();
    assert_eq!(names(&rest), ["kept"]);
}

async fn core_collection(cluster: Cluster) {
    collection(cluster, "v1", core_event).await;
}

async fn own_collection(cluster: Cluster) {
    collection(cluster, "events.k8s.io/v1", own_event).await;
}

async fn core_lifecycle(cluster: Cluster) {
    let namespace = cluster.namespace("events").await;
    let label = cluster.unique("event");
    let selector = format!("set={label}");
    let events = cluster.core("events", Some(&namespace));
    let everywhere = cluster.core("events", None);
    events.create(&core_event(&namespace, "one", &label)).await.unwrap();
    assert_eq!(everywhere.labelled(&selector).await.len(), 1);
    let patch = Patch::Strategic(json!({"message": "patched"}));
    let patched = events.patch("one", &patch).await.unwrap();
    assert_eq!(patched["message"], "patched");
    assert_eq!(patched["reason"], "Test");
    let mut replacement = events.get("one").await.unwrap();
    let series = json!({"count": 100, "lastObservedTime": "2026-01-02T03:04:05.000000Z"});
    replacement["series"] = series.clone();
    let replaced = events.replace(&replacement).await.unwrap();
    assert_eq!(replaced["series"], series);
    // The same event, read through the other group.
    let other = cluster.resource("events.k8s.io/v1", "events", Some(&namespace));
    let seen = other.get("one").await.unwrap();
    assert_contains(
        &seen,
        &json!({"note": "patched", "regarding": {"kind": "Pod"}, "deprecatedCount": 1}),
    );
    let chosen = ListParams::default().fields("involvedObject.name=p,reason=Test");
    assert_eq!(names(&events.list(&chosen).await.unwrap()), ["one"]);
    events.delete("one").await.unwrap();
    assert!(everywhere.labelled(&selector).await.is_empty());
    refused(other.get("one").await, 404, "NotFound");
}

async fn own_lifecycle(cluster: Cluster) {
    let namespace = cluster.namespace("events").await;
    let label = cluster.unique("event");
    let selector = format!("set={label}");
    let events = cluster.resource("events.k8s.io/v1", "events", Some(&namespace));
    let everywhere = cluster.resource("events.k8s.io/v1", "events", None);
    let created = events.create(&own_event(&namespace, "one", &label)).await.unwrap();
    assert_eq!(everywhere.labelled(&selector).await.len(), 1);
    assert_eq!(events.get("one").await.unwrap(), created);
    let series = json!({"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"});
    let patch = Patch::Strategic(json!({"series": series}));
    let patched = events.patch("one", &patch).await.unwrap();
    assert_eq!(patched["series"], series);
    let mut replacement = patched.clone();
    merge_into(&mut replacement, json!({"series": {"count": 100}}));
    let replaced = events.replace(&replacement).await.unwrap();
    assert_eq!(replaced["series"]["count"], 100);
    // What an event is about cannot be changed.
    let other = json_patch(json!([{"op": "replace", "path": "/reason", "value": "Other"}]));
    let status = refused(events.patch("one", &other).await, 422, "Invalid");
    assert!(status.message.contains("reason"), "{}", status.message);
    let mut incomplete = own_event(&namespace, "two", &label);
    incomplete["action"] = json!("");
    let status = refused(events.create(&incomplete).await, 422, "Invalid");
    assert!(status.message.contains("action: Required value"), "{}", status.message);
    events.delete("one").await.unwrap();
    refused(events.get("one").await, 404, "NotFound");
    assert!(everywhere.labelled(&selector).await.is_empty());
}
