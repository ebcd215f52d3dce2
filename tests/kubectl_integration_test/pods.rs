//! Pods on a real Docker engine: several containers, logs, exec, copy, port-forward, restarts, deletion.

use crate::support::dockerd;
use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, VERSIONS};
use crate::{SLEEPER, pod_manifest};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn start() -> (&'static dockerd::Dockerd, Krust) {
    let docker = dockerd::shared();
    let krust = Krust::start_with(
        &["--runtime", "docker"],
        &[("KRUST_RUNTIME__DOCKER_HOST", &docker.endpoint)],
    );
    (docker, krust)
}

fn run_ready(kubectl: &Kubectl, name: &str, manifest: &str) {
    kubectl.ok_with(&["apply", "-f", "-"], manifest);
    kubectl.ok(&["wait", &format!("pod/{name}"), "--for=condition=Ready", "--timeout=60s"]);
}

/// Tries until `good`, for what becomes true on its own.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come true within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn containers_share_network_and_ipc() {
    let (docker, krust) = start();
    let kubectl = krust.kubectl("1.32");
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: two}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
        - {name: web, image: busybox:test, imagePullPolicy: IfNotPresent, command: [httpd, -f, -p, '8080', -h, /etc], ports: [{containerPort: 8080}]}\n  \
        - {name: side, image: busybox:test, imagePullPolicy: IfNotPresent, command: [sleep, '3600'], env: [{name: GREETING, value: hello}, {name: FULL, value: $(GREETING) world}], \
           resources: {limits: {memory: 64Mi, cpu: 500m}}}\n";
    run_ready(&kubectl, "two", manifest);
    let hosts = kubectl.ok(&[
        "exec",
        "two",
        "-c",
        "side",
        "--",
        "wget",
        "-q",
        "-O",
        "-",
        "http://127.0.0.1:8080/hostname",
    ]);
    assert_eq!(
        hosts.trim(),
        "two",
        "the other container's server answers on loopback, and the host name is the pod's"
    );
    let namespace = |container: &str, kind: &str| {
        kubectl.ok(&[
            "exec",
            "two",
            "-c",
            container,
            "--",
            "readlink",
            &format!("/proc/self/ns/{kind}"),
        ])
    };
    assert_eq!(namespace("web", "net"), namespace("side", "net"));
    assert_eq!(namespace("web", "ipc"), namespace("side", "ipc"));
    assert_ne!(namespace("web", "pid"), namespace("side", "pid"));
    assert_eq!(
        kubectl
            .ok(&["exec", "two", "-c", "side", "--", "sh", "-c", "echo $FULL"])
            .trim(),
        "hello world"
    );
    let limit = docker.inspect_containers(&krust, "{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}}");
    assert!(limit.iter().any(|line| line == "67108864 50000"), "{limit:?}");
    let ip = kubectl.ok(&["get", "pod", "two", "-o", "jsonpath={.status.podIP}"]);
    assert!(ip.parse::<std::net::IpAddr>().is_ok(), "pod IP {ip:?}");
    kubectl.ok(&["delete", "pod", "two"]);
    docker.wait_until_empty(&krust);
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn logs() {
    let (_docker, krust) = start();
    let kubectl = krust.kubectl("1.32");
    run_ready(
        &kubectl,
        "talk",
        &pod_manifest(
            "talk",
            "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; exec sleep 3600",
        ),
    );
    let all = eventually("six lines", || {
        Some(kubectl.ok(&["logs", "talk"])).filter(|text| text.lines().count() == 6)
    });
    assert!(all.contains("line 1\n") && all.contains("oops"), "{all}");
    assert_eq!(kubectl.ok(&["logs", "talk", "--tail=2"]).lines().count(), 2);
    assert_eq!(kubectl.ok(&["logs", "talk", "--tail=0"]), "");
    let stamped = kubectl.ok(&["logs", "talk", "--timestamps", "--tail=1"]);
    let (time, _) = stamped.split_once(' ').expect("a time and a text");
    assert!(time.ends_with('Z') && time.contains('T'), "{stamped}");
    assert_eq!(kubectl.ok(&["logs", "talk", "--since=1h"]).lines().count(), 6);
    assert_eq!(kubectl.ok(&["logs", "talk", "--since-time=2100-01-01T00:00:00Z"]), "");
    // A pod that ends: follow ends with it, and the last line has no newline.
    kubectl.ok_with(
        &["apply", "-f", "-"],
        &pod_manifest("brief", "echo a; sleep 2; printf b").replace("spec:", "spec:\n  restartPolicy: Never"),
    );
    let followed = eventually("a started container", || {
        let ran = kubectl.run(&["logs", "-f", "brief"]);
        (ran.code == Some(0)).then_some(ran.stdout)
    });
    assert_eq!(followed, "a\nb");
    let error = kubectl.fails_with(&["logs", "talk", "-p"], "");
    assert!(
        error.contains(r#"previous terminated container "main" in pod "talk" not found"#),
        "{error}"
    );
    let error = kubectl.fails_with(&["logs", "talk", "-c", "nobody"], "");
    assert!(error.contains("container nobody is not valid for pod talk"), "{error}");
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn every_version_streams() {
    let (_docker, krust) = start();
    let server = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www";
    run_ready(&krust.kubectl("1.32"), "box", &pod_manifest("box", server));
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        assert_eq!(
            kubectl.ok(&["exec", "box", "--", "echo", "hello"]),
            "hello\n",
            "{version}"
        );
        assert_eq!(
            kubectl.ok_with(&["exec", "-i", "box", "--", "cat"], "through stdin"),
            "through stdin",
            "{version}"
        );
        let failed = kubectl.run(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!(
            (failed.code, failed.stdout.as_str()),
            (Some(7), "out\n"),
            "{version}: {}",
            failed.stderr
        );
        assert!(
            failed.stderr.contains("err") && failed.stderr.contains("exit code 7"),
            "{version}: {}",
            failed.stderr
        );
        copy_both_ways(&kubectl, &krust, version);
        port_forward(&kubectl, version);
    }
}

fn copy_both_ways(kubectl: &Kubectl, krust: &Krust, version: &str) {
    let (there, back) = (krust.data_dir().join("there"), krust.data_dir().join("back"));
    let bytes: Vec<u8> = (0..3_000_000u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&there, &bytes).expect("the file to copy");
    kubectl.ok(&["cp", there.to_str().expect("UTF-8"), "box:/tmp/copied"]);
    kubectl.ok(&["cp", "box:/tmp/copied", back.to_str().expect("UTF-8")]);
    assert!(
        std::fs::read(&back).expect("the copy") == bytes,
        "kubectl {version} cp changed the file"
    );
    std::fs::remove_file(back).expect("the copy can be removed");
}

fn port_forward(kubectl: &Kubectl, version: &str) {
    let port = crate::support::free_port();
    let mut command = kubectl.command(&["port-forward", "pod/box", &format!("{port}:8080")]);
    let mut forward = command.stdout(Stdio::null()).spawn().expect("kubectl starts");
    let answer = eventually("the forwarded port", || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    });
    forward.kill().expect("the forward ends");
    forward.wait().expect("its end");
    assert!(answer.contains("served"), "{version}: {answer}");
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn restarts_and_exit_codes() {
    let (docker, krust) = start();
    let kubectl = krust.kubectl("1.32");
    kubectl.ok_with(&["apply", "-f", "-"], &pod_manifest("crash", "echo run; exit 3"));
    let field = |pod: &str, path: &str| kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]);
    eventually("a restart and the back-off", || {
        let restarts: u32 = field("crash", "{.status.containerStatuses[0].restartCount}")
            .parse()
            .unwrap_or(0);
        let waiting = field("crash", "{.status.containerStatuses[0].state.waiting.reason}");
        (restarts >= 1 && waiting == "CrashLoopBackOff").then_some(())
    });
    assert_eq!(
        field("crash", "{.status.containerStatuses[0].lastState.terminated.exitCode}"),
        "3"
    );
    assert_eq!(
        field("crash", "{.status.containerStatuses[0].lastState.terminated.reason}"),
        "Error"
    );
    assert_eq!(kubectl.ok(&["logs", "crash", "-p"]), "run\n");
    assert!(kubectl.ok(&["get", "pods"]).contains("CrashLoopBackOff"));
    let never = |name: &str, script: &str| pod_manifest(name, script).replace("spec:", "spec:\n  restartPolicy: Never");
    kubectl.ok_with(&["apply", "-f", "-"], &never("good", "exit 0"));
    kubectl.ok_with(&["apply", "-f", "-"], &never("bad", "exit 4"));
    for (pod, phase, reason, code) in [("good", "Succeeded", "Completed", "0"), ("bad", "Failed", "Error", "4")] {
        kubectl.ok(&[
            "wait",
            &format!("pod/{pod}"),
            &format!("--for=jsonpath={{.status.phase}}={phase}"),
            "--timeout=60s",
        ]);
        assert_eq!(
            field(pod, "{.status.containerStatuses[0].state.terminated.reason}"),
            reason
        );
        assert_eq!(
            field(pod, "{.status.containerStatuses[0].state.terminated.exitCode}"),
            code
        );
    }
    kubectl.ok_with(
        &["apply", "-f", "-"],
        &pod_manifest("absent", "true").replace("busybox:test", "localhost:1/none:1"),
    );
    eventually("an image error", || {
        let reason = field("absent", "{.status.containerStatuses[0].state.waiting.reason}");
        ["ErrImagePull", "ImagePullBackOff"]
            .contains(&reason.as_str())
            .then_some(())
    });
    kubectl.ok(&["delete", "pod", "--all"]);
    docker.wait_until_empty(&krust);
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn deletion_is_graceful_and_quick() {
    let (docker, krust) = start();
    let kubectl = krust.kubectl("1.32");
    run_ready(&kubectl, "polite", &pod_manifest("polite", SLEEPER));
    let stubborn = "trap '' TERM; while true; do sleep 1; done";
    let manifest = pod_manifest("stubborn", stubborn)
        .replace("terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 2");
    run_ready(&kubectl, "stubborn", &manifest);
    let started = Instant::now();
    kubectl.ok(&["delete", "pod", "polite"]);
    println!("a pod that ends on SIGTERM was gone after {:?}", started.elapsed());
    let started = Instant::now();
    kubectl.ok(&["delete", "pod", "stubborn"]);
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "SIGKILL came before the grace period was over"
    );
    run_ready(&kubectl, "forced", &pod_manifest("forced", SLEEPER));
    kubectl.ok(&["delete", "pod", "forced", "--force", "--grace-period=0"]);
    eventually("the engine has nothing of it", || {
        docker.containers_of(&krust).is_empty().then_some(())
    });
}
