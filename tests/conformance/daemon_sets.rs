//! DaemonSets with running pods, and their ControllerRevisions.

use crate::cluster::Cluster;
use crate::pods::{BUSYBOX, BUSYBOX_TWO, condition};
use crate::resource::{items, merge_into, name};
use crate::runner::{Test, pod_test};
use crate::sets::{Set, image, image_of};
use kube::api::{ListParams, Patch};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-apps] ControllerRevision should manage the lifecycle of a ControllerRevision",
            revisions,
        ),
        pod_test(
            "[sig-apps] Daemon set should list and delete a collection of DaemonSets",
            collection,
        ),
        pod_test("[sig-apps] Daemon set should retry creating failed daemon pods", failed),
        pod_test(
            "[sig-apps] Daemon set should rollback without unnecessary restarts",
            rollback,
        )
        // It has a second node for a while.
        .alone(),
        pod_test("[sig-apps] Daemon set should run and stop complex daemon", complex),
        pod_test("[sig-apps] Daemon set should run and stop simple daemon", simple),
        pod_test(
            "[sig-apps] Daemon set should update pod when spec was updated and update strategy is RollingUpdate",
            updated,
        ),
        pod_test(
            "[sig-apps] Daemon set should verify changes to a daemon set status",
            status,
        ),
    ]
}

async fn set(cluster: &Cluster, more: Value) -> Set {
    Set::create(cluster, "daemonsets", more).await
}

/// All is in place on so many nodes.
fn placed(nodes: i32) -> Value {
    json!({
        "desiredNumberScheduled": nodes, "currentNumberScheduled": nodes, "numberReady": nodes,
        "numberAvailable": nodes, "updatedNumberScheduled": nodes, "numberMisscheduled": 0, "numberUnavailable": 0,
    })
}

async fn simple(cluster: Cluster) {
    let set = set(&cluster, json!({})).await;
    set.until_status(placed(1)).await;
    let pods = set.all_pods().await;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0]["spec"]["nodeName"], cluster.node().await.as_str());
    set.pods.delete(name(&pods[0])).await;
    set.until_status(placed(1)).await;
    set.until_pods("revived", |now| now.len() == 1 && name(&now[0]) != name(&pods[0]))
        .await;
}

async fn complex(cluster: Cluster) {
    let (node, label) = (cluster.node().await, cluster.unique("color"));
    let nodes = cluster.core("nodes", None);
    let paint = async |color: Value| {
        let mut patch = json!({"metadata": {"labels": {}}});
        patch["metadata"]["labels"][&label] = color;
        nodes.merge(&node, patch).await.unwrap();
    };
    let selector = |color: &str| {
        let mut selector = json!({});
        selector[&label] = json!(color);
        json!({"template": {"spec": {"nodeSelector": selector}}})
    };
    let set = set(&cluster, selector("blue")).await;
    set.until_status(placed(0)).await;
    assert!(set.all_pods().await.is_empty());
    paint(json!("blue")).await;
    set.until_status(placed(1)).await;
    paint(json!("green")).await;
    set.until_pods("unscheduled", <[Value]>::is_empty).await;
    set.until_status(placed(0)).await;
    set.resource
        .merge("set", json!({"spec": selector("green")}))
        .await
        .unwrap();
    set.until_status(placed(1)).await;
    paint(Value::Null).await;
    set.until_pods("unscheduled", <[Value]>::is_empty).await;
}

async fn failed(cluster: Cluster) {
    let set = set(&cluster, json!({})).await;
    set.until_status(placed(1)).await;
    let pod = name(&set.all_pods().await[0]).to_owned();
    let phase = json!({"status": {"phase": "Failed"}});
    set.pods.resource.merge_sub(&pod, "status", phase).await.unwrap();
    set.until_pods("replaced", |now| now.iter().any(|now| name(now) != pod))
        .await;
    set.pods.gone(&pod).await;
    set.until_status(placed(1)).await;
    set.pods.event("set", "Found failed daemon pod").await;
}

async fn updated(cluster: Cluster) {
    let set = set(&cluster, json!({"updateStrategy": {"type": "RollingUpdate"}})).await;
    set.until_status(placed(1)).await;
    assert_eq!(set.numbered_revisions().await.len(), 1);
    set.resource.patch("set", &image(BUSYBOX_TWO)).await.unwrap();
    set.until_status(placed(1)).await;
    let pods = set
        .until_pods("updated", |pods| pods.len() == 1 && image_of(&pods[0]) == BUSYBOX_TWO)
        .await;
    let revisions = set.numbered_revisions().await;
    assert_eq!(revisions.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    let hash = pods[0]["metadata"]["labels"]["controller-revision-hash"]
        .as_str()
        .unwrap();
    assert_eq!(revisions[1].1, format!("set-{hash}"));
}

/// The second node is the test's own: it has a taint that only this set tolerates, and the test says what its pods do.
async fn rollback(cluster: Cluster) {
    let (real, nodes) = (cluster.node().await, cluster.core("nodes", None));
    let label = cluster.unique("rollback");
    let mut labels = json!({});
    labels[&label] = json!("yes");
    let taint = json!({"key": label, "effect": "NoSchedule"});
    let node = json!({"metadata": {"name": label, "labels": labels}, "spec": {"taints": [taint]}});
    nodes.create(&node).await.unwrap();
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "20"});
    let ready = json!({"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]});
    nodes
        .merge_sub(&label, "status", json!({"status": ready}))
        .await
        .unwrap();
    nodes
        .merge(&real, json!({"metadata": {"labels": labels}}))
        .await
        .unwrap();

    let more = json!({
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": {"spec": {"nodeSelector": labels, "tolerations": [{"key": label, "operator": "Exists"}]}},
    });
    let set = set(&cluster, more).await;
    let act = async || {
        for pod in set.all_pods().await {
            let (is_ours, pod_name) = (pod["spec"]["nodeName"] == label.as_str(), name(&pod));
            let is_going = pod["metadata"]["deletionTimestamp"].is_string();
            if is_ours && is_going {
                let now = kube::api::DeleteParams::default().grace_period(0);
                let _ = set.pods.resource.delete_with(pod_name, &now).await;
            } else if is_ours && condition(&pod, "Ready") != "True" && image_of(&pod) == BUSYBOX {
                let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
                let _ = set
                    .pods
                    .resource
                    .merge_sub(pod_name, "status", json!({"status": ready}))
                    .await;
            }
        }
    };
    let until = async |what: &str, so: &dyn Fn(&Value, &[Value]) -> bool| {
        let deadline = std::time::Instant::now() + crate::pods::PODS_PATIENCE;
        loop {
            act().await;
            let (object, pods) = (set.get().await, set.all_pods().await);
            if so(&object, &pods) {
                return pods;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "not {what}: {}\n{pods:#?}",
                object["status"]
            );
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let is_placed = |object: &Value, pods: &[Value]| {
        let observed = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        observed
            && object["status"]["numberAvailable"] == 2
            && object["status"]["updatedNumberScheduled"] == 2
            && pods.len() == 2
    };
    let before = until("placed", &is_placed).await;
    set.resource.patch("set", &image("no-such-image:at-all")).await.unwrap();
    let is_half = |_: &Value, pods: &[Value]| pods.iter().any(|pod| image_of(pod) != BUSYBOX);
    let half = until("begun", &is_half).await;
    let kept: Vec<&str> = half.iter().filter(|pod| image_of(pod) == BUSYBOX).map(name).collect();
    assert_eq!(kept.len(), 1, "{half:#?}");
    assert!(before.iter().any(|pod| name(pod) == kept[0]));
    set.resource.patch("set", &image(BUSYBOX)).await.unwrap();
    let after = until("rolled back", &is_placed).await;
    assert!(after.iter().all(|pod| image_of(pod) == BUSYBOX));
    assert!(
        after.iter().any(|pod| name(pod) == kept[0]),
        "{} was restarted: {after:#?}",
        kept[0]
    );
    set.resource.delete("set").await.unwrap();
    nodes.delete(&label).await.unwrap();
}

async fn collection(cluster: Cluster) {
    let set = set(&cluster, json!({})).await;
    set.until_status(placed(1)).await;
    let everywhere = cluster.resource("apps/v1", "daemonsets", None);
    assert_eq!(everywhere.labelled(&set.selector()).await.len(), 1);
    set.resource.delete_collection(&set.selector()).await.unwrap();
    assert!(everywhere.labelled(&set.selector()).await.is_empty());
}

async fn status(cluster: Cluster) {
    let set = set(&cluster, json!({})).await;
    set.until_status(placed(1)).await;
    let read = set.resource.get_sub("set", "status").await.unwrap();
    assert_eq!(read["status"]["desiredNumberScheduled"], 1);
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from a test",
            "lastTransitionTime": "2026-01-02T03:04:05Z"})
    };
    let has = |kind: &'static str| {
        move |set: &Value| {
            set["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all[0]["type"] == kind)
        }
    };
    let mut watch = set.resource.watch(&set.selector(), "").await;
    let mut update = read;
    update["status"]["conditions"] = json!([condition("StatusUpdate")]);
    set.resource.replace_sub("status", &update).await.unwrap();
    watch.until("MODIFIED", has("StatusUpdate")).await;
    let patch = json!({"status": {"conditions": [condition("StatusPatched")]}});
    set.resource.merge_sub("set", "status", patch).await.unwrap();
    watch.until("MODIFIED", has("StatusPatched")).await;
}

async fn revisions(cluster: Cluster) {
    let set = set(&cluster, json!({})).await;
    set.until_status(placed(1)).await;
    let everywhere = cluster.resource("apps/v1", "controllerrevisions", None);
    let list = everywhere
        .list(&ListParams::default().labels(&set.selector()))
        .await
        .unwrap();
    let [first] = items(&list).try_into().expect("one revision");
    let first_name = name(&first).to_owned();
    let owner = &first["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("DaemonSet"), &set.get().await["metadata"]["uid"])
    );
    let mut label = json!({"metadata": {"labels": {}}});
    label["metadata"]["labels"][&first_name] = json!("patched");
    let patched = set
        .revisions
        .patch(&first_name, &Patch::Strategic(label))
        .await
        .unwrap();
    assert_eq!(patched["metadata"]["labels"][&first_name], "patched");

    // One more by hand with the same content; then the first one goes, unless the controller, which keeps only the newest of
    // two that are alike, is quicker.
    let mut second = json!({"metadata": {"name": "set-by-hand", "labels": first["metadata"]["labels"],
        "ownerReferences": first["metadata"]["ownerReferences"]}, "data": first["data"], "revision": 2});
    merge_into(
        &mut second,
        json!({"metadata": {"labels": {"controller-revision-hash": "by-hand"}}}),
    );
    set.revisions.create(&second).await.unwrap();
    match set.revisions.delete(&first_name).await {
        Err(status) if status.code == 404 => {}
        other => drop(other.unwrap()),
    }
    assert_eq!(set.numbered_revisions().await, [(2, "set-by-hand".to_owned())]);
    set.until_status(placed(1)).await;
    let pods = set
        .until_pods("of the other revision", |pods| {
            pods.len() == 1 && pods[0]["metadata"]["labels"]["controller-revision-hash"] == "by-hand"
        })
        .await;
    assert_eq!(pods.len(), 1);
    let mark = json!({"metadata": {"labels": {"mark": "updated"}}});
    set.revisions.merge("set-by-hand", mark).await.unwrap();

    // The template changes: a third one, which is all that is left in the end.
    let grace = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 0}}}});
    set.resource.merge("set", grace).await.unwrap();
    set.until_status(placed(1)).await;
    assert_eq!(set.numbered_revisions().await.len(), 2);
    set.revisions.delete_collection("mark=updated").await.unwrap();
    let left = set.numbered_revisions().await;
    assert_eq!(left.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3]);
}
