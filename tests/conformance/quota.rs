//! Quotas and limit ranges as objects.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::{names, namespaced};
use crate::resource::{Resource, revision};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota.",
            update_and_delete,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota",
            lifecycle,
        ),
        test(
            "[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection",
            limit_ranges,
        ),
    ]
}

/// Waits until the limits that are wanted are told as those that hold.
async fn counted(quotas: &Resource, name: &str) -> Value {
    eventually("the quota is counted", async || {
        let quota = quotas.get(name).await.unwrap();
        (quota["status"]["hard"] == quota["spec"]["hard"]).then_some(quota)
    })
    .await
}

async fn update_and_delete(cluster: Cluster) {
    let namespace = cluster.namespace("quota").await;
    let quotas = cluster.core("resourcequotas", Some(&namespace));
    let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}});
    let created = quotas.create(&quota).await.unwrap();
    assert_eq!(created["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    let mut replacement = counted(&quotas, "one").await;
    replacement["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    let replaced = quotas.replace(&replacement).await.unwrap();
    assert_eq!(replaced["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    assert_eq!(
        counted(&quotas, "one").await["status"]["used"],
        json!({"cpu": "0", "memory": "0"})
    );
    quotas.delete("one").await.unwrap();
    assert_eq!(quotas.get("one").await.unwrap_err().reason, "NotFound");
}

async fn lifecycle(cluster: Cluster) {
    let (label, namespace) = (cluster.unique("lifecycle"), cluster.namespace("quota").await);
    let (quotas, everywhere) = (
        cluster.core("resourcequotas", Some(&namespace)),
        cluster.core("resourcequotas", None),
    );
    let selector = format!("test={label}");
    let quota = |name: &str| json!({"metadata": {"name": name, "labels": {"test": label}}, "spec": {"hard": {"services": "10"}}});
    for name in ["one", "two"] {
        quotas.create(&quota(name)).await.unwrap();
    }
    assert_eq!(
        refused(quotas.create(&quota("one")).await, 409, "AlreadyExists").code,
        409
    );
    assert_eq!(everywhere.labelled(&selector).await.len(), 2);
    let before = counted(&quotas, "one").await;
    let mut watch = everywhere.watch(&selector, &revision(&before)).await;
    let change =
        json!({"metadata": {"labels": {"more": "x"}}, "spec": {"hard": {"services": "20", "requests.cpu": "4"}}});
    let patched = quotas.merge("one", change).await.unwrap();
    assert_eq!(patched["spec"]["hard"], json!({"services": "20", "requests.cpu": "4"}));
    assert_eq!(
        patched["status"], before["status"],
        "whoever changes the limits does not count"
    );
    let follows = watch
        .until("MODIFIED", |quota| quota["status"]["hard"] == patched["spec"]["hard"])
        .await;
    assert_eq!(follows["status"]["used"], json!({"services": "0", "requests.cpu": "0"}));
    everywhere.list(&ListParams::default().labels("more=x")).await.unwrap();
    quotas.delete_collection(&selector).await.unwrap();
    for _ in 0..2 {
        watch.until("DELETED", |_| true).await;
    }
    assert!(everywhere.labelled(&selector).await.is_empty());
}

async fn limit_ranges(cluster: Cluster) {
    let limit = |cpu: &str| {
        json!([{
            "type": "Container", "max": {"cpu": cpu}, "min": {"cpu": "50m"},
            "default": {"cpu": "100m"}, "defaultRequest": {"cpu": "60m"},
        }])
    };
    namespaced(
        "v1",
        "limitranges",
        "LimitRange",
        json!({"spec": {"limits": limit("500m")}}),
    )
    .change(json!({"spec": {"limits": limit("700m")}}))
    .run(&cluster)
    .await;
    // Of two namespaces, the collection of one is deleted.
    let label = cluster.unique("limits");
    let selector = format!("set={label}");
    let (here, there) = (cluster.namespace("limits").await, cluster.namespace("limits").await);
    for namespace in [&here, &there] {
        let range = json!({"metadata": {"name": namespace, "labels": {"set": label}}, "spec": {"limits": limit("1")}});
        cluster
            .core("limitranges", Some(namespace))
            .create(&range)
            .await
            .unwrap();
    }
    cluster
        .core("limitranges", Some(&here))
        .delete_collection(&selector)
        .await
        .unwrap();
    let everywhere = cluster.core("limitranges", None);
    let list = everywhere.list(&ListParams::default().labels(&selector)).await.unwrap();
    assert_eq!(names(&list), [there]);
}
