//! NodeRestriction (upstream: `plugin/pkg/admission/noderestriction`): kubelets write their own node, lease and pods,
//! and nothing of others. What they may call at all is the node authorizer's matter.

use super::{Operation, Subject};
use crate::apiserver::authorization::node::node_of;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, Subject as ErrorSubject};
use crate::registry::json::{at, boolean, is_set, items, objects, text, texts};
use crate::registry::strategy::Object;
use std::collections::BTreeMap;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Labels of Kubernetes' own that a kubelet may set, besides those below its own prefixes.
const KUBELET_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    let Some(node) = node_of(&ctx.user) else {
        return Ok(());
    };
    match objection(node, &ctx.info.namespace, subject, object) {
        None => Ok(()),
        Some(why) => Err(ApiError::forbidden(subject.kind, &subject.name, &why)),
    }
}

/// Upstream's words about what the node may not write.
fn objection(node: &str, namespace: &str, subject: &Subject<'_>, object: &Object) -> Option<String> {
    let kind = subject.kind;
    match (kind.group, kind.resource, subject.subresource) {
        ("", "pods", "") => pod(node, subject, object),
        ("", "pods", "status") => pod_status(node, subject, object),
        ("", "nodes", _) => own_node(node, subject, object),
        ("coordination.k8s.io", "leases", _) if namespace != LEASE_NAMESPACE => Some(format!(
            "can only access leases in the {LEASE_NAMESPACE:?} system namespace"
        )),
        ("coordination.k8s.io", "leases", _) => (subject.name != node)
            .then(|| "can only access node lease with the same name as the requesting node".to_owned()),
        ("storage.k8s.io", "csinodes", _) => (subject.name != node)
            .then(|| "can only access CSINode with the same name as the requesting node".to_owned()),
        ("resource.k8s.io", "resourceslices", _) => {
            let of = subject.old.unwrap_or(object);
            let own = text(of, &["spec", "nodeName"]) == node;
            let what = match subject.operation {
                Operation::Create => "create",
                Operation::Update => "update",
                Operation::Delete => "delete",
                Operation::Connect => "connect to",
            };
            (!own).then(|| format!("can only {what} ResourceSlice with the same NodeName as the requesting node"))
        }
        _ => None,
    }
}

fn runs_on(pod: Option<&Object>, node: &str) -> bool {
    pod.is_some_and(|pod| text(pod, &["spec", "nodeName"]) == node)
}

fn pod(node: &str, subject: &Subject<'_>, object: &Object) -> Option<String> {
    match subject.operation {
        Operation::Create => mirror_pod(node, object),
        Operation::Delete if runs_on(subject.old, node) => None,
        Operation::Delete => Some(format!(
            "node {node:?} can only delete pods with spec.nodeName set to itself"
        )),
        Operation::Update | Operation::Connect => Some(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
    }
}

fn mirror_pod(node: &str, pod: &Object) -> Option<String> {
    let is_mirror = texts(pod, &["metadata", "annotations"]).any(|(key, _)| key == MIRROR);
    if !is_mirror {
        return Some(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if !runs_on(Some(pod), node) {
        return Some(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    let owners: Vec<&Object> = objects(pod, &["metadata", "ownerReferences"])
        .map(|(_, owner)| owner)
        .collect();
    let [owner] = owners.as_slice() else {
        let how = if owners.is_empty() { "an" } else { "a single" };
        return Some(format!(
            "node {node:?} can only create pods with {how} owner reference set to itself"
        ));
    };
    let part = |field: &str| text(owner, &[field]);
    if (part("apiVersion"), part("kind"), part("name")) != ("v1", "Node", node) {
        return Some(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if !boolean(owner, &["controller"]) {
        return Some(format!(
            "node {node:?} can only create pods with an owner reference for itself with controller set to true"
        ));
    }
    if boolean(owner, &["blockOwnerDeletion"]) {
        return Some(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let what = referenced(pod)?;
    Some(format!("node {node:?} can not create pods that reference {what}"))
}

/// What of the API the pod refers to, if anything. The account named `default` was put in before.
fn referenced(pod: &Object) -> Option<&'static str> {
    if !matches!(text(pod, &["spec", "serviceAccountName"]), "" | "default") {
        return Some("a service account");
    }
    let mut found = Vec::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (_, container) in objects(pod, &["spec", list]) {
            for (_, source) in objects(container, &["envFrom"]) {
                found.extend(is_set(source, "secretRef").then_some("secrets"));
                found.extend(is_set(source, "configMapRef").then_some("configmaps"));
            }
            for (_, variable) in objects(container, &["env"]) {
                found.extend(at(variable, &["valueFrom", "secretKeyRef"]).map(|_| "secrets"));
                found.extend(at(variable, &["valueFrom", "configMapKeyRef"]).map(|_| "configmaps"));
            }
        }
    }
    for (_, volume) in objects(pod, &["spec", "volumes"]) {
        found.extend(is_set(volume, "secret").then_some("secrets"));
        found.extend(is_set(volume, "configMap").then_some("configmaps"));
        found.extend(is_set(volume, "persistentVolumeClaim").then_some("persistentvolumeclaims"));
    }
    if !items(pod, &["spec", "imagePullSecrets"]).is_empty() {
        found.push("secrets");
    }
    ["secrets", "configmaps", "persistentvolumeclaims"]
        .into_iter()
        .find(|what| found.contains(what))
}

fn pod_status(node: &str, subject: &Subject<'_>, object: &Object) -> Option<String> {
    if !runs_on(subject.old, node) {
        return Some(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let relabelled = !changed_labels(subject.old, object).is_empty();
    relabelled.then(|| format!("node {node:?} cannot update labels through pod status"))
}

fn own_node(node: &str, subject: &Subject<'_>, object: &Object) -> Option<String> {
    if subject.name != node {
        return Some(format!(
            "node {node:?} is not allowed to modify node {:?}",
            subject.name
        ));
    }
    if subject.operation == Operation::Delete {
        return None;
    }
    if let Some(old) = subject.old {
        let list = |object: &Object, path: &[&str]| items(object, path).to_vec();
        if list(object, &["spec", "taints"]) != list(old, &["spec", "taints"]) {
            return Some(format!("node {node:?} is not allowed to modify taints"));
        }
        let owners = ["metadata", "ownerReferences"];
        if list(object, &owners) != list(old, &owners) {
            return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    }
    let forbidden: Vec<&str> = changed_labels(subject.old, object)
        .into_iter()
        .filter(|label| is_forbidden(label))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let forbidden = forbidden.join(", ");
    Some(match subject.operation {
        Operation::Create => format!("node {node:?} is not allowed to set the following labels: {forbidden}"),
        _ => format!("is not allowed to modify labels: {forbidden}"),
    })
}

/// Keys of labels that are new, gone or different, sorted.
fn changed_labels<'a>(old: Option<&'a Object>, new: &'a Object) -> Vec<&'a str> {
    let path = ["metadata", "labels"];
    let held: BTreeMap<&str, &str> = old.into_iter().flat_map(|old| texts(old, &path)).collect();
    let wanted: BTreeMap<&str, &str> = texts(new, &path).collect();
    let keys = held.keys().chain(wanted.keys().filter(|key| !held.contains_key(*key)));
    let mut changed: Vec<&str> = keys.copied().filter(|key| held.get(key) != wanted.get(key)).collect();
    changed.sort_unstable();
    changed
}

/// Labels of Kubernetes' own that kubelets have no say in.
fn is_forbidden(label: &str) -> bool {
    let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
    let below = |domain: &str| prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if below(RESTRICTED) {
        return true;
    }
    (below("kubernetes.io") || below("k8s.io"))
        && !below("kubelet.kubernetes.io")
        && !below("node.kubernetes.io")
        && !KUBELET_LABELS.contains(&label)
}

/// A kubelet's request for a token: only for a pod of its own, which it names by uid.
pub fn admit_token(ctx: &Context, spec: &Object) -> Result<(), ApiError> {
    let Some(node) = node_of(&ctx.user) else {
        return Ok(());
    };
    let part = |field: &str| text(spec, &["boundObjectRef", field]);
    let pod = ctx.storage().get("pods", &ctx.info.namespace, part("name"));
    let on = pod.as_ref().map_or("", |pod| {
        let field = pod.index.fields.iter().find(|(path, _)| *path == "spec.nodeName");
        field.map_or("", |(_, value)| value)
    });
    let why = if (part("apiVersion"), part("kind")) != ("v1", "Pod") || part("name").is_empty() {
        "node requested token not bound to a pod"
    } else if part("uid").is_empty() {
        "node requested token with a pod binding without a uid"
    } else if pod.is_some() && on != node {
        "node requested token bound to a pod scheduled on a different node"
    } else {
        return Ok(());
    };
    let accounts = ErrorSubject {
        group: "",
        resource: "serviceaccounts",
    };
    Err(ApiError::forbidden(accounts, &ctx.info.name, why))
}

#[cfg(test)]
mod tests {
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
        let status =
            |old: &Value, new: &Value| ask(("", "pods"), "status", Operation::Update, old.clone(), new.clone());
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
        let fine =
            json!({"kubernetes.io/hostname": "n1", "mine": "x", "a.node.kubernetes.io/b": "c", "example.com/x": ""});
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
}
