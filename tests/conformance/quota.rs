//! Quotas and limit ranges as objects.

use crate::cluster::Cluster;
use crate::lifecycle::{names, namespaced};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::json;

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

async fn update_and_delete(cluster: Cluster) {
    let namespace = cluster.namespace("quota").await;
    let quotas = cluster.core("resourcequotas", Some(&namespace));
    let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}});
    let created = quotas.create(&quota).await.unwrap();
    assert_eq!(created["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    let mut replacement = quotas.get("one").await.unwrap();
    replacement["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    let replaced = quotas.replace(&replacement).await.unwrap();
    assert_eq!(replaced["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    quotas.delete("one").await.unwrap();
    assert_eq!(quotas.get("one").await.unwrap_err().reason, "NotFound");
}

async fn lifecycle(cluster: Cluster) {
    namespaced(
        "v1",
        "resourcequotas",
        "ResourceQuota",
        json!({"spec": {"hard": {"services": "10"}}}),
    )
    .change(json!({"spec": {"hard": {"services": "20", "requests.cpu": "4"}}}))
    .run(&cluster)
    .await;
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
