//! Namespaces as objects: labels, status, finalizers, and the end of what is in them.

use crate::cluster::{Cluster, eventually, refused};
use crate::pods::sleeper;
use crate::resource::{items, merge_into};
use crate::runner::{Test, pod_test, test};
use kube::api::ListParams;
use serde_json::json;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] Namespaces should apply a finalizer to a Namespace",
            finalizer,
        ),
        test(
            "[sig-api-machinery] Namespaces should apply an update to a Namespace",
            update,
        ),
        test(
            "[sig-api-machinery] Namespaces should apply changes to a namespace status",
            status,
        ),
        test(
            "[sig-api-machinery] Namespaces should ensure that all services are removed when a namespace is deleted",
            services_go,
        ),
        test("[sig-api-machinery] Namespaces should patch a Namespace", patch),
        pod_test(
            "[sig-api-machinery] Namespaces should ensure that all pods are removed when a namespace is deleted",
            pods_go,
        ),
        pod_test(
            "[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first",
            pods_go_first,
        ),
    ]
}

async fn patch(cluster: Cluster) {
    let name = cluster.namespace("patched").await;
    let namespaces = cluster.core("namespaces", None);
    namespaces
        .patch(
            &name,
            &kube::api::Patch::Strategic(json!({"metadata": {"labels": {"tests": "patched"}}})),
        )
        .await
        .unwrap();
    let read = namespaces.get(&name).await.unwrap();
    assert_eq!(read["metadata"]["labels"]["tests"], "patched");
    assert_eq!(read["metadata"]["labels"]["kubernetes.io/metadata.name"], name);
    namespaces.delete(&name).await.unwrap();
}

async fn update(cluster: Cluster) {
    let name = cluster.namespace("updated").await;
    let namespaces = cluster.core("namespaces", None);
    let mut namespace = namespaces.get(&name).await.unwrap();
    merge_into(&mut namespace, json!({"metadata": {"labels": {"tests": "updated"}}}));
    let updated = namespaces.replace(&namespace).await.unwrap();
    assert_eq!(updated["metadata"]["labels"]["tests"], "updated");
    assert_eq!(updated["status"]["phase"], "Active");
    namespaces.delete(&name).await.unwrap();
}

async fn status(cluster: Cluster) {
    let name = cluster.namespace("status").await;
    let namespaces = cluster.core("namespaces", None);
    let before = namespaces.get_sub(&name, "status").await.unwrap();
    assert_eq!(before["status"]["phase"], "Active");
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Test", "message": "by a test",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        })
    };
    let patch = json!({
        "metadata": {"annotations": {"mark": "patched"}},
        "status": {"conditions": [condition("StatusPatched")]},
    });
    let patched = namespaces.merge_sub(&name, "status", patch).await.unwrap();
    assert_eq!(patched["metadata"]["annotations"]["mark"], "patched");
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatched");
    let mut replacement = patched.clone();
    replacement["status"]["conditions"] = json!([condition("StatusPatched"), condition("StatusUpdated")]);
    let replaced = namespaces.replace_sub("status", &replacement).await.unwrap();
    assert_eq!(replaced["status"]["conditions"][1], condition("StatusUpdated"));
    assert_eq!(replaced["status"]["phase"], "Active");
    namespaces.delete(&name).await.unwrap();
}

async fn finalizer(cluster: Cluster) {
    let name = cluster.namespace("finalized").await;
    let namespaces = cluster.core("namespaces", None);
    let mut namespace = namespaces.get(&name).await.unwrap();
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    namespace["spec"]["finalizers"] = json!(["kubernetes", "tests.example.com/keep"]);
    // Only the subresource writes them.
    let through_main = namespaces.replace(&namespace).await.unwrap();
    assert_eq!(through_main["spec"]["finalizers"], json!(["kubernetes"]));
    namespace["metadata"]["resourceVersion"] = through_main["metadata"]["resourceVersion"].clone();
    let with = namespaces.replace_sub("finalize", &namespace).await.unwrap();
    assert_eq!(
        with["spec"]["finalizers"],
        json!(["kubernetes", "tests.example.com/keep"])
    );
    namespaces.delete(&name).await.unwrap();
    let mut ending = eventually("only our finalizer is left", async || {
        let read = namespaces.get(&name).await.unwrap();
        (read["spec"]["finalizers"] == json!(["tests.example.com/keep"])).then_some(read)
    })
    .await;
    assert_eq!(ending["status"]["phase"], "Terminating");
    ending["spec"]["finalizers"] = json!([]);
    namespaces.replace_sub("finalize", &ending).await.unwrap();
    eventually("the namespace is gone", async || {
        namespaces.get(&name).await.is_err().then_some(())
    })
    .await;
    refused(namespaces.get(&name).await, 404, "NotFound");
}

async fn services_go(cluster: Cluster) {
    let name = cluster.namespace("emptied").await;
    let services = cluster.core("services", Some(&name));
    let service = json!({
        "metadata": {"name": "test-service"},
        "spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": 80}]},
    });
    services.create(&service).await.unwrap();
    let namespaces = cluster.core("namespaces", None);
    namespaces.delete(&name).await.unwrap();
    let new = json!({"metadata": {"name": "late"}, "spec": {"ports": [{"port": 80}]}});
    eventually("the namespace is gone", async || {
        namespaces.get(&name).await.is_err().then_some(())
    })
    .await;
    refused(services.create(&new).await, 404, "NotFound");
    namespaces.create(&json!({"metadata": {"name": name}})).await.unwrap();
    refused(services.get("test-service").await, 404, "NotFound");
    namespaces.delete(&name).await.unwrap();
}

async fn pods_go(cluster: Cluster) {
    let pods = cluster.pods("emptied").await;
    pods.ready(&sleeper("test-pod")).await;
    let name = pods.namespace.clone();
    let namespaces = cluster.core("namespaces", None);
    namespaces.delete(&name).await.unwrap();
    eventually("the namespace is gone", async || {
        namespaces.get(&name).await.is_err().then_some(())
    })
    .await;
    namespaces.create(&json!({"metadata": {"name": name}})).await.unwrap();
    let left = pods.core("pods").list(&ListParams::default()).await.unwrap();
    assert!(items(&left).is_empty(), "{left}");
    namespaces.delete(&name).await.unwrap();
}

async fn pods_go_first(cluster: Cluster) {
    let pods = cluster.pods("ordered").await;
    let name = pods.namespace.clone();
    let (namespaces, maps) = (cluster.core("namespaces", None), pods.core("configmaps"));
    let mut held = sleeper("held");
    held["metadata"]["finalizers"] = json!(["tests.example.com/held"]);
    pods.create(&held).await;
    maps.create(&json!({"metadata": {"name": "used"}})).await.unwrap();
    namespaces.delete(&name).await.unwrap();
    let read = eventually("the namespace says what it waits for", async || {
        let read = namespaces.get(&name).await.unwrap();
        let conditions = read["status"]["conditions"].as_array()?;
        let says = |kind: &str, text: &str| {
            conditions.iter().any(|condition| {
                condition["type"] == kind && condition["status"] == "True" && condition["message"] == text
            })
        };
        let remaining = "Some resources are remaining: pods. has 1 resource instances";
        let finalizers =
            "Some content in the namespace has finalizers remaining: tests.example.com/held in 1 resource instances";
        (says("NamespaceContentRemaining", remaining) && says("NamespaceFinalizersRemaining", finalizers))
            .then_some(read.clone())
    })
    .await;
    assert_eq!(read["status"]["phase"], "Terminating");
    let pod = pods.core("pods").get("held").await.unwrap();
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let map = maps.get("used").await.unwrap();
    assert!(map["metadata"]["deletionTimestamp"].is_null(), "pods go first");
    let released = json!({"metadata": {"finalizers": null}});
    pods.core("pods").merge("held", released).await.unwrap();
    eventually("the namespace is gone", async || {
        namespaces.get(&name).await.is_err().then_some(())
    })
    .await;
}
