//! Custom resources from their definition to its end.

use crate::harness::{Answer, Server, revision};
use poem::http::Method;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
            "replicas": {"type": "integer"},
            "parts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"},
        }},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wg"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "Phase", "type": "string", "jsonPath": ".status.phase", "priority": 1},
                    ]},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": schema}},
            ],
        },
    })
}

fn is_established(answer: &Answer) -> bool {
    let conditions = &answer.json()["status"]["conditions"];
    let mut conditions = conditions.as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

pub async fn establish(server: &Server, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    server.post(DEFINITIONS, definition).await.expect(201);
    server
        .until(&format!("{DEFINITIONS}/{name}"), is_established)
        .await
        .json()
}

async fn server() -> Server {
    let server = Server::with_extensions().await;
    establish(&server, definition()).await;
    server
}

fn widget(name: &str) -> Value {
    json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name},
        "spec": {"size": 3, "replicas": 2},
    })
}

/// The messages of the causes of a 422, with their fields.
fn causes(status: &Value) -> Vec<String> {
    let causes = status["details"]["causes"].as_array().unwrap();
    let text = |cause: &Value| {
        format!(
            "{}: {}",
            cause["field"].as_str().unwrap(),
            cause["message"].as_str().unwrap()
        )
    };
    causes.iter().map(text).collect()
}

#[tokio::test]
async fn a_definition_is_established_and_says_why() {
    let server = Server::with_extensions().await;
    let begin = std::time::Instant::now();
    let object = establish(&server, definition()).await;
    println!("established after {:?}", begin.elapsed());
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let told: Vec<&str> = conditions.iter().map(|c| c["reason"].as_str().unwrap()).collect();
    assert_eq!(told, ["NoConflicts", "InitialNamesAccepted"]);
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(object["status"]["acceptedNames"]["singular"], "widget");
    assert_eq!(object["metadata"]["generation"], 1);
    // Used at once, without a pause.
    server.post(WIDGETS, widget("a")).await.expect(201);
}

#[tokio::test]
async fn names_in_use_are_a_conflict_until_they_are_free() {
    let server = server().await;
    let mut other = definition();
    other["metadata"]["name"] = json!("gadgets.example.com");
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    server.post(DEFINITIONS, other).await.expect(201);
    let uri = format!("{DEFINITIONS}/gadgets.example.com");
    let answer = server
        .until(&uri, |answer| answer.json()["status"]["conditions"].is_array())
        .await;
    let conditions = &answer.json()["status"]["conditions"];
    assert_eq!(conditions[0]["reason"], "ListKindConflict");
    assert_eq!(conditions[1]["reason"], "NotAccepted");
    assert_eq!(server.get("/apis/example.com/v1/gadgets").await.status, 404);
    server
        .delete(&format!("{DEFINITIONS}/widgets.example.com"))
        .await
        .expect(200);
    server.until(&uri, is_established).await;
    server.get("/apis/example.com/v1/gadgets").await.expect(200);
}

#[tokio::test]
async fn objects_are_defaulted_pruned_and_validated() {
    let server = server().await;
    let mut odd = widget("a");
    odd["spec"]["bogus"] = json!(1);
    odd["spec"]["parts"] = json!([{"name": "x", "more": 1}]);
    odd["metadata"]["extra"] = json!(1);
    odd["status"] = json!({"phase": "Set"});
    let answer = server
        .post(&format!("{WIDGETS}?fieldValidation=Warn"), odd.clone())
        .await;
    let stored = answer.expect(201);
    assert_eq!(
        stored["spec"],
        json!({"size": 3, "replicas": 2, "color": "red", "parts": [{"name": "x"}]})
    );
    assert!(stored.get("status").is_none(), "{stored}");
    assert_eq!(stored["metadata"]["generation"], 1);
    let mut warnings = answer.warnings();
    warnings.sort_unstable();
    assert_eq!(
        warnings,
        [
            r#"299 - "unknown field \"metadata.extra\"""#,
            r#"299 - "unknown field \"spec.bogus\"""#,
            r#"299 - "unknown field \"spec.parts[0].more\"""#,
        ]
    );
    let strict = server
        .post(&format!("{WIDGETS}?fieldValidation=Strict"), odd)
        .await
        .failure(400, "BadRequest");
    let message = strict["message"].as_str().unwrap();
    assert!(message.starts_with("Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: "));
    let mut wrong = widget("b");
    wrong["spec"] = json!({"size": "big", "color": "green"});
    let status = server.post(WIDGETS, wrong).await.failure(422, "Invalid");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("Widget.example.com \"b\" is invalid: [")
    );
    let causes = causes(&status);
    assert!(
        causes
            .iter()
            .any(|cause| cause.starts_with("spec.size: Invalid value: \"string\"")),
        "{causes:?}"
    );
    assert!(
        causes
            .iter()
            .any(|cause| cause.starts_with("spec.color: Unsupported value: \"green\"")),
        "{causes:?}"
    );
    let mut missing = widget("c");
    missing["spec"] = json!({});
    assert_eq!(
        self::causes(&server.post(WIDGETS, missing).await.failure(422, "Invalid")),
        ["spec.size: Required value"]
    );
    let duplicate =
        r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"d"},"spec":{"size":1,"size":2}}"#;
    let headers = [("content-type", "application/json")];
    let answer = server
        .send(
            Method::POST,
            &format!("{WIDGETS}?fieldValidation=Strict"),
            &headers,
            duplicate,
        )
        .await;
    assert!(
        answer.failure(400, "BadRequest")["message"]
            .as_str()
            .unwrap()
            .ends_with("duplicate field \"spec.size\"")
    );
}

#[tokio::test]
async fn updates_need_a_version_and_raise_the_generation() {
    let server = server().await;
    let uri = format!("{WIDGETS}/a");
    let stored = server.post(WIDGETS, widget("a")).await.expect(201);
    let status = server.put(&uri, widget("a")).await.failure(422, "Invalid");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("must be specified for an update")
    );
    let mut new = stored.clone();
    new["spec"]["size"] = json!(4);
    new["status"] = json!({"phase": "Set"});
    let new = server.put(&uri, new).await.expect(200);
    assert_eq!(new["metadata"]["generation"], 2);
    assert!(new.get("status").is_none());
    let status = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"size": 9}, "status": {"phase": "Set"}});
    let set = server
        .patch(&format!("{uri}/status"), "merge", status)
        .await
        .expect(200);
    assert_eq!(
        (&set["status"]["phase"], &set["spec"]["size"]),
        (&json!("Set"), &json!(4))
    );
    assert_eq!(set["metadata"]["generation"], 2);
    assert!(set["metadata"].get("labels").is_none());
    assert_eq!(
        server
            .patch(&uri, "strategic-merge", json!({}))
            .await
            .failure(415, "UnsupportedMediaType")["code"],
        415
    );
    let patched = server
        .patch(
            &uri,
            "json",
            json!([{"op": "replace", "path": "/spec/size", "value": 5}]),
        )
        .await
        .expect(200);
    assert_eq!(
        (&patched["spec"]["size"], &patched["metadata"]["generation"]),
        (&json!(5), &json!(3))
    );
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.send(Method::POST, WIDGETS, &protobuf, "k8s\0").await.status, 415);
    let refused = server
        .patch(&uri, "merge", json!({"spec": {"size": 0}}))
        .await
        .failure(422, "Invalid");
    assert_eq!(
        causes(&refused),
        ["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"]
    );
}

#[tokio::test]
async fn versions_are_converted_by_name_and_deprecated_ones_warn() {
    let server = server().await;
    server.post(WIDGETS, widget("a")).await.expect(201);
    let beta = "/apis/example.com/v1beta1/namespaces/default/widgets";
    let answer = server.get(&format!("{beta}/a")).await;
    assert_eq!(answer.expect(200)["apiVersion"], "example.com/v1beta1");
    assert_eq!(
        answer.warnings(),
        [r#"299 - "example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget""#]
    );
    let mut other = widget("b");
    other["apiVersion"] = json!("example.com/v1beta1");
    assert_eq!(
        server.post(beta, other).await.expect(201)["apiVersion"],
        "example.com/v1beta1"
    );
    let list = server.get(WIDGETS).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("WidgetList"), &json!("example.com/v1"))
    );
    let items = list["items"].as_array().unwrap();
    assert!(items.len() == 2 && items.iter().all(|item| item["apiVersion"] == "example.com/v1"));
    let list = server.get(beta).await.expect(200);
    assert!(
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["apiVersion"] == "example.com/v1beta1")
    );
    for unknown in [
        "/apis/example.com/v2/widgets",
        "/apis/example.org/v1/widgets",
        "/apis/example.com/v1/gears",
    ] {
        let answer = server.get(unknown).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (404, "404 page not found\n"),
            "{unknown}"
        );
    }
}

#[tokio::test]
async fn a_changed_schema_holds_for_what_is_stored() {
    let server = server().await;
    server.post(WIDGETS, widget("a")).await.expect(201);
    let mut watch = server.watch(&format!("{WIDGETS}?watch=1"), "application/json").await;
    assert_eq!(watch.next_name().await, ("ADDED".into(), "a".into()));
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    let mut changed = server.get(&uri).await.expect(200);
    let properties =
        &mut changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    properties.as_object_mut().unwrap().remove("replicas");
    properties["weight"] = json!({"type": "integer", "default": 7});
    changed["spec"]["versions"][0]["subresources"]
        .as_object_mut()
        .unwrap()
        .remove("scale");
    let changed = server.put(&uri, changed).await.expect(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(
        watch.next().await,
        None,
        "who follows objects of the old schema must look again"
    );
    let expected = json!({"size": 3, "color": "red", "weight": 7});
    assert_eq!(server.get(&format!("{WIDGETS}/a")).await.expect(200)["spec"], expected);
    assert_eq!(server.get(WIDGETS).await.expect(200)["items"][0]["spec"], expected);
    server.post(WIDGETS, widget("b")).await.expect(201);
    let list = server.get(WIDGETS).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item["spec"] == expected), "{list}");
}

#[tokio::test]
async fn tables_and_selectors_follow_the_definition() {
    let server = server().await;
    server.post(WIDGETS, widget("a")).await.expect(201);
    let mut blue = widget("b");
    blue["spec"]["color"] = json!("blue");
    server.post(WIDGETS, blue).await.expect(201);
    let table = server
        .get_as(WIDGETS, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Size", "Phase"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3, null]));
    let selected = server
        .get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dblue"))
        .await
        .expect(200);
    let selected: Vec<&str> = selected["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(selected, ["b"]);
    let status = server
        .get(&format!("{WIDGETS}?fieldSelector=spec.size%3D3"))
        .await
        .failure(400, "BadRequest");
    assert_eq!(status["message"], "field label not supported: spec.size");
}

#[tokio::test]
async fn discovery_shows_what_is_served_at_once() {
    let server = Server::with_extensions().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let before = server.get_as("/apis", aggregated).await;
    establish(&server, definition()).await;
    let after = server.get_as("/apis", aggregated).await;
    assert_ne!(before.header("etag"), after.header("etag"));
    let after = after.json();
    let group = after["items"].as_array().unwrap().last().unwrap();
    assert_eq!(group["metadata"]["name"], "example.com");
    assert_eq!(group["versions"][0]["version"], "v1");
    let resource = &group["versions"][0]["resources"][0];
    assert_eq!(
        (&resource["resource"], &resource["shortNames"]),
        (&json!("widgets"), &json!(["wg"]))
    );
    let group = server.get("/apis/example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let resources = server.get("/apis/example.com/v1").await.expect(200);
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    let service = server
        .until("/apis/apiregistration.k8s.io/v1/apiservices/v1.example.com", |answer| {
            answer.status == 200
        })
        .await
        .json();
    assert_eq!(
        service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"],
        "true"
    );
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
    server
        .delete(&format!("{DEFINITIONS}/widgets.example.com"))
        .await
        .expect(200);
    server
        .until("/apis/apiregistration.k8s.io/v1/apiservices/v1.example.com", |answer| {
            answer.status == 404
        })
        .await;
    // The service goes as soon as the definition is to go, the group with the definition itself.
    server.until("/apis/example.com", |answer| answer.status == 404).await;
}

#[tokio::test]
async fn instances_go_before_their_definition() {
    let server = server().await;
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    server.post(WIDGETS, widget("a")).await.expect(201);
    let mut held = widget("b");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    let held = server.post(WIDGETS, held).await.expect(201);
    let mut watch = server
        .watch(
            &format!("{WIDGETS}?resourceVersion={}&watch=1", revision(&held)),
            "application/json",
        )
        .await;
    let deleted = server.delete(&uri).await.expect(200);
    assert_eq!(
        deleted["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let refused = server.post(WIDGETS, widget("c")).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        "widgets.example.com \"c\" is forbidden: create not allowed while custom resource definition is terminating"
    );
    assert_eq!(watch.next_name().await, ("DELETED".into(), "a".into()));
    assert_eq!(watch.next_name().await, ("MODIFIED".into(), "b".into()));
    let going = server.get(&uri).await.expect(200);
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let terminating = conditions
        .iter()
        .find(|condition| condition["type"] == "Terminating")
        .unwrap();
    assert_eq!(terminating["reason"], "InstanceDeletionInProgress");
    server
        .patch(
            &format!("{WIDGETS}/b"),
            "merge",
            json!({"metadata": {"finalizers": null}}),
        )
        .await
        .expect(200);
    assert_eq!(watch.next_name().await, ("DELETED".into(), "b".into()));
    server.until(&uri, |answer| answer.status == 404).await;
    assert_eq!(server.get(WIDGETS).await.status, 404);
    assert_eq!(watch.next().await, None, "the watch ends with its kind");
    // And again from the beginning, without what was.
    establish(&server, definition()).await;
    assert_eq!(server.get(WIDGETS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn whether_a_service_backed_api_service_is_available_is_not_known_at_first() {
    let server = Server::start().await;
    let answer = server.post("/apis/apiregistration.k8s.io/v1/apiservices", json!({
        "metadata": {"name": "v1.metrics.example.com"},
        "spec": {"group": "metrics.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": "s", "namespace": "default"}},
    })).await;
    assert_eq!(answer.warnings().len(), 0);
    let service = answer.expect(201);
    assert_eq!(service["spec"]["service"]["port"], 443);
    assert_eq!(service["status"], json!({}));
}

#[tokio::test]
async fn documents_describe_the_definition_at_once() {
    let server = Server::with_extensions().await;
    let index = server.get("/openapi/v3").await.expect(200);
    assert!(index["paths"].get("apis/example.com/v1").is_none());
    let mut shaped = definition();
    let properties =
        &mut shaped["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    properties["port"] = json!({"x-kubernetes-int-or-string": true});
    properties["open"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"a": {"type": "string"}}});
    properties["maybe"] = json!({"type": "string", "nullable": true});
    properties["pod"] = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "properties": {"spec": {"type": "object"}}});
    establish(&server, shaped).await;
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = server.get(&url).await;
    assert_eq!(answer.header("cache-control"), "public, immutable");
    let document = answer.expect(200);
    let path = "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}";
    let patch = &document["paths"][path]["patch"];
    assert_eq!(patch["operationId"], "patchExampleComV1NamespacedWidget");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "example.com", "version": "v1", "kind": "Widget"})
    );
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(
        parameters
            .iter()
            .any(|parameter| parameter["name"] == "fieldValidation")
    );
    let types: Vec<&String> = patch["requestBody"]["content"].as_object().unwrap().keys().collect();
    assert!(!types.iter().any(|name| name.contains("strategic")), "{types:?}");
    assert!(document["paths"].get(format!("{path}/scale")).is_some());
    let schemas = &document["components"]["schemas"];
    let widget = &schemas["com.example.v1.Widget"];
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "version": "v1", "kind": "Widget"}])
    );
    let spec = &widget["properties"]["spec"]["properties"];
    assert_eq!(spec["color"]["default"], "red");
    assert_eq!(spec["port"]["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert_eq!(spec["pod"]["required"], json!(["kind", "apiVersion"]));
    assert!(spec["pod"]["properties"].get("metadata").is_some());
    assert_eq!(schemas["com.example.v1.WidgetList"]["required"], json!(["items"]));
    let mut references = std::collections::BTreeSet::new();
    collect_references(&document, &mut references);
    for reference in references {
        let name = reference.rsplit('/').next().unwrap();
        assert!(schemas.get(name).is_some(), "{reference} leads nowhere");
    }
    let swagger = server.get("/openapi/v2").await.expect(200);
    let spec = &swagger["definitions"]["com.example.v1.Widget"]["properties"]["spec"]["properties"];
    assert_eq!(spec["open"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert!(spec["maybe"].get("type").is_none() && spec["port"].get("anyOf").is_none());
    assert!(swagger["paths"].get(path).is_some());
    // What did not change keeps its URL; what did gets another, and the old one leads there.
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    server
        .patch(&uri, "merge", json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .expect(200);
    let again = server.get("/openapi/v3").await.expect(200);
    assert_eq!(again["paths"]["apis/example.com/v1"]["serverRelativeURL"], url);
    let column = json!([{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/1"}]);
    server.patch(&uri, "json", column).await.expect(200);
    let moved = server.get(&url).await;
    assert_eq!(moved.status, 301);
    server.get(moved.header("location")).await.expect(200);
    server.delete(&uri).await.expect(200);
    server.until(&uri, |answer| answer.status == 404).await;
    assert_eq!(server.get(&url).await.status, 404);
}

fn collect_references(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

/// What follows the definitions must wait for the next one, also where the history of the first ones is forgotten.
#[tokio::test]
async fn whoever_follows_definitions_waits() {
    let server = Server::with_history(20).await;
    for number in 0..60 {
        server.config_map(&format!("c{number}"), json!({})).await;
    }
    server.history_reaches(10).await;
    let open = || {
        let metrics = server.api.storage.metrics();
        metrics.watches.load(std::sync::atomic::Ordering::Relaxed)
    };
    let before = open();
    let stop = tokio_util::sync::CancellationToken::new();
    let following = tokio::spawn(server.api.clone().follow_definitions(stop.clone()));
    let waits = async {
        while open() <= before {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), waits)
        .await
        .expect("it waits with a watch");
    stop.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn an_object_of_another_kind_does_not_validate() {
    let server = server().await;
    let mut gadget = widget("w");
    gadget["kind"] = json!("Gadget");
    let refused = server.post(WIDGETS, gadget).await.failure(422, "Invalid");
    assert_eq!(
        refused["message"],
        "Gadget.example.com \"w\" is invalid: kind: Invalid value: \"Gadget\": must be Widget"
    );
    let mut other = widget("w");
    other["apiVersion"] = json!("example.com/v2");
    server.post(WIDGETS, other).await.failure(400, "BadRequest");
}
