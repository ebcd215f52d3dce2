//! Discovery, health, version, metrics, reviews, and clients of this process.

use crate::harness::Server;
use k8s_openapi::api::core::v1::Secret;
use krust::transport::InProcessIdentity;
use kube::Api;
use kube::api::PostParams;
use poem::http::Method;
use serde_json::json;

#[tokio::test]
async fn legacy_documents() {
    let server = Server::start().await;
    assert_eq!(server.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.expect(200);
    assert_eq!(groups["kind"], "APIGroupList");
    assert_eq!(groups["groups"][0]["name"], "apiregistration.k8s.io");
    assert_eq!(groups["groups"][1]["name"], "apps");
    let core = server.get("/api/v1").await.expect(200);
    let pods = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["name"] == "pods")
        .unwrap()
        .clone();
    assert_eq!((&pods["kind"], &pods["shortNames"]), (&json!("Pod"), &json!(["po"])));
    let eviction = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["name"] == "pods/eviction")
        .unwrap()
        .clone();
    assert_eq!(
        (&eviction["group"], &eviction["version"]),
        (&json!("policy"), &json!("v1"))
    );
    assert_eq!(
        server.get("/apis/apps").await.expect(200)["preferredVersion"]["groupVersion"],
        "apps/v1"
    );
    assert_eq!(
        server.get("/apis/nothing.example.com").await.text(),
        "404 page not found\n"
    );
    assert_eq!(server.get("/api/v2").await.status, 404);
}

#[tokio::test]
async fn groups_and_versions_stand_in_upstreams_order() {
    let server = Server::start().await;
    let groups = server.get("/apis").await.expect(200);
    let names: Vec<&str> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["name"].as_str().unwrap())
        .collect();
    let expected = [
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "resource.k8s.io",
        "storagemigration.k8s.io",
        "metrics.k8s.io",
    ];
    assert_eq!(names, expected);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = server.get_as("/apis", accept).await.expect(200);
    for (group, legacy) in aggregated["items"]
        .as_array()
        .unwrap()
        .iter()
        .zip(groups["groups"].as_array().unwrap())
    {
        assert_eq!(group["metadata"]["name"], legacy["name"]);
        assert_eq!(group["versions"][0]["version"], legacy["preferredVersion"]["version"]);
        assert_eq!(group["versions"][0]["freshness"], "Current");
    }
    let autoscaling = server.get("/apis/autoscaling").await.expect(200);
    assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
    assert_eq!(autoscaling["versions"].as_array().unwrap().len(), 2);
}

/// Hashes that clusters in the wild show: base64 of what SHA-256 makes of group, version and kind.
#[tokio::test]
async fn resources_are_told_of_as_upstream_does() {
    let server = Server::start().await;
    let find = async |list: &str, name: &str| {
        let list = server.get(list).await.expect(200);
        let resources = list["resources"].as_array().unwrap();
        resources
            .iter()
            .find(|resource| resource["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .clone()
    };
    for (list, name, hash) in [
        ("/api/v1", "pods", "xPOwRZ+Yhw8="),
        ("/api/v1", "configmaps", "qFsyl6wFWjQ="),
        ("/api/v1", "namespaces", "Q3oi5N2YM8M="),
        ("/api/v1", "services", "0/CO1lhkEBI="),
        ("/api/v1", "events", "r2yiGXH7wu8="),
        ("/apis/apps/v1", "deployments", "8aSe+NMegvE="),
        ("/apis/batch/v1", "jobs", "mudhfqk/qZY="),
        (
            "/apis/certificates.k8s.io/v1",
            "certificatesigningrequests",
            "95fRKMXA+00=",
        ),
        ("/apis/autoscaling/v1", "horizontalpodautoscalers", "qwQve8ut294="),
        ("/apis/events.k8s.io/v1", "events", "r2yiGXH7wu8="),
    ] {
        assert_eq!(find(list, name).await["storageVersionHash"], hash, "{name}");
    }
    let stored = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
    let pods = find("/api/v1", "pods").await;
    let expected = json!({
        "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": stored,
        "shortNames": ["po"], "categories": ["all"], "storageVersionHash": "xPOwRZ+Yhw8=",
    });
    assert_eq!(pods, expected);
    let subresource = |name: &str, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs});
    for (list, name, kind, verbs) in [
        ("/api/v1", "pods/exec", "PodExecOptions", &["create", "get"][..]),
        ("/api/v1", "pods/log", "Pod", &["get"]),
        (
            "/api/v1",
            "pods/ephemeralcontainers",
            "Pod",
            &["get", "patch", "update"],
        ),
        ("/api/v1", "pods/resize", "Pod", &["get", "patch", "update"]),
        (
            "/api/v1",
            "services/proxy",
            "ServiceProxyOptions",
            &["create", "delete", "get", "patch", "update"],
        ),
        (
            "/apis/apps/v1",
            "deployments/status",
            "Deployment",
            &["get", "patch", "update"],
        ),
    ] {
        assert_eq!(find(list, name).await, subresource(name, kind, verbs));
    }
    for (list, name, group, version, kind, verbs) in [
        (
            "/apis/apps/v1",
            "deployments/scale",
            "autoscaling",
            "v1",
            "Scale",
            &["get", "patch", "update"][..],
        ),
        (
            "/api/v1",
            "replicationcontrollers/scale",
            "autoscaling",
            "v1",
            "Scale",
            &["get", "patch", "update"],
        ),
        ("/api/v1", "pods/eviction", "policy", "v1", "Eviction", &["create"]),
        (
            "/api/v1",
            "serviceaccounts/token",
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
            &["create"],
        ),
    ] {
        let mut expected = subresource(name, kind, verbs);
        expected["group"] = json!(group);
        expected["version"] = json!(version);
        assert_eq!(find(list, name).await, expected);
    }
}

#[tokio::test]
async fn aggregated_documents_name_their_type_and_are_not_sent_twice() {
    let server = Server::start().await;
    for version in ["v2", "v2beta1"] {
        let accept =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json");
        let answer = server.get_as("/apis", &accept).await;
        assert_eq!(
            answer.header("content-type"),
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
        );
        let document = answer.expect(200);
        assert_eq!(document["items"][0]["metadata"]["name"], "apiregistration.k8s.io");
        let etag = answer.header("etag").to_owned();
        let headers = [("accept", accept.as_str()), ("if-none-match", etag.as_str())];
        let again = server.send(Method::GET, "/apis", &headers, ()).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    }
}

#[tokio::test]
async fn health_and_version() {
    let server = Server::start().await;
    for endpoint in ["/healthz", "/livez", "/readyz", "/livez/ping"] {
        assert_eq!(server.get(endpoint).await.text(), "ok", "{endpoint}");
    }
    let verbose = server.get("/readyz?verbose&exclude=storage").await.text();
    assert!(
        verbose.contains("[+]ping ok\n") && verbose.contains("[+]storage excluded: ok\n"),
        "{verbose}"
    );
    assert!(verbose.ends_with("readyz check passed\n"));
    let version = server.get("/version").await.expect(200);
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("37")));
    server.api.begin_shutdown();
    let failed = server.get("/readyz").await;
    assert_eq!(failed.status, 500);
    assert!(failed.text().contains("[-]shutdown failed: reason withheld\n"));
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn requests_are_counted() {
    let server = Server::start().await;
    server.config_map("counted", json!({})).await;
    let metrics = server.get("/metrics").await.text();
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("apiserver_request_total{code=\"201\"") && line.contains("configmaps")),
        "{metrics}"
    );
    assert!(metrics.contains("apiserver_storage_objects{resource=\"configmaps\"} 1"));
}

#[tokio::test]
async fn reviews_answer_for_the_caller() {
    let server = Server::start().await;
    let me = server
        .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}))
        .await
        .expect(201);
    assert!(
        me["status"]["userInfo"]["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:masters"))
    );
    let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let may = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    assert_eq!(server.post(uri, may).await.expect(201)["status"]["allowed"], true);
    server.post(uri, json!({"spec": {}})).await.failure(422, "Invalid");
}

#[tokio::test]
async fn clients_of_this_process_need_no_socket() {
    let server = Server::start().await;
    let identity = |user: &str| InProcessIdentity {
        user: user.to_owned(),
        groups: Vec::new(),
    };
    let client = krust::client::in_process(server.endpoint(), identity("system:kube-controller-manager"), "test");
    server.api.bootstrap().await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let secret = Secret {
        metadata: kube::api::ObjectMeta {
            name: Some("typed".into()),
            ..Default::default()
        },
        ..Default::default()
    };
    let created = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert!(created.metadata.uid.is_some());
    assert_eq!(secrets.list(&Default::default()).await.unwrap().items.len(), 1);
    server.get("/api/v1/namespaces/default/secrets/typed").await.expect(200);
    let scheduler = krust::client::in_process(server.endpoint(), identity("system:kube-scheduler"), "test");
    let refused = Api::<Secret>::namespaced(scheduler, "default")
        .get("typed")
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("is forbidden"), "{refused}");
}
