//! What kubelets may do: their own objects, and what their pods refer to
//! (upstream: `plugin/pkg/auth/authorizer/node/node_authorizer.go`).

mod graph;

use super::follower::Follower;
use super::rule::Rule;
use crate::apiserver::request::{RequestInfo, User};
use crate::storage::Storage;
use graph::{Graph, Target};
use std::sync::Arc;

pub const NODES_GROUP: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node authorizer.
pub struct NodeAuthorizer {
    graph: Follower<Graph>,
    /// What all nodes may do alike.
    rules: Vec<Rule>,
}

/// Allowed, or upstream's reason for having no opinion.
type Verdict = Result<(), String>;

/// The node whose kubelet `user` is; empty if it does not say which.
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX)?;
    user.groups.iter().any(|group| group == NODES_GROUP).then_some(name)
}

impl NodeAuthorizer {
    pub fn new(storage: Arc<Storage>, rules: Vec<Rule>) -> Self {
        Self {
            graph: Follower::new(storage),
            rules,
        }
    }

    /// None if the user is no node.
    pub fn decide(&self, user: &User, info: &RequestInfo) -> Option<Verdict> {
        let node = node_of(user)?;
        if node.is_empty() {
            return Some(Err(format!("unknown node for user {:?}", user.name)));
        }
        Some(self.divided(node, info).unwrap_or_else(|| {
            let allowed = self.rules.iter().any(|rule| rule.allows(info));
            if allowed { Ok(()) } else { Err(String::new()) }
        }))
    }

    /// Resources of which each node may touch only its own; None for all others.
    fn divided(&self, node: &str, info: &RequestInfo) -> Option<Verdict> {
        if !info.is_resource_request {
            return None;
        }
        let verdict = match (info.api_group.as_str(), info.resource.as_str()) {
            ("", "secrets") => self.read(node, Target::Secret, info),
            ("", "configmaps") => self.read(node, Target::ConfigMap, info),
            ("", "persistentvolumeclaims") if info.subresource == "status" => match info.verb.as_str() {
                "update" | "patch" => self.related(node, Target::Claim, info),
                _ => refuse("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => self.get(info, || self.related(node, Target::Claim, info)),
            ("", "persistentvolumes") => self.get(info, || {
                unrelated_unless(self.graph.read().reaches_volume(node, &info.name), node)
            }),
            ("resource.k8s.io", "resourceclaims") => self.get(info, || self.related(node, Target::ResourceClaim, info)),
            ("storage.k8s.io", "volumeattachments") => self.get(info, || {
                unrelated_unless(self.graph.read().owns_attachment(node, &info.name), node)
            }),
            ("", "serviceaccounts") => self.account(node, info),
            ("coordination.k8s.io", "leases") => lease(node, info),
            ("storage.k8s.io", "csinodes") => csi_node(node, info),
            ("resource.k8s.io", "resourceslices") => self.slice(node, info),
            ("certificates.k8s.io", "podcertificaterequests") => self.certificate(node, info),
            ("", "nodes") => own_node(node, info),
            ("", "pods") => self.pod(node, info),
            _ => return None,
        };
        Some(verdict)
    }

    fn related(&self, node: &str, target: Target, info: &RequestInfo) -> Verdict {
        if info.name.is_empty() {
            return refuse("No Object name found");
        }
        let found = self.graph.read().reaches(node, target, &info.namespace, &info.name);
        unrelated_unless(found, node)
    }

    fn get(&self, info: &RequestInfo, related: impl FnOnce() -> Verdict) -> Verdict {
        if info.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !info.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        related()
    }

    fn read(&self, node: &str, target: Target, info: &RequestInfo) -> Verdict {
        if !matches!(info.verb.as_str(), "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !info.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if info.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, target, info)
    }

    fn account(&self, node: &str, info: &RequestInfo) -> Verdict {
        if info.verb == "get" && info.subresource.is_empty() {
            return self.related(node, Target::ServiceAccount, info);
        }
        if info.verb != "create" || info.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if info.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, Target::ServiceAccount, info)
    }

    fn slice(&self, node: &str, info: &RequestInfo) -> Verdict {
        if !info.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match info.verb.as_str() {
            // The object says for which node it is; admission looks at it.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                unrelated_unless(self.graph.read().owns_slice(node, &info.name), node)
            }
            "watch" | "list" | "deletecollection" if selects(info, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with spec.nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn certificate(&self, node: &str, info: &RequestInfo) -> Verdict {
        if !info.subresource.is_empty() {
            return refuse("nodes may not access the status subresource of PodCertificateRequests");
        }
        match info.verb.as_str() {
            "create" => Ok(()),
            "get" => {
                let owned = self.graph.read();
                unrelated_unless(owned.owns_certificate(node, &info.namespace, &info.name), node)
            }
            "list" | "watch" if selects(info, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => refuse("can only list/watch podcertificaterequests with spec.nodeName field selector"),
            _ => refuse("only the following verbs are allowed for a PodCertificateRequest: get, list, watch, create"),
        }
    }

    fn pod(&self, node: &str, info: &RequestInfo) -> Verdict {
        match (info.subresource.as_str(), info.verb.as_str()) {
            ("", "get") => self.related(node, Target::Pod, info),
            ("", "list" | "watch") if selects(info, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !info.name.is_empty() => self.related(node, Target::Pod, info),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            // Mirror pods; admission looks at which.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}

fn refuse(why: &str) -> Verdict {
    Err(why.to_owned())
}

fn unrelated_unless(related: bool, node: &str) -> Verdict {
    if related {
        return Ok(());
    }
    Err(format!("no relationship found between node '{node}' and this object"))
}

/// The request is restricted to objects whose `field` is `value`.
fn selects(info: &RequestInfo, field: &str, value: &str) -> bool {
    info.selected_fields
        .iter()
        .any(|(path, wanted)| path == field && wanted == value)
}

fn own_node(node: &str, info: &RequestInfo) -> Verdict {
    match (info.subresource.as_str(), info.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        // By name and not by what is stored: a kubelet looks for its node before it makes it.
        ("", "get" | "list" | "watch") if info.name == node => Ok(()),
        ("", "get" | "list" | "watch") if info.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => Err(format!(
            "node '{node}' cannot read '{}', only its own Node object",
            info.name
        )),
        _ => refuse(""),
    }
}

fn lease(node: &str, info: &RequestInfo) -> Verdict {
    if !matches!(info.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if info.namespace != LEASE_NAMESPACE {
        return Err(format!(
            "can only access leases in the {LEASE_NAMESPACE:?} system namespace"
        ));
    }
    if info.verb != "create" && info.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, info: &RequestInfo) -> Verdict {
    if !matches!(info.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !info.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if info.verb != "create" && info.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::authorization::bootstrap;
    use crate::apiserver::options::Query;
    use crate::registry::{Registry, index_of};
    use crate::storage::{Draft, Key, Operation, Options};
    use poem::http::{Method, Uri};
    use serde_json::json;

    async fn authorizer() -> NodeAuthorizer {
        let registry = Registry::builtin();
        let storage = Storage::open(Options::memory(), registry.clone()).await.unwrap();
        let pod = json!({"metadata": {"name": "web", "namespace": "a", "uid": "u"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"configMap": {"name": "map"}}]}});
        let pod = pod.as_object().unwrap();
        let kind = registry.lookup("", "v1", "pods").unwrap();
        let draft = Draft::new(pod, index_of(&kind, pod));
        let key = Key::new("pods", "a", "web");
        storage.write(Operation::Create { key, draft }).await.unwrap();
        NodeAuthorizer::new(storage, bootstrap::rules_of("system:node"))
    }

    fn ask(authorizer: &NodeAuthorizer, method: Method, target: &str) -> Verdict {
        let user = User {
            name: "system:node:n1".into(),
            groups: vec![NODES_GROUP.into()],
            ..User::default()
        };
        let uri: Uri = target.parse().unwrap();
        let query = Query::parse(uri.query().unwrap_or_default());
        let info = RequestInfo::resolve(&method, &uri, &query);
        authorizer.decide(&user, &info).unwrap()
    }

    #[tokio::test]
    async fn nodes_reach_their_own_and_what_their_pods_need() {
        let authorizer = authorizer().await;
        let rows = [
            ("GET", "/api/v1/nodes/n1", true),
            ("GET", "/api/v1/nodes/n2", false),
            ("GET", "/api/v1/nodes", false),
            ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", true),
            ("DELETE", "/api/v1/nodes/n1", false),
            ("PATCH", "/api/v1/nodes/n1/status", true),
            ("GET", "/api/v1/pods", false),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=1", true),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", false),
            ("GET", "/api/v1/namespaces/a/pods/web", true),
            ("GET", "/api/v1/namespaces/a/pods/other", false),
            ("PATCH", "/api/v1/namespaces/a/pods/web/status", true),
            ("GET", "/api/v1/namespaces/a/secrets/pull", true),
            ("GET", "/api/v1/namespaces/a/secrets/other", false),
            ("GET", "/api/v1/namespaces/a/secrets", false),
            (
                "GET",
                "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dpull&watch=1",
                true,
            ),
            ("PUT", "/api/v1/namespaces/a/secrets/pull", false),
            ("GET", "/api/v1/namespaces/a/configmaps/map", true),
            ("POST", "/api/v1/namespaces/a/serviceaccounts/robot/token", true),
            ("POST", "/api/v1/namespaces/a/serviceaccounts/default/token", false),
            ("GET", "/api/v1/namespaces/a/serviceaccounts/robot", true),
            (
                "GET",
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
                true,
            ),
            (
                "GET",
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
                false,
            ),
            (
                "GET",
                "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/n1",
                false,
            ),
            ("GET", "/api/v1/services", true),
            ("POST", "/api/v1/namespaces/a/events", true),
            ("GET", "/api/v1/namespaces/a/events", false),
            ("GET", "/apis/apps/v1/deployments", false),
        ];
        for (method, target, expected) in rows {
            let verdict = ask(&authorizer, method.parse().unwrap(), target);
            assert_eq!(verdict.is_ok(), expected, "{method} {target}: {verdict:?}");
        }
        assert_eq!(
            ask(&authorizer, Method::GET, "/api/v1/namespaces/a/secrets/other"),
            Err("no relationship found between node 'n1' and this object".to_owned())
        );
    }

    #[test]
    fn nodes_are_known_by_name_and_group() {
        let user = |name: &str, groups: &[&str]| User {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        };
        assert_eq!(node_of(&user("system:node:n1", &[NODES_GROUP])), Some("n1"));
        assert_eq!(node_of(&user("system:node:n1", &[])), None);
        assert_eq!(node_of(&user("n1", &[NODES_GROUP])), None);
    }
}
