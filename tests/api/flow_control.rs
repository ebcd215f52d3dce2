//! API priority and fairness: the objects that every cluster has, of which schema requests are, and what a flood does to others.

use crate::harness::{Answer, CONFIG_MAPS, Server};
use crate::webhooks::Hooks;
use krust::apiserver::request::RequestInfo;
use krust::transport::{InProcessIdentity, Peer};
use poem::http::Method;
use poem::{Endpoint, Request};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const TESTERS: &[&str] = &["testers", "system:authenticated"];

/// A server that looks after the objects of flow control.
async fn start() -> Arc<Server> {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    tokio::spawn(server.api.clone().control_flow(CancellationToken::new()));
    let binding = json!({
        "metadata": {"name": "testers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "testers"}],
    });
    server.post(ROLE_BINDINGS, binding).await.expect(201);
    Arc::new(server)
}

fn dangling(schema: &Value) -> &str {
    let conditions = schema["status"]["conditions"].as_array();
    let condition =
        conditions.and_then(|conditions| conditions.iter().find(|condition| condition["type"] == "Dangling"));
    condition.map_or("", |condition| condition["status"].as_str().unwrap())
}

async fn uid(server: &Server, uri: &str) -> String {
    server.get(uri).await.expect(200)["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn every_cluster_has_the_same_schemas_and_levels() {
    let server = start().await;
    let rows = |answer: &Answer| -> Vec<Vec<String>> {
        let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
        let table = answer.json();
        let rows = table["rows"].as_array().unwrap();
        rows.iter()
            .map(|row| row["cells"].as_array().unwrap().iter().map(text).collect())
            .collect()
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let levels = server.get_as(LEVELS, table).await;
    let shown: Vec<String> = rows(&levels).iter().map(|row| row[..6].join(" ")).collect();
    assert_eq!(
        shown,
        [
            "catch-all Limited 5 <none> <none> <none>",
            "exempt Exempt <none> <none> <none> <none>",
            "global-default Limited 20 128 6 50",
            "leader-election Limited 10 16 4 50",
            "node-high Limited 40 64 6 50",
            "system Limited 30 64 6 50",
            "workload-high Limited 40 128 6 50",
            "workload-low Limited 100 128 6 50",
        ]
    );
    // Which level each names, and that it is there.
    let begin = std::time::Instant::now();
    let schemas = loop {
        let answer = server.get_as(SCHEMAS, table).await;
        let rows = rows(&answer);
        if rows.iter().all(|row| row[5] == "False") {
            break rows;
        }
        assert!(begin.elapsed().as_secs() < 60, "{}", answer.text());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let shown: Vec<String> = schemas.iter().map(|row| row[..4].join(" ")).collect();
    assert_eq!(
        shown,
        [
            "catch-all catch-all 10000 ByUser",
            "exempt exempt 1 <none>",
            "global-default global-default 9900 ByUser",
            "kube-controller-manager workload-high 800 ByNamespace",
            "kube-scheduler workload-high 800 ByNamespace",
            "kube-system-service-accounts workload-high 900 ByNamespace",
            "probes exempt 2 <none>",
            "service-accounts workload-low 9000 ByUser",
            "system-leader-election leader-election 100 ByUser",
            "system-node-high node-high 400 ByUser",
            "system-nodes system 500 ByUser",
        ]
    );
}

#[tokio::test]
async fn what_users_change_is_put_right_unless_they_say_otherwise() {
    let server = start().await;
    let precedence = |precedence: u32| json!({"spec": {"matchingPrecedence": precedence}});
    let refused = server
        .patch(&format!("{SCHEMAS}/catch-all"), "merge", precedence(9))
        .await;
    let refused = refused.failure(422, "Invalid");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.ends_with("spec of 'catch-all' must equal the fixed value"),
        "{message}"
    );
    let before = uid(&server, &format!("{LEVELS}/catch-all")).await;
    server.delete(&format!("{LEVELS}/catch-all")).await.expect(200);
    let is_back = |answer: &Answer| answer.status == 200 && answer.json()["metadata"]["uid"] != before.as_str();
    server.until(&format!("{LEVELS}/catch-all"), is_back).await;
    let probes = format!("{SCHEMAS}/probes");
    server.patch(&probes, "merge", precedence(77)).await.expect(200);
    server
        .until(&probes, |answer| answer.json()["spec"]["matchingPrecedence"] == 2)
        .await;
    let mine = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    server.patch(&probes, "merge", mine).await.expect(200);
    server.patch(&probes, "merge", precedence(77)).await.expect(200);
    // A change that comes after it was seen: what was not put back by then stays.
    let exempt = server.get(&format!("{SCHEMAS}/exempt")).await.expect(200)["metadata"]["uid"].clone();
    server.delete(&format!("{SCHEMAS}/exempt")).await.expect(200);
    let is_back = |answer: &Answer| answer.status == 200 && answer.json()["metadata"]["uid"] != exempt;
    server.until(&format!("{SCHEMAS}/exempt"), is_back).await;
    assert_eq!(server.get(&probes).await.expect(200)["spec"]["matchingPrecedence"], 77);
}

#[tokio::test]
async fn a_schema_says_that_its_level_is_missing() {
    let server = start().await;
    let schema = schema("mine", "later", &["jane"], 700);
    server.post(SCHEMAS, schema).await.expect(201);
    let uri = format!("{SCHEMAS}/mine");
    let found = server
        .until(&uri, |answer| dangling(&answer.json()) == "True")
        .await
        .json();
    let condition = &found["status"]["conditions"][0];
    assert_eq!(
        (&condition["reason"], &condition["message"]),
        (
            &json!("NotFound"),
            &json!(
                "This FlowSchema references the PriorityLevelConfiguration object named \"later\" but there is no such object"
            )
        )
    );
    let answer = server.send_as("jane", TESTERS, Method::GET, CONFIG_MAPS, "").await;
    let default = uid(&server, &format!("{SCHEMAS}/global-default")).await;
    assert_eq!(
        answer.header("x-kubernetes-pf-flowschema-uid"),
        default,
        "it is passed over"
    );
    server
        .post(LEVELS, level("later", json!({"type": "Reject"})))
        .await
        .expect(201);
    server.until(&uri, |answer| dangling(&answer.json()) == "False").await;
    let answer = server.send_as("jane", TESTERS, Method::GET, CONFIG_MAPS, "").await;
    assert_eq!(
        answer.header("x-kubernetes-pf-flowschema-uid"),
        uid(&server, &uri).await
    );
}

/// One for the requests of users.
fn schema(name: &str, level: &str, users: &[&str], precedence: u32) -> Value {
    let subjects: Vec<Value> = users
        .iter()
        .map(|user| json!({"kind": "User", "user": {"name": user}}))
        .collect();
    json!({
        "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": subjects, "resourceRules": [{
                "verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["*"]}]}],
        },
    })
}

/// One that has three of the server's seats, and none of others.
fn level(name: &str, response: Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": response}},
    })
}

#[tokio::test]
async fn requests_say_of_which_schema_and_level_they_are() {
    let server = start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
    let node = ("system:node:n1", &["system:nodes", "system:authenticated"][..]);
    let everybody = &["system:authenticated"][..];
    let accounts = &["system:serviceaccounts", "system:authenticated"][..];
    let rows = [
        ("jane", everybody, CONFIG_MAPS, "global-default", "global-default"),
        ("jane", everybody, "/livez", "probes", "exempt"),
        ("root", &["system:masters"][..], CONFIG_MAPS, "exempt", "exempt"),
        (node.0, node.1, "/api/v1/nodes/n1", "system-node-high", "node-high"),
        (node.0, node.1, CONFIG_MAPS, "system-nodes", "system"),
        (
            "system:kube-scheduler",
            everybody,
            CONFIG_MAPS,
            "kube-scheduler",
            "workload-high",
        ),
        (
            "system:kube-scheduler",
            everybody,
            leases,
            "system-leader-election",
            "leader-election",
        ),
        (
            "system:kube-controller-manager",
            everybody,
            "/api",
            "kube-controller-manager",
            "workload-high",
        ),
        (
            "system:serviceaccount:kube-system:job-controller",
            accounts,
            CONFIG_MAPS,
            "kube-system-service-accounts",
            "workload-high",
        ),
        (
            "system:serviceaccount:default:default",
            accounts,
            CONFIG_MAPS,
            "service-accounts",
            "workload-low",
        ),
    ];
    for (user, groups, uri, schema, level) in rows {
        let answer = server.send_as(user, groups, Method::GET, uri, "").await;
        let uids = (
            uid(&server, &format!("{SCHEMAS}/{schema}")).await,
            uid(&server, &format!("{LEVELS}/{level}")).await,
        );
        let told = (
            answer.header("x-kubernetes-pf-flowschema-uid").to_owned(),
            answer.header("x-kubernetes-pf-prioritylevel-uid").to_owned(),
        );
        assert_eq!(told, uids, "{user} {uri} {}", answer.text());
    }
    let anonymous = Request::builder()
        .uri(CONFIG_MAPS.parse().unwrap())
        .extension(Peer::Anonymous)
        .finish();
    let answer = server.endpoint().get_response(anonymous).await;
    assert_eq!(answer.status(), 403, "classified before it is authorized");
    assert!(answer.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    let stream = server.get("/api/v1/namespaces/default/pods/x/log").await;
    assert_eq!(
        stream.header("x-kubernetes-pf-flowschema-uid"),
        "",
        "streams are not classified"
    );
}

/// Requests of one user that hold the seats of the level of this name, as their webhook never answers.
async fn flood(server: &Arc<Server>, hooks: &Hooks, name: &str) -> Vec<tokio::task::JoinHandle<Answer>> {
    let only = json!([{"name": "only", "expression": "has(object.data) && has(object.data.slow)"}]);
    let hook = hooks.hook(
        "slow",
        json!({"matchConditions": only, "failurePolicy": "Ignore", "timeoutSeconds": 30}),
    );
    hooks.configure(server, "validating", "slow", &[hook]).await;
    server
        .post(SCHEMAS, schema(name, name, &["flood", "other"], 600))
        .await
        .expect(201);
    server
        .until(&format!("{SCHEMAS}/{name}"), |answer| {
            dangling(&answer.json()) == "False"
        })
        .await;
    let holders: Vec<_> = (0..3)
        .map(|number| create(server, "flood", &format!("held-{number}"), true))
        .collect();
    let begin = std::time::Instant::now();
    while hooks.asked.lock().len() < 3 {
        assert!(begin.elapsed().as_secs() < 25, "the webhook is not asked");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    holders
}

fn create(server: &Arc<Server>, user: &'static str, name: &str, slow: bool) -> tokio::task::JoinHandle<Answer> {
    let data = if slow { json!({"slow": "1"}) } else { json!({}) };
    let body = json!({"metadata": {"name": name}, "data": data}).to_string();
    let server = Arc::clone(server);
    tokio::spawn(async move { server.send_as(user, TESTERS, Method::POST, CONFIG_MAPS, body).await })
}

async fn waiting(server: &Server, count: usize) {
    let line = format!(
        "apiserver_flowcontrol_current_inqueue_requests{{flow_schema=\"narrow\",priority_level=\"narrow\"}} {count}\n"
    );
    server.until("/metrics", |answer| answer.text().contains(&line)).await;
}

#[tokio::test]
async fn a_flood_waits_in_its_own_queues_and_everybody_else_is_served() {
    let (server, hooks) = (start().await, Hooks::start().await);
    let queuing = json!({"queues": 128, "handSize": 6, "queueLengthLimit": 2});
    let queue = json!({"type": "Queue", "queuing": queuing});
    server.post(LEVELS, level("narrow", queue)).await.expect(201);
    let holders = flood(&server, &hooks, "narrow").await;
    let waiters: Vec<_> = (0..12)
        .map(|number| create(&server, "flood", &format!("waits-{number}"), false))
        .collect();
    waiting(&server, 12).await;
    let refused = create(&server, "flood", "too-many", false).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.text(), "Too many requests, please try again later.\n");
    assert_eq!(refused.header("retry-after"), "1");
    let narrow = uid(&server, &format!("{LEVELS}/narrow")).await;
    assert_eq!(refused.header("x-kubernetes-pf-prioritylevel-uid"), narrow);
    let other = create(&server, "other", "other", false);
    waiting(&server, 13).await;
    for (user, groups) in [
        ("jane", TESTERS),
        ("system:kube-scheduler", TESTERS),
        ("system:kube-controller-manager", TESTERS),
        ("system:node:n1", &["system:nodes", "testers"][..]),
        ("system:serviceaccount:kube-system:job-controller", TESTERS),
        (
            "system:serviceaccount:default:default",
            &["system:serviceaccounts", "testers"][..],
        ),
    ] {
        let answer = server.send_as(user, groups, Method::GET, "/api/v1/services", "").await;
        assert_eq!(answer.status, 200, "{user}: {}", answer.text());
    }
    assert!(!other.is_finished(), "no seat is free");
    // Clients that go give their seats to who waits.
    for holder in holders {
        holder.abort();
    }
    for waiter in waiters {
        waiter.await.unwrap().expect(201);
    }
    other.await.unwrap().expect(201);
    waiting(&server, 0).await;
}

#[tokio::test]
async fn a_level_without_queues_refuses_at_once_and_watches_hold_no_seats() {
    let (server, hooks) = (start().await, Hooks::start().await);
    server
        .post(LEVELS, level("tight", json!({"type": "Reject"})))
        .await
        .expect(201);
    let mut watches = Vec::new();
    let identity = InProcessIdentity {
        user: "other".to_owned(),
        groups: TESTERS.iter().map(|group| (*group).to_owned()).collect(),
    };
    let holders = {
        server
            .post(SCHEMAS, schema("tight", "tight", &["flood", "other"], 600))
            .await
            .expect(201);
        server
            .until(&format!("{SCHEMAS}/tight"), |answer| {
                dangling(&answer.json()) == "False"
            })
            .await;
        for _ in 0..5 {
            let request = Request::builder()
                .uri(format!("{CONFIG_MAPS}?watch=1").parse().unwrap())
                .extension(identity.clone())
                .finish();
            let response = server.endpoint().get_response(request).await;
            assert_eq!(response.status(), 200);
            assert!(response.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
            watches.push(response);
        }
        server.delete(&format!("{SCHEMAS}/tight")).await.expect(200);
        flood(&server, &hooks, "tight").await
    };
    let refused = create(&server, "other", "refused", false).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text());
    // What no schema names the level for is served elsewhere.
    server.delete(&format!("{SCHEMAS}/tight")).await.expect(200);
    let begin = std::time::Instant::now();
    while create(&server, "other", "served", false).await.unwrap().status == 429 {
        assert!(begin.elapsed().as_secs() < 60, "the schema is gone");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for holder in holders {
        holder.abort();
    }
}

#[tokio::test]
async fn whoever_watches_is_reckoned_with_while_it_watches() {
    let server = Server::start().await;
    let change = RequestInfo {
        resource: "configmaps".to_owned(),
        namespace: "default".to_owned(),
        name: "x".to_owned(),
        ..RequestInfo::default()
    };
    let watching = || server.api.flow_control.watchers.interested(&change);
    assert_eq!(watching(), 0);
    let named = |name: &str| format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let all = server.watch("/api/v1/configmaps?watch=1", "application/json").await;
    let one = server.watch(&named("x"), "application/json").await;
    let other = server.watch(&named("y"), "application/json").await;
    assert_eq!(watching(), 2);
    drop((all, one));
    assert_eq!(watching(), 0);
    drop(other);
}
