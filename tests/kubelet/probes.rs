//! Probes and lifecycle hooks.

use crate::cluster::{Cluster, POLITE, app, eventually, state};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

/// A container that runs until it is stopped, with these fields besides.
fn with(fields: Value) -> Value {
    let mut spec = app(&POLITE);
    let container = spec["containers"][0].as_object_mut().unwrap();
    container.extend(fields.as_object().unwrap().clone());
    spec
}

/// A probe by a command that ends with `code`.
fn probe(code: i32) -> Value {
    json!({"exec": {"command": ["sh", "-c", format!("exit {code}")]}, "periodSeconds": 1, "failureThreshold": 1})
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True")
}

#[tokio::test]
async fn readiness_decides_about_ready() {
    let cluster = Cluster::start().await;
    cluster.create("yes", with(json!({"readinessProbe": probe(0)}))).await;
    cluster.create("no", with(json!({"readinessProbe": probe(1)}))).await;
    cluster.wait("yes", "ready", ready).await;
    let pod = cluster.wait_phase("no", "Running").await;
    assert!(!ready(&pod));
    let event = cluster.wait_event("Unhealthy", "Readiness probe failed: ").await;
    assert_eq!(event.involved_object.name.as_deref(), Some("no"));
    assert_eq!(
        state(&cluster.pods().get("no").await.unwrap()).0,
        0,
        "an unready container is not restarted"
    );
}

#[tokio::test]
async fn a_container_that_does_not_live_is_restarted() {
    let cluster = Cluster::start().await;
    cluster.create("sick", with(json!({"livenessProbe": probe(1)}))).await;
    cluster.wait_event("Unhealthy", "Liveness probe failed: ").await;
    cluster
        .wait_event("Killing", "Container c failed liveness probe, will be restarted")
        .await;
    cluster
        .wait("sick", "restarted", |pod| {
            pod.status.as_ref().unwrap().container_statuses.is_some() && state(pod).0 > 0
        })
        .await;
}

#[tokio::test]
async fn a_container_whose_first_hook_failed_ends_with_its_last_one() {
    let cluster = Cluster::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let get = json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": "/last"}});
    let fails = json!({"exec": {"command": ["sh", "-c", "exit 3"]}});
    let mut spec = with(json!({"lifecycle": {"postStart": fails, "preStop": get}}));
    spec["restartPolicy"] = json!("Never");
    cluster.create("hooked", spec).await;
    let asked = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let asked = asked.await.expect("the preStop hook runs");
    assert!(asked.starts_with("GET /last HTTP/1.1"), "{asked}");
    cluster.wait_event("FailedPostStartHook", "PostStartHook failed").await;
    cluster.wait_event("Killing", "FailedPostStartHook").await;
    cluster.wait_phase("hooked", "Succeeded").await;
}

#[tokio::test]
async fn startup_comes_first() {
    let cluster = Cluster::start().await;
    let mut never = probe(1);
    never["failureThreshold"] = json!(1000);
    cluster
        .create(
            "starting",
            with(json!({"startupProbe": never, "livenessProbe": probe(1)})),
        )
        .await;
    cluster.create("started", with(json!({"startupProbe": probe(0)}))).await;
    cluster.wait("started", "ready", ready).await;
    cluster.wait_event("Unhealthy", "Startup probe failed: ").await;
    let pod = cluster.wait_phase("starting", "Running").await;
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    assert_eq!(
        (status.started, status.ready, status.restart_count),
        (Some(false), false, 0)
    );
}

#[tokio::test]
async fn hooks() {
    let cluster = Cluster::start().await;
    let exec = |code: i32| json!({"exec": {"command": ["sh", "-c", format!("exit {code}")]}});
    cluster
        .create("bad", with(json!({"lifecycle": {"postStart": exec(1)}})))
        .await;
    cluster
        .create(
            "good",
            with(json!({"lifecycle": {"postStart": exec(0), "preStop": exec(2)}})),
        )
        .await;
    cluster.wait_event("FailedPostStartHook", "PostStartHook failed").await;
    let failed = |pod: &Pod| {
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        statuses.is_some() && state(pod).0 > 0 && state(pod).1["waiting"]["reason"] == "CrashLoopBackOff"
    };
    cluster.wait("bad", "in a crash loop", failed).await;
    cluster.wait("good", "ready", ready).await;
    cluster.pods().delete("good", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("good").await;
    cluster.wait_event("FailedPreStopHook", "PreStopHook failed").await;
    let only_bad = async || cluster.pods().get_opt("good").await.unwrap().is_none();
    eventually("only the bad one is left", only_bad).await;
}
