//! Probes and lifecycle hooks.

use crate::cluster::Cluster;
use crate::pods::{Pods, SLEEP, condition, container_status, pod, server, sleeper, with_main};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long what must not happen is waited for.
const WATCHED: Duration = Duration::from_secs(6);

pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        pod_test(
            "[sig-node] Probing container should have monotonically increasing restart count",
            restarts_only_grow,
        ),
        pod_test(
            "[sig-node] Probing container with readiness probe should not be ready before initial delay and never restart",
            initial_delay,
        ),
        pod_test(
            "[sig-node] Probing container with readiness probe that fails should never be ready and never restart",
            never_ready,
        ),
        pod_test("[sig-node] PreStop should call prestop when killing a pod", pre_stop),
    ];
    for (name, pod) in well() {
        tests.push(pod_test(name, move |cluster| stays(cluster, pod.clone())));
    }
    for (name, pod) in unwell() {
        tests.push(pod_test(name, move |cluster| is_restarted(cluster, pod.clone())));
    }
    for (hook, path) in [("postStart", "poststart"), ("preStop", "prestop")] {
        for kind in ["exec", "http"] {
            let name = format!(
                "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute {path} {kind} hook properly"
            );
            tests.push(pod_test(name.leak(), move |cluster| hook_is_run(cluster, hook, kind)));
        }
    }
    tests
}

fn live(pod: Value, probe: Value) -> Value {
    let mut probe = probe;
    probe["periodSeconds"] = json!(1);
    with_main(pod, json!({"livenessProbe": probe}))
}

fn grpc(more: &[&str]) -> Value {
    let mut arguments = vec!["serve", "--grpc", "5000"];
    arguments.extend(more);
    let pod = with_main(server("probed"), json!({"args": arguments, "readinessProbe": null}));
    live(
        pod,
        json!({"grpc": {"port": 5000}, "failureThreshold": 1, "initialDelaySeconds": 3}),
    )
}

fn well() -> Vec<(&'static str, Value)> {
    let health = format!("echo ok > /tmp/health; {SLEEP}");
    let exec = json!({"exec": {"command": ["cat", "/tmp/health"]}});
    vec![
        (
            "[sig-node] Probing container should *not* be restarted with a exec \"cat /tmp/health\" liveness probe",
            live(pod("probed", &health), exec),
        ),
        (
            "[sig-node] Probing container should *not* be restarted with a /healthz http liveness probe",
            live(server("probed"), json!({"httpGet": {"path": "/healthz", "port": 80}})),
        ),
        (
            "[sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe",
            live(server("probed"), json!({"tcpSocket": {"port": 80}})),
        ),
        (
            "[sig-node] Probing container should *not* be restarted with a GRPC liveness probe",
            grpc(&[]),
        ),
    ]
}

fn unwell() -> Vec<(&'static str, Value)> {
    let health = format!("echo ok > /tmp/health; (sleep 3; rm /tmp/health) & {SLEEP}");
    let exec = json!({"exec": {"command": ["cat", "/tmp/health"]}, "failureThreshold": 1});
    let http = json!({"httpGet": {"path": "/healthz?after=3", "port": 80}, "failureThreshold": 1});
    vec![
        (
            "[sig-node] Probing container should be restarted with a exec \"cat /tmp/health\" liveness probe",
            live(pod("probed", &health), exec),
        ),
        (
            "[sig-node] Probing container should be restarted with a /healthz http liveness probe",
            live(server("probed"), http),
        ),
        (
            "[sig-node] Probing container should be restarted with a GRPC liveness probe",
            grpc(&["--grpc-well-seconds", "3"]),
        ),
    ]
}

fn restarts(pod: &Value) -> i64 {
    container_status(pod, "main")["restartCount"].as_i64().unwrap_or(0)
}

/// Nothing of this happens for a while.
async fn never(pods: &Pods, name: &str, what: &str, so: impl Fn(&Value) -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < WATCHED {
        let pod = pods.resource.get(name).await.unwrap();
        assert!(!so(&pod), "{name} is {what}: {}", pod["status"]);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn stays(cluster: Cluster, pod: Value) {
    let pods = cluster.pods("probes").await;
    let mut pod = pod;
    pod["spec"]["restartPolicy"] = json!("Always");
    // A busy machine may take its time to bring the server up.
    let container = &mut pod["spec"]["containers"][0];
    let mut startup = container["livenessProbe"].clone();
    startup["failureThreshold"] = json!(60);
    container["startupProbe"] = startup;
    pods.ready(&pod).await;
    never(&pods, "probed", "restarted", |pod| restarts(pod) > 0).await;
}

async fn is_restarted(cluster: Cluster, pod: Value) {
    let pods = cluster.pods("probes").await;
    let mut pod = pod;
    pod["spec"]["restartPolicy"] = json!("Always");
    pods.create(&pod).await;
    let pod = pods.until("probed", "restarted", |pod| restarts(pod) == 1).await;
    let last = &container_status(&pod, "main")["lastState"];
    assert!(last.get("terminated").is_some(), "{last}");
    pods.event("probed", "Unhealthy: Liveness probe failed").await;
    pods.event(
        "probed",
        "Killing: Container main failed liveness probe, will be restarted",
    )
    .await;
}

/// Upstream waits for five, which the back-off makes minutes of.
async fn restarts_only_grow(cluster: Cluster) {
    let pods = cluster.pods("probes").await;
    let mut pod = live(
        sleeper("probed"),
        json!({"exec": {"command": ["false"]}, "failureThreshold": 1}),
    );
    pod["spec"]["restartPolicy"] = json!("Always");
    pods.create(&pod).await;
    let mut seen = 0;
    for wanted in 1..=3 {
        let pod = pods.until("probed", "restarted", |pod| restarts(pod) > seen).await;
        assert_eq!(restarts(&pod), wanted);
        seen = wanted;
    }
}

async fn initial_delay(cluster: Cluster) {
    let pods = cluster.pods("probes").await;
    let probe = json!({"exec": {"command": ["true"]}, "initialDelaySeconds": 4, "periodSeconds": 1});
    let pod = pods
        .ready(&with_main(sleeper("probed"), json!({"readinessProbe": probe})))
        .await;
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let started = time(&container_status(&pod, "main")["state"]["running"]["startedAt"]);
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    let waited = time(&ready["lastTransitionTime"]).duration_since(started).as_secs();
    // Both are whole seconds, cut off.
    assert!((3..20).contains(&waited), "ready after {waited} s");
    assert_eq!(restarts(&pod), 0);
}

async fn never_ready(cluster: Cluster) {
    let pods = cluster.pods("probes").await;
    let probe = json!({"exec": {"command": ["false"]}, "periodSeconds": 1});
    pods.create(&with_main(sleeper("probed"), json!({"readinessProbe": probe})))
        .await;
    pods.phase("probed", "Running").await;
    never(&pods, "probed", "ready or restarted", |pod| {
        condition(pod, "Ready") == "True" || restarts(pod) > 0
    })
    .await;
    pods.event("probed", "Unhealthy: Readiness probe failed").await;
}

/// The hook calls a server, whose output tells; the exec hook does so by a program of the image.
async fn hook_is_run(cluster: Cluster, hook: &'static str, kind: &'static str) {
    let pods = cluster.pods("hooks").await;
    let server = pods.ready(&server("server")).await;
    let address = server["status"]["podIP"].as_str().unwrap().to_owned();
    let path = format!("/echo?msg={hook}");
    let handler = match kind {
        "exec" => json!({"exec": {"command": ["wget", "-q", "-O", "-", format!("http://{address}{path}")]}}),
        _ => json!({"httpGet": {"host": address, "port": 80, "path": path}}),
    };
    let mut hooked = with_main(sleeper("hooked"), json!({"lifecycle": {hook: handler}}));
    hooked["spec"]["terminationGracePeriodSeconds"] = json!(15);
    pods.ready(&hooked).await;
    let called = |logs: &str| logs.contains(&format!("GET {path}"));
    if hook == "preStop" {
        assert!(!called(&pods.logs("server", "").await));
        pods.delete("hooked").await;
        assert!(called(&pods.logs("server", "").await));
    } else {
        // The pod is not ready before the hook has ended.
        assert!(called(&pods.logs("server", "").await));
    }
}

async fn pre_stop(cluster: Cluster) {
    let pods = cluster.pods("hooks").await;
    let server = pods.ready(&server("server")).await;
    let address = server["status"]["podIP"].as_str().unwrap();
    let script = format!("wget -q -O - http://{address}/echo?msg=bye");
    let handler = json!({"preStop": {"exec": {"command": ["sh", "-c", script]}}});
    let mut tester = with_main(sleeper("tester"), json!({"lifecycle": handler}));
    tester["spec"]["terminationGracePeriodSeconds"] = json!(15);
    pods.ready(&tester).await;
    pods.resource.delete("tester").await.unwrap();
    pods.logs_until("server", "", "called", |logs| logs.contains("GET /echo?msg=bye"))
        .await;
    pods.gone("tester").await;
}
