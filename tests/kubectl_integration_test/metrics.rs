//! What pods and nodes use: `kubectl top`, autoscaling by it, evictions, and a node that is drained; on real engines.

use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, deployment};
use crate::support::{containerd, dockerd};
use crate::{SLEEPER, pod_manifest};
use serde_json::Value;
use std::time::{Duration, Instant};

fn on_docker(environment: &[(&str, &str)]) -> Krust {
    let engine = dockerd::shared();
    let mut all = vec![("KRUST_RUNTIME__DOCKER_HOST", engine.endpoint.as_str())];
    all.extend_from_slice(environment);
    Krust::start_with(&["--runtime", "docker"], &all)
}

fn on_containerd(environment: &[(&str, &str)]) -> Krust {
    let engine = containerd::shared();
    let mut all = vec![
        ("KRUST_RUNTIME__CONTAINERD_ADDRESS", engine.address.as_str()),
        ("KRUST_RUNTIME__POD_RANGE", engine.pod_range.as_str()),
        ("KRUST_RUNTIME__POD_BRIDGE", engine.pod_bridge.as_str()),
    ];
    all.extend_from_slice(environment);
    Krust::start_with(&["--runtime", "containerd"], &all)
}

/// Tries until `good`, for what becomes true on its own.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come true within three minutes"
        );
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Takes all of the processor time that it may have.
const BUSY: &str = "trap 'exit 0' TERM; (while true; do :; done) & wait";

fn top(krust: &Krust) {
    let kubectl = krust.kubectl("1.32");
    let busy = pod_manifest("busy", BUSY) + "    resources: {limits: {cpu: 200m, memory: 64Mi}}\n";
    let quiet = pod_manifest("quiet", SLEEPER)
        + "  - {name: second, image: busybox:test, imagePullPolicy: IfNotPresent, command: [sleep, '3600']}\n";
    kubectl.ok_with(&["apply", "-f", "-"], &format!("{busy}---\n{quiet}"));
    kubectl.ok(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=120s"]);
    let table = eventually("both pods have figures", || {
        let ran = kubectl.run(&["top", "pod", "--sort-by=cpu"]);
        (ran.code == Some(0) && ran.stdout.lines().count() == 3).then_some(ran.stdout)
    });
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "CPU(cores)", "MEMORY(bytes)"]);
    assert_eq!(rows[1][0], "busy", "{table}");
    let milli = |text: &str| {
        text.strip_suffix('m')
            .expect("thousandths of a core")
            .parse::<u64>()
            .unwrap()
    };
    assert!((20..=300).contains(&milli(rows[1][1])), "{table}");
    assert!(milli(rows[2][1]) < milli(rows[1][1]), "{table}");
    let containers = kubectl.ok(&["top", "pod", "quiet", "--containers"]);
    assert!(
        containers.lines().count() == 3 && containers.contains("second"),
        "{containers}"
    );
    let labelled = kubectl.ok(&["top", "pod", "-l", "app=busy", "--no-headers"]);
    assert!(
        labelled.starts_with("busy") && labelled.lines().count() == 1,
        "{labelled}"
    );
    let node = kubectl.ok(&["top", "node", "--no-headers"]);
    assert!(node.contains('%') && !node.contains("unknown"), "{node}");
    let shown = kubectl.ok(&["get", "pods.metrics.k8s.io", "busy"]);
    assert!(shown.starts_with("NAME") && shown.contains("WINDOW"), "{shown}");
    let service = kubectl.ok(&["get", "apiservice", "v1beta1.metrics.k8s.io"]);
    assert!(service.contains("Local") && service.contains("True"), "{service}");
    let missing = kubectl.fails_with(&["top", "pod", "absent"], "");
    assert!(missing.contains("pods \"absent\" not found"), "{missing}");

    let name = kubectl.ok(&["get", "node", "-o", "name"]).trim().replace("node/", "");
    let raw = |path: &str| kubectl.ok(&["get", "--raw", &format!("/api/v1/nodes/{name}/proxy/{path}")]);
    let summary: Value = serde_json::from_str(&raw("stats/summary")).unwrap();
    let pods = summary["pods"].as_array().unwrap();
    let busy = pods
        .iter()
        .find(|pod| pod["podRef"]["name"] == "busy")
        .expect("the pod is in the summary");
    let container = &busy["containers"][0];
    assert!(
        container["memory"]["workingSetBytes"].as_u64().unwrap() > 0,
        "{container}"
    );
    assert!(
        container["memory"]["availableBytes"].as_u64().unwrap() < 64 << 20,
        "{container}"
    );
    assert!(container["rootfs"]["usedBytes"].is_u64(), "{container}");
    assert!(busy["network"]["rxBytes"].is_u64(), "{busy}");
    assert!(busy["ephemeral-storage"]["usedBytes"].is_u64(), "{busy}");
    let resource = raw("metrics/resource");
    assert!(
        resource.contains("container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"busy\"} "),
        "{resource}"
    );
    assert!(raw("configz").contains("\"maxPods\":110"));

    // A node that is emptied takes no pods.
    kubectl.ok(&[
        "drain",
        &name,
        "--force",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=120s",
    ]);
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "name"]), "");
    let described = kubectl.ok(&["describe", "node", &name]);
    for part in [
        "Unschedulable:      true",
        "KubeletHasSufficientMemory",
        "Allocated resources:",
        "Container Runtime Version:",
    ] {
        assert!(described.contains(part), "{part} is not in\n{described}");
    }
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn top_on_docker() {
    top(&on_docker(&[]));
}

#[test]
#[ignore = "needs kubectl and containerd"]
fn top_on_containerd() {
    top(&on_containerd(&[]));
}

/// Busy until it is told not to be.
const BUSY_UNTIL_TOLD: &str = "trap 'exit 0' TERM; while ! test -e /idle; do for i in 0 1 2 3 4 5 6 7 8 9; do :; done; done & wait; while true; do sleep 1 & wait $!; done";

const AUTOSCALERS: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 2
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 0}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: unserved}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: other}
  minReplicas: 1
  maxReplicas: 2
  metrics:
  - {type: External, external: {metric: {name: queue}, target: {type: Value, value: \"5\"}}}
";

fn autoscaled() -> String {
    let pod = |command: String, rest: &str| {
        format!(
            "{{terminationGracePeriodSeconds: 1, containers: [{{name: main, image: 'busybox:test',
      imagePullPolicy: IfNotPresent, command: {command}{rest}}}]}}"
        )
    };
    let room = ", resources: {requests: {cpu: 50m}, limits: {cpu: 100m}}";
    let busy = pod(format!("[sh, -c, {BUSY_UNTIL_TOLD:?}]"), room);
    let idle = pod("[sleep, '3600']".to_owned(), "");
    [
        deployment("web", &busy),
        deployment("other", &idle),
        AUTOSCALERS.to_owned(),
    ]
    .join("---")
}

fn condition(kubectl: &Kubectl, autoscaler: &str, kind: &str) -> String {
    let path = format!(
        "jsonpath={{range .status.conditions[?(@.type==\"{kind}\")]}}{{.status}} {{.reason}} {{.message}}{{end}}"
    );
    kubectl.ok(&["get", "hpa", autoscaler, "-o", &path])
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn a_busy_deployment_grows_and_an_idle_one_shrinks() {
    let krust = on_docker(&[]);
    let kubectl = krust.kubectl("1.32");
    kubectl.ok_with(&["apply", "-f", "-"], &autoscaled());
    let replicas = || kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]);
    eventually("the deployment grows", || (replicas() == "2").then_some(()));
    let described = kubectl.ok(&["describe", "hpa", "web"]);
    for part in [
        "SuccessfulRescale",
        "New size: 2; reason: cpu resource utilization (percentage of request) above target",
        "ValidMetricFound",
        "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)",
    ] {
        assert!(described.contains(part), "{part} is not in\n{described}");
    }
    let unserved = eventually("the other one says what is missing", || {
        Some(condition(&kubectl, "unserved", "ScalingActive")).filter(|text| text.starts_with("False"))
    });
    assert!(unserved.contains("FailedGetExternalMetric"), "{unserved}");
    assert!(
        unserved.contains("unable to fetch metrics from external metrics API"),
        "{unserved}"
    );
    kubectl.ok(&["delete", "hpa", "unserved"]);
    for pod in kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"]).lines() {
        kubectl.ok(&["exec", pod, "--", "touch", "/idle"]);
    }
    eventually("the deployment shrinks", || (replicas() == "1").then_some(()));
    let events = kubectl.ok(&["events", "--for", "hpa/web"]);
    assert!(
        events.contains("New size: 1; reason: All metrics below target"),
        "{events}"
    );
}

fn evicted(kubectl: &Kubectl, pod: &str) -> String {
    let path = "jsonpath={.status.phase} {.status.reason}: {.status.message}";
    eventually("the pod is evicted", || {
        Some(kubectl.ok(&["get", "pod", pod, "-o", path])).filter(|text| text.starts_with("Failed"))
    })
}

fn too_many_files(krust: &Krust) {
    let kubectl = krust.kubectl("1.32");
    let script = "dd if=/dev/zero of=/data/big bs=1024 count=3000; trap 'exit 0' TERM; sleep 3600 & wait";
    let manifest = pod_manifest("hoarder", script)
        + "    volumeMounts: [{name: data, mountPath: /data}]\n  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]\n";
    kubectl.ok_with(&["apply", "-f", "-"], &manifest);
    let layer = "dd if=/dev/zero of=/big bs=1024 count=3000; trap 'exit 0' TERM; sleep 3600 & wait";
    let manifest = pod_manifest("writer", layer) + "    resources: {limits: {ephemeral-storage: 1Mi}}\n";
    kubectl.ok_with(&["apply", "-f", "-"], &manifest);
    assert_eq!(
        evicted(&kubectl, "hoarder").trim_end(),
        "Failed Evicted: Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\"."
    );
    assert_eq!(
        evicted(&kubectl, "writer").trim_end(),
        "Failed Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi."
    );
    let events = kubectl.ok(&["events", "--for", "pod/hoarder"]);
    assert!(events.contains("Evicted"), "{events}");
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn pods_with_too_many_files_are_evicted_on_docker() {
    too_many_files(&on_docker(&[]));
}

#[test]
#[ignore = "needs kubectl and containerd"]
fn pods_with_too_many_files_are_evicted_on_containerd() {
    too_many_files(&on_containerd(&[]));
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn a_node_that_is_low_on_memory_evicts() {
    let mut krust = on_docker(&[]);
    let kubectl = krust.kubectl("1.32");
    kubectl.ok_with(&["apply", "-f", "-"], &pod_manifest("victim", SLEEPER));
    kubectl.ok(&["wait", "pod/victim", "--for=condition=Ready", "--timeout=120s"]);
    krust.stop();
    // No machine has as much as that left.
    krust.set_environment("KRUST_NODE__EVICTION_HARD", "memory.available<99%");
    krust.start_again();
    let text = evicted(&kubectl, "victim");
    assert!(
        text.starts_with("Failed Evicted: The node was low on resource: memory. Threshold quantity: "),
        "{text}"
    );
    let path = "jsonpath={range .status.conditions[?(@.type==\"DisruptionTarget\")]}{.status} {.reason}{end}";
    assert_eq!(
        kubectl.ok(&["get", "pod", "victim", "-o", path]),
        "True TerminationByKubelet"
    );
    let pressure =
        "jsonpath={range .items[0].status.conditions[?(@.type==\"MemoryPressure\")]}{.status} {.reason}{end}";
    eventually("the node says so", || {
        let shown = kubectl.ok(&["get", "nodes", "-o", pressure]);
        (shown == "True KubeletHasInsufficientMemory").then_some(())
    });
}
