//! Pods from creation to deletion as the API shows them: watches, updates, generations, deadlines, streams.

use crate::cluster::{Cluster, eventually};
use crate::pods::{BUSYBOX_TWO, PODS_PATIENCE, condition, container_status, pod, sleeper, with_main, with_spec};
use crate::resource::merge_into;
use crate::runner::{Test, pod_test};
use futures_util::StreamExt;
use kube::api::{DeleteParams, WatchParams};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-node] Pods should allow activeDeadlineSeconds to be updated",
            deadline,
        ),
        pod_test("[sig-node] Pods should be submitted and removed", submitted_and_removed),
        pod_test("[sig-node] Pods should be updated", updated),
        pod_test("[sig-node] Pods should delete a collection of pods", collection),
        pod_test("[sig-node] Pods should get a host IP", host_ip),
        pod_test("[sig-node] Pods should patch a pod status", status_patch),
        pod_test(
            "[sig-node] Pods should run through the lifecycle of Pods and PodStatus",
            life,
        ),
        pod_test(
            "[sig-node] Pods should support remote command execution over websockets",
            exec_over_websocket,
        ),
        pod_test(
            "[sig-node] Pods should support retrieving logs from the container over websockets",
            logs_over_websocket,
        ),
        pod_test(
            "[sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete",
            generation_is_the_servers,
        ),
        pod_test(
            "[sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge",
            many_generations,
        ),
        pod_test(
            "[sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update",
            generations,
        ),
    ]
}

async fn deadline(cluster: Cluster) {
    let pods = cluster.pods("deadline").await;
    pods.ready(&sleeper("dies")).await;
    pods.resource
        .merge("dies", json!({"spec": {"activeDeadlineSeconds": 1}}))
        .await
        .unwrap();
    let failed = pods.phase("dies", "Failed").await;
    assert_eq!(failed["status"]["reason"], "DeadlineExceeded");
    assert_eq!(
        failed["status"]["message"],
        "Pod was active on the node longer than the specified deadline"
    );
}

async fn submitted_and_removed(cluster: Cluster) {
    let pods = cluster.pods("submitted").await;
    let parameters = WatchParams::default().labels("time=now").timeout(250);
    let watch = pods.resource.watch_with(&parameters, "").await;
    let mut watch = watch.with_patience(PODS_PATIENCE);
    // A process that is first in its container hears no SIGTERM before it has a handler: without, its end would take the
    // whole grace.
    let begins = "trap 'exit 0' TERM; touch /begun; while true; do sleep 3600 & wait $!; done";
    let mut pod = with_main(
        pod("one", begins),
        json!({"readinessProbe": {"exec": {"command": ["test", "-e", "/begun"]}, "periodSeconds": 1}}),
    );
    pod["metadata"]["labels"] = json!({"time": "now"});
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    pods.create(&pod).await;
    watch.expect("ADDED").await;
    pods.until_ready("one").await;
    assert_eq!(pods.resource.labelled("time=now").await.len(), 1);
    let deleted = pods
        .resource
        .delete_with("one", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 30);
    let being_deleted = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
    watch.until("MODIFIED", being_deleted).await;
    let last = watch.until("DELETED", being_deleted).await;
    // What the node agent saw of its end.
    let end = &container_status(&last, "main")["state"]["terminated"];
    assert_eq!(end["exitCode"], 0, "{}", last["status"]);
    assert!(pods.resource.labelled("time=now").await.is_empty());
}

async fn updated(cluster: Cluster) {
    let pods = cluster.pods("updated").await;
    pods.ready(&sleeper("one")).await;
    eventually("the update is taken", async || {
        let mut pod = pods.resource.get("one").await.unwrap();
        merge_into(&mut pod["metadata"], json!({"labels": {"time": "later"}}));
        pods.resource.replace(&pod).await.ok()
    })
    .await;
    let found = pods.resource.labelled("time=later").await;
    assert_eq!((found.len(), condition(&found[0], "Ready")), (1, "True"));
}

async fn collection(cluster: Cluster) {
    let pods = cluster.pods("collection").await;
    for name in ["a", "b", "c"] {
        let mut pod = sleeper(name);
        pod["metadata"]["labels"] = json!({"type": "Testing"});
        pods.create(&pod).await;
    }
    for name in ["a", "b", "c"] {
        pods.phase(name, "Running").await;
    }
    pods.resource.delete_collection("type=Testing").await.unwrap();
    for name in ["a", "b", "c"] {
        pods.gone(name).await;
    }
}

async fn host_ip(cluster: Cluster) {
    let pods = cluster.pods("hostip").await;
    let pod = pods.ready(&sleeper("one")).await;
    let node = cluster.core("nodes", None).get(&cluster.node().await).await.unwrap();
    let addresses = node["status"]["addresses"].as_array().unwrap();
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP").unwrap();
    assert_eq!(pod["status"]["hostIP"], internal["address"]);
    assert_eq!(pod["status"]["hostIPs"], json!([{"ip": internal["address"]}]));
}

async fn status_patch(cluster: Cluster) {
    let pods = cluster.pods("status").await;
    pods.ready(&sleeper("one")).await;
    let patch =
        json!({"metadata": {"annotations": {"by": "test"}}, "status": {"message": "Patched", "reason": "Test"}});
    let patched = pods.resource.merge_sub("one", "status", patch).await.unwrap();
    assert_eq!(
        (&patched["status"]["message"], &patched["status"]["reason"]),
        (&json!("Patched"), &json!("Test"))
    );
    assert_eq!(patched["metadata"]["annotations"]["by"], "test");
    assert_eq!(patched["metadata"]["generation"], 1, "a status is no new generation");
}

async fn life(cluster: Cluster) {
    let pods = cluster.pods("life").await;
    let mut watch = pods.resource.watch("stage=static", "").await;
    let mut pod = sleeper("one");
    pod["metadata"]["labels"] = json!({"stage": "static"});
    pods.create(&pod).await;
    watch.expect("ADDED").await;
    let is_ready = |pod: &Value| condition(pod, "Ready") == "True";
    watch.until("MODIFIED", is_ready).await;
    let patch = json!({
        "metadata": {"labels": {"patched": "true"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": BUSYBOX_TWO}]},
    });
    let patch = kube::api::Patch::Strategic(patch);
    pods.resource.patch("one", &patch).await.unwrap();
    watch
        .until("MODIFIED", |pod| pod["metadata"]["labels"]["patched"] == "true")
        .await;
    // The other image runs, as another container; the policy does not matter for that.
    let on_the_other = |pod: &Value| {
        let status = container_status(pod, "main");
        let image = status["image"].as_str().unwrap_or_default();
        image.ends_with(BUSYBOX_TWO) && status["restartCount"] == 1 && condition(pod, "Ready") == "True"
    };
    pods.until("one", "on its new image", on_the_other).await;
    // The status, written by somebody else.
    let status = pods.resource.get_sub("one", "status").await.unwrap();
    assert_eq!(status["status"]["phase"], "Running");
    eventually("the status is replaced", async || {
        let mut pod = pods.resource.get_sub("one", "status").await.unwrap();
        let custom = json!({"type": "tests.example/Custom", "status": "True", "reason": "Test"});
        pod["status"]["conditions"].as_array_mut().unwrap().push(custom);
        let replaced = pods.resource.replace_sub("status", &pod).await.ok()?;
        (condition(&replaced, "tests.example/Custom") == "True").then_some(())
    })
    .await;
    pods.resource.delete_collection("stage=static").await.unwrap();
    watch.until("DELETED", |pod| pod["metadata"]["name"] == "one").await;
}

/// A WebSocket to a path of the server, as root on loopback, and the frames until its end.
async fn websocket(cluster: &Cluster, uri: &str, protocol: &str) -> Vec<Vec<u8>> {
    let mut request = format!("ws://127.0.0.1:{}{uri}", cluster.port())
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    let mut frames = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => frames.push(bytes.to_vec()),
            Message::Text(text) => frames.push(text.as_bytes().to_vec()),
            Message::Close(_) => break,
            _ => {}
        }
    }
    frames
}

async fn exec_over_websocket(cluster: Cluster) {
    let pods = cluster.pods("websocket").await;
    pods.ready(&sleeper("one")).await;
    let namespace = &pods.namespace;
    let uri = format!(
        "/api/v1/namespaces/{namespace}/pods/one/exec?command=echo&command=remote%20execution%20test&stdout=true&stderr=true&container=main"
    );
    let frames = websocket(&cluster, &uri, "channel.k8s.io").await;
    // The first byte of a frame is its channel.
    let stdout: Vec<u8> = frames
        .iter()
        .filter(|frame| frame.first() == Some(&1))
        .flat_map(|frame| frame[1..].to_vec())
        .collect();
    assert_eq!(
        String::from_utf8_lossy(&stdout),
        "remote execution test\n",
        "{frames:?}"
    );
}

async fn logs_over_websocket(cluster: Cluster) {
    let pods = cluster.pods("websocket").await;
    pods.create(&pod("one", "echo container is alive")).await;
    pods.phase("one", "Succeeded").await;
    let namespace = &pods.namespace;
    let uri = format!("/api/v1/namespaces/{namespace}/pods/one/log?container=main");
    let frames = websocket(&cluster, &uri, "binary.k8s.io").await;
    assert_eq!(String::from_utf8_lossy(&frames.concat()), "container is alive\n");
}

async fn generation_is_the_servers(cluster: Cluster) {
    let pods = cluster.pods("generation").await;
    let mut pod = sleeper("one");
    pod["metadata"]["generation"] = json!(100);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(20);
    let created = pods.create(&pod).await;
    assert_eq!(created["metadata"]["generation"], 1);
    pods.until_ready("one").await;
    let deleted = pods.resource.delete("one").await.unwrap();
    assert_eq!(
        deleted["metadata"]["generation"], 2,
        "a graceful deletion changes the pod"
    );
    pods.gone("one").await;
}

fn observes(generation: i64) -> impl Fn(&Value) -> bool {
    move |pod| {
        let conditions = pod["status"]["conditions"].as_array();
        let all = conditions.into_iter().flatten().filter(|c| c["type"] != "PodScheduled");
        pod["status"]["observedGeneration"] == generation && all.clone().all(|c| c["observedGeneration"] == generation)
    }
}

async fn generations(cluster: Cluster) {
    let pods = cluster.pods("generation").await;
    let created = pods.ready(&sleeper("one")).await;
    assert_eq!(created["metadata"]["generation"], 1);
    pods.until("one", "observed", observes(1)).await;
    let toleration = json!([{"key": "test", "operator": "Exists", "effect": "NoSchedule"}]);
    let mut tolerations = created["spec"]["tolerations"].clone();
    tolerations
        .as_array_mut()
        .unwrap()
        .extend(toleration.as_array().unwrap().clone());
    for (patch, generation) in [
        (
            json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}),
            1,
        ),
        (json!({"spec": {"tolerations": tolerations}}), 2),
        (json!({"spec": {"activeDeadlineSeconds": 5000}}), 3),
        (json!({"spec": {"activeDeadlineSeconds": 5000}}), 3),
        (json!({"spec": {"activeDeadlineSeconds": 4000}}), 4),
    ] {
        let patched = pods.resource.merge("one", patch.clone()).await.unwrap();
        assert_eq!(patched["metadata"]["generation"], generation, "{patch}");
        pods.until("one", "observed", observes(generation)).await;
    }
    let image = json!({"spec": {"containers": [{"name": "main", "image": BUSYBOX_TWO}]}});
    let patched = pods
        .resource
        .patch("one", &kube::api::Patch::Strategic(image))
        .await
        .unwrap();
    assert_eq!(patched["metadata"]["generation"], 5);
    pods.until("one", "observed", observes(5)).await;
}

async fn many_generations(cluster: Cluster) {
    let pods = cluster.pods("generation").await;
    pods.ready(&with_spec(sleeper("one"), json!({"activeDeadlineSeconds": 9000})))
        .await;
    for update in 1..=500 {
        let patch = json!({"spec": {"activeDeadlineSeconds": 9000 - update}});
        let patched = pods.resource.merge("one", patch).await.unwrap();
        assert_eq!(patched["metadata"]["generation"], 1 + update);
    }
    pods.until("one", "observed", observes(501)).await;
}
