//! One short conversation with each kubectl from 1.27 to 1.37.

use super::create::deleted;
use super::{Session, sessions};
use crate::support::kubectl::EVERY_VERSION;

#[test]
#[ignore = "needs the kubectl binaries"]
fn from_1_27_to_1_37() {
    sessions(EVERY_VERSION, conversation);
}

fn conversation(s: &Session) {
    let manifest = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {colour: red}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: 'registry.example/web:1'}]}
";
    s.prints_with(
        manifest,
        "apply -f -",
        "configmap/settings created\ndeployment.apps/web created",
    );
    s.prints_with(
        manifest,
        "apply -f -",
        "configmap/settings unchanged\ndeployment.apps/web unchanged",
    );
    let other = manifest.replace("red", "blue").replace("web:1", "web:2");
    s.prints_with(
        &other,
        "apply -f -",
        "configmap/settings configured\ndeployment.apps/web configured",
    );
    s.prints(
        "get configmap,deployment -l app=web -o name",
        "configmap/settings\ndeployment.apps/web",
    );
    assert_eq!(
        s.at("deployment/web", ".spec.template.spec.containers[0].image"),
        "registry.example/web:2"
    );
    assert!(s.out("describe configmap settings").contains("colour:\n----\nblue"));
    assert!(
        s.out("explain deployment.spec.replicas")
            .contains("FIELD: replicas <integer>")
    );
    assert_eq!(s.out("auth can-i create pods"), "yes");
    let misspelt = manifest.replace("\ndata:", "\ndta:");
    let refused = s.run("apply -f -", &misspelt);
    assert!(refused.stderr.contains(r#"unknown field "dta""#), "{refused:?}");
    s.prints("create secret generic s --from-literal=a=b", "secret/s created");
    s.prints("label configmap settings tier=front", "configmap/settings labeled");
    s.prints(
        "delete configmap,deployment -l app=web",
        &format!(
            "configmap \"settings\" {d}\ndeployment.apps \"web\" {d}",
            d = deleted(s)
        ),
    );
    s.prints("get configmap,deployment -l app=web --ignore-not-found", "");
}
