//! A pod on a real containerd: ready, logs, adoption after `kill -9` of krust, deletion without remains.

use crate::support::containerd::{self, Containerd};
use crate::support::krust::Krust;
use crate::{SLEEPER, pod_manifest};
use std::time::{Duration, Instant};

fn start() -> (&'static Containerd, Krust) {
    let engine = containerd::shared();
    let krust = Krust::start_with(
        &["--runtime", "containerd"],
        &[
            ("KRUST_RUNTIME__CONTAINERD_ADDRESS", &engine.address),
            ("KRUST_RUNTIME__POD_RANGE", &engine.pod_range),
            ("KRUST_RUNTIME__POD_BRIDGE", &engine.pod_bridge),
        ],
    );
    (engine, krust)
}

#[test]
#[ignore = "needs kubectl and containerd"]
fn pods_on_containerd_outlive_krust() {
    let (engine, mut krust) = start();
    let kubectl = krust.kubectl("1.32");
    for name in ["kept", "deleted"] {
        kubectl.ok_with(&["apply", "-f", "-"], &pod_manifest(name, SLEEPER));
    }
    kubectl.ok(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"]);
    let status = |path: &str| kubectl.ok(&["get", "pod", "kept", "-o", &format!("jsonpath={path}")]);
    assert!(status("{.status.podIP}").parse::<std::net::IpAddr>().is_ok());
    assert!(status("{.status.containerStatuses[0].containerID}").starts_with("containerd://"));
    assert_eq!(kubectl.ok(&["logs", "kept"]), "started\n");
    assert_eq!(kubectl.ok(&["exec", "kept", "--", "hostname"]), "kept\n");
    let identity = "{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} \
                    {.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].restartCount}";
    let before = status(identity);
    // The deletion is acknowledged, and krust dies before it can act on it.
    kubectl.ok(&["delete", "pod", "deleted", "--wait=false"]);
    krust.kill();
    krust.start_again();
    kubectl.ok(&["wait", "pod/deleted", "--for=delete", "--timeout=60s"]);
    assert_eq!(status(identity), before, "the pod was not adopted as it was");
    assert_eq!(kubectl.ok(&["logs", "kept"]), "started\n");
    // An end that happens while krust is away is seen afterwards.
    krust.kill();
    let id = before
        .split(' ')
        .nth(2)
        .and_then(|id| id.strip_prefix("containerd://"))
        .expect("an id");
    engine.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]);
    krust.start_again();
    let deadline = Instant::now() + Duration::from_secs(60);
    while status("{.status.containerStatuses[0].restartCount}") != "1" {
        assert!(
            Instant::now() < deadline,
            "the ended container was not restarted:\n{}",
            krust.log()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        status("{.status.containerStatuses[0].lastState.terminated.exitCode}"),
        "137"
    );
    assert_eq!(kubectl.ok(&["logs", "kept", "--previous"]), "started\n");
    kubectl.ok(&["delete", "pod", "kept"]);
    // The pod is gone once nothing of it runs; what is left of it on the engine goes after that.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !engine.containers_of(&krust.cluster_id()).is_empty() {
        assert!(
            Instant::now() < deadline,
            "containers stay on the engine:\n{}",
            krust.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let interfaces = std::fs::read_dir(format!("/sys/class/net/{}/brif", engine.pod_bridge)).expect("the bridge");
    assert_eq!(interfaces.count(), 0, "an interface was left on the bridge");
    assert_eq!(krust.stop(), Some(0), "SIGTERM ends krust well");
}
