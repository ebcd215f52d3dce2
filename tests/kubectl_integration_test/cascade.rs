//! `kubectl delete --cascade`, and namespaces that go with all that is in them.

use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, VERSIONS};
use std::time::{Duration, Instant};

const OWNER: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owner\n";

/// An owner and a dependent.
fn family(kubectl: &Kubectl) {
    kubectl.ok_with(&["create", "-f", "-"], OWNER);
    let uid = kubectl.ok(&["get", "cm", "owner", "-o", "jsonpath={.metadata.uid}"]);
    let dependent = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: dependent\n  ownerReferences:\n  - {{apiVersion: v1, kind: \
         ConfigMap, name: owner, uid: {uid}, blockOwnerDeletion: true}}\n"
    );
    kubectl.ok_with(&["create", "-f", "-"], &dependent);
}

fn until(what: &str, so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "still not: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn dependents_go_before_their_owner_or_after_it_or_stay() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        let dependents = || kubectl.ok(&["get", "secret", "-o", "jsonpath={.items[*].metadata.name}"]);
        family(&kubectl);
        // Waits for the owner, which waits for the dependent.
        kubectl.ok(&["delete", "cm", "owner", "--cascade=foreground"]);
        assert_eq!(dependents(), "");
        family(&kubectl);
        kubectl.ok(&["delete", "cm", "owner"]);
        until("the dependent is gone", || dependents().is_empty());
        family(&kubectl);
        kubectl.ok(&["delete", "cm", "owner", "--cascade=orphan"]);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(dependents(), "dependent");
        let owners = kubectl.ok(&[
            "get",
            "secret",
            "dependent",
            "-o",
            "jsonpath={.metadata.ownerReferences}",
        ]);
        assert_eq!(owners, "");
        kubectl.ok(&["delete", "secret", "dependent"]);
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn a_namespace_of_two_thousand_objects_goes_in_seconds() {
    let krust = Krust::start(&["--runtime", "none"]);
    let kubectl = krust.kubectl("1.37");
    kubectl.ok(&["create", "namespace", "crowded"]);
    let items: Vec<String> = (0..2000)
        .map(|number| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{number}, namespace: crowded}}\n"))
        .collect();
    kubectl.ok_with(&["create", "-f", "-"], &items.join("---\n"));
    let begin = Instant::now();
    kubectl.ok(&["delete", "namespace", "crowded"]);
    let took = begin.elapsed();
    eprintln!("a namespace of 2,000 objects: {took:?}");
    assert!(took < Duration::from_secs(30), "it took {took:?}");
}
