//! Storage version migrations as objects, and what they do.

use crate::cluster::{Cluster, eventually, refused};
use crate::resource::{items, json_patch, revision};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![test(
        "[sig-api-machinery] StorageVersionMigration CRUD Tests storagemigration.k8s.io/v1 StorageVersionMigration",
        every_verb,
    )]
}

fn condition<'a>(migration: &'a Value, kind: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let conditions = migration["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind).unwrap_or(&NONE)
}

async fn every_verb(cluster: Cluster) {
    let migrations = cluster.resource("storagemigration.k8s.io/v1", "storageversionmigrations", None);
    let (name, label) = (cluster.unique("migrated"), cluster.unique("label"));
    let body = |name: &str, resource: &str| {
        json!({
            "metadata": {"name": name, "labels": {"test": label}},
            "spec": {"resource": {"group": "", "resource": resource}},
        })
    };
    let created = migrations.create(&body(&name, "podtemplates")).await.unwrap();
    let done = eventually("it has succeeded", async || {
        let read = migrations.get(&name).await.unwrap();
        (condition(&read, "Succeeded")["status"] == "True").then_some(read)
    })
    .await;
    assert_eq!(
        condition(&done, "Succeeded")["reason"],
        "StorageVersionMigrationSucceeded"
    );
    let ended = eventually("it runs no more", async || {
        let read = migrations.get(&name).await.unwrap();
        (condition(&read, "Running")["status"] == "False").then_some(read)
    })
    .await;
    assert_eq!(condition(&ended, "Running")["reason"], "MigrationCompleted");
    assert!(
        !done["status"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
    );
    let absent = format!("{name}-absent");
    migrations.create(&body(&absent, "neverserved")).await.unwrap();
    let failed = eventually("it has failed", async || {
        let read = migrations.get(&absent).await.unwrap();
        (condition(&read, "Failed")["status"] == "True").then_some(read)
    })
    .await;
    assert_eq!(condition(&failed, "Failed")["reason"], "StorageVersionMigrationFailed");

    let selector = format!("test={label}");
    let list = migrations.list(&ListParams::default().labels(&selector)).await.unwrap();
    assert_eq!(items(&list).len(), 2);
    let mut watch = migrations.watch(&selector, &revision(&list)).await;
    let patched = migrations
        .patch(
            &name,
            &json_patch(json!([{"op": "add", "path": "/metadata/annotations", "value": {"mark": "patched"}}])),
        )
        .await
        .unwrap();
    assert_eq!(patched["metadata"]["annotations"]["mark"], "patched");
    watch
        .until("MODIFIED", |object| {
            object["metadata"]["annotations"]["mark"] == "patched"
        })
        .await;
    let mut replacement = migrations.get(&name).await.unwrap();
    replacement["metadata"]["annotations"]["mark"] = json!("replaced");
    let replaced = migrations.replace(&replacement).await.unwrap();
    assert_eq!(replaced["metadata"]["annotations"]["mark"], "replaced");
    replacement = replaced;
    replacement["spec"]["resource"]["resource"] = json!("pods");
    refused(migrations.replace(&replacement).await, 422, "Invalid");
    let status = migrations.get_sub(&name, "status").await.unwrap();
    assert_eq!(condition(&status, "Succeeded")["status"], "True");
    let patch = json!({"metadata": {"annotations": {"mark": "status"}}});
    let through_status = migrations.merge_sub(&name, "status", patch).await.unwrap();
    assert_eq!(through_status["metadata"]["annotations"]["mark"], "status");
    assert_eq!(through_status["metadata"]["uid"], created["metadata"]["uid"]);
    migrations.delete(&name).await.unwrap();
    watch.until("DELETED", |_| true).await;
    refused(migrations.get(&name).await, 404, "NotFound");
    migrations.delete_collection(&selector).await.unwrap();
    let list = migrations.list(&ListParams::default().labels(&selector)).await.unwrap();
    assert!(items(&list).is_empty());
}
