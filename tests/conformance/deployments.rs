//! Deployments.

use crate::cluster::{Cluster, refused};
use crate::pods::{AGNHOST, AGNHOST_TWO, BUSYBOX, BUSYBOX_TWO, Pods, condition, server, sleeper, with_main};
use crate::replicas::{check_status, controller_of, has_ready, long_watch, template, until};
use crate::resource::{Resource, items, name, revision};
use crate::runner::{Test, pod_test};
use kube::api::Patch;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones",
            rolling,
        ),
        pod_test(
            "[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones",
            recreate,
        ),
        pod_test(
            "[sig-apps] Deployment deployment should delete old replica sets",
            old_sets_go,
        ),
        pod_test("[sig-apps] Deployment deployment should support rollover", rollover),
        pod_test(
            "[sig-apps] Deployment deployment should support proportional scaling",
            proportional_scaling,
        ),
        pod_test(
            "[sig-apps] Deployment Deployment should have a working scale subresource",
            scale,
        ),
        pod_test(
            "[sig-apps] Deployment should run the lifecycle of a Deployment",
            lifecycle,
        ),
        pod_test(
            "[sig-apps] Deployment should validate Deployment Status endpoints",
            status_endpoints,
        ),
    ]
}

const REVISION: &str = "deployment.kubernetes.io/revision";

/// A deployment, its sets and its pods.
struct Area {
    pods: Pods,
    deployments: Resource,
    sets: Resource,
}

impl Area {
    async fn new(cluster: &Cluster, base: &str) -> Self {
        let pods = cluster.pods(base).await;
        Self {
            deployments: cluster.resource("apps/v1", "deployments", Some(&pods.namespace)),
            sets: cluster.resource("apps/v1", "replicasets", Some(&pods.namespace)),
            pods,
        }
    }

    /// The deployment `name` when the update is over, in upstream's words.
    async fn complete(&self, name: &str) -> Value {
        until(&self.deployments, name, "complete", is_complete).await
    }

    /// Its sets: the one of the deployment's image, and the others.
    async fn sets_of(&self, deployment: &Value) -> (Option<Value>, Vec<Value>) {
        let image = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        let mut all = self.sets.labelled("").await;
        all.retain(|set| controller_of(set).is_some_and(|owner| owner["uid"] == deployment["metadata"]["uid"]));
        let (new, old): (Vec<Value>, Vec<Value>) = all.into_iter().partition(|set| image(set) == image(deployment));
        assert!(new.len() <= 1, "two sets of one template");
        (new.into_iter().next(), old)
    }

    async fn set_image(&self, name: &str, image: &str) -> Value {
        let containers = json!([{"name": "main", "image": image}]);
        let change = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        self.deployments.patch(name, &Patch::Strategic(change)).await.unwrap()
    }
}

fn is_complete(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = spec["replicas"].as_i64().unwrap();
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "availableReplicas", "readyReplicas"]
            .iter()
            .all(|field| count(field) == wanted)
}

/// A deployment of `pod`, whose pods are found by the label `name`; `more` of its spec.
fn deployment(name: &str, replicas: i32, pod: &Value, more: Value) -> Value {
    let labels = json!({"name": name});
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": template(labels, pod),
        },
    });
    crate::resource::merge_into(&mut object["spec"], more);
    object
}

/// A replica set of its own that has pods with these labels.
fn set(name: &str, label: &str, replicas: i32, pod: &Value) -> Value {
    let labels = json!({"name": label, "pod": "old"});
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "labels": labels, "annotations": {REVISION: "3546343826724305832"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(labels, pod)},
    })
}

async fn rolling(cluster: Cluster) {
    let area = Area::new(&cluster, "rolling").await;
    area.sets.create(&set("before", "web", 1, &sleeper("x"))).await.unwrap();
    until(&area.sets, "before", "ready", has_ready(1)).await;
    area.deployments
        .create(&deployment("web", 1, &server("x"), json!({})))
        .await
        .unwrap();
    let done = area.complete("web").await;
    assert_eq!(done["metadata"]["annotations"][REVISION], "3546343826724305833");
    let (new, old) = area.sets_of(&done).await;
    assert_eq!(new.unwrap()["metadata"]["annotations"][REVISION], "3546343826724305833");
    // The set that was there was adopted, and has no pods any more.
    assert_eq!(old.len(), 1);
    assert_eq!((name(&old[0]), &old[0]["spec"]["replicas"]), ("before", &json!(0)));
    let hash = &area.pods.resource.labelled("name=web,pod!=old").await[0]["metadata"]["labels"]["pod-template-hash"];
    assert!(hash.is_string());
    let events = area.pods.events("web").await;
    let of = |part: &str| events.iter().any(|event| event.contains(part));
    assert!(
        of("ScalingReplicaSet: Scaled up replica set web-") && of(" from 0 to 1"),
        "{events:?}"
    );
    assert!(
        of("ScalingReplicaSet: Scaled down replica set before from 1 to 0"),
        "{events:?}"
    );
}

async fn recreate(cluster: Cluster) {
    let area = Area::new(&cluster, "recreate").await;
    let strategy = json!({"strategy": {"type": "Recreate"}});
    // It takes its time to end, so that a new pod beside it would be seen.
    let slow = with_main(
        server("x"),
        json!({"args": ["serve", "--http", "80", "--udp", "81", "--slow-end", "2"]}),
    );
    let mut object = deployment("web", 2, &slow, strategy);
    object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(10);
    area.deployments.create(&object).await.unwrap();
    area.complete("web").await;
    let before = area
        .pods
        .resource
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    let mut watch = long_watch(&area.pods.resource, "name=web", &revision(&before)).await;
    area.set_image("web", AGNHOST_TWO).await;
    let mut old: BTreeSet<String> = items(&before).iter().map(|pod| name(pod).to_owned()).collect();
    assert_eq!(old.len(), 2);
    // No pod of the new template comes before the last old one has ended.
    loop {
        let (kind, pod) = watch.next().await;
        let is_new = pod["spec"]["containers"][0]["image"] == AGNHOST_TWO;
        let ended = kind == "DELETED" || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if is_new {
            assert!(old.is_empty(), "{} is there beside {old:?}", name(&pod));
            if condition(&pod, "Ready") == "True" {
                break;
            }
        } else if ended {
            old.remove(name(&pod));
        }
    }
    area.complete("web").await;
}

async fn old_sets_go(cluster: Cluster) {
    let area = Area::new(&cluster, "history").await;
    area.sets.create(&set("before", "web", 1, &sleeper("x"))).await.unwrap();
    until(&area.sets, "before", "ready", has_ready(1)).await;
    let more = json!({"revisionHistoryLimit": 0});
    area.deployments
        .create(&deployment("web", 1, &server("x"), more))
        .await
        .unwrap();
    let done = area.complete("web").await;
    crate::cluster::eventually("the old set is gone", async || {
        let (new, old) = area.sets_of(&done).await;
        (new.is_some() && old.is_empty()).then_some(())
    })
    .await;
    refused(area.sets.get("before").await, 404, "NotFound");
}

async fn rollover(cluster: Cluster) {
    let area = Area::new(&cluster, "rollover").await;
    area.sets.create(&set("before", "web", 1, &sleeper("x"))).await.unwrap();
    until(&area.sets, "before", "ready", has_ready(1)).await;
    // Its image does not exist, so the old pod must stay.
    let more = json!({
        "minReadySeconds": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    });
    let missing = with_main(server("x"), json!({"image": "missing:nowhere"}));
    area.deployments
        .create(&deployment("web", 1, &missing, more))
        .await
        .unwrap();
    let middle = until(&area.deployments, "web", "in the middle", |web| {
        web["status"]["updatedReplicas"] == 1
    })
    .await;
    let (new, old) = area.sets_of(&middle).await;
    let new = new.expect("a set of the template");
    assert_eq!(
        (&new["spec"]["replicas"], &old[0]["spec"]["replicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(condition(&middle, "Progressing"), "True");
    // Another template takes over; both sets of before end.
    area.set_image("web", AGNHOST).await;
    let done = area.complete("web").await;
    let (last, old) = area.sets_of(&done).await;
    assert_ne!(name(&last.unwrap()), name(&new));
    assert_eq!(old.len(), 2);
    assert!(old.iter().all(|set| set["spec"]["replicas"] == 0), "{old:?}");
}

async fn proportional_scaling(cluster: Cluster) {
    let area = Area::new(&cluster, "proportional").await;
    let more = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2, "maxSurge": 3}}});
    area.deployments
        .create(&deployment("web", 10, &sleeper("x"), more))
        .await
        .unwrap();
    area.complete("web").await;
    area.set_image("web", "missing:nowhere").await;
    let stuck = |web: &Value| {
        let count = |field: &str| web["status"][field].as_i64().unwrap_or(0);
        web["status"]["observedGeneration"] == web["metadata"]["generation"]
            && (count("replicas"), count("updatedReplicas"), count("availableReplicas")) == (13, 5, 8)
    };
    let middle = until(&area.deployments, "web", "at its limits", stuck).await;
    assert_eq!(condition(&middle, "Available"), "True");
    let scale = json!({"spec": {"replicas": 15}});
    area.deployments.merge_sub("web", "scale", scale).await.unwrap();
    // Eight of thirteen become eleven of eighteen.
    let done = until(&area.deployments, "web", "larger", |web| {
        web["status"]["replicas"] == 18
    })
    .await;
    let (new, old) = area.sets_of(&done).await;
    assert_eq!(
        (&new.unwrap()["spec"]["replicas"], &old[0]["spec"]["replicas"]),
        (&json!(7), &json!(11))
    );
}

async fn scale(cluster: Cluster) {
    let area = Area::new(&cluster, "scale").await;
    area.deployments
        .create(&deployment("web", 1, &sleeper("x"), json!({})))
        .await
        .unwrap();
    area.complete("web").await;
    let mut scale = area.deployments.get_sub("web", "scale").await.unwrap();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(1), &json!(1))
    );
    scale["metadata"]["resourceVersion"] = json!("");
    scale["spec"]["replicas"] = json!(2);
    area.deployments.replace_sub("scale", &scale).await.unwrap();
    assert_eq!(area.complete("web").await["spec"]["replicas"], 2);
    let patch = json!({"spec": {"replicas": 4}});
    area.deployments.merge_sub("web", "scale", patch).await.unwrap();
    assert_eq!(area.complete("web").await["spec"]["replicas"], 4);
    let events = area.pods.events("web").await;
    assert!(events.iter().any(|event| event.ends_with(" from 2 to 4")), "{events:?}");
}

async fn lifecycle(cluster: Cluster) {
    let area = Area::new(&cluster, "lifecycle").await;
    let web = &area.deployments;
    let mut watch = long_watch(web, "", "").await;
    let mut object = deployment("web", 2, &sleeper("x"), json!({}));
    object["metadata"]["labels"]["static"] = json!("true");
    web.create(&object).await.unwrap();
    watch.until("ADDED", |web| name(web) == "web").await;
    watch.until("MODIFIED", is_complete).await;
    let change = json!({
        "metadata": {"labels": {"patched": "true"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "main", "image": BUSYBOX_TWO}]}}},
    });
    web.patch("web", &Patch::Strategic(change)).await.unwrap();
    let patched = watch.until("MODIFIED", is_complete).await;
    assert_eq!(
        (&patched["metadata"]["labels"]["patched"], &patched["spec"]["replicas"]),
        (&json!("true"), &json!(1))
    );
    assert_eq!(patched["metadata"]["annotations"][REVISION], "2");
    let everywhere = cluster.resource("apps/v1", "deployments", None);
    assert_eq!(everywhere.labelled("patched=true,static=true").await.len(), 1);
    let mut replacement = web.get("web").await.unwrap();
    replacement["metadata"]["resourceVersion"] = json!("");
    replacement["spec"]["template"]["spec"]["containers"][0]["image"] = json!(BUSYBOX);
    web.replace(&replacement).await.unwrap();
    let replaced = watch
        .until("MODIFIED", |web| is_complete(web) && web["metadata"]["generation"] != 2)
        .await;
    // The template of the first revision is back: its set is the new one.
    let (new, _) = area.sets_of(&replaced).await;
    assert_eq!(
        new.unwrap()["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"],
        "1"
    );
    // What is not true does not stay.
    web.merge_sub(
        "web",
        "status",
        json!({"status": {"readyReplicas": 0, "availableReplicas": 0}}),
    )
    .await
    .unwrap();
    watch
        .until("MODIFIED", |web| {
            web["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0
        })
        .await;
    watch.until("MODIFIED", is_complete).await;
    web.delete_collection("static=true").await.unwrap();
    watch.until("DELETED", |web| name(web) == "web").await;
    refused(web.get("web").await, 404, "NotFound");
}

async fn status_endpoints(cluster: Cluster) {
    let area = Area::new(&cluster, "status").await;
    area.deployments
        .create(&deployment("web", 1, &sleeper("x"), json!({})))
        .await
        .unwrap();
    let ready = area.complete("web").await;
    // The last word on the update has been said.
    tokio::time::sleep(Duration::from_millis(300)).await;
    check_status(&area.deployments, &ready, "Deployment").await;
}
