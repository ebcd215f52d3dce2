//! What kubectl does with every kind: create, get in all forms, describe, explain; scale, autoscale, certificates.

use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, VERSIONS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

const SAMPLES: &str = include_str!("samples.yaml");
/// The version whose client code knows all kinds that are served.
const NEWEST: &str = "1.37";

/// The samples with a real signing request and a real certificate in their places.
fn samples() -> String {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    let request = parameters.serialize_request(&key).and_then(|request| request.pem());
    // Who stands in a trust bundle is an authority.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).expect("a certificate").pem();
    SAMPLES
        .replace("REQUEST", &STANDARD.encode(request.expect("a request")))
        .replace("BUNDLE", &serde_json::Value::from(certificate).to_string())
}

fn resources(kubectl: &Kubectl, verb: &str) -> Vec<String> {
    let verbs = format!("--verbs={verb}");
    let names = kubectl.ok(&["api-resources", "-o", "name", &verbs]);
    names.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn every_kind_is_created_shown_and_described() {
    let krust = Krust::start(&["--runtime", "none"]);
    let kubectl = krust.kubectl(NEWEST);
    let samples = samples();
    let documents = samples.matches("\n---\n").count() + 1;
    let dry = kubectl.ok_with(&["create", "--dry-run=server", "-f", "-"], &samples);
    assert_eq!(dry.lines().count(), documents);
    let created = kubectl.ok_with(&["create", "-f", "-"], &samples);
    assert_eq!(created.lines().count(), documents);
    // An object that is sent as it was read is not changed.
    let applied = kubectl.ok_with(&["apply", "--server-side=false", "-f", "-"], &samples);
    assert_eq!(applied.lines().count(), documents);
    let resources = resources(&kubectl, "get");
    assert!(resources.len() >= 60, "{resources:?}");
    for resource in &resources {
        for form in [
            "wide",
            "yaml",
            "json",
            "name",
            "custom-columns=N:.metadata.name",
            "jsonpath={.items[*].kind}",
        ] {
            kubectl.ok(&["get", resource, "-A", "-o", form]);
        }
        let table = kubectl.ok(&["get", resource, "-A"]);
        let described = kubectl.run(&["describe", resource, "-A"]);
        assert_eq!(described.code, Some(0), "describe {resource}: {}", described.stderr);
        // Some kinds have no sample; whatever is listed is described.
        let shown = !table.is_empty() && resource != "componentstatuses";
        assert!(
            !shown || described.stdout.contains("Name:"),
            "{resource}: {}",
            described.stdout
        );
    }
    kubectl.ok_with(&["delete", "--wait=false", "-f", "-"], &samples);
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn every_kind_is_explained() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        for resource in resources(&kubectl, "get") {
            // To kubectl these are fields of the core group's kinds.
            if ["events.events.k8s.io", "nodes.metrics.k8s.io", "pods.metrics.k8s.io"].contains(&resource.as_str()) {
                continue;
            }
            let text = kubectl.ok(&["explain", &resource, "--recursive"]);
            assert!(
                text.contains("KIND:") && text.contains("metadata"),
                "{version} {resource}: {text}"
            );
        }
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn what_is_served_is_listed_by_every_version() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        let table = kubectl.ok(&["api-resources"]);
        for line in [
            "pods po v1 true Pod",
            "deployments deploy apps/v1 true Deployment",
            "horizontalpodautoscalers hpa autoscaling/v2 true HorizontalPodAutoscaler",
            "certificatesigningrequests csr certificates.k8s.io/v1 false CertificateSigningRequest",
            "storageversionmigrations storagemigration.k8s.io/v1 false StorageVersionMigration",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let found = table
                .lines()
                .any(|row| row.split_whitespace().collect::<Vec<_>>() == words);
            assert!(found, "{version} lacks {line}:\n{table}");
        }
        let versions = kubectl.ok(&["api-versions"]);
        assert!(
            versions.contains("autoscaling/v1\nautoscaling/v2\n"),
            "{version}: {versions}"
        );
        let all = kubectl.ok(&["api-resources", "--categories=all", "-o", "name"]);
        assert_eq!(all.lines().count(), 10, "{version}: {all}");
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn workloads_are_scaled() {
    let krust = Krust::start(&["--runtime", "none"]);
    krust
        .kubectl(NEWEST)
        .ok(&["create", "deployment", "web", "--image=busybox"]);
    for (version, replicas) in VERSIONS.iter().zip(2..) {
        let kubectl = krust.kubectl(version);
        let wanted = format!("--replicas={replicas}");
        assert_eq!(
            kubectl.ok(&["scale", "deploy/web", &wanted]),
            "deployment.apps/web scaled\n"
        );
        let now = kubectl.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]);
        assert_eq!(now, replicas.to_string());
        let refused = kubectl.fails_with(&["scale", "deploy/web", "--current-replicas=99", "--replicas=1"], "");
        assert!(refused.contains("Expected replicas to be 99, was"), "{refused}");
        let scale = kubectl.ok(&["get", "deploy", "web", "--subresource=scale"]);
        assert!(scale.starts_with("NAME   DESIRED   AVAILABLE"), "{scale}");
        let patch = r#"{"spec":{"replicas":1}}"#;
        kubectl.ok(&[
            "patch",
            "deploy",
            "web",
            "--subresource=scale",
            "--type=merge",
            "-p",
            patch,
        ]);
        let name = format!("web-{replicas}");
        kubectl.ok(&[
            "autoscale",
            "deployment",
            "web",
            "--name",
            &name,
            "--min=2",
            "--max=5",
            "--cpu-percent=50",
        ]);
        let listed = kubectl.ok(&["get", "hpa", &name]);
        assert!(
            listed.contains("cpu: <unknown>/50%") || listed.contains("<unknown>/50%"),
            "{listed}"
        );
        assert!(kubectl.ok(&["describe", "hpa", &name]).contains("Deployment/web"));
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn signing_requests_are_approved_and_denied() {
    let krust = Krust::start(&["--runtime", "none"]);
    let samples = samples();
    let sample = samples
        .split("\n---\n")
        .find(|document| document.contains("kind: CertificateSigningRequest"))
        .expect("a sample");
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        for (name, verb, shown) in [("yes", "approve", "Approved"), ("no", "deny", "Denied")] {
            let name = format!("{name}-{}", version.replace('.', "-"));
            kubectl.ok_with(
                &["create", "-f", "-"],
                &sample.replace("name: sample", &format!("name: {name}")),
            );
            kubectl.ok(&["certificate", verb, &name]);
            let listed = kubectl.ok(&["get", "csr", &name, "--no-headers"]);
            assert!(listed.trim_end().ends_with(shown), "{version}: {listed}");
            assert!(kubectl.ok(&["describe", "csr", &name]).contains(shown));
        }
    }
}
