//! StatefulSets with running pods.

use crate::cluster::Cluster;
use crate::pods::{BUSYBOX, BUSYBOX_TWO};
use crate::replicas::long_watch;
use crate::resource::{merge_into, name};
use crate::runner::{Test, pod_test};
use crate::sets::{Set, image, image_of};
use serde_json::{Value, json};

macro_rules! basic {
    ($name:literal, $run:ident) => {
        pod_test(
            concat!(
                "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] ",
                $name
            ),
            $run,
        )
    };
}

pub fn tests() -> Vec<Test> {
    vec![
        basic!(
            "Burst scaling should run to completion even with unhealthy pods",
            burst_scaling
        ),
        basic!(
            "Scaling should happen in predictable order and halt if any stateful pod is unhealthy",
            ordered_scaling
        ),
        basic!("Should recreate evicted statefulset", recreated),
        basic!("should have a working scale subresource", scale),
        basic!("should list, patch and delete a collection of StatefulSets", collection),
        basic!(
            "should perform canary updates and phased rolling updates of template modifications",
            canary
        ),
        basic!(
            "should perform rolling updates and roll backs of template modifications",
            rolling
        ),
        basic!("should validate Statefulset Status endpoints", status),
    ]
}

async fn set(cluster: &Cluster, more: Value) -> Set {
    let mut whole = json!({"serviceName": "svc", "replicas": 3});
    merge_into(&mut whole, more);
    Set::create(cluster, "statefulsets", whole).await
}

fn ready(replicas: i32) -> Value {
    json!({"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas})
}

/// `set-0 image`, and so on.
fn images(pods: &[Value]) -> Vec<String> {
    pods.iter()
        .map(|pod| format!("{} {}", name(pod), image_of(pod)))
        .collect()
}

async fn ordered_scaling(cluster: Cluster) {
    let set = set(&cluster, json!({"replicas": 1})).await;
    set.until_status(ready(1)).await;
    // Up: halts while the first one is not well.
    set.break_pod("set-0").await;
    set.scale(3).await;
    set.stays(3, |pods| pods.len() == 1).await;
    set.mend_pod("set-0").await;
    set.until_status(ready(3)).await;
    let mut pods = set.all_pods().await;
    assert_eq!(pods.iter().map(name).collect::<Vec<_>>(), ["set-0", "set-1", "set-2"]);
    // Each was made after the one before it was ready.
    let times = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let ready = conditions
            .iter()
            .find(|condition| condition["type"] == "Ready")
            .unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&pod["metadata"]["creationTimestamp"]),
            text(&ready["lastTransitionTime"]),
        )
    };
    assert!(times(&pods[2]).0 >= times(&pods[1]).1, "{pods:#?}");
    // Down: halts, too, and the last one goes first.
    for pod in ["set-0", "set-1", "set-2"] {
        set.break_pod(pod).await;
    }
    set.until_status(json!({"replicas": 3, "readyReplicas": 0})).await;
    set.scale(0).await;
    set.stays(3, |pods| pods.len() == 3).await;
    for pod in ["set-0", "set-1", "set-2"] {
        set.mend_pod(pod).await;
    }
    let mut order = Vec::new();
    while !pods.is_empty() {
        let left = set.until_pods("fewer", |left| left.len() < pods.len()).await;
        let gone = pods
            .iter()
            .filter(|pod| !left.iter().any(|other| name(other) == name(pod)));
        order.extend(gone.map(|pod| name(pod).to_owned()).rev());
        pods = left;
    }
    assert_eq!(order, ["set-2", "set-1", "set-0"]);
    set.until_status(ready(0)).await;
}

async fn burst_scaling(cluster: Cluster) {
    let set = set(&cluster, json!({"podManagementPolicy": "Parallel", "replicas": 1})).await;
    set.until_status(ready(1)).await;
    set.break_pod("set-0").await;
    set.scale(3).await;
    set.until_status(json!({"replicas": 3, "readyReplicas": 2})).await;
    set.break_pod("set-2").await;
    set.scale(0).await;
    set.until_status(json!({"replicas": 0})).await;
    assert_eq!(set.names().await, Vec::<String>::new());
}

/// The node refuses the pod, which asks for more than it allows; whenever it has, the set makes the pod anew.
async fn recreated(cluster: Cluster) {
    let sysctls = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
    let more = json!({"replicas": 1, "template": {"spec": sysctls("net.core.somaxconn")}});
    let set = set(&cluster, more).await;
    let mut watch = long_watch(&set.pods.resource, &set.selector(), "").await;
    let refused = watch.until("MODIFIED", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(
        (name(&refused), &refused["status"]["reason"]),
        ("set-0", &json!("SysctlForbidden"))
    );
    watch
        .until("DELETED", |pod| pod["metadata"]["uid"] == refused["metadata"]["uid"])
        .await;
    let again = watch.until("ADDED", |pod| name(pod) == "set-0").await;
    assert_ne!(again["metadata"]["uid"], refused["metadata"]["uid"]);
    // What is allowed runs, at the next attempt.
    let allowed = json!({"spec": {"template": {"spec": sysctls("kernel.shm_rmid_forced")}}});
    set.resource.merge("set", allowed).await.unwrap();
    set.until_status(ready(1)).await;
    set.pods
        .event("set", "delete Pod set-0 in StatefulSet set successful")
        .await;
}

async fn scale(cluster: Cluster) {
    let set = set(&cluster, json!({"replicas": 1})).await;
    set.until_status(ready(1)).await;
    let mut scale = set.resource.get_sub("set", "scale").await.unwrap();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(scale["status"]["selector"], set.selector());
    scale["spec"]["replicas"] = json!(2);
    let replaced = set.resource.replace_sub("scale", &scale).await.unwrap();
    assert_eq!(replaced["spec"]["replicas"], 2);
    assert_eq!(set.get().await["spec"]["replicas"], 2);
    set.until_status(ready(2)).await;
    let patch = json!({"spec": {"replicas": 1}});
    let patched = set.resource.merge_sub("set", "scale", patch).await.unwrap();
    assert_eq!(patched["spec"]["replicas"], 1);
    set.until_status(ready(1)).await;
}

async fn collection(cluster: Cluster) {
    let set = set(&cluster, json!({"replicas": 1})).await;
    set.until_status(ready(1)).await;
    let more = json!({
        "replicas": 2,
        "template": {"spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": BUSYBOX_TWO}]}},
    });
    let patch = kube::api::Patch::Strategic(json!({"metadata": {"labels": {"test": "patched"}}, "spec": more}));
    let patched = set.resource.patch("set", &patch).await.unwrap();
    assert_eq!(patched["metadata"]["labels"]["test"], "patched");
    set.until_status(ready(2)).await;
    set.until_pods("updated", |pods| pods.iter().all(|pod| image_of(pod) == BUSYBOX_TWO))
        .await;
    assert_eq!(set.resource.labelled(&set.selector()).await.len(), 1);
    set.resource.delete_collection(&set.selector()).await.unwrap();
    assert!(set.resource.labelled(&set.selector()).await.is_empty());
}

async fn canary(cluster: Cluster) {
    let partition = |partition: i32| json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}}});
    let set = set(&cluster, partition(3)["spec"].clone()).await;
    let first = set.until_status(ready(3)).await;
    let old = first["status"]["currentRevision"].clone();
    assert_eq!(first["status"]["updateRevision"], old);
    // Above all ordinals: nothing moves.
    set.resource.patch("set", &image(BUSYBOX_TWO)).await.unwrap();
    let changed = set.until("updated", |set| set["status"]["updateRevision"] != old).await;
    let new = changed["status"]["updateRevision"].clone();
    assert_eq!(changed["status"]["currentRevision"], old);
    set.stays(2, |pods| pods.iter().all(|pod| image_of(pod) == BUSYBOX))
        .await;
    // The last one is the canary.
    set.resource.merge("set", partition(2)).await.unwrap();
    let mut is = json!({"updatedReplicas": 1, "currentReplicas": 2});
    merge_into(&mut is, ready(3));
    set.until_status(is).await;
    let expected = [
        format!("set-0 {BUSYBOX}"),
        format!("set-1 {BUSYBOX}"),
        format!("set-2 {BUSYBOX_TWO}"),
    ];
    assert_eq!(images(&set.all_pods().await), expected);
    // Each comes back at its own side of the partition.
    for pod in ["set-0", "set-2"] {
        set.replace_pod(pod).await;
    }
    set.until_status(ready(3)).await;
    let pods = set.all_pods().await;
    assert_eq!(images(&pods), expected);
    assert_eq!(pods[0]["metadata"]["labels"]["controller-revision-hash"], old);
    assert_eq!(pods[2]["metadata"]["labels"]["controller-revision-hash"], new);
    // The rest by and by.
    set.resource.merge("set", partition(1)).await.unwrap();
    set.until_status(json!({"updatedReplicas": 2, "readyReplicas": 3}))
        .await;
    set.resource.merge("set", partition(0)).await.unwrap();
    let done = set
        .until_status(json!({"updatedReplicas": 3, "readyReplicas": 3}))
        .await;
    let done = set
        .until("complete", |set| {
            set["status"]["currentRevision"] == done["status"]["updateRevision"]
        })
        .await;
    assert_eq!(done["status"]["currentRevision"], new);
}

async fn rolling(cluster: Cluster) {
    let set = set(&cluster, json!({})).await;
    let first = set.until_status(ready(3)).await;
    let old = first["status"]["currentRevision"].as_str().unwrap().to_owned();
    set.resource.patch("set", &image(BUSYBOX_TWO)).await.unwrap();
    // From the last one down.
    let pods = set
        .until_pods("begun", |pods| pods.iter().any(|pod| image_of(pod) == BUSYBOX_TWO))
        .await;
    let updated: Vec<&str> = pods
        .iter()
        .filter(|pod| image_of(pod) == BUSYBOX_TWO)
        .map(name)
        .collect();
    assert_eq!(updated, ["set-2"]);
    let complete = |set: &Value| {
        let status = &set["status"];
        status["currentRevision"] == status["updateRevision"]
            && status["updatedReplicas"] == 3
            && status["readyReplicas"] == 3
            && status["observedGeneration"] == set["metadata"]["generation"]
    };
    let done = set.until("updated", complete).await;
    let new = done["status"]["currentRevision"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    // Back: the old revision is used again, under a new number.
    set.resource.patch("set", &image(BUSYBOX)).await.unwrap();
    set.until("noticed", |set| set["status"]["updateRevision"] == old.as_str())
        .await;
    let done = set.until("rolled back", complete).await;
    assert_eq!(done["status"]["currentRevision"], old.as_str());
    assert!(set.all_pods().await.iter().all(|pod| image_of(pod) == BUSYBOX));
    assert_eq!(set.numbered_revisions().await, [(2, new), (3, old)]);
}

async fn status(cluster: Cluster) {
    let set = set(&cluster, json!({"replicas": 1})).await;
    let settled = set.until_status(ready(1)).await;
    let read = set.resource.get_sub("set", "status").await.unwrap();
    assert_eq!(read["status"], settled["status"]);
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from a test",
            "lastTransitionTime": "2026-01-02T03:04:05Z"})
    };
    let mut watch = set.resource.watch(&set.selector(), "").await;
    let mut update = read.clone();
    update["status"]["conditions"] = json!([condition("StatusUpdate")]);
    let updated = set.resource.replace_sub("status", &update).await.unwrap();
    assert_eq!(updated["status"]["conditions"][0]["type"], "StatusUpdate");
    let has = |kind: &'static str| {
        move |set: &Value| {
            set["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all[0]["type"] == kind)
        }
    };
    watch.until("MODIFIED", has("StatusUpdate")).await;
    let patch = json!({"status": {"conditions": [condition("StatusPatched")]}});
    set.resource.merge_sub("set", "status", patch).await.unwrap();
    watch.until("MODIFIED", has("StatusPatched")).await;
    // The controller writes its numbers and leaves the rest.
    set.scale(0).await;
    let after = set.until_status(ready(0)).await;
    assert!(has("StatusPatched")(&after), "{after}");
}
