//! Server-side apply with the real kubectl: conflicts, diff, and the way from client-side apply.

use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, VERSIONS};
use serde_json::Value;

fn config_map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cm\n  labels: {{tier: web}}\ndata: {data}\n")
}

/// `manager operation` of every entry, sorted.
fn owners(kubectl: &Kubectl) -> Vec<String> {
    let text = kubectl.ok(&["get", "cm", "cm", "-o", "json", "--show-managed-fields"]);
    let object: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut owners: Vec<String> = entries
        .iter()
        .map(|entry| {
            format!(
                "{} {}",
                entry["manager"].as_str().unwrap_or_default(),
                entry["operation"].as_str().unwrap_or_default()
            )
        })
        .collect();
    owners.sort();
    owners
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn applies_conflict_and_are_forced() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        let apply = ["apply", "--server-side", "-f", "-"];
        let applied = kubectl.ok_with(&apply, &config_map("{a: \"1\", b: \"1\"}"));
        assert!(
            applied.contains("configmap/cm serverside-applied"),
            "{version}: {applied}"
        );
        assert_eq!(owners(&kubectl), ["kubectl Apply"]);
        let hidden = kubectl.ok(&["get", "cm", "cm", "-o", "yaml"]);
        assert!(!hidden.contains("managedFields"), "{version}: {hidden}");
        // Somebody changes a field by hand; the next apply that wants another value is told.
        kubectl.ok(&["patch", "cm", "cm", "--type=merge", "-p", r#"{"data":{"a":"2"}}"#]);
        let other = config_map("{a: \"3\", b: \"1\"}");
        let refused = kubectl.fails_with(&apply, &other);
        assert!(
            refused.contains("Apply failed with 1 conflict: conflict with \"kubectl-patch\" using v1: .data.a"),
            "{version}: {refused}"
        );
        let forced = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        kubectl.ok_with(&forced, &other);
        assert_eq!(owners(&kubectl), ["kubectl Apply"], "{version}");
        // What is not listed any longer goes.
        kubectl.ok_with(&apply, &config_map("{b: \"1\"}"));
        assert_eq!(
            kubectl.ok(&["get", "cm", "cm", "-o", "jsonpath={.data}"]),
            r#"{"b":"1"}"#
        );
        let ran = kubectl.run_with(&["diff", "--server-side", "-f", "-"], &config_map("{b: \"9\"}"));
        assert_eq!(ran.code, Some(1), "{version}: {}", ran.stderr);
        assert!(
            ran.stdout.contains("-  b: \"1\"") && ran.stdout.contains("+  b: \"9\""),
            "{}",
            ran.stdout
        );
        let unknown = format!("{}nonsense: 1\n", config_map("{b: \"1\"}"));
        let refused = kubectl.fails_with(&apply, &unknown);
        assert!(
            refused.contains(".nonsense: field not declared in schema"),
            "{version}: {refused}"
        );
        kubectl.ok(&["delete", "cm", "cm"]);
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn client_side_apply_becomes_server_side() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        kubectl.ok_with(&["apply", "-f", "-"], &config_map("{a: \"1\", b: \"1\"}"));
        assert_eq!(owners(&kubectl), ["kubectl-client-side-apply Update"], "{version}");
        let apply = ["apply", "--server-side", "-f", "-"];
        kubectl.ok_with(&apply, &config_map("{a: \"2\"}"));
        // The old owner is gone, so what the new configuration leaves out goes, too.
        assert!(
            !owners(&kubectl).contains(&"kubectl-client-side-apply Update".to_owned()),
            "{version}: {:?}",
            owners(&kubectl)
        );
        kubectl.ok_with(&apply, &config_map("{a: \"2\"}"));
        assert_eq!(
            kubectl.ok(&["get", "cm", "cm", "-o", "jsonpath={.data}"]),
            r#"{"a":"2"}"#,
            "{version}"
        );
        // And back: the annotation was kept up to date.
        kubectl.ok_with(&["apply", "-f", "-"], &config_map("{c: \"3\"}"));
        assert_eq!(
            kubectl.ok(&["get", "cm", "cm", "-o", "jsonpath={.data}"]),
            r#"{"c":"3"}"#,
            "{version}"
        );
        kubectl.ok(&["delete", "cm", "cm"]);
    }
}
