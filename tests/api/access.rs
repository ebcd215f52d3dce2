//! The golden list: for each route, who may call it. `tests/golden/access.txt` is written anew with
//! `KRUST_UPDATE_GOLDEN=1`; a change in it is a change of who may do what.

use crate::harness::Server;
use krust::apiserver::request::{RequestInfo, User};
use krust::registry::{Kind, Registry};
use poem::http::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/access.txt");
const AUTHENTICATED: &str = "system:authenticated";
const ACCOUNTS: &str = "system:serviceaccounts";

/// A letter, whom it stands for, and the groups.
const IDENTITIES: &[(char, &str, &[&str])] = &[
    ('a', "system:anonymous", &["system:unauthenticated"]),
    ('u', "user", &[AUTHENTICATED]),
    ('v', "viewer", &[AUTHENTICATED]),
    ('e', "editor", &[AUTHENTICATED]),
    ('d', "admin", &[AUTHENTICATED]),
    ('c', "cluster-admin", &[AUTHENTICATED]),
    ('n', "system:node:n1", &["system:nodes", AUTHENTICATED]),
    ('s', "system:kube-scheduler", &[AUTHENTICATED]),
    ('m', "system:kube-controller-manager", &[AUTHENTICATED]),
    ('r', "system:serviceaccount:default:robot", &[ACCOUNTS, AUTHENTICATED]),
];

const PATHS: &[&str] = &[
    "/",
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/docs",
    "/healthz",
    "/healthz/ping",
    "/livez",
    "/livez/ping",
    "/logs/",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/readyz/ping",
    "/version",
];

fn user(name: &str, groups: &[&str]) -> User {
    User {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..User::default()
    }
}

/// A server on which the viewer, the editor and the admin are that in `default`, and the last one everywhere.
async fn prepared() -> Server {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let binding = |role: &str, user: &str| {
        json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]})
    };
    for (role, user) in [("view", "viewer"), ("edit", "editor"), ("admin", "admin")] {
        let uri = format!("{rbac}/namespaces/default/rolebindings");
        server.post(&uri, binding(role, user)).await.expect(201);
    }
    let uri = format!("{rbac}/clusterrolebindings");
    let everything = json!({
        "metadata": {"name": "everything"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "cluster-admin"}]});
    server.post(&uri, everything).await.expect(201);
    server
}

/// Who may, as letters; `-` is nobody.
fn who(server: &Server, info: &RequestInfo) -> String {
    let allowed = IDENTITIES.iter().filter(|(_, name, groups)| {
        let decision = server.api.authorizer.decide(&user(name, groups), info);
        decision.is_allowed()
    });
    let letters: String = allowed.map(|(letter, _, _)| *letter).collect();
    if letters.is_empty() { "-".to_owned() } else { letters }
}

fn request(kind: &Kind, verb: &str, subresource: &str) -> RequestInfo {
    let collective = matches!(verb, "create" | "deletecollection" | "list" | "watch") && subresource.is_empty();
    RequestInfo {
        is_resource_request: true,
        verb: verb.to_owned(),
        api_group: kind.group.to_owned(),
        api_version: kind.version.to_owned(),
        namespace: if kind.namespaced() { "default" } else { "" }.to_owned(),
        resource: kind.resource.to_owned(),
        subresource: subresource.to_owned(),
        name: if collective { "" } else { "x" }.to_owned(),
        ..RequestInfo::default()
    }
}

fn line(server: &Server, kind: &Kind, subresource: &str, verbs: &[&str]) -> String {
    let mut by_holders: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for verb in verbs {
        let holders = who(server, &request(kind, verb, subresource));
        by_holders.entry(holders).or_default().push(verb);
    }
    let mut name = kind.group_resource();
    if !subresource.is_empty() {
        name = format!("{name}/{subresource}");
    }
    let mut text = name;
    for (holders, verbs) in by_holders {
        write!(text, " {holders}={}", verbs.join(",")).unwrap();
    }
    text
}

#[tokio::test]
async fn who_may_call_what() {
    let server = prepared().await;
    let mut lines =
        vec!["# Who may call what. Written with KRUST_UPDATE_GOLDEN=1 cargo test --test api access".to_owned()];
    for (letter, name, groups) in IDENTITIES {
        lines.push(format!("# {letter} {name} {}", groups.join(",")));
    }
    for path in PATHS {
        let info = RequestInfo {
            verb: "get".into(),
            path: (*path).into(),
            ..RequestInfo::default()
        };
        lines.push(format!("{path} {}=get", who(&server, &info)));
    }
    let registry = Registry::builtin();
    let mut kinds: Vec<String> = Vec::new();
    for kind in registry.kinds() {
        if !kind.verbs.is_empty() {
            kinds.push(line(&server, &kind, "", kind.verbs));
        }
        for subresource in &kind.subresources {
            kinds.push(line(&server, &kind, subresource.name, subresource.verbs));
        }
    }
    kinds.sort();
    kinds.dedup();
    lines.extend(kinds);
    let text = lines.join("\n") + "\n";
    if std::env::var_os("KRUST_UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    let known: Vec<&str> = golden.lines().collect();
    let changed: Vec<&str> = text.lines().filter(|line| !known.contains(line)).collect();
    let gone: Vec<&str> = known
        .into_iter()
        .filter(|line| !text.lines().any(|now| now == *line))
        .collect();
    assert!(
        changed.is_empty() && gone.is_empty(),
        "who may do what has changed; if that is meant, run with KRUST_UPDATE_GOLDEN=1\nnow: {changed:#?}\nbefore: {gone:#?}"
    );
}

#[tokio::test]
async fn the_list_holds_for_requests() {
    let server = prepared().await;
    for (letter, name, groups) in IDENTITIES {
        for (uri, may) in [
            ("/api/v1/namespaces/default/secrets", "edcm"),
            ("/apis", "uvedcnsmr"),
            ("/version", "auvedcnsmr"),
        ] {
            let answer = server.send_as(name, groups, Method::GET, uri, ()).await;
            assert_eq!(
                answer.status == 200,
                may.contains(*letter),
                "{name} {uri}: {}",
                answer.text()
            );
        }
    }
}
