//! Server-side apply and the owners of fields, as clients see them.

use super::custom_resources::establish;
use super::harness::{Answer, CONFIG_MAPS, PODS, Server, pod, revision};
use poem::http::Method;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(server: &Server, uri: &str, config: Value) -> Answer {
    apply_text(server, uri, &config.to_string()).await
}

async fn apply_text(server: &Server, uri: &str, document: &str) -> Answer {
    let headers = [("content-type", "application/apply-patch+yaml")];
    server.send(Method::PATCH, uri, &headers, document.to_owned()).await
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

fn entries(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn managers(object: &Value) -> Vec<String> {
    let name = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        format!("{} {} {}", text("manager"), text("operation"), text("subresource"))
            .trim()
            .to_owned()
    };
    entries(object).iter().map(name).collect()
}

fn at(name: &str, query: &str) -> String {
    format!("{CONFIG_MAPS}/{name}?{query}")
}

#[tokio::test]
async fn every_write_notes_its_manager() {
    let server = Server::start().await;
    let body = config_map(json!({"x": "1"})).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "kubectl/v1.32 (x)"),
    ];
    let made = server.send(Method::POST, CONFIG_MAPS, &headers, body).await.expect(201);
    assert_eq!(managers(&made), ["kubectl Update"]);
    let entry = &entries(&made)[0];
    assert_eq!(entry["fieldsV1"], json!({"f:data": {".": {}, "f:x": {}}}));
    assert_eq!(entry["time"], made["metadata"]["creationTimestamp"]);
    assert_eq!(entry["fieldsType"], "FieldsV1");

    let patched = server
        .patch(&at("c", "fieldManager=me"), "merge", json!({"data": {"y": "1"}}))
        .await
        .expect(200);
    let mut found = managers(&patched);
    found.sort();
    assert_eq!(found, ["kubectl Update", "me Update"]);
    // The stored object carries them.
    let read = server.get(&at("c", "")).await.expect(200);
    assert_eq!(entries(&read), entries(&patched));

    let nothing = server
        .patch(&at("c", "fieldManager=other"), "merge", json!({}))
        .await
        .expect(200);
    assert_eq!(nothing, patched, "an empty patch writes nothing");
    let same = server
        .put(&at("c", "fieldManager=other"), read.clone())
        .await
        .expect(200);
    assert_eq!(same, patched);
    let mut changed = read;
    changed["data"]["x"] = json!("2");
    let unknown = server.put(&at("c", ""), changed).await.expect(200);
    assert!(managers(&unknown).contains(&"unknown Update".to_owned()));
}

#[tokio::test]
async fn an_object_is_created_changed_and_left_alone() {
    let server = Server::start().await;
    let uri = at("c", "fieldManager=me");
    let made = apply(&server, &uri, config_map(json!({"x": "1"}))).await.expect(201);
    assert_eq!(managers(&made), ["me Apply"]);
    let again = apply(&server, &uri, config_map(json!({"x": "1"}))).await.expect(200);
    assert_eq!(again, made, "the same again is no write");
    let changed = apply(&server, &uri, config_map(json!({"y": "1"}))).await.expect(200);
    assert_eq!(changed["data"], json!({"y": "1"}));
    assert!(revision(&changed) > revision(&made));
    // YAML is what most clients send.
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  z: '1'\n";
    let changed = apply_text(&server, &uri, yaml).await.expect(200);
    assert_eq!(changed["data"], json!({"z": "1"}));
    let dry = apply(
        &server,
        &at("c", "fieldManager=me&dryRun=All"),
        config_map(json!({"d": "1"})),
    )
    .await;
    assert_eq!(dry.expect(200)["data"], json!({"d": "1"}));
    assert_eq!(server.get(&at("c", "")).await.expect(200)["data"], json!({"z": "1"}));
    let mut config = config_map(json!({}));
    config["metadata"]["name"] = json!("new");
    let dry = apply(&server, &at("new", "fieldManager=me&dryRun=All"), config).await;
    dry.expect(201);
    server.get(&at("new", "")).await.failure(404, "NotFound");
}

#[tokio::test]
async fn defaults_belong_to_nobody_and_the_name_is_needed() {
    let server = Server::start().await;
    let uri = format!("{DEPLOYMENTS}/web?fieldManager=me");
    let mut config = deployment(2);
    config["metadata"].as_object_mut().unwrap().remove("name");
    let refused = apply(&server, &uri, config).await.failure(400, "BadRequest");
    let text = "the name of the object (web based on URL) was undeterminable: name must be provided";
    assert_eq!(refused["message"], text);
    let made = apply(&server, &uri, deployment(2)).await.expect(201);
    assert_eq!(made["metadata"]["name"], "web");
    assert_eq!(made["spec"]["revisionHistoryLimit"], 10);
    assert_eq!(made["metadata"]["generation"], 1);
    let fields = &entries(&made)[0]["fieldsV1"]["f:spec"];
    let mut owned: Vec<&String> = fields.as_object().unwrap().keys().collect();
    owned.sort();
    assert_eq!(owned, ["f:replicas", "f:selector", "f:template"]);
    let again = apply(&server, &uri, deployment(2)).await.expect(200);
    assert_eq!(again, made);
}

#[tokio::test]
async fn conflicts_name_field_and_manager() {
    let server = Server::start().await;
    server
        .post(&format!("{DEPLOYMENTS}?fieldManager=kubectl-create"), deployment(1))
        .await
        .expect(201);
    let uri = format!("{DEPLOYMENTS}/web?fieldManager=me");
    let refused = apply(&server, &uri, deployment(3)).await.failure(409, "Conflict");
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        refused["details"]["causes"],
        json!([{
            "reason": "FieldManagerConflict",
            "message": "conflict with \"kubectl-create\" using apps/v1",
            "field": ".spec.replicas",
        }])
    );
    let forced = apply(&server, &format!("{uri}&force=true"), deployment(3))
        .await
        .expect(200);
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(forced["metadata"]["generation"], 2);
    let patched = server
        .patch(
            &format!("{DEPLOYMENTS}/web?fieldManager=hand"),
            "merge",
            json!({"spec": {"replicas": 9}}),
        )
        .await
        .expect(200);
    assert_eq!(patched["spec"]["replicas"], 9, "an update never conflicts");
    let shared = apply(&server, &format!("{DEPLOYMENTS}/web?fieldManager=also"), deployment(9)).await;
    assert!(managers(&shared.expect(200)).contains(&"also Apply".to_owned()));
}

#[tokio::test]
async fn what_is_wrong_with_an_apply_is_said() {
    let server = Server::start().await;
    let uri = at("c", "fieldManager=me");
    apply(&server, &at("c", ""), config_map(json!({})))
        .await
        .failure(422, "Invalid");
    let merge = server.patch(&at("c", "force=true"), "merge", json!({})).await;
    merge.failure(422, "Invalid");
    let mut config = config_map(json!({}));
    config["metadata"]["managedFields"] = json!([]);
    let refused = apply(&server, &uri, config).await.failure(400, "BadRequest");
    assert_eq!(refused["message"], "metadata.managedFields must be nil");
    let mut config = config_map(json!({}));
    config["apiVersion"] = json!("apps/v1");
    let refused = apply(&server, &uri, config).await.failure(400, "BadRequest");
    assert_eq!(refused["message"], "invalid object type: apps/v1, Kind=ConfigMap");
    let mut config = config_map(json!({}));
    config["metadata"]["name"] = json!("other");
    apply(&server, &uri, config).await.failure(400, "BadRequest");
    let mut config = config_map(json!({}));
    config["metadata"]["uid"] = json!("u");
    let refused = apply(&server, &uri, config.clone()).await.failure(409, "Conflict");
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on configmaps \"c\": uid mismatch: the provided object specified uid u, \
         and no existing object was found"
    );
    apply(&server, &uri, config_map(json!({}))).await.expect(201);
    apply(&server, &uri, config).await.failure(409, "Conflict");
    let mut config = config_map(json!({}));
    config["metadata"]["resourceVersion"] = json!("1");
    apply(&server, &uri, config).await.failure(409, "Conflict");
    let mut config = config_map(json!({}));
    config["foo"] = json!(1);
    let refused = apply(&server, &uri, config).await;
    assert_eq!(refused.status, 500);
    let status = refused.json();
    assert_eq!(
        status["message"],
        "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .foo: field not declared in schema"
    );
    apply_text(&server, &uri, "a: b: c").await.failure(400, "BadRequest");
    apply_text(&server, &uri, "[]").await.failure(400, "BadRequest");
}

#[tokio::test]
async fn keys_given_twice_are_warned_of_or_refused() {
    let server = Server::start().await;
    let document = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: '1'\n  a: '2'\n";
    let answer = apply_text(&server, &at("c", "fieldManager=me"), document).await;
    assert_eq!(answer.expect(201)["data"], json!({"a": "2"}));
    let warnings = answer.warnings();
    assert!(
        warnings[0].contains("line 6: key \\\"a\\\" already set in map"),
        "{warnings:?}"
    );
    let strict = apply_text(&server, &at("c", "fieldManager=me&fieldValidation=Strict"), document).await;
    let refused = strict.failure(400, "BadRequest");
    assert_eq!(
        refused["message"],
        "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  \
         line 6: key \"a\" already set in map"
    );
}

#[tokio::test]
async fn the_status_has_owners_of_its_own() {
    let server = Server::start().await;
    server
        .post(&format!("{PODS}?fieldManager=maker"), pod("p"))
        .await
        .expect(201);
    let status = json!({"status": {"phase": "Running", "message": "m"}});
    let uri = format!("{PODS}/p/status?fieldManager=kubelet");
    let patched = server.patch(&uri, "strategic-merge", status).await.expect(200);
    let of = |object: &Value, manager: &str| {
        let found = entries(object).into_iter().find(|entry| entry["manager"] == manager);
        found.unwrap_or_else(|| panic!("{manager} owns nothing: {object}"))
    };
    let entry = of(&patched, "kubelet");
    assert_eq!(entry["subresource"], "status");
    assert!(of(&patched, "maker").get("subresource").is_none());
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:message": {}, "f:phase": {}}}));
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"reason": "r"}});
    let uri = format!("{PODS}/p/status?fieldManager=applier");
    let applied = apply(&server, &uri, config.clone()).await.expect(200);
    assert_eq!(applied["status"]["reason"], "r");
    assert!(managers(&applied).contains(&"applier Apply status".to_owned()));
    let mut config = config;
    config["metadata"]["name"] = json!("absent");
    let absent = apply(&server, &uri.replace("/p/", "/absent/"), config).await;
    absent.failure(404, "NotFound");
    // The main endpoint does not write it, so it owns none of it.
    let mut whole = applied;
    whole["status"]["phase"] = json!("Failed");
    whole["metadata"]["labels"] = json!({"a": "b"});
    let put = server
        .put(&format!("{PODS}/p?fieldManager=putter"), whole)
        .await
        .expect(200);
    let putter = of(&put, "putter");
    assert_eq!(
        putter["fieldsV1"],
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}})
    );
}

#[tokio::test]
async fn owners_speak_in_the_version_that_was_written() {
    let server = Server::start().await;
    let hpas = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let body = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 50,
                 "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
    });
    let answer = server.post(&format!("{hpas}?fieldManager=one"), body).await;
    if answer.status == 404 {
        panic!("autoscaling/v1 is served");
    }
    answer.expect(201);
    let uri = format!("{}/h?fieldManager=two", hpas.replace("/v1/", "/v2/"));
    let patched = server
        .patch(&uri, "merge", json!({"spec": {"maxReplicas": 7}}))
        .await
        .expect(200);
    let one = entries(&patched)
        .into_iter()
        .find(|entry| entry["manager"] == "one")
        .unwrap();
    assert_eq!(one["apiVersion"], "autoscaling/v1");
    let owned = one["fieldsV1"]["f:spec"].as_object().unwrap();
    assert!(!owned.contains_key("f:maxReplicas") && owned.contains_key("f:targetCPUUtilizationPercentage"));
}

#[tokio::test]
async fn the_binding_is_nobodys_field() {
    let server = Server::start().await;
    server
        .post(&format!("{PODS}?fieldManager=maker"), pod("p"))
        .await
        .expect(201);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"},
    });
    server.post(&format!("{PODS}/p/binding"), binding).await.expect(201);
    let bound = server.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(managers(&bound), ["maker Update"]);
}

#[tokio::test]
async fn custom_resources_are_applied_along_their_schema() {
    let server = Server::with_extensions().await;
    let port = json!({"type": "object", "required": ["number"], "properties": {
        "number": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "note": {"type": "string"},
    }});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "ports": {"type": "array", "items": port, "x-kubernetes-list-type": "map",
                      "x-kubernetes-list-map-keys": ["number", "protocol"]},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "steps": {"type": "array", "items": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic",
                      "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        }},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}}})
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gates.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gates", "kind": "Gate"},
            "versions": [version("v1", true), version("v2", false)],
        },
    });
    establish(&server, definition).await;
    let gate = |version: &str, spec: Value| json!({"apiVersion": format!("example.com/{version}"), "kind": "Gate", "metadata": {"name": "g"}, "spec": spec});
    let uri = |version: &str, manager: &str| {
        format!("/apis/example.com/{version}/namespaces/default/gates/g?fieldManager={manager}")
    };
    let spec = json!({
        "ports": [{"number": 1, "note": "one"}], "tags": ["x"], "steps": ["s"], "free": {"deep": {"er": 1}},
        "whole": {"a": "1"},
    });
    let made = apply(&server, &uri("v1", "a"), gate("v1", spec.clone()))
        .await
        .expect(201);
    assert_eq!(made["spec"]["ports"][0]["protocol"], "TCP");
    assert_eq!(made["spec"]["free"]["deep"]["er"], 1);
    let expected = json!({"f:spec": {
        "f:free": {"f:deep": {".": {}, "f:er": {}}},
        "f:ports": {"k:{\"number\":1,\"protocol\":\"TCP\"}": {".": {}, "f:note": {}, "f:number": {}}},
        "f:steps": {},
        "f:tags": {"v:\"x\"": {}},
        "f:whole": {},
    }});
    assert_eq!(entries(&made)[0]["fieldsV1"], expected);
    let same = apply(&server, &uri("v1", "a"), gate("v1", spec)).await.expect(200);
    assert_eq!(same, made);
    // Another manager, another version: lists with keys unite, a leaf has one owner.
    let more = json!({"ports": [{"number": 2}], "tags": ["y"], "free": {"deep": {"other": 2}}});
    let both = apply(&server, &uri("v2", "b"), gate("v2", more)).await.expect(200);
    assert_eq!(both["spec"]["tags"], json!(["x", "y"]));
    assert_eq!(both["spec"]["ports"].as_array().map(Vec::len), Some(2));
    assert_eq!(both["spec"]["free"], json!({"deep": {"er": 1, "other": 2}}));
    let refused = apply(&server, &uri("v2", "b"), gate("v2", json!({"whole": {"b": "2"}}))).await;
    let refused = refused.failure(409, "Conflict");
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"a\": .spec.whole"
    );
    // The first lets go of all; what the second has stays.
    let left = apply(&server, &uri("v1", "a"), gate("v1", json!({}))).await.expect(200);
    assert_eq!(left["spec"]["tags"], json!(["y"]));
    assert_eq!(left["spec"]["free"], json!({"deep": {"other": 2}}));
    assert!(left["spec"].get("whole").is_none());
    let unknown = apply(&server, &uri("v1", "a"), gate("v1", json!({"nonsense": 1}))).await;
    assert_eq!(unknown.status, 500);
    assert!(
        unknown.text().contains(".spec.nonsense: field not declared in schema"),
        "{}",
        unknown.text()
    );
    let status = json!({
        "apiVersion": "example.com/v1", "kind": "Gate", "metadata": {"name": "g"}, "status": {"phase": "open"},
    });
    let at = uri("v1", "controller").replace("/g?", "/g/status?");
    let open = apply(&server, &at, status).await.expect(200);
    assert_eq!(open["status"]["phase"], "open");
    assert!(managers(&open).contains(&"controller Apply status".to_owned()));
    // Writes that are no apply are noted, too, and strategic merge is not for custom resources.
    let merged = server
        .patch(&uri("v1", "hand"), "merge", json!({"spec": {"steps": ["t"]}}))
        .await
        .expect(200);
    assert!(managers(&merged).contains(&"hand Update".to_owned()));
    let strategic = server.patch(&uri("v1", "hand"), "strategic-merge", json!({})).await;
    strategic.failure(415, "UnsupportedMediaType");
}
