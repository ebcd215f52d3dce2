//! What kubectl asks of the API alone: validation, explain, protobuf bodies, patches, selectors, watches.

use crate::support::krust::Krust;
use crate::support::kubectl::VERSIONS;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cm\ndata:\n  a: \"1\"\n";

#[test]
#[ignore = "needs the kubectl binaries"]
fn every_version_validates_and_applies() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        assert!(
            kubectl
                .ok_with(&["create", "-f", "-"], CONFIG_MAP)
                .contains("configmap/cm created")
        );
        let changed = CONFIG_MAP.replace("\"1\"", "\"2\"");
        assert!(
            kubectl
                .ok_with(&["apply", "-f", "-"], &changed)
                .contains("configmap/cm configured")
        );
        assert!(
            kubectl
                .ok_with(&["apply", "-f", "-"], &changed)
                .contains("configmap/cm unchanged")
        );
        assert_eq!(kubectl.ok(&["get", "cm", "cm", "-o", "jsonpath={.data.a}"]), "2");
        assert!(
            kubectl
                .ok_with(&["replace", "-f", "-"], CONFIG_MAP)
                .contains("configmap/cm replaced")
        );
        kubectl.ok(&["label", "cm", "cm", "tier=web"]);
        kubectl.ok(&["annotate", "cm", "cm", "note=1"]);
        kubectl.ok(&[
            "patch",
            "cm",
            "cm",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/data/b","value":"3"}]"#,
        ]);
        kubectl.ok(&["patch", "cm", "cm", "--type=merge", "-p", r#"{"data":{"a":null}}"#]);
        assert_eq!(
            kubectl.ok(&["get", "cm", "-l", "tier=web", "-o", "jsonpath={.items[*].data}"]),
            r#"{"b":"3"}"#
        );
        kubectl.ok(&["delete", "cm", "cm"]);
        assert!(
            kubectl
                .fails_with(&["get", "cm", "cm"], "")
                .contains(r#"configmaps "cm" not found"#),
            "{version}"
        );
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn every_version_rejects_a_misspelt_field() {
    let krust = Krust::start(&["--runtime", "none"]);
    let pod = crate::pod_manifest("p", "true");
    let misspelt = pod.replace("imagePullPolicy", "imagePulPolicy");
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        for command in ["create", "apply"] {
            let error = kubectl.fails_with(&[command, "-f", "-"], &misspelt);
            let expected = "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: \
                            unknown field \"spec.containers[0].imagePulPolicy\"";
            assert!(error.contains(expected), "kubectl {version} {command}: {error}");
        }
        assert!(
            kubectl.fails_with(&["get", "pod", "p"], "").contains("not found"),
            "{version}"
        );
        let relaxed = kubectl.run_with(&["apply", "-f", "-", "--validate=warn"], &misspelt);
        assert_eq!(relaxed.code, Some(0), "{}", relaxed.stderr);
        assert!(
            relaxed
                .stderr
                .contains(r#"unknown field "spec.containers[0].imagePulPolicy""#),
            "{}",
            relaxed.stderr
        );
        kubectl.ok(&["delete", "pod", "p", "--force", "--grace-period=0"]);
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn every_version_explains() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let text = krust
            .kubectl(version)
            .ok(&["explain", "pod.spec.containers", "--recursive"]);
        for field in [
            "imagePullPolicy",
            "configMapKeyRef",
            "terminationMessagePath",
            "runAsNonRoot",
        ] {
            assert!(text.contains(field), "kubectl {version} explain lacks {field}:\n{text}");
        }
        let text = krust.kubectl(version).ok(&["explain", "configmap.data"]);
        assert!(text.contains("map[string]string"), "{text}");
    }
}

/// kubectl 1.32 and later send protobuf for these.
#[test]
#[ignore = "needs the kubectl binaries"]
fn generators_create_objects() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        kubectl.ok(&["create", "namespace", "made"]);
        kubectl.ok(&["-n", "made", "create", "configmap", "c", "--from-literal=k=v"]);
        kubectl.ok(&[
            "-n",
            "made",
            "create",
            "secret",
            "generic",
            "s",
            "--from-literal=password=geheim",
        ]);
        kubectl.ok(&["-n", "made", "create", "serviceaccount", "robot"]);
        kubectl.ok(&["-n", "made", "run", "p", "--image=busybox:test", "--restart=Never"]);
        assert_eq!(
            kubectl.ok(&["-n", "made", "get", "cm", "c", "-o", "jsonpath={.data.k}"]),
            "v",
            "{version}"
        );
        assert_eq!(
            kubectl.ok(&["-n", "made", "get", "secret", "s", "-o", "jsonpath={.data.password}"]),
            "Z2VoZWlt"
        );
        assert_eq!(
            kubectl.ok(&[
                "-n",
                "made",
                "get",
                "pod",
                "p",
                "-o",
                "jsonpath={.spec.containers[0].image}"
            ]),
            "busybox:test"
        );
        kubectl.ok(&["-n", "made", "get", "serviceaccount", "robot", "default"]);
        kubectl.ok(&["delete", "namespace", "made", "--timeout=60s"]);
        assert!(
            kubectl
                .fails_with(&["get", "namespace", "made"], "")
                .contains("not found"),
            "{version}"
        );
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn every_version_watches() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        let mut watch = kubectl.command(&["get", "cm", "-w", "--no-headers"]);
        let mut watch = watch.stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let mut lines = BufReader::new(watch.stdout.take().expect("its stdout")).lines();
        kubectl.ok_with(&["create", "-f", "-"], CONFIG_MAP);
        let first = lines.next().expect("a line of the watch").expect("it is text");
        assert!(first.starts_with("cm "), "kubectl {version}: {first}");
        kubectl.ok(&["delete", "cm", "cm"]);
        watch.kill().expect("the watch ends");
        watch.wait().expect("the watch's end");
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn discovery_and_health() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        let resources = kubectl.ok(&["api-resources", "--no-headers"]);
        for name in ["pods", "configmaps", "namespaces", "leases", "events", "services"] {
            assert!(
                resources.lines().any(|line| line.starts_with(name)),
                "kubectl {version} lacks {name}: {resources}"
            );
        }
        assert!(kubectl.ok(&["api-versions"]).lines().any(|line| line == "v1"));
        assert!(kubectl.ok(&["version"]).contains("Server Version"));
        assert_eq!(kubectl.ok(&["get", "--raw", "/readyz"]), "ok");
    }
}
