//! NodeRestriction (upstream: `plugin/pkg/admission/noderestriction`): kubelets write their own node, lease and pods,
//! and nothing of others. What they may call at all is the node authorizer's matter.

use super::{Operation, Subject, stored_node};
use crate::apiserver::authorization::node::node_of;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, Subject as ErrorSubject};
use crate::registry::json::{at, boolean, child_or_new, is_set, items, objects, text, texts};
use crate::registry::strategies::certificates::common_name;
use crate::registry::strategy::Object;
use std::collections::BTreeMap;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Who signs the certificates of nodes.
const NODE_SIGNERS: [&str; 2] = [
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/kube-apiserver-client-kubelet",
];
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
    let why = objection(node, &ctx.info.namespace, subject, object).or_else(|| other_node(ctx, node, subject, object));
    match why {
        None => Ok(()),
        Some(why) => Err(ApiError::forbidden(subject.kind, &subject.name, &why)),
    }
}

/// A mirror pod's owner is the node as it is, not one before it of the same name.
fn other_node(ctx: &Context, node: &str, subject: &Subject<'_>, pod: &Object) -> Option<String> {
    if !subject.creates_pod() || !subject.subresource.is_empty() {
        return None;
    }
    let stored = stored_node(ctx, node).ok().flatten()?;
    let is = text(&stored, &["metadata", "uid"]);
    let named = objects(pod, &["metadata", "ownerReferences"])
        .next()
        .map_or("", |(_, owner)| text(owner, &["uid"]));
    (named != is).then(|| format!("node {node} UID mismatch: expected {named} got {is}"))
}

/// Upstream's words about what the node may not write.
fn objection(node: &str, namespace: &str, subject: &Subject<'_>, object: &Object) -> Option<String> {
    let kind = subject.kind;
    match (kind.group, kind.resource, subject.subresource) {
        ("", "pods", "") => pod(node, subject, object),
        ("", "pods", "status") => pod_status(node, subject, object),
        // What is sent there is looked at as the deletion that it is.
        ("", "pods", "eviction") => None,
        ("", "pods", other) => Some(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
        ("", "nodes", _) => own_node(node, subject, object),
        ("", "persistentvolumeclaims", "status") => claim_status(node, subject, object),
        ("", "persistentvolumeclaims", _) => Some("may only update PVC status".to_owned()),
        ("certificates.k8s.io", "certificatesigningrequests", "") => signing_request(node, subject, object),
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
            "node {node:?} can only create pods with a controller owner reference set to itself"
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
        for (_, source) in objects(volume, &["projected", "sources"]) {
            found.extend(is_set(source, "secret").then_some("secrets"));
            found.extend(is_set(source, "configMap").then_some("configmaps"));
            found.extend(is_set(source, "clusterTrustBundle").then_some("clustertrustbundles"));
        }
    }
    if !items(pod, &["spec", "imagePullSecrets"]).is_empty() {
        found.push("secrets");
    }
    ["secrets", "configmaps", "clustertrustbundles", "persistentvolumeclaims"]
        .into_iter()
        .find(|what| found.contains(what))
}

fn pod_status(node: &str, subject: &Subject<'_>, object: &Object) -> Option<String> {
    if !runs_on(subject.old, node) {
        return Some(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if !changed_labels(subject.old, object).is_empty() {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod| items(pod, &["status", "resourceClaimStatuses"]);
    let given = subject.old.is_some_and(|old| claims(old) != claims(object));
    // Spelled as upstream spells it.
    given.then(|| format!("node {node:?} cannot update resource claim statues"))
}

/// How large a claim is and what happens to it is all that a kubelet says of one.
fn claim_status(node: &str, subject: &Subject<'_>, object: &Object) -> Option<String> {
    let rest = |claim: &Object| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            (
                "status",
                &[
                    "capacity",
                    "conditions",
                    "allocatedResourceStatuses",
                    "allocatedResources",
                ][..],
            ),
        ] {
            let part = child_or_new(&mut claim, part);
            fields.iter().for_each(|field| drop(part.remove(*field)));
        }
        claim
    };
    let more = subject.old.is_some_and(|old| rest(old) != rest(object));
    more.then(|| {
        format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions")
    })
}

/// Certificates of nodes are asked for by the node of the name.
fn signing_request(node: &str, subject: &Subject<'_>, request: &Object) -> Option<String> {
    let of_nodes = NODE_SIGNERS.contains(&text(request, &["spec", "signerName"]));
    if !of_nodes || subject.operation != Operation::Create {
        return None;
    }
    let wanted = format!("system:node:{node}");
    match common_name(text(request, &["spec", "request"])) {
        Err(why) => Some(format!("unable to parse csr: {why}")),
        Ok(name) => (name != wanted).then(|| format!("can only create a node CSR with CN={wanted}")),
    }
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
    let source = |node: &Object| at(node, &["spec", "configSource"]).cloned();
    if let Some(config) = source(object) {
        match subject.old {
            None => {
                let what = "is not allowed to create pods with a non-nil configSource";
                return Some(format!("node {node:?} {what}"));
            }
            Some(old) if source(old).as_ref() != Some(&config) => {
                let what = "is not allowed to update configSource to a new non-nil configSource";
                return Some(format!("node {node:?} {what}"));
            }
            Some(_) => {}
        }
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
mod tests;
