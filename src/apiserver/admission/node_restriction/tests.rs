//! What node `n1` hears about what it writes.

use super::*;
use crate::registry::Registry;
use serde_json::{Value, json};

/// What node `n1` hears about writing `new` over `old`.
fn ask(resource: (&str, &str), subresource: &str, operation: Operation, old: Value, new: Value) -> String {
    let kind = Registry::builtin().lookup(resource.0, "v1", resource.1).unwrap();
    let object = |value: &Value| value.as_object().cloned();
    let (old, new) = (object(&old), object(&new).unwrap_or_default());
    let name = text(old.as_ref().unwrap_or(&new), &["metadata", "name"]).to_owned();
    let subject = Subject {
        kind: &kind,
        subresource,
        name,
        operation,
        old: old.as_ref(),
        dry_run: false,
        deletion: None,
    };
    objection("n1", "kube-node-lease", &subject, &new).unwrap_or_default()
}

fn pod(node: &str, rest: Value) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true});
    let mut pod = json!({
        "metadata": {"name": "p", "annotations": {MIRROR: "x"}, "ownerReferences": [owner]},
        "spec": {"nodeName": node}});
    for (key, value) in rest.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[test]
fn only_mirror_pods_of_its_own_are_created() {
    let create = |pod: Value| ask(("", "pods"), "", Operation::Create, Value::Null, pod);
    assert_eq!(create(pod("n1", json!({}))), "");
    assert_eq!(
        create(json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}})),
        r#"pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods"#
    );
    assert!(create(pod("n2", json!({}))).contains("spec.nodeName set to itself"));
    let mut foreign = pod("n1", json!({}));
    foreign["metadata"]["ownerReferences"][0]["name"] = json!("n2");
    assert!(create(foreign).contains("an owner reference set to itself"));
    let secret = json!({"volumes": [{"secret": {"secretName": "s"}}]});
    assert!(create(pod("n1", secret)).ends_with("reference secrets"));
    let map = json!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "m"}}}]}]});
    assert!(create(pod("n1", map)).ends_with("reference configmaps"));
    let account = json!({"serviceAccountName": "robot"});
    assert!(create(pod("n1", account)).ends_with("reference a service account"));
}

#[test]
fn pods_of_others_are_left_alone() {
    let (own, other) = (pod("n1", json!({})), pod("n2", json!({})));
    let delete = |pod: &Value| ask(("", "pods"), "", Operation::Delete, pod.clone(), json!({}));
    assert_eq!(delete(&own), "");
    assert!(delete(&other).contains("can only delete pods"));
    let status = |old: &Value, new: &Value| ask(("", "pods"), "status", Operation::Update, old.clone(), new.clone());
    assert_eq!(status(&own, &own), "");
    assert!(status(&other, &other).contains("can only update pod status"));
    let mut labelled = own.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert!(status(&own, &labelled).contains("cannot update labels"));
}

#[test]
fn nodes_keep_to_themselves_and_to_their_labels() {
    let node = |name: &str, labels: Value, taints: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
    let create = |node: Value| ask(("", "nodes"), "", Operation::Create, Value::Null, node);
    assert_eq!(
        create(node("n2", json!({}), json!([]))),
        r#"node "n1" is not allowed to modify node "n2""#
    );
    let fine = json!({"kubernetes.io/hostname": "n1", "mine": "x", "a.node.kubernetes.io/b": "c", "example.com/x": ""});
    assert_eq!(create(node("n1", fine.clone(), json!([]))), "");
    let bad = json!({"kubernetes.io/other": "", "x.node-restriction.kubernetes.io/y": "", "foo.k8s.io/z": ""});
    assert_eq!(
        create(node("n1", bad, json!([]))),
        r#"node "n1" is not allowed to set the following labels: foo.k8s.io/z, kubernetes.io/other, x.node-restriction.kubernetes.io/y"#
    );
    let old = node("n1", json!({"kubernetes.io/other": "kept"}), json!([]));
    let update = |new: Value| ask(("", "nodes"), "", Operation::Update, old.clone(), new);
    assert_eq!(
        update(node("n1", json!({"kubernetes.io/other": "kept", "a": "b"}), json!([]))),
        ""
    );
    assert_eq!(
        update(node("n1", json!({}), json!([]))),
        "is not allowed to modify labels: kubernetes.io/other"
    );
    assert!(
        update(node(
            "n1",
            json!({"kubernetes.io/other": "kept"}),
            json!([{"key": "k"}])
        ))
        .contains("taints")
    );
}

#[test]
fn leases_and_slices_are_the_nodes_own() {
    let lease = |name: &str| {
        let lease = json!({"metadata": {"name": name}});
        ask(
            ("coordination.k8s.io", "leases"),
            "",
            Operation::Create,
            Value::Null,
            lease,
        )
    };
    assert_eq!(lease("n1"), "");
    assert!(lease("n2").contains("same name"));
    let slice = |node: &str| {
        let slice = json!({"metadata": {"name": "s"}, "spec": {"nodeName": node}});
        ask(
            ("resource.k8s.io", "resourceslices"),
            "",
            Operation::Create,
            Value::Null,
            slice,
        )
    };
    assert_eq!(slice("n1"), "");
    assert!(slice("n2").starts_with("can only create ResourceSlice"));
}

#[test]
fn other_words_of_upstream() {
    let request_of = |name: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    };
    let request = |signer: &str, pem: &str| {
        use base64::Engine;
        let pem = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": pem}})
    };
    let (serving, requests) = (
        "kubernetes.io/kubelet-serving",
        ("certificates.k8s.io", "certificatesigningrequests"),
    );
    let own = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}});
    let mut claimed = own.clone();
    claimed["status"] = json!({"resourceClaimStatuses": [{"name": "c"}]});
    let claim = |more: Value| {
        let mut claim = json!({"metadata": {"name": "c"}, "status": {}});
        json_patch::merge(&mut claim, &more);
        claim
    };
    let node = |source: Value| json!({"metadata": {"name": "n1"}, "spec": {"configSource": source}});
    let plain = json!({"metadata": {"name": "n1"}});
    let update = Operation::Update;
    for (resource, subresource, operation, old, new, expected) in [
        (
            ("", "pods"),
            "resize",
            update,
            own.clone(),
            own.clone(),
            "unexpected pod subresource \"resize\", only 'status' and 'eviction' are allowed",
        ),
        (
            ("", "pods"),
            "status",
            update,
            own.clone(),
            claimed,
            "node \"n1\" cannot update resource claim statues",
        ),
        (
            ("", "persistentvolumeclaims"),
            "",
            update,
            claim(json!({})),
            claim(json!({})),
            "may only update PVC status",
        ),
        (
            ("", "persistentvolumeclaims"),
            "status",
            update,
            claim(json!({})),
            claim(json!({"status": {"capacity": {"storage": "1"}, "conditions": []}})),
            "",
        ),
        (
            ("", "persistentvolumeclaims"),
            "status",
            update,
            claim(json!({})),
            claim(json!({"metadata": {"labels": {"a": "b"}}})),
            "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions",
        ),
        (
            ("", "nodes"),
            "",
            Operation::Create,
            Value::Null,
            node(json!({})),
            "node \"n1\" is not allowed to create pods with a non-nil configSource",
        ),
        (
            ("", "nodes"),
            "",
            update,
            plain,
            node(json!({})),
            "node \"n1\" is not allowed to update configSource to a new non-nil configSource",
        ),
        (
            requests,
            "",
            Operation::Create,
            Value::Null,
            request(serving, &request_of("system:node:n2")),
            "can only create a node CSR with CN=system:node:n1",
        ),
        (
            requests,
            "",
            Operation::Create,
            Value::Null,
            request(serving, &request_of("system:node:n1")),
            "",
        ),
        (requests, "", Operation::Create, Value::Null, request("a.b/c", "x"), ""),
        (
            requests,
            "",
            Operation::Create,
            Value::Null,
            request(serving, "x"),
            "unable to parse csr: PEM block type must be CERTIFICATE REQUEST",
        ),
    ] {
        assert_eq!(ask(resource, subresource, operation, old, new), expected);
    }
}
