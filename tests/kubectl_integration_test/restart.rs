//! `kill -9` of krust with pods on a real engine: adopted, not restarted; what was deleted meanwhile is cleaned up.

use crate::support::dockerd;
use crate::support::krust::Krust;
use crate::{SLEEPER, pod_manifest};
use std::time::{Duration, Instant};

#[test]
#[ignore = "needs kubectl and dockerd"]
fn pods_outlive_krust() {
    let docker = dockerd::shared();
    let mut krust = Krust::start_with(
        &["--runtime", "docker"],
        &[("KRUST_RUNTIME__DOCKER_HOST", &docker.endpoint)],
    );
    let kubectl = krust.kubectl("1.32");
    for name in ["kept", "deleted"] {
        kubectl.ok_with(&["apply", "-f", "-"], &pod_manifest(name, SLEEPER));
    }
    kubectl.ok(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"]);
    let status = |path: &str| kubectl.ok(&["get", "pod", "kept", "-o", &format!("jsonpath={path}")]);
    let identity = "{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} \
                    {.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].restartCount}";
    let before = status(identity);
    let started_before = docker.inspect_containers(&krust, "{{.State.StartedAt}}");
    // The deletion is acknowledged, and krust dies before it can act on it.
    kubectl.ok(&["delete", "pod", "deleted", "--wait=false"]);
    krust.kill();
    krust.start_again();
    kubectl.ok(&["wait", "pod/deleted", "--for=delete", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["logs", "kept"]), "started\n");
    assert_eq!(status(identity), before, "the pod was not adopted as it was");
    let started_after = docker.inspect_containers(&krust, "{{.State.StartedAt}}");
    assert!(
        started_after.iter().all(|time| started_before.contains(time)),
        "a container was restarted"
    );
    // An end that happens while krust is away is seen afterwards.
    krust.kill();
    docker.kill_container(&krust, "main");
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
    kubectl.ok(&["delete", "pod", "kept"]);
    docker.wait_until_empty(&krust);
    assert_eq!(krust.stop(), Some(0), "SIGTERM ends krust well");
}
