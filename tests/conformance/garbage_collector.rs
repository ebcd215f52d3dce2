//! What becomes of dependents when their owners are deleted.

use crate::cluster::{Cluster, eventually, eventually_every};
use crate::pods::{SLEEP, container};
use crate::resource::{Resource, items, name};
use crate::runner::{Test, pod_test, test};
use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use serde_json::{Value, json};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning",
            replica_sets_go,
        ),
        test(
            "[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning",
            pods_go,
        ),
        test(
            "[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan",
            replica_sets_stay,
        ),
        pod_test(
            "[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so",
            pods_stay,
        ),
        pod_test(
            "[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so",
            owner_waits,
        ),
        pod_test(
            "[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted",
            second_owner,
        ),
        pod_test(
            "[sig-api-machinery] Garbage collector should not be blocked by dependency circle",
            circle,
        ),
    ]
}

fn policy(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams {
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    }
}

fn spec(replicas: usize, selector: Value, app: &str) -> Value {
    json!({
        "replicas": replicas, "selector": selector,
        "template": {
            "metadata": {"labels": {"app": app}},
            "spec": {"containers": [container("main", SLEEP)], "terminationGracePeriodSeconds": 1},
        },
    })
}

fn controller(name: &str, replicas: usize) -> Value {
    json!({"metadata": {"name": name}, "spec": spec(replicas, json!({"app": name}), name)})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": spec(2, json!({"matchLabels": {"app": name}}), name)})
}

async fn all(resource: &Resource) -> Vec<Value> {
    items(&resource.list(&ListParams::default()).await.unwrap())
}

async fn until_count(resource: &Resource, count: usize) -> Vec<Value> {
    eventually(&format!("{count} {}", resource.plural), async || {
        let found = all(resource).await;
        (found.len() == count).then_some(found)
    })
    .await
}

async fn until_gone(resource: &Resource, name: &str) {
    eventually_every(Duration::from_millis(100), &format!("{name} is gone"), async || {
        resource.get(name).await.is_err().then_some(())
    })
    .await;
}

fn owner_names(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .map(|owner| owner["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Long enough for a mistake to show.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

async fn replica_sets_go(cluster: Cluster) {
    let namespace = cluster.namespace("gc-background").await;
    let deployments = cluster.resource("apps/v1", "deployments", Some(&namespace));
    let sets = cluster.resource("apps/v1", "replicasets", Some(&namespace));
    deployments.create(&deployment("web")).await.unwrap();
    until_count(&sets, 1).await;
    deployments
        .delete_with("web", &policy(PropagationPolicy::Background))
        .await
        .unwrap();
    until_gone(&deployments, "web").await;
    until_count(&sets, 0).await;
    until_count(&cluster.core("pods", Some(&namespace)), 0).await;
}

async fn pods_go(cluster: Cluster) {
    let namespace = cluster.namespace("gc-pods").await;
    let controllers = cluster.core("replicationcontrollers", Some(&namespace));
    let pods = cluster.core("pods", Some(&namespace));
    controllers.create(&controller("web", 2)).await.unwrap();
    until_count(&pods, 2).await;
    controllers
        .delete_with("web", &policy(PropagationPolicy::Background))
        .await
        .unwrap();
    until_gone(&controllers, "web").await;
    until_count(&pods, 0).await;
}

async fn replica_sets_stay(cluster: Cluster) {
    let namespace = cluster.namespace("gc-orphan").await;
    let deployments = cluster.resource("apps/v1", "deployments", Some(&namespace));
    let sets = cluster.resource("apps/v1", "replicasets", Some(&namespace));
    deployments.create(&deployment("web")).await.unwrap();
    let set = until_count(&sets, 1).await.remove(0);
    assert_eq!(owner_names(&set), ["web"]);
    deployments
        .delete_with("web", &policy(PropagationPolicy::Orphan))
        .await
        .unwrap();
    until_gone(&deployments, "web").await;
    a_while().await;
    let left = sets.get(name(&set)).await.unwrap();
    assert_eq!(owner_names(&left), [""; 0]);
    assert_eq!(left["metadata"]["uid"], set["metadata"]["uid"]);
    assert!(left["metadata"]["deletionTimestamp"].is_null());
}

async fn pods_stay(cluster: Cluster) {
    const REPLICAS: usize = 4;
    let namespace = cluster.namespace("gc-orphan").await;
    let controllers = cluster.core("replicationcontrollers", Some(&namespace));
    let pods = cluster.core("pods", Some(&namespace));
    controllers.create(&controller("web", REPLICAS)).await.unwrap();
    until_count(&pods, REPLICAS).await;
    let marked = controllers
        .delete_with("web", &policy(PropagationPolicy::Orphan))
        .await
        .unwrap();
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
    until_gone(&controllers, "web").await;
    a_while().await;
    let left = all(&pods).await;
    assert_eq!(left.len(), REPLICAS);
    for pod in left {
        assert_eq!(owner_names(&pod), [""; 0], "{pod}");
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{pod}");
    }
}

async fn owner_waits(cluster: Cluster) {
    let namespace = cluster.namespace("gc-foreground").await;
    let controllers = cluster.core("replicationcontrollers", Some(&namespace));
    let pods = cluster.core("pods", Some(&namespace));
    controllers.create(&controller("web", 3)).await.unwrap();
    until_count(&pods, 3).await;
    let marked = controllers
        .delete_with("web", &policy(PropagationPolicy::Foreground))
        .await
        .unwrap();
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    eventually("the owner goes, after its pods", async || {
        let owner = controllers.get("web").await;
        let left = all(&pods).await;
        match owner {
            // What is there now was there before.
            Ok(owner) => {
                assert!(owner["metadata"]["deletionTimestamp"].is_string(), "{owner}");
                None
            }
            Err(_) => {
                assert!(left.is_empty(), "the owner did not wait for {} pods", left.len());
                Some(())
            }
        }
    })
    .await;
}

async fn second_owner(cluster: Cluster) {
    let namespace = cluster.namespace("gc-two").await;
    let controllers = cluster.core("replicationcontrollers", Some(&namespace));
    let pods = cluster.core("pods", Some(&namespace));
    controllers.create(&controller("goes", 4)).await.unwrap();
    let stays = controllers.create(&controller("stays", 0)).await.unwrap();
    let made = until_count(&pods, 4).await;
    let kept: Vec<&str> = made[..2].iter().map(name).collect();
    for pod in &kept {
        let second = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ReplicationController", "name": "stays", "uid": stays["metadata"]["uid"]},
        ]}});
        pods.patch(pod, &kube::api::Patch::Strategic(second)).await.unwrap();
    }
    controllers
        .delete_with("goes", &policy(PropagationPolicy::Foreground))
        .await
        .unwrap();
    until_gone(&controllers, "goes").await;
    a_while().await;
    let left = all(&pods).await;
    let names: Vec<&str> = left.iter().map(name).collect();
    assert_eq!(names, kept);
    for pod in &left {
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{pod}");
        assert_eq!(owner_names(pod), ["stays"]);
    }
    controllers
        .delete_with("stays", &policy(PropagationPolicy::Background))
        .await
        .unwrap();
    until_count(&pods, 0).await;
}

async fn circle(cluster: Cluster) {
    let namespace = cluster.namespace("gc-circle").await;
    let pods = cluster.core("pods", Some(&namespace));
    let mut made = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        made.push(pods.create(&crate::pods::sleeper(name)).await.unwrap());
    }
    for (index, pod) in made.iter().enumerate() {
        let owner = &made[(index + 2) % 3];
        let owned = json!({"metadata": {"ownerReferences": [{
            "apiVersion": "v1", "kind": "Pod", "name": name(owner), "uid": owner["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }]}});
        pods.merge(name(pod), owned).await.unwrap();
    }
    pods.delete_with("pod1", &policy(PropagationPolicy::Foreground))
        .await
        .unwrap();
    until_count(&pods, 0).await;
}
