//! The machine goes down: pods end by their priority, each group in its time, and no new ones come.

use crate::cluster::{Cluster, NODE, POLITE, app, eventually};
use k8s_openapi::api::core::v1::{Event, Node};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use krust::kubelet::node_shutdown::periods;
use krust::runtime::Runtime;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// Does not hear the stop signal.
const DEAF: [&str; 3] = ["sh", "-c", "trap '' TERM; sleep 3600"];

/// When the pod's container ended, and how.
async fn end(cluster: &Cluster, name: &str) -> (SystemTime, i32) {
    let uid = cluster.pods().get(name).await.unwrap().metadata.uid.unwrap();
    let containers = cluster.runtime.list_containers().await.unwrap();
    let found = containers
        .into_iter()
        .find(|c| c.pod_uid == uid)
        .expect("its container");
    (found.finished_at.expect("it has ended"), found.exit_code)
}

#[tokio::test]
async fn pods_end_in_the_order_of_their_priorities_and_none_come() {
    let mut cluster = Cluster::start().await;
    cluster.stop_kubelet().await;
    cluster.shutdown_periods = periods(0, 0, "0=1,1000=30,2000=30").unwrap();
    cluster.start_kubelet();
    let classes: Api<PriorityClass> = Api::all(cluster.admin.clone());
    for (name, value) in [("important", 1000), ("more", 2000)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        let class = serde_json::from_value(class).unwrap();
        classes.create(&PostParams::default(), &class).await.unwrap();
    }
    let of_class = |command: &[&str], class: &str| {
        let mut spec = app(command);
        spec["priorityClassName"] = json!(class);
        spec
    };
    let mut once = app(&["sh", "-c", "exit 0"]);
    once["restartPolicy"] = json!("Never");
    cluster.create("once", once).await;
    cluster.create("more", of_class(&POLITE, "more")).await;
    cluster.create("important", of_class(&POLITE, "important")).await;
    cluster.create("deaf", app(&DEAF)).await;
    let mut waits = app(&POLITE);
    waits["containers"][0]["image"] = json!("missing:1");
    waits["containers"][0]["imagePullPolicy"] = json!("Never");
    cluster.create("waits", waits).await;
    for name in ["deaf", "important", "more"] {
        cluster.wait_phase(name, "Running").await;
    }
    cluster.wait_phase("once", "Succeeded").await;
    cluster.wait_phase("waits", "Pending").await;

    let shutdown = cluster.kubelet.as_ref().unwrap().node_shutdown.clone();
    assert!(shutdown.is_configured());
    let begun = SystemTime::now();
    let run = tokio::spawn(async move { shutdown.run().await });
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    eventually("the node is not ready", async || {
        let conditions = nodes.get(NODE).await.unwrap().status.unwrap().conditions.unwrap();
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
        ready.status == "False"
            && ready.reason.as_deref() == Some("KubeletNotReady")
            && ready.message.as_deref() == Some("node is shutting down")
    })
    .await;
    cluster.create("late", app(&POLITE)).await;
    let late = cluster.wait_phase("late", "Failed").await.status.unwrap();
    assert_eq!(late.reason.as_deref(), Some("NodeShutdown"));
    let text = "Pod was rejected as the node is shutting down.";
    assert_eq!(late.message.unwrap(), format!("Pod was rejected: {text}"));
    let event = cluster.wait_event("NodeShutdown", text).await;
    assert_eq!(event.message.as_deref(), Some(text));
    cluster
        .wait_event("NodeShutdown", "Shutdown manager detected shutdown event")
        .await;

    run.await.unwrap();
    // Everything is told by now.
    for name in ["deaf", "important", "more", "waits"] {
        let status = cluster.pods().get(name).await.unwrap().status.unwrap();
        let text = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(status.phase.as_deref(), Some("Failed"), "{name}");
        assert_eq!(status.reason.as_deref(), Some("Terminated"), "{name}");
        assert_eq!(status.message.as_deref(), Some(text), "{name}");
        let condition = status
            .conditions
            .unwrap()
            .into_iter()
            .find(|c| c.type_ == "DisruptionTarget");
        let condition = condition.expect("the condition DisruptionTarget");
        assert_eq!(condition.status, "True");
        assert_eq!(condition.reason.as_deref(), Some("TerminationByKubelet"));
        assert_eq!(condition.message.as_deref(), Some(text));
    }
    let once = cluster.pods().get("once").await.unwrap().status.unwrap();
    assert_eq!((once.phase.as_deref(), once.reason), (Some("Succeeded"), None));
    let (deaf, important, more) = (
        end(&cluster, "deaf").await,
        end(&cluster, "important").await,
        end(&cluster, "more").await,
    );
    assert_eq!((deaf.1, important.1, more.1), (137, 0, 0));
    assert!(deaf.0.duration_since(begun).unwrap() >= Duration::from_secs(1));
    assert!(deaf.0 <= important.0 && important.0 <= more.0);
    let events: Api<Event> = Api::namespaced(cluster.admin.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap().items;
    assert!(events.iter().all(|event| event.reason.as_deref() != Some("Terminated")));
}

/// The API server is slow; a krust that stopped before it answers would never tell.
#[tokio::test]
async fn the_end_of_the_last_pods_is_told() {
    let mut cluster = Cluster::start().await;
    cluster.stop_kubelet().await;
    cluster.shutdown_periods = periods(0, 0, "0=0").unwrap();
    cluster.start_kubelet();
    cluster.create("last", app(&POLITE)).await;
    cluster.wait_phase("last", "Running").await;
    let shutdown = cluster.kubelet.as_ref().unwrap().node_shutdown.clone();
    let held = cluster.held.clone();
    held.store(true, Ordering::SeqCst);
    let run = tokio::spawn(async move { shutdown.run().await });
    // Longer than the group's time and what comes after it.
    tokio::time::sleep(Duration::from_secs(9)).await;
    held.store(false, Ordering::SeqCst);
    run.await.unwrap();
    let status = cluster.pods().get("last").await.unwrap().status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Terminated"));
}
