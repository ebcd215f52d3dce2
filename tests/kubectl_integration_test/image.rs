//! The container image: built from the binary of this build, run with the engine's socket, used with kubectl.
//! The pods' containers are siblings of krust's own.

use crate::support::dockerd::{self, Dockerd};
use crate::support::kubectl::Kubectl;
use crate::support::{free_port, root};
use crate::{SLEEPER, pod_manifest};
use std::process::Command;
use std::time::{Duration, Instant};

const IMAGE: &str = "krust:test";
const NAME: &str = "krust-in-a-container";

/// Removes krust's container also when the test fails.
struct Running<'a>(&'a Dockerd);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = Command::new("docker")
                .args(["--host", &self.0.endpoint, "logs", NAME])
                .output();
            eprintln!("--- krust's log ---\n{logs:?}");
        }
        let _ = Command::new("docker")
            .args(["--host", &self.0.endpoint, "rm", "--force", "--volumes", NAME])
            .output();
    }
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn docker_run_then_kubectl_apply() {
    let docker = dockerd::shared();
    let mut build = Command::new(root().join("scripts/image.sh"));
    let build = build
        .args([env!("CARGO_BIN_EXE_krust"), IMAGE])
        .env("DOCKER_HOST", &docker.endpoint);
    let built = build.output().expect("scripts/image.sh runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let port = free_port();
    let publish = format!("127.0.0.1:{port}:6443");
    let socket = format!("{}:/var/run/docker.sock", docker.socket().display());
    let running = Running(docker);
    docker.docker(&["run", "-d", "--name", NAME, "-p", &publish, "-v", &socket, IMAGE]);

    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("kubeconfig");
    let server = format!("https://127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // The command of the README, but for the port, which may be taken here.
        let arguments = ["exec", NAME, "krust", "kubeconfig", "--server", &server];
        let printed = Command::new("docker")
            .args(["--host", &docker.endpoint])
            .args(arguments)
            .output();
        let printed = printed.expect("docker exec runs");
        if printed.status.success() {
            std::fs::write(&kubeconfig, printed.stdout).expect("the kubeconfig");
            break;
        }
        assert!(
            Instant::now() < deadline,
            "no kubeconfig: {}",
            String::from_utf8_lossy(&printed.stderr)
        );
        std::thread::sleep(Duration::from_millis(100));
    }

    let kubectl = Kubectl::new("1.32", kubeconfig, directory.path().join("cache"));
    kubectl.wait_for_node();
    kubectl.ok_with(&["apply", "-f", "-"], &pod_manifest("sibling", SLEEPER));
    kubectl.ok(&["wait", "pod/sibling", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["logs", "sibling"]), "started\n");
    assert_eq!(kubectl.ok(&["exec", "sibling", "--", "hostname"]), "sibling\n");
    let siblings = "label=io.kubernetes.pod.name=sibling";
    assert_eq!(
        docker.docker(&["ps", "--quiet", "--filter", siblings]).lines().count(),
        2,
        "a sandbox and a container"
    );

    docker.docker(&["restart", NAME]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while kubectl.run(&["get", "--raw", "/readyz"]).code != Some(0) {
        assert!(Instant::now() < deadline, "krust is not back");
        std::thread::sleep(Duration::from_millis(100));
    }
    let restarts = kubectl.ok(&[
        "get",
        "pod",
        "sibling",
        "-o",
        "jsonpath={.status.containerStatuses[0].restartCount}",
    ]);
    assert_eq!(restarts, "0", "the pod was adopted");
    kubectl.ok(&["delete", "pod", "sibling"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !docker
        .docker(&["ps", "--all", "--quiet", "--filter", siblings])
        .is_empty()
    {
        assert!(Instant::now() < deadline, "the pod's containers are left");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(running);
}
