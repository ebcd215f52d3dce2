//! Creating objects: metadata, names, field validation, dry runs, admission.

use crate::harness::{CONFIG_MAPS, PODS, Server, pod};
use poem::http::Method;
use serde_json::json;

#[tokio::test]
async fn metadata_is_filled_in_and_stored_in_order() {
    let server = Server::start().await;
    let answer = server
        .post(
            CONFIG_MAPS,
            json!({
                "data": {"b": "1", "a": "2"},
                "metadata": {
                    "labels": {"x": "y"}, "name": "first", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z",
                    "generation": 7, "deletionTimestamp": "2001-01-01T00:00:00Z",
                },
            }),
        )
        .await;
    let created = answer.expect(201);
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_ne!(metadata["uid"], "mine");
    assert_ne!(metadata["creationTimestamp"], "2001-01-01T00:00:00Z");
    assert!(metadata.get("deletionTimestamp").is_none());
    assert!(metadata.get("generation").is_none());
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 1);
    let text = answer.text();
    let head = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"first","namespace":"default","uid":""#;
    assert!(text.starts_with(head), "{text}");
    let read = server.get(&format!("{CONFIG_MAPS}/first")).await;
    assert_eq!(read.body, answer.body, "what is read is what was answered");
}

#[tokio::test]
async fn the_name_can_be_generated() {
    let server = Server::start().await;
    let created = server
        .post(CONFIG_MAPS, json!({"metadata": {"generateName": "web-"}}))
        .await
        .expect(201);
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let status = server
        .post(CONFIG_MAPS, json!({"metadata": {}}))
        .await
        .failure(422, "Invalid");
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn names_are_taken_once() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let status = server
        .post(CONFIG_MAPS, json!({"metadata": {"name": "a"}}))
        .await
        .failure(409, "AlreadyExists");
    assert_eq!(status["message"], r#"configmaps "a" already exists"#);
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let server = Server::start().await;
    let uri = format!("{CONFIG_MAPS}?dryRun=All");
    let made = server
        .post(&uri, json!({"metadata": {"generateName": "x-"}}))
        .await
        .expect(201);
    assert!(made["metadata"]["uid"].is_string());
    assert!(made["metadata"]["name"].as_str().unwrap().starts_with("x-"));
    assert_eq!(server.get(CONFIG_MAPS).await.expect(200)["items"], json!([]));
    server.config_map("a", json!({})).await;
    server
        .post(&uri, json!({"metadata": {"name": "a"}}))
        .await
        .failure(409, "AlreadyExists");
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored() {
    let server = Server::start().await;
    let mut body = pod("p");
    body["spec"]["containers"][0]["imagee"] = json!("x");
    let strict = server
        .post(&format!("{PODS}?fieldValidation=Strict"), body.clone())
        .await;
    let status = strict.failure(400, "BadRequest");
    assert_eq!(
        status["message"],
        r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containers[0].imagee""#
    );
    let ignored = server
        .post(&format!("{PODS}?fieldValidation=Ignore&dryRun=All"), body.clone())
        .await;
    ignored.expect(201);
    assert!(ignored.warnings().is_empty());
    let warned = server.post(PODS, body).await;
    let created = warned.expect(201);
    assert_eq!(
        warned.warnings(),
        [r#"299 - "unknown field \"spec.containers[0].imagee\"""#]
    );
    assert!(created["spec"]["containers"][0].get("imagee").is_none());
}

#[tokio::test]
async fn yaml_bodies_are_read() {
    let server = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  port: \"8080\"\n";
    let created = server
        .send(Method::POST, CONFIG_MAPS, &[("content-type", "application/yaml")], yaml)
        .await
        .expect(201);
    assert_eq!(created["data"]["port"], "8080");
    let repeated = "metadata:\n  name: z\ndata:\n  a: x\n  a: y\n  b: x\n  b: y\nmore: 1\n";
    let warned = server
        .send(
            Method::POST,
            CONFIG_MAPS,
            &[("content-type", "application/yaml")],
            repeated,
        )
        .await;
    assert_eq!(
        warned.warnings(),
        [
            r#"299 - "line 5: key \"a\" already set in map""#,
            r#"299 - "line 7: key \"b\" already set in map""#,
            r#"299 - "unknown field \"more\"""#,
        ]
    );
    let uri = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let refused = server
        .send(Method::POST, &uri, &[("content-type", "application/yaml")], repeated)
        .await
        .failure(400, "BadRequest");
    assert_eq!(
        refused["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  \
         line 5: key \"a\" already set in map\n  line 7: key \"b\" already set in map, unknown field \"more\""
    );
}

#[tokio::test]
async fn namespaces_must_exist_and_fit() {
    let server = Server::start().await;
    let body = json!({"metadata": {"name": "a"}});
    let status = server
        .post("/api/v1/namespaces/nowhere/configmaps", body)
        .await
        .failure(404, "NotFound");
    assert_eq!(status["message"], r#"namespaces "nowhere" not found"#);
    let other = json!({"metadata": {"name": "a", "namespace": "other"}});
    let status = server.post(CONFIG_MAPS, other).await.failure(400, "BadRequest");
    assert_eq!(
        status["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[tokio::test]
async fn pods_get_what_admission_adds() {
    let server = Server::start().await;
    let created = server.post(PODS, pod("p")).await.expect(201);
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    let keys: Vec<_> = created["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["key"].clone())
        .collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
}

#[tokio::test]
async fn priority_classes_become_numbers() {
    let server = Server::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    server.post(classes, class).await.expect(201);
    assert_eq!(server.post(PODS, pod("plain")).await.expect(201)["spec"]["priority"], 0);
    let mut high = pod("high");
    high["spec"]["priorityClassName"] = json!("high");
    assert_eq!(server.post(PODS, high).await.expect(201)["spec"]["priority"], 1000);
    let mut absent = pod("absent");
    absent["spec"]["priorityClassName"] = json!("absent");
    let status = server.post(PODS, absent).await.failure(403, "Forbidden");
    assert_eq!(
        status["message"],
        r#"pods "absent" is forbidden: no PriorityClass with name absent was found"#
    );
    let mut forged = pod("forged");
    forged["spec"]["priority"] = json!(7);
    server.post(PODS, forged).await.failure(403, "Forbidden");
}

#[tokio::test]
async fn what_the_server_decides_goes_by_what_admission_made() {
    let server = Server::start().await;
    let range =
        json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}});
    let ranges = "/api/v1/namespaces/default/limitranges";
    server.post(ranges, range).await.expect(201);
    let mut plain = pod("plain");
    plain["status"] = json!({"phase": "Running"});
    let made = server.post(PODS, plain).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "Burstable"}));
}

#[tokio::test]
async fn bodies_of_other_kinds_are_named() {
    let server = Server::start().await;
    let uri = "/api/v1/namespaces/default/configmaps";
    for (version, kind, expected) in [
        (
            "v1",
            "Service",
            "Service in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Service) to (core.ConfigMap): \
             unknown conversion",
        ),
        (
            "v1",
            "Nonsense",
            "Nonsense in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nonsense\" is registered for version \
             \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "apps/v2",
            "ConfigMap",
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \
             \"apps/v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
    ] {
        let body = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}});
        let status = server.post(uri, body).await.failure(400, "BadRequest");
        assert_eq!(status["message"], expected);
    }
    let autoscaler = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"}},
    });
    let status = server
        .post(
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            autoscaler,
        )
        .await
        .failure(400, "BadRequest");
    assert_eq!(
        status["message"],
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)"
    );
}
