//! The container image: built from the binary of this build, run with the engine's socket, used with kubectl.
//! The pods' containers are siblings of krust's own.

use crate::support::dockerd::{self, Dockerd};
use crate::support::images::BUSYBOX;
use crate::support::krust::forget_services;
use crate::support::kubectl::Kubectl;
use crate::support::{free_port, root};
use crate::{SLEEPER, pod_manifest};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "krust:test";
const NAME: &str = "krust-in-a-container";
/// Of no other test: rules for Services are this machine's.
const SERVICES: &str = "10.215.0.0/24";

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
        // The process that leads Services outlives it, as pods do.
        let left = self.0.docker(&[
            "ps",
            "--all",
            "--quiet",
            "--filter",
            "label=io.kubernetes.docker.type=companion",
        ]);
        for id in left.lines().chain([NAME]) {
            let _ = Command::new("docker")
                .args(["--host", &self.0.endpoint, "rm", "--force", "--volumes", id])
                .output();
        }
        forget_services(SERVICES);
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
    let services = format!("KRUST_NETWORK__SERVICE_RANGE={SERVICES}");
    docker.docker(&[
        "run", "-d", "--name", NAME, "-e", &services, "-p", &publish, "-v", &socket, IMAGE,
    ]);

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

    volumes_and_streams(&kubectl, directory.path());
    mounts_of_the_host(&kubectl);
    services_by_name(&kubectl);

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

/// Files that krust writes in its container are seen in pods, change with their sources, and streams reach the pods.
fn volumes_and_streams(kubectl: &Kubectl, directory: &Path) {
    kubectl.ok(&["create", "configmap", "settings", "--from-literal=color=green"]);
    kubectl.ok(&["create", "secret", "generic", "keys", "--from-literal=key=hidden"]);
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "volumes", "labels": {"app": "volumes"}}, "spec": {
    "terminationGracePeriodSeconds": 0,
    "containers": [
        {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo written > /scratch/file; nc -ll -p 7 -e cat"],
            "volumeMounts": [
                {"name": "settings", "mountPath": "/settings"},
                {"name": "settings", "mountPath": "/one/color", "subPath": "color"},
                {"name": "keys", "mountPath": "/keys"},
                {"name": "about", "mountPath": "/about"},
                {"name": "scratch", "mountPath": "/scratch"},
            ]},
        {"name": "other", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch", "readOnly": true}]},
    ],
    "volumes": [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "about", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "scratch", "emptyDir": {}},
    ]}});
    kubectl.ok_with(&["apply", "-f", "-"], &manifest.to_string());
    kubectl.ok(&["wait", "pod/volumes", "--for=condition=Ready", "--timeout=60s"]);
    let cat = |container: &str, file: &str| kubectl.ok(&["exec", "volumes", "-c", container, "--", "cat", file]);
    for (container, file, content) in [
        ("main", "/settings/color", "green"),
        ("main", "/one/color", "green"),
        ("main", "/keys/key", "hidden"),
        ("main", "/about/labels", "app=\"volumes\""),
        ("other", "/scratch/file", "written\n"),
    ] {
        assert_eq!(cat(container, file).trim_end(), content.trim_end(), "{file}");
    }
    let token = cat("main", "/var/run/secrets/kubernetes.io/serviceaccount/token");
    assert_eq!(token.split('.').count(), 3, "{token}");

    kubectl.ok(&[
        "patch",
        "configmap",
        "settings",
        "-p",
        "{\"data\":{\"color\":\"blue\"}}",
    ]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while cat("main", "/settings/color") != "blue" {
        assert!(Instant::now() < deadline, "the change does not come");
        std::thread::sleep(Duration::from_millis(100));
    }

    let ran = kubectl.run_with(&["exec", "-i", "volumes", "-c", "main", "--", "cat"], "through");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "through"), "{}", ran.stderr);
    let (here, there, back) = (
        directory.join("here"),
        "volumes:/scratch/copied",
        directory.join("back"),
    );
    std::fs::write(&here, "a file\n".repeat(10_000)).expect("a file");
    kubectl.ok(&["cp", "-c", "main", here.to_str().expect("a path"), there]);
    kubectl.ok(&["cp", "-c", "main", there, back.to_str().expect("a path")]);
    assert_eq!(
        std::fs::read(&here).expect("the file"),
        std::fs::read(&back).expect("its copy")
    );
    forwards(kubectl);
    kubectl.ok(&["delete", "pod", "volumes"]);
}

/// Memory, and files of the engine's host, which krust does not see.
fn mounts_of_the_host(kubectl: &Kubectl) {
    let made = format!("/tmp/{NAME}-{}", std::process::id());
    let script = "stat -c '%F' /devices/null; stat -c '%a %F' /made; grep ' /memory ' /proc/mounts | cut -d' ' -f3; \
                  echo 1 > /below/file; cat /memory/below/file; echo 2 > /deep/file; cat /made/a/b/file; rm -r /made/a; \
                  echo end; exec sleep 3600";
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mounts"}, "spec": {
    "terminationGracePeriodSeconds": 0,
    "containers": [{"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
        "volumeMounts": [
            {"name": "memory", "mountPath": "/memory"},
            {"name": "memory", "mountPath": "/below", "subPath": "below"},
            {"name": "devices", "mountPath": "/devices"},
            {"name": "made", "mountPath": "/made"},
            {"name": "made", "mountPath": "/deep", "subPath": "a/b"},
        ]}],
    "volumes": [
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "devices", "hostPath": {"path": "/dev", "type": "Directory"}},
        {"name": "made", "hostPath": {"path": made, "type": "DirectoryOrCreate"}},
    ]}});
    kubectl.ok_with(&["apply", "-f", "-"], &manifest.to_string());
    kubectl.ok(&["wait", "pod/mounts", "--for=condition=Ready", "--timeout=60s"]);
    let expected = "character special file\n755 directory\ntmpfs\n1\n2\nend\n";
    let deadline = Instant::now() + Duration::from_secs(60);
    while kubectl.ok(&["logs", "mounts"]) != expected {
        assert!(Instant::now() < deadline, "{}", kubectl.ok(&["logs", "mounts"]));
        std::thread::sleep(Duration::from_millis(100));
    }
    kubectl.ok(&["delete", "pod", "mounts"]);
    // This machine's, as the engine is.
    std::fs::remove_dir(&made).expect("the directory that was made");
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wrong"}, "spec": {
    "containers": [{"name": "main", "image": BUSYBOX, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    "volumes": [{"name": "v", "hostPath": {"path": "/dev/null", "type": "Socket"}}]}});
    kubectl.ok_with(&["apply", "-f", "-"], &wrong.to_string());
    let said = "hostPath type check failed: /dev/null is not a socket";
    let deadline = Instant::now() + Duration::from_secs(60);
    while !kubectl.ok(&["describe", "pod", "wrong"]).contains(said) {
        assert!(
            Instant::now() < deadline,
            "{}",
            kubectl.ok(&["describe", "pod", "wrong"])
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    kubectl.ok(&["delete", "pod", "wrong"]);
}

/// Pods find Services by their names, although krust is in a network of its own.
fn services_by_name(kubectl: &Kubectl) {
    let script = "mkdir /www; echo found > /www/index.html; exec httpd -f -p 8080 -h /www";
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
    "terminationGracePeriodSeconds": 0,
    "containers": [{"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", script]}]}});
    kubectl.ok_with(&["apply", "-f", "-"], &manifest.to_string());
    kubectl.ok(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    kubectl.ok(&["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]);
    let address = kubectl.ok(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    // A static busybox has no names for its wget to look up.
    let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80");
    for (words, answer) in [
        (
            ["nslookup", "web.default.svc.cluster.local"].as_slice(),
            address.as_str(),
        ),
        (&["sh", "-c", &get], "found\n"),
    ] {
        let ask = [&["exec", "sibling", "--"], words].concat();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let asked = kubectl.run(&ask);
            if asked.stdout.contains(answer) {
                break;
            }
            assert!(Instant::now() < deadline, "{}{}", asked.stdout, asked.stderr);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    kubectl.ok(&["delete", "pod,service", "web"]);
}

/// A port of the pod answers.
fn forwards(kubectl: &Kubectl) {
    let mut child = kubectl
        .command(&["port-forward", "pod/volumes", ":7"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut line = String::new();
    // Kept: kubectl ends when nobody takes what it says of each connection.
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    stdout.read_line(&mut line).expect("a line");
    // Forwarding from 127.0.0.1:PORT -> 7
    let port = line.split(" -> ").next().and_then(|from| from.rsplit(':').next());
    let port: u16 = port
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.write_all(b"there and back").expect("it is sent");
    let mut answer = [0; 14];
    let read = stream.read_exact(&mut answer);
    child.kill().expect("SIGKILL");
    let said = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&said.stderr);
    read.unwrap_or_else(|error| panic!("no answer: {error}: {said}"));
    assert_eq!(&answer, b"there and back");
}
