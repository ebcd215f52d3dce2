//! Roles and bindings: what they allow, who may write them, and those that every cluster has.

use crate::harness::{Answer, CONFIG_MAPS, Server};
use poem::http::Method;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const CLUSTER_ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

fn role(name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({
        "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": resources, "verbs": verbs}],
    })
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

async fn jane(server: &Server, method: Method, uri: &str, body: Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    server.send_as("jane", &["dev"], method, uri, body).await
}

#[tokio::test]
async fn what_is_bound_is_allowed_at_once_and_no_longer_when_it_is_unbound() {
    let server = Server::start().await;
    let refused = jane(&server, Method::GET, CONFIG_MAPS, Value::Null)
        .await
        .failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    server
        .post(ROLE_BINDINGS, binding("b", "Role", "reader", "jane"))
        .await
        .expect(201);
    let refused = jane(&server, Method::GET, CONFIG_MAPS, Value::Null)
        .await
        .failure(403, "Forbidden");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.ends_with("in the namespace \"default\": RBAC: role.rbac.authorization.k8s.io \"reader\" not found"),
        "{message}"
    );
    for _ in 0..20 {
        server
            .post(ROLES, role("reader", &["list"], &["configmaps"]))
            .await
            .expect(201);
        jane(&server, Method::GET, CONFIG_MAPS, Value::Null).await.expect(200);
        jane(&server, Method::GET, &format!("{CONFIG_MAPS}/x"), Value::Null)
            .await
            .failure(403, "Forbidden");
        jane(&server, Method::GET, "/api/v1/configmaps", Value::Null)
            .await
            .failure(403, "Forbidden");
        server.delete(&format!("{ROLES}/reader")).await.expect(200);
        jane(&server, Method::GET, CONFIG_MAPS, Value::Null)
            .await
            .failure(403, "Forbidden");
    }
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    let writes = json!({
        "metadata": {"name": "role-writer"},
        "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["*"],
            "resourceNames": []},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    });
    let mut writes = writes;
    // Every verb but those that go round the check.
    writes["rules"][0]["verbs"] = json!(["create", "update", "patch", "delete", "get"]);
    server.post(CLUSTER_ROLES, writes).await.expect(201);
    server
        .post(
            CLUSTER_ROLE_BINDINGS,
            binding("role-writer", "ClusterRole", "role-writer", "jane"),
        )
        .await
        .expect(201);
    jane(&server, Method::POST, ROLES, role("held", &["get"], &["pods"]))
        .await
        .expect(201);
    let refused = jane(
        &server,
        Method::POST,
        ROLES,
        role("more", &["get", "list", "watch"], &["pods", "secrets"]),
    )
    .await
    .failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"dev\" \"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\" \"watch\"]}"
    );
    let more = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]});
    jane(&server, Method::PATCH, &format!("{ROLES}/held"), more)
        .await
        .failure(403, "Forbidden");
    let label = json!({"metadata": {"finalizers": ["example.com/x"]}});
    jane(&server, Method::PATCH, &format!("{CLUSTER_ROLES}/cluster-admin"), label)
        .await
        .expect(200);
    // Bindings: of a role that is held, of one that is not, of none.
    jane(
        &server,
        Method::POST,
        ROLE_BINDINGS,
        binding("a", "Role", "held", "joe"),
    )
    .await
    .expect(201);
    jane(
        &server,
        Method::POST,
        CLUSTER_ROLE_BINDINGS,
        binding("b", "ClusterRole", "cluster-admin", "jane"),
    )
    .await
    .failure(403, "Forbidden");
    let lost = jane(
        &server,
        Method::POST,
        ROLE_BINDINGS,
        binding("c", "ClusterRole", "lost", "joe"),
    )
    .await
    .failure(404, "NotFound");
    assert_eq!(
        lost["message"],
        "clusterroles.rbac.authorization.k8s.io \"lost\" not found"
    );
    let gathering = json!({"metadata": {"name": "gathering"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let refused = jane(&server, Method::POST, CLUSTER_ROLES, gathering)
        .await
        .failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "clusterroles.rbac.authorization.k8s.io \"gathering\" is forbidden: must have cluster-admin privileges to use the aggregationRule"
    );
    // The two verbs that go round it.
    let around = json!({"metadata": {"name": "around"}, "rules": [
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["view"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}]});
    server.post(CLUSTER_ROLES, around).await.expect(201);
    server
        .post(
            CLUSTER_ROLE_BINDINGS,
            binding("around", "ClusterRole", "around", "jane"),
        )
        .await
        .expect(201);
    jane(
        &server,
        Method::POST,
        ROLE_BINDINGS,
        binding("d", "ClusterRole", "view", "joe"),
    )
    .await
    .expect(201);
    jane(
        &server,
        Method::POST,
        ROLE_BINDINGS,
        binding("e", "ClusterRole", "edit", "joe"),
    )
    .await
    .failure(403, "Forbidden");
    jane(&server, Method::POST, ROLES, role("more", &["*"], &["*"]))
        .await
        .expect(201);
}

#[tokio::test]
async fn every_cluster_has_upstreams_roles_and_looks_after_them() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    let revision = server.api.storage.revision();
    server.api.bootstrap().await.unwrap();
    assert_eq!(server.api.storage.revision(), revision, "nothing is written twice");
    let admin = server.get(&format!("{CLUSTER_ROLES}/admin")).await.expect(200);
    assert!(admin["rules"].as_array().unwrap().len() > 20);
    assert_eq!(
        admin["metadata"]["labels"]["kubernetes.io/bootstrapping"],
        "rbac-defaults"
    );
    let reader = format!("{RBAC}/namespaces/kube-system/roles/extension-apiserver-authentication-reader");
    server.get(&reader).await.expect(200);
    // Taken away, and kept away by who says so.
    let discovery = format!("{CLUSTER_ROLES}/system:discovery");
    let basic = format!("{CLUSTER_ROLES}/system:basic-user");
    let none = json!({"rules": []});
    server.patch(&discovery, "merge", none).await.expect(200);
    let kept =
        json!({"rules": [], "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    server.patch(&basic, "merge", kept).await.expect(200);
    server
        .delete(&format!("{CLUSTER_ROLE_BINDINGS}/system:discovery"))
        .await
        .expect(200);
    server.api.bootstrap().await.unwrap();
    let role = server.get(&discovery).await.expect(200);
    assert!(!role["rules"].as_array().unwrap().is_empty());
    let role = server.get(&basic).await.expect(200);
    assert!(role["rules"].as_array().is_none_or(Vec::is_empty));
    server
        .get(&format!("{CLUSTER_ROLE_BINDINGS}/system:discovery"))
        .await
        .expect(200);
}

#[tokio::test]
async fn fixed_parts_of_the_cluster_hold_their_roles_and_no_more() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    let rows: [(&str, &[&str], Method, &str, bool); 9] = [
        ("system:kube-scheduler", &[], Method::GET, "/api/v1/nodes", true),
        ("system:kube-scheduler", &[], Method::GET, "/api/v1/secrets", false),
        (
            "system:kube-controller-manager",
            &[],
            Method::GET,
            "/api/v1/secrets",
            true,
        ),
        ("system:kube-controller-manager", &[], Method::GET, "/metrics", false),
        (
            "system:node:n1",
            &["system:nodes"],
            Method::GET,
            "/api/v1/nodes/n2",
            false,
        ),
        (
            "system:node:n1",
            &["system:nodes"],
            Method::GET,
            "/api/v1/services",
            true,
        ),
        (
            "system:serviceaccount:kube-system:namespace-controller",
            &[],
            Method::GET,
            "/api/v1/pods",
            true,
        ),
        ("prometheus", &["system:monitoring"], Method::GET, "/metrics", true),
        ("jane", &[], Method::GET, "/docs", true),
    ];
    for (user, groups, method, uri, allowed) in rows {
        let answer = server.send_as(user, groups, method, uri, ()).await;
        assert_eq!(answer.status != 403, allowed, "{user} {uri}: {}", answer.text());
    }
    for uri in ["/healthz", "/livez", "/readyz", "/version"] {
        let answer = server.send_as("system:anonymous", &["system:unauthenticated"], Method::GET, uri, ());
        assert_eq!(answer.await.status, 200, "{uri}");
    }
}
