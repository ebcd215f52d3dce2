//! Kinds whose objects are not stored as they are shown: autoscalers in two versions, component statuses; signing
//! requests, which note who asks.

use crate::harness::{Server, as_item};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

#[tokio::test]
async fn autoscalers_are_the_same_in_both_versions() {
    let server = Server::start().await;
    let uri = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let body = json!({
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 60},
    });
    let created = server.post(&uri("v1"), body).await.expect(201);
    assert_eq!(created["apiVersion"], "autoscaling/v1");
    assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], 60);
    assert_eq!(created["spec"]["minReplicas"], 1);
    assert_eq!(created["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
    let second = server.get(&format!("{}/h", uri("v2"))).await.expect(200);
    assert_eq!(second["apiVersion"], "autoscaling/v2");
    assert_eq!(
        second["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        60
    );
    assert_eq!(second["metadata"]["uid"], created["metadata"]["uid"]);
    // What v1 cannot say survives an update through it.
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let add = json!([{"op": "add", "path": "/spec/metrics/-", "value": memory}]);
    server.patch(&format!("{}/h", uri("v2")), "json", add).await.expect(200);
    let patched = server
        .patch(
            &format!("{}/h", uri("v1")),
            "merge",
            json!({"spec": {"maxReplicas": 9}}),
        )
        .await
        .expect(200);
    let annotation = &patched["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    assert!(
        annotation
            .as_str()
            .is_some_and(|text| text.contains("\"targetAverageValue\":\"1Gi\"")),
        "{patched}"
    );
    let second = server.get(&format!("{}/h", uri("v2"))).await.expect(200);
    assert_eq!(second["spec"]["metrics"][1], memory);
    assert_eq!(second["spec"]["maxReplicas"], 9);
    assert_eq!(second["metadata"].get("annotations"), None);
    let list = server.get(&uri("v1")).await.expect(200);
    assert_eq!(list["items"][0], as_item(&patched));
    let invalid = json!({"metadata": {"name": "x"}, "spec": {"scaleTargetRef": target, "maxReplicas": 0}});
    server.post(&uri("v1"), invalid).await.failure(422, "Invalid");
}

#[tokio::test]
async fn the_database_is_a_component() {
    let server = Server::start().await;
    let answer = server.get("/api/v1/componentstatuses").await;
    assert_eq!(
        answer.warnings(),
        ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]
    );
    let list = answer.expect(200);
    assert_eq!(list["kind"], "ComponentStatusList");
    assert_eq!(list["items"][0]["conditions"][0]["status"], "True");
    let one = server.get("/api/v1/componentstatuses/etcd-0").await.expect(200);
    assert_eq!(one["metadata"]["name"], "etcd-0");
    server
        .get("/api/v1/componentstatuses/absent")
        .await
        .failure(404, "NotFound");
    let none = server
        .get("/api/v1/componentstatuses?fieldSelector=metadata.name=absent")
        .await
        .expect(200);
    assert_eq!(none["items"], json!([]));
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = server.get_as("/api/v1/componentstatuses", accept).await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    server
        .post("/api/v1/componentstatuses", json!({}))
        .await
        .failure(405, "MethodNotAllowed");
}

fn request(name: &str) -> Value {
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(Vec::<String>::new())
        .unwrap()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    json!({
        "metadata": {"name": name},
        "spec": {
            "request": STANDARD.encode(pem), "signerName": "example.com/signer", "usages": ["client auth"],
            "username": "somebody else",
        },
    })
}

#[tokio::test]
async fn signing_requests_are_approved_once_and_for_all() {
    let server = Server::start().await;
    let created = server.post(REQUESTS, request("r")).await.expect(201);
    assert_ne!(created["spec"]["username"], "somebody else");
    assert!(
        created["spec"]["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:masters"))
    );
    assert_eq!(created["status"], json!({}));

    let approved = json!({"type": "Approved", "status": "True", "reason": "R", "message": "m"});
    let mut body = created.clone();
    body["status"] = json!({"conditions": [approved]});
    body["spec"]["signerName"] = json!("example.com/other");
    // The object itself takes neither, status no approval.
    let main = server.put(&format!("{REQUESTS}/r"), body.clone()).await.expect(200);
    assert_eq!((&main["status"], &main["spec"]), (&json!({}), &created["spec"]));
    let status = server
        .put(&format!("{REQUESTS}/r/status"), body.clone())
        .await
        .failure(422, "Invalid");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("updates may not add a condition of type \"Approved\"")
    );
    let done = server
        .put(&format!("{REQUESTS}/r/approval"), body.clone())
        .await
        .expect(200);
    assert_eq!(done["spec"], created["spec"]);
    let condition = &done["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());

    let mut removed = done.clone();
    removed["status"] = json!({});
    let removed = server
        .put(&format!("{REQUESTS}/r/approval"), removed)
        .await
        .failure(422, "Invalid");
    assert_eq!(
        removed["details"]["causes"][0]["message"],
        "Forbidden: updates may not remove a condition of type \"Approved\""
    );
    let mut both = done.clone();
    both["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "Denied", "status": "True"}));
    let both = server
        .put(&format!("{REQUESTS}/r/approval"), both)
        .await
        .failure(422, "Invalid");
    assert!(
        both["message"].as_str().unwrap().contains(
            "must specify at most one of: `conditions[{\"type\": \"Approved\"}]`, `conditions[{\"type\": \"Denied\"}]`"
        ),
        "{both}"
    );
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = server.get_as(REQUESTS, accept).await.expect(200);
    assert_eq!(table["rows"][0]["cells"][5], "Approved");
}

#[tokio::test]
async fn rights_on_signers_are_asked_for() {
    let server = Server::start().await;
    server.post(REQUESTS, request("r")).await.expect(201);
    let rules = |signers: &str| {
        json!([
            {"apiGroups": ["certificates.k8s.io"], "resources": ["*"], "verbs": ["*"], "resourceNames": ["r"]},
            {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"], "resourceNames": [signers]},
        ])
    };
    for (user, signers) in [
        ("right", "example.com/*"),
        ("exact", "example.com/signer"),
        ("wrong", "example.com/other"),
    ] {
        let role = json!({"metadata": {"name": user}, "rules": rules(signers)});
        server
            .post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
            .await
            .expect(201);
        let binding = json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        server
            .post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
            .await
            .expect(201);
    }
    let approve =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "R"}]}}).to_string();
    let patch = async |user: &str| {
        let headers = [
            ("content-type", "application/merge-patch+json"),
            ("impersonate-user", user),
        ];
        let uri = format!("{REQUESTS}/r/approval?dryRun=All");
        server
            .send(poem::http::Method::PATCH, &uri, &headers, approve.clone())
            .await
    };
    let refused = patch("wrong").await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests \
         with signerName \"example.com/signer\""
    );
    patch("right").await.expect(200);
    patch("exact").await.expect(200);
}

#[tokio::test]
async fn no_certificate_is_asked_for_the_privileged_group() {
    let server = Server::start().await;
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:masters");
    let pem = parameters.serialize_request(&key).unwrap().pem().unwrap();
    let mut body = request("r");
    body["spec"]["request"] = json!(STANDARD.encode(pem));
    body["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client");
    let refused = server.post(REQUESTS, body).await.failure(403, "Forbidden");
    let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert!(refused["message"].as_str().unwrap().ends_with(why), "{refused}");
}

#[tokio::test]
async fn signing_requests_are_checked() {
    let server = Server::start().await;
    let cases = [
        (
            "/spec/request",
            json!("aGVsbG8="),
            "PEM block type must be CERTIFICATE REQUEST",
        ),
        ("/spec/usages", json!([]), "spec.usages: Required value"),
        (
            "/spec/usages",
            json!(["magic"]),
            "spec.usages[0]: Unsupported value: \"magic\"",
        ),
        (
            "/spec/usages",
            json!(["any", "any"]),
            "spec.usages[1]: Duplicate value: \"any\"",
        ),
        (
            "/spec/signerName",
            json!("signer"),
            "must be a fully qualified domain and path of the form",
        ),
        (
            "/spec/signerName",
            json!("kubernetes.io/legacy-unknown"),
            "the legacy signerName is not allowed",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut body = request("r");
        *body.pointer_mut(pointer).unwrap() = value;
        let status = server.post(REQUESTS, body).await.failure(422, "Invalid");
        assert!(status["message"].as_str().unwrap().contains(expected), "{status}");
    }
    let mut short = request("r");
    short["spec"]["expirationSeconds"] = json!(60);
    let status = server.post(REQUESTS, short).await.failure(422, "Invalid");
    assert!(
        status["message"].as_str().unwrap().contains("less than 600 seconds"),
        "{status}"
    );
    let selected = server
        .get(&format!("{REQUESTS}?fieldSelector=spec.signerName=a.b/c"))
        .await
        .expect(200);
    assert_eq!(selected["items"], json!([]));
}

#[tokio::test]
async fn evictions_spend_a_budget() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["a", "b"] {
        let mut pod = crate::harness::pod(name);
        pod["metadata"]["labels"] = json!({"app": "x"});
        server.post(pods, pod).await.expect(201);
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        server
            .patch(&format!("{pods}/{name}/status"), "merge", ready)
            .await
            .expect(200);
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let body =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    server.post(budgets, body).await.expect(201);
    let counted = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    server
        .patch(&format!("{budgets}/b/status"), "merge", counted)
        .await
        .expect(200);
    let evict = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    server
        .post(&format!("{pods}/a/eviction?dryRun=All"), evict("a"))
        .await
        .expect(201);
    let budget = server.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(budget["status"]["disruptionsAllowed"], 1);
    server.post(&format!("{pods}/a/eviction"), evict("a")).await.expect(201);
    let budget = server.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["a"].is_string());
    let refused = server
        .post(&format!("{pods}/b/eviction"), evict("b"))
        .await
        .failure(429, "TooManyRequests");
    assert_eq!(
        refused["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        refused["details"]["causes"][0],
        json!({"reason": "DisruptionBudget", "message": "The disruption budget b does not allow evicting pods currently"})
    );
    let other = server
        .post(&format!("{pods}/b/eviction"), evict("c"))
        .await
        .failure(400, "BadRequest");
    assert_eq!(other["message"], "name in URL does not match name in Eviction object");
}
