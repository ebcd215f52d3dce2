//! ReplicaSets and ReplicationControllers.

use crate::cluster::{Cluster, eventually, refused};
use crate::pods::{AGNHOST_TWO, PODS_PATIENCE, Pods, condition, server, sleeper};
use crate::resource::{Resource, Watch, items, name, revision};
use crate::runner::{Test, pod_test, test};
use kube::api::{ListParams, WatchParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-apps] ReplicaSet should serve a basic image on each replica with a public image",
            async |cluster| serves(SET, cluster).await,
        ),
        pod_test(
            "[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods",
            async |cluster| {
                adopts(SET, cluster.clone()).await;
                releases(SET, cluster).await;
            },
        ),
        pod_test(
            "[sig-apps] ReplicaSet Replicaset should have a working scale subresource",
            async |cluster| {
                scale(SET, cluster).await;
            },
        ),
        pod_test("[sig-apps] ReplicaSet Replace and Patch tests", replace_and_patch),
        pod_test(
            "[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets",
            collection,
        ),
        pod_test(
            "[sig-apps] ReplicaSet should validate Replicaset Status endpoints",
            async |cluster| {
                status_endpoints(SET, cluster).await;
            },
        ),
        pod_test(
            "[sig-apps] ReplicationController should serve a basic image on each replica with a public image",
            async |cluster| serves(CONTROLLER, cluster).await,
        ),
        pod_test(
            "[sig-apps] ReplicationController should adopt matching pods on creation",
            async |cluster| adopts(CONTROLLER, cluster).await,
        ),
        pod_test(
            "[sig-apps] ReplicationController should release no longer matching pods",
            async |cluster| releases(CONTROLLER, cluster).await,
        ),
        pod_test(
            "[sig-apps] ReplicationController should get and update a ReplicationController scale",
            async |cluster| scale(CONTROLLER, cluster).await,
        ),
        pod_test(
            "[sig-apps] ReplicationController should test the lifecycle of a ReplicationController",
            lifecycle,
        ),
        test(
            "[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota",
            exceeded_quota,
        ),
    ]
}

/// A kind that keeps replicas.
#[derive(Clone, Copy)]
struct Kind {
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const SET: Kind = Kind {
    api_version: "apps/v1",
    kind: "ReplicaSet",
    plural: "replicasets",
};
const CONTROLLER: Kind = Kind {
    api_version: "v1",
    kind: "ReplicationController",
    plural: "replicationcontrollers",
};

impl Kind {
    fn resource(self, cluster: &Cluster, pods: &Pods) -> Resource {
        cluster.resource(self.api_version, self.plural, Some(&pods.namespace))
    }

    /// One that keeps so many of `pod`, which are found by the label `name`.
    fn of(self, name: &str, replicas: i32, pod: &Value) -> Value {
        let labels = json!({"name": name});
        let selector = if self.kind == "ReplicaSet" {
            json!({"matchLabels": labels})
        } else {
            labels.clone()
        };
        json!({
            "apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": name, "labels": labels},
            "spec": {"replicas": replicas, "selector": selector, "template": template(labels, pod)},
        })
    }
}

/// A template of pods like `pod`, which are started again for ever.
pub fn template(labels: Value, pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    spec.as_object_mut().unwrap().remove("restartPolicy");
    json!({"metadata": {"labels": labels}, "spec": spec})
}

/// The object once it is so.
pub async fn until(resource: &Resource, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PODS_PATIENCE;
    loop {
        let object = resource.get(name).await.unwrap();
        if so(&object) {
            return object;
        }
        assert!(Instant::now() < deadline, "{name} is not {what}: {}", object["status"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A watch for a test that takes its time.
pub async fn long_watch(resource: &Resource, selector: &str, revision: &str) -> Watch {
    let parameters = WatchParams::default().labels(selector).timeout(280);
    let watch = resource.watch_with(&parameters, revision).await;
    watch.with_patience(PODS_PATIENCE)
}

pub fn has_ready(replicas: i32) -> impl Fn(&Value) -> bool {
    move |object| {
        let status = &object["status"];
        let observed = status["observedGeneration"] == object["metadata"]["generation"];
        observed
            && status["replicas"] == replicas
            && status["readyReplicas"].as_i64().unwrap_or(0) == i64::from(replicas)
    }
}

pub fn controller_of(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

async fn serves(kind: Kind, cluster: Cluster) {
    let pods = cluster.pods("serves").await;
    let owners = kind.resource(&cluster, &pods);
    owners.create(&kind.of("basic", 2, &server("x"))).await.unwrap();
    until(&owners, "basic", "ready", has_ready(2)).await;
    let replicas = pods.resource.labelled("name=basic").await;
    assert_eq!(replicas.len(), 2);
    for pod in &replicas {
        let owner = controller_of(pod).expect("a controller");
        assert_eq!((&owner["kind"], &owner["name"]), (&json!(kind.kind), &json!("basic")));
        // Each answers with its own name, through the API server.
        let uri = format!(
            "/api/v1/namespaces/{}/pods/{}:80/proxy/hostname",
            pods.namespace,
            name(pod)
        );
        let answer = cluster.get(&uri).await;
        assert_eq!((answer.code, answer.text.trim()), (200, name(pod)));
    }
}

async fn adopts(kind: Kind, cluster: Cluster) {
    let pods = cluster.pods("adopts").await;
    let orphan = pods.create(&sleeper("adopted")).await;
    assert!(controller_of(&orphan).is_none());
    let owners = kind.resource(&cluster, &pods);
    let owner = owners.create(&kind.of("adopted", 1, &sleeper("x"))).await.unwrap();
    let adopted = pods
        .until("adopted", "adopted", |pod| controller_of(pod).is_some())
        .await;
    assert_eq!(controller_of(&adopted).unwrap()["uid"], owner["metadata"]["uid"]);
    // It is one of the replicas: no other is made.
    until(&owners, "adopted", "ready", has_ready(1)).await;
    assert_eq!(pods.resource.labelled("name=adopted").await.len(), 1);
}

async fn releases(kind: Kind, cluster: Cluster) {
    let pods = cluster.pods("releases").await;
    let owners = kind.resource(&cluster, &pods);
    owners.create(&kind.of("one", 1, &sleeper("x"))).await.unwrap();
    until(&owners, "one", "ready", has_ready(1)).await;
    let first = pods.resource.labelled("name=one").await.remove(0);
    let label = json!({"metadata": {"labels": {"name": "not-one"}}});
    pods.resource.merge(name(&first), label).await.unwrap();
    pods.until(name(&first), "released", |pod| controller_of(pod).is_none())
        .await;
    // Another takes its place; until it is made, the status may still tell of the first.
    eventually("another replica", async || {
        let replicas = pods.resource.labelled("name=one").await;
        (!replicas.is_empty()).then_some(())
    })
    .await;
    until(&owners, "one", "ready again", has_ready(1)).await;
    let replicas = pods.resource.labelled("name=one").await;
    assert_eq!(replicas.len(), 1);
    assert_ne!(name(&replicas[0]), name(&first));
}

async fn scale(kind: Kind, cluster: Cluster) {
    let pods = cluster.pods("scale").await;
    let owners = kind.resource(&cluster, &pods);
    owners.create(&kind.of("scaled", 1, &sleeper("x"))).await.unwrap();
    until(&owners, "scaled", "ready", has_ready(1)).await;
    let mut scale = owners.get_sub("scaled", "scale").await.unwrap();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(1), &json!(1))
    );
    scale["metadata"]["resourceVersion"] = json!("");
    scale["spec"]["replicas"] = json!(2);
    let replaced = owners.replace_sub("scale", &scale).await.unwrap();
    assert_eq!(replaced["spec"]["replicas"], 2);
    until(&owners, "scaled", "ready", has_ready(2)).await;
    let patched = owners
        .merge_sub("scaled", "scale", json!({"spec": {"replicas": 3}}))
        .await
        .unwrap();
    assert_eq!(patched["spec"]["replicas"], 3);
    until(&owners, "scaled", "ready", has_ready(3)).await;
    assert_eq!(
        owners.get_sub("scaled", "scale").await.unwrap()["status"]["replicas"],
        3
    );
}

async fn replace_and_patch(cluster: Cluster) {
    let pods = cluster.pods("replace").await;
    let sets = SET.resource(&cluster, &pods);
    sets.create(&SET.of("set", 1, &server("x"))).await.unwrap();
    let mut set = until(&sets, "set", "ready", has_ready(1)).await;
    let mut watch = long_watch(&sets, "name=set", &revision(&set)).await;
    set["spec"]["replicas"] = json!(2);
    set["metadata"]["resourceVersion"] = json!("");
    sets.replace(&set).await.unwrap();
    watch.until("MODIFIED", has_ready(2)).await;
    let change = json!({
        "metadata": {"labels": {"test-rs": "patched"}},
        "spec": {"replicas": 3, "template": {"spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": AGNHOST_TWO}]}}},
    });
    sets.patch("set", &kube::api::Patch::Strategic(change)).await.unwrap();
    let set = watch.until("MODIFIED", has_ready(3)).await;
    assert_eq!(set["metadata"]["labels"]["test-rs"], "patched");
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], AGNHOST_TWO);
    // Pods that are there already stay as they are.
    let images: Vec<Value> = pods.resource.labelled("name=set").await;
    let new = images
        .iter()
        .filter(|pod| pod["spec"]["containers"][0]["image"] == AGNHOST_TWO);
    assert_eq!(new.count(), 1);
}

async fn collection(cluster: Cluster) {
    let pods = cluster.pods("collection").await;
    let sets = SET.resource(&cluster, &pods);
    sets.create(&SET.of("many", 3, &sleeper("x"))).await.unwrap();
    until(&sets, "many", "ready", has_ready(3)).await;
    let everywhere = cluster.resource("apps/v1", "replicasets", None);
    let mine = |list: Vec<Value>| {
        list.iter()
            .filter(|set| set["metadata"]["namespace"] == pods.namespace)
            .count()
    };
    assert_eq!(mine(everywhere.labelled("name=many").await), 1);
    sets.delete_collection("name=many").await.unwrap();
    eventually("the sets are gone", async || {
        let list = sets.list(&ListParams::default()).await.unwrap();
        items(&list).is_empty().then_some(())
    })
    .await;
}

async fn status_endpoints(kind: Kind, cluster: Cluster) {
    let pods = cluster.pods("status").await;
    let owners = kind.resource(&cluster, &pods);
    owners.create(&kind.of("status", 1, &sleeper("x"))).await.unwrap();
    let ready = until(&owners, "status", "ready", has_ready(1)).await;
    check_status(&owners, &ready, kind.kind).await;
}

/// The status by itself: read, replaced, patched, and seen by a watch.
pub async fn check_status(owners: &Resource, ready: &Value, kind: &str) {
    let name = name(ready);
    let mut watch = owners.watch("", &revision(ready)).await;
    let mut status = owners.get_sub(name, "status").await.unwrap();
    assert_eq!(
        (&status["kind"], &status["metadata"]["name"]),
        (&json!(kind), &json!(name))
    );
    let with = |condition_type: &'static str| {
        move |object: &Value| {
            let conditions = object["status"]["conditions"].as_array();
            conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == condition_type))
        }
    };
    let ours = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    let mut conditions = status["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.push(ours);
    status["status"]["conditions"] = json!(conditions);
    // The controller may write at the same time.
    let mut written = owners.replace_sub("status", &status).await;
    if written.as_ref().is_err_and(|status| status.code == 409) {
        let mut again = owners.get_sub(name, "status").await.unwrap();
        again["status"]["conditions"] = status["status"]["conditions"].clone();
        written = owners.replace_sub("status", &again).await;
    }
    assert!(with("StatusUpdate")(&written.unwrap()));
    watch.until("MODIFIED", with("StatusUpdate")).await;
    let patch = json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}});
    let patched = owners.merge_sub(name, "status", patch).await.unwrap();
    assert!(with("StatusPatched")(&patched));
    watch.until("MODIFIED", with("StatusPatched")).await;
}

async fn lifecycle(cluster: Cluster) {
    let pods = cluster.pods("lifecycle").await;
    let controllers = CONTROLLER.resource(&cluster, &pods);
    let mut watch = long_watch(&controllers, "", "").await;
    controllers
        .create(&CONTROLLER.of("rc", 1, &sleeper("x")))
        .await
        .unwrap();
    watch.until("ADDED", |rc| name(rc) == "rc").await;
    watch.until("MODIFIED", has_ready(1)).await;
    let labels = json!({"metadata": {"labels": {"test-rc": "patched"}}});
    controllers.merge("rc", labels).await.unwrap();
    watch
        .until("MODIFIED", |rc| rc["metadata"]["labels"]["test-rc"] == "patched")
        .await;
    // What is not true does not stay.
    let status = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
    controllers.merge_sub("rc", "status", status).await.unwrap();
    watch
        .until("MODIFIED", |rc| {
            rc["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0
        })
        .await;
    watch.until("MODIFIED", has_ready(1)).await;
    controllers
        .merge_sub("rc", "scale", json!({"spec": {"replicas": 2}}))
        .await
        .unwrap();
    let mut scaled = watch.until("MODIFIED", has_ready(2)).await;
    scaled["metadata"]["labels"]["test-rc"] = json!("updated");
    scaled["metadata"]["resourceVersion"] = json!("");
    controllers.replace(&scaled).await.unwrap();
    watch
        .until("MODIFIED", |rc| rc["metadata"]["labels"]["test-rc"] == "updated")
        .await;
    let everywhere = cluster.core("replicationcontrollers", None);
    assert_eq!(everywhere.labelled("test-rc=updated").await.len(), 1);
    controllers.delete_collection("test-rc=updated").await.unwrap();
    watch.until("DELETED", |rc| name(rc) == "rc").await;
    refused(controllers.get("rc").await, 404, "NotFound");
}

async fn exceeded_quota(cluster: Cluster) {
    let pods = cluster.pods("quota").await;
    let quotas = pods.core("resourcequotas");
    let quota = json!({"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}});
    quotas.create(&quota).await.unwrap();
    eventually("the quota is counted", async || {
        let quota = quotas.get("two").await.unwrap();
        (quota["status"]["hard"]["pods"] == "2").then_some(())
    })
    .await;
    let controllers = CONTROLLER.resource(&cluster, &pods);
    controllers
        .create(&CONTROLLER.of("three", 3, &sleeper("x")))
        .await
        .unwrap();
    let failed = until(&controllers, "three", "refused a pod", |rc| {
        condition(rc, "ReplicaFailure") == "True"
    })
    .await;
    let told = &failed["status"]["conditions"][0];
    assert_eq!(told["reason"], "FailedCreate");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("exceeded quota: two, requested: pods=1, used: pods=2, limited: pods=2"),
        "{message}"
    );
    controllers
        .merge_sub("three", "scale", json!({"spec": {"replicas": 2}}))
        .await
        .unwrap();
    let fits = |rc: &Value| condition(rc, "ReplicaFailure").is_empty() && rc["status"]["replicas"] == 2;
    until(&controllers, "three", "content", fits).await;
}
