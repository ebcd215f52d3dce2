//! The quick start, to the letter: plain HTTP on loopback, with and without `--validate=false`.

use crate::support::dockerd;
use crate::support::krust::Krust;
use crate::support::kubectl::VERSIONS;
use crate::{SLEEPER, pod_manifest};

#[test]
#[ignore = "needs kubectl and dockerd"]
fn over_plain_http() {
    let docker = dockerd::shared();
    let krust = Krust::start_with(
        &["--runtime", "docker"],
        &[("KRUST_RUNTIME__DOCKER_HOST", &docker.endpoint)],
    );
    let file = krust.data_dir().join("pod.yaml");
    std::fs::write(&file, pod_manifest("quick", SLEEPER)).expect("the manifest");
    let file = file.to_str().expect("a UTF-8 path");
    let server = format!("--server=http://localhost:{}", krust.port);
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = krust.plain_get(path).expect("an answer");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
            "{path}: {answer}"
        );
    }
    krust.kubectl("1.32").wait_for_node();
    for version in VERSIONS {
        for validate in [Some("--validate=false"), None] {
            let kubectl = krust.kubectl(version);
            let run = |arguments: &[&str]| {
                // No kubeconfig: as in the quick start, the server's address is all that kubectl knows.
                let mut command = kubectl.command(arguments);
                let output = command
                    .arg(&server)
                    .env("KUBECONFIG", "/dev/null")
                    .output()
                    .expect("kubectl runs");
                assert!(output.status.success(), "kubectl {version} {arguments:?}: {output:?}");
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            run(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=30s"]);
            assert!(run(&["get", "nodes"]).contains("Ready"));
            let mut apply = vec!["apply", "-f", file];
            apply.extend(validate);
            assert!(run(&apply).contains("pod/quick created"));
            run(&["wait", "pod/quick", "--for=condition=Ready", "--timeout=60s"]);
            let pods = run(&["get", "pods"]);
            assert!(pods.contains("1/1") && pods.contains("Running"), "{pods}");
            let description = run(&["describe", "pod", "quick"]);
            for text in [
                "Status:           Running",
                "Scheduled",
                "Started",
                "Image:",
                "Container ID:  docker://",
            ] {
                assert!(description.contains(text), "describe lacks {text:?}:\n{description}");
            }
            run(&["delete", "pod", "quick"]);
            assert!(run(&["get", "pods"]).is_empty());
        }
    }
    docker.wait_until_empty(&krust);
}
