//! What kubectl asks of the API alone: writes, patches, selectors, namespaces, watches, discovery, health.

use crate::support::krust::Krust;
use crate::support::kubectl::VERSIONS;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cm\ndata:\n  a: \"1\"\n";

#[test]
#[ignore = "needs the kubectl binaries"]
fn every_version_writes() {
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
fn a_namespace_takes_its_content_along() {
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
        let mut watch = kubectl.command(&["get", "cm", "-w", "--no-headers", "--field-selector=metadata.name=cm"]);
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
