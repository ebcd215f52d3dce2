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
