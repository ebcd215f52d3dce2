//! The node agent against the API server of this process and the runtime in memory.

mod changes;
mod cluster;
mod eviction;
mod images;
#[path = "../support/mounts.rs"]
mod mounts;
mod node_shutdown;
mod probes;
mod refusals;
mod static_pods;

use cluster::{Cluster, NODE, POLITE, app, eventually, state};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use krust::runtime::fake::Behaviour;
use krust::runtime::{ContainerState, Runtime};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn the_node_is_ready_at_once_and_has_a_lease() {
    let begun = Instant::now();
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let ready = async || {
        let node = nodes.get_opt(NODE).await.unwrap();
        let conditions = node
            .and_then(|node| node.status)
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    eventually("the node is ready", ready).await;
    println!("ready after {:?}", begun.elapsed());
    let status = nodes.get(NODE).await.unwrap().status.unwrap();
    assert_eq!(status.capacity.as_ref().unwrap()["pods"].0, "110");
    assert_eq!(status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port, 10250);
    assert_eq!(status.addresses.unwrap()[0].address, "192.168.7.1");
    let leases: Api<Lease> = Api::namespaced(cluster.admin.clone(), "kube-node-lease");
    eventually("the lease is there", async || {
        leases.get_opt(NODE).await.unwrap().is_some()
    })
    .await;
    let lease = leases.get(NODE).await.unwrap();
    assert_eq!(lease.spec.unwrap().lease_duration_seconds, Some(40));
    assert_eq!(lease.metadata.owner_references.unwrap()[0].name, NODE);
}

#[tokio::test]
async fn a_pod_runs_and_goes() {
    let cluster = Cluster::start().await;
    cluster.create("web", app(&POLITE)).await;
    let pod = cluster.wait_phase("web", "Running").await;
    let status = pod.status.as_ref().unwrap();
    assert!(status.pod_ip.is_some() && status.start_time.is_some());
    assert_eq!(status.host_ip.as_deref(), Some("192.168.7.1"));
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True");
    for (reason, part) in [("Pulled", "already present"), ("Created", ""), ("Started", "")] {
        let event = cluster.wait_event(reason, part).await;
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.containers{c}"));
    }
    let lookup = &cluster.kubelet.as_ref().unwrap().lookup;
    let container = lookup.container("default", "web", "c", false).unwrap();
    assert_eq!(container.state, ContainerState::Running);
    assert!(lookup.sandbox("default", "web").is_some());

    let begun = Instant::now();
    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("web").await;
    println!("took {:?}", begun.elapsed());
    let empty = async || cluster.runtime.list_pod_sandboxes().await.unwrap().is_empty();
    eventually("the sandbox is removed", empty).await;
    eventually("the worker has left", async || lookup.pods().is_empty()).await;
    cluster.wait_event("Killing", "Stopping container c").await;
}

#[tokio::test]
async fn a_start_is_few_writes() {
    let cluster = Cluster::start().await;
    let created = cluster.create("web", app(&POLITE)).await;
    let running = cluster.wait_phase("web", "Running").await;
    let revision = |pod: &Pod| pod.metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap();
    // The revisions in between are the pod's status and events: Pulled, Created, Started.
    assert!(
        revision(&running) - revision(&created) <= 8,
        "{} writes",
        revision(&running) - revision(&created)
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    let later = cluster.pods().get("web").await.unwrap();
    assert_eq!(
        revision(&later),
        revision(&running),
        "nothing is written when nothing changes"
    );
}

#[tokio::test]
async fn restart_policies() {
    let cluster = Cluster::start().await;
    let with = |policy: &str, code: &str| {
        let mut spec = app(&["sh", "-c", &format!("exit {code}")]);
        spec["restartPolicy"] = json!(policy);
        spec
    };
    cluster.create("done", with("OnFailure", "0")).await;
    cluster.create("failed", with("Never", "3")).await;
    cluster.create("loop", with("Always", "1")).await;
    let done = cluster.wait_phase("done", "Succeeded").await;
    assert_eq!(state(&done).1["terminated"]["reason"], "Completed");
    let failed = cluster.wait_phase("failed", "Failed").await;
    assert_eq!(state(&failed).1["terminated"]["exitCode"], 3);
    let looping = |pod: &Pod| {
        pod.status.as_ref().unwrap().container_statuses.is_some()
            && state(pod).1["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let pod = cluster.wait("loop", "in a crash loop", looping).await;
    let (restarts, state) = state(&pod);
    assert_eq!(restarts, 1, "the first restart is immediate, the second waits");
    let message = state["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("back-off 10s restarting failed container=c pod=loop_default("),
        "{message}"
    );
    cluster
        .wait_event("BackOff", "Back-off restarting failed container c in pod loop_default(")
        .await;
    let lookup = &cluster.kubelet.as_ref().unwrap().lookup;
    let newest = lookup.container("default", "loop", "c", false).unwrap();
    let previous = lookup.container("default", "loop", "c", true).unwrap();
    assert_eq!((newest.attempt, previous.attempt), (1, 0));
}

#[tokio::test]
async fn running_containers_are_adopted() {
    let mut cluster = Cluster::start().await;
    cluster.create("web", app(&POLITE)).await;
    cluster.create("gone", app(&POLITE)).await;
    cluster.create("stubborn", app(&POLITE)).await;
    for name in ["web", "gone", "stubborn"] {
        cluster.wait_phase(name, "Running").await;
    }
    let before = cluster.pods().get("web").await.unwrap();
    assert_eq!(cluster.container_ids().await.len(), 3);
    cluster.stop_kubelet().await;
    assert_eq!(
        cluster.container_ids().await.len(),
        3,
        "stopping leaves the containers alone"
    );
    // One is deleted by force, another one begins to end, while nobody looks.
    let now = DeleteParams::default().grace_period(0);
    cluster.pods().delete("gone", &now).await.unwrap();
    cluster
        .pods()
        .delete("stubborn", &DeleteParams::default())
        .await
        .unwrap();
    cluster.start_kubelet();
    cluster.wait_gone("stubborn").await;
    let left = async || cluster.container_ids().await.len() == 1;
    eventually("what was deleted meanwhile is cleaned up", left).await;
    let after = cluster.pods().get("web").await.unwrap();
    assert_eq!(state(&after), state(&before), "the container was not restarted");
    assert!(
        cluster
            .kubelet
            .as_ref()
            .unwrap()
            .lookup
            .container("default", "web", "c", false)
            .is_ok()
    );
}

#[tokio::test]
async fn images() {
    let cluster = Cluster::start().await;
    let fails = Behaviour {
        pull_error: Some("no such host".to_owned()),
        ..Behaviour::default()
    };
    cluster.runtime.set_behaviour("far:1", fails);
    let with =
        |image: &str, policy: &str| json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]});
    cluster.create("far", with("far:1", "IfNotPresent")).await;
    cluster.create("never", with("absent:1", "Never")).await;
    cluster.create("pulled", with("near:1", "IfNotPresent")).await;
    let waiting = |reason: &'static str| {
        move |pod: &Pod| {
            pod.status.as_ref().unwrap().container_statuses.is_some() && state(pod).1["waiting"]["reason"] == reason
        }
    };
    cluster
        .wait("never", "ErrImageNeverPull", waiting("ErrImageNeverPull"))
        .await;
    cluster.wait("far", "ErrImagePull", waiting("ErrImagePull")).await;
    let pod = cluster
        .wait("far", "ImagePullBackOff", waiting("ImagePullBackOff"))
        .await;
    let message = state(&pod).1["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("Back-off pulling image \"far:1\": ErrImagePull: "),
        "{message}"
    );
    cluster.wait_event("Failed", "Failed to pull image \"far:1\"").await;
    cluster.wait_event("BackOff", "Back-off pulling image \"far:1\"").await;
    cluster.wait_phase("pulled", "Running").await;
    assert_eq!(cluster.runtime.pulls("near:1"), 1);
    // A pod that waits for its image goes at once.
    let begun = Instant::now();
    cluster.pods().delete("far", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("far").await;
    println!("took {:?}", begun.elapsed());
}

#[tokio::test]
async fn config_maps_are_waited_for() {
    let cluster = Cluster::start().await;
    let env = json!([{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    cluster
        .create(
            "env",
            json!({"containers": [{"name": "c", "image": "app:1", "env": env}]}),
        )
        .await;
    cluster
        .create(
            "volume",
            json!({
                "volumes": [{"name": "v", "configMap": {"name": "cm"}}],
                "containers": [{"name": "c", "image": "app:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            }),
        )
        .await;
    let config_error = |pod: &Pod| {
        pod.status.as_ref().unwrap().container_statuses.is_some()
            && state(pod).1["waiting"]["reason"] == "CreateContainerConfigError"
    };
    let pod = cluster.wait("env", "CreateContainerConfigError", config_error).await;
    assert_eq!(state(&pod).1["waiting"]["message"], "configmap \"cm\" not found");
    cluster
        .wait_event(
            "FailedMount",
            "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found",
        )
        .await;
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), "default");
    let config_map = json!({"metadata": {"name": "cm"}, "data": {"k": "value"}});
    config_maps
        .create(&PostParams::default(), &serde_json::from_value(config_map).unwrap())
        .await
        .unwrap();
    cluster.wait_phase("env", "Running").await;
    let pod = cluster.wait_phase("volume", "Running").await;
    let uid = pod.metadata.uid.unwrap();
    let volume = cluster
        .data
        .path()
        .join("pods")
        .join(&uid)
        .join("volumes/kubernetes.io~configmap/v/k");
    assert_eq!(std::fs::read_to_string(&volume).unwrap(), "value");
    cluster.pods().delete("volume", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("volume").await;
    eventually("the volume is removed", async || !volume.exists()).await;
}

#[tokio::test]
async fn a_deadline_ends_the_pod() {
    let cluster = Cluster::start().await;
    let mut spec = app(&POLITE);
    spec["activeDeadlineSeconds"] = json!(1);
    cluster.create("slow", spec).await;
    let pod = cluster.wait_phase("slow", "Failed").await;
    assert_eq!(pod.status.unwrap().reason.as_deref(), Some("DeadlineExceeded"));
}

#[tokio::test]
async fn many_pods_start_at_once() {
    let cluster = Cluster::start().await;
    let begun = Instant::now();
    let names: Vec<String> = (0..50).map(|i| format!("p{i}")).collect();
    for name in &names {
        cluster.create(name, app(&POLITE)).await;
    }
    for name in &names {
        cluster.wait_phase(name, "Running").await;
    }
    println!("took {:?}", begun.elapsed());
    let deleting = names
        .iter()
        .map(|name| async { cluster.pods().delete(name, &DeleteParams::default()).await.map(|_| ()) });
    futures_util::future::try_join_all(deleting).await.unwrap();
    for name in &names {
        cluster.wait_gone(name).await;
    }
}

#[tokio::test]
async fn sidecars_serve_and_leave_last() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "side", "image": "app:1", "restartPolicy": "Always", "command": POLITE}],
        "containers": [{"name": "c", "image": "app:1", "command": ["sh", "-c", "sleep 0.2"]}],
    });
    cluster.create("job", spec).await;
    let pod = cluster.wait_phase("job", "Succeeded").await;
    let side = &pod.status.unwrap().init_container_statuses.unwrap()[0];
    assert!(side.state.as_ref().unwrap().terminated.is_some(), "{side:?}");
}

#[tokio::test]
async fn a_finalizer_keeps_the_pod_but_not_its_containers() {
    let cluster = Cluster::start().await;
    let mut spec = app(&POLITE);
    spec["nodeName"] = json!(NODE);
    spec["automountServiceAccountToken"] = json!(false);
    let pod = json!({"metadata": {"name": "kept", "finalizers": ["example.com/keep"]}, "spec": spec});
    cluster
        .pods()
        .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
    cluster.wait_phase("kept", "Running").await;
    cluster.pods().delete("kept", &DeleteParams::default()).await.unwrap();
    eventually("the containers are gone", async || {
        cluster.container_ids().await.is_empty()
    })
    .await;
    let pod = cluster.wait_phase("kept", "Succeeded").await;
    assert!(pod.metadata.deletion_timestamp.is_some());
    let free = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.pods().patch("kept", &Default::default(), &free).await.unwrap();
    cluster.wait_gone("kept").await;
    let lookup = &cluster.kubelet.as_ref().unwrap().lookup;
    eventually("the worker has left", async || lookup.pods().is_empty()).await;
}
