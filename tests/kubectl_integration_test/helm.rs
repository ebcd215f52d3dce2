//! Helm 4 installs, upgrades, rolls back and uninstalls a chart that brings a custom resource definition.

use crate::clients::tool;
use crate::support::krust::Krust;
use crate::support::root;
use serde_json::Value;
use std::process::Command;

struct Helm<'a>(&'a Krust);

impl Helm<'_> {
    fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let home = self.0.data_dir().join("helm");
        let output = Command::new(tool("helm"))
            .args(["-n", "paint-shop"])
            .args(arguments)
            .env("KUBECONFIG", self.0.kubeconfig())
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
            .output()
            .expect("helm starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (success, stdout, stderr) = self.run(arguments);
        assert!(success, "helm {arguments:?}\n{stdout}\n{stderr}");
        stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).expect("JSON")
    }
}

#[test]
#[ignore = "needs helm and kubectl"]
fn a_chart_with_a_definition() {
    let krust = Krust::start(&["--runtime", "none"]);
    let (helm, kubectl) = (Helm(&krust), krust.kubectl("1.37"));
    let chart = root().join("tests/clients/chart");
    let chart = chart.to_str().expect("a UTF-8 path");
    let at = |object: &str, path: &str| {
        kubectl.ok(&["-n", "paint-shop", "get", object, "-o", &format!("jsonpath={{{path}}}")])
    };
    let extra_is_there = || {
        let ran = kubectl.run(&["-n", "paint-shop", "get", "configmap", "wall-extra"]);
        ran.code == Some(0)
    };

    let installed = helm.ok(&["install", "wall", chart, "--create-namespace", "--set", "replicas=2"]);
    assert!(
        installed.contains("STATUS: deployed") && installed.contains("REVISION: 1"),
        "{installed}"
    );
    assert_eq!(at("paint/wall", ".spec"), r#"{"colour":"red","litres":5}"#);
    assert_eq!(at("deployment/wall", ".spec.replicas"), "2");
    assert_eq!(
        at("deployment/wall", ".metadata.labels"),
        r#"{"app.kubernetes.io/managed-by":"Helm"}"#
    );
    assert!(extra_is_there());
    let table = kubectl.ok(&["-n", "paint-shop", "get", "pt"]);
    let words = |line: usize| {
        table
            .lines()
            .nth(line)
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>())
    };
    assert_eq!(
        (words(0), words(1)),
        (Some(vec!["NAME", "COLOUR"]), Some(vec!["wall", "red"]))
    );

    let upgraded = helm.ok(&["upgrade", "wall", chart, "--set", "colour=blue,extra=false"]);
    assert!(upgraded.contains("REVISION: 2"), "{upgraded}");
    assert_eq!(at("paint/wall", ".spec.colour"), "blue");
    assert_eq!(at("configmap/wall", ".data.colour"), "blue");
    assert_eq!(
        at("deployment/wall", ".spec.template.spec.containers[0].env[0].value"),
        "blue"
    );
    assert_eq!(at("deployment/wall", ".spec.replicas"), "1");
    assert!(!extra_is_there(), "what a release no longer has is taken away");

    // The server's word on a value that the schema forbids ends an upgrade.
    let (success, _, stderr) = helm.run(&["upgrade", "wall", chart, "--set", "colour=mauve"]);
    assert!(!success && stderr.contains("spec.colour"), "{stderr}");

    helm.ok(&["rollback", "wall", "1"]);
    assert_eq!(at("paint/wall", ".spec.colour"), "red");
    assert_eq!(at("deployment/wall", ".spec.replicas"), "2");
    assert!(extra_is_there());
    let history = helm.json(&["history", "wall", "-o", "json"]);
    let statuses: Vec<&str> = history
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|r| r["status"].as_str())
        .collect();
    assert_eq!(statuses, ["superseded", "superseded", "failed", "deployed"]);
    let listed = helm.json(&["list", "-o", "json"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["status"]),
        (&"wall".into(), &"deployed".into())
    );

    helm.ok(&["uninstall", "wall"]);
    for object in [
        "paint/wall",
        "deployment/wall",
        "configmap/wall",
        "service/wall",
        "role/wall",
    ] {
        let gone = kubectl.fails_with(&["-n", "paint-shop", "get", object], "");
        assert!(gone.contains("not found"), "{gone}");
    }
    kubectl.ok(&["get", "crd", "paints.colours.example.com"]);
    assert_eq!(helm.json(&["list", "-o", "json"]), Value::Array(Vec::new()));
}
