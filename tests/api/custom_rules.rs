//! What schemas of custom resources refuse: wrong values, broken rules; and which schemas are refused themselves.

use crate::harness::Server;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GADGETS: &str = "/apis/example.com/v1/namespaces/default/gadgets";

fn definition(spec: Value) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

async fn serving(spec: Value) -> Server {
    let server = Server::with_extensions().await;
    server.post(DEFINITIONS, definition(spec)).await.expect(201);
    let uri = format!("{DEFINITIONS}/gadgets.example.com");
    server
        .until(&uri, |answer| {
            answer.json()["status"]["conditions"][1]["status"] == "True"
        })
        .await;
    server
}

fn gadget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": spec})
}

/// Field, reason and message of each cause.
fn causes(status: &Value) -> Vec<(String, String, String)> {
    let text = |cause: &Value, key: &str| cause[key].as_str().unwrap_or_default().to_owned();
    let causes = status["details"]["causes"].as_array().expect("causes");
    causes
        .iter()
        .map(|cause| (text(cause, "field"), text(cause, "reason"), text(cause, "message")))
        .collect()
}

#[tokio::test]
async fn objects_that_break_the_schema_are_refused_with_every_cause() {
    let server = serving(json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "maxLength": 3}, "size": {"type": "integer", "maximum": 5},
        "kind": {"type": "string", "enum": ["a", "b"]}, "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}))
    .await;
    let status = server
        .post(
            GADGETS,
            gadget(json!({"size": "x", "kind": "c", "when": "now", "tags": ["t", "t"]})),
        )
        .await
        .expect(422);
    let own = |field: &str, reason: &str, message: &str| (field.to_owned(), reason.to_owned(), message.to_owned());
    let mut found = causes(&status);
    found.sort();
    let mut expected = vec![
        own(
            "spec.size",
            "FieldValueTypeInvalid",
            r#"Invalid value: "string": spec.size in body must be of type integer: "string""#,
        ),
        own(
            "spec.kind",
            "FieldValueNotSupported",
            r#"Unsupported value: "c": supported values: "a", "b""#,
        ),
        own(
            "spec.when",
            "FieldValueTypeInvalid",
            r#"Invalid value: "now": spec.when in body must be of type date-time: "now""#,
        ),
        own("spec.name", "FieldValueRequired", "Required value"),
        own("spec.tags[1]", "FieldValueDuplicate", r#"Duplicate value: "t""#),
    ];
    expected.sort();
    assert_eq!(found, expected);
    server
        .post(
            GADGETS,
            gadget(json!({"name": "abc", "size": 5, "when": "2024-01-01T00:00:00Z"})),
        )
        .await
        .expect(201);
}

#[tokio::test]
async fn rules_are_run_on_create_and_on_update() {
    let server = serving(json!({"type": "object",
        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
            "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]}},
        "x-kubernetes-validations": [{"rule": "self.min <= self.max", "messageExpression": "'%d is more than %d'.format([self.min, self.max])",
            "fieldPath": ".min"}]}))
    .await;
    let status = server
        .post(GADGETS, gadget(json!({"min": 2, "max": 1, "fixed": "x"})))
        .await
        .expect(422);
    assert_eq!(
        status["message"],
        "Gadget.example.com \"a\" is invalid: spec.min: Invalid value: 2 is more than 1"
    );
    server
        .post(GADGETS, gadget(json!({"min": 1, "max": 1, "fixed": "x"})))
        .await
        .expect(201);
    let mut stored = server.get(&format!("{GADGETS}/a")).await.expect(200);
    stored["spec"]["fixed"] = json!("y");
    let status = server.put(&format!("{GADGETS}/a"), stored.clone()).await.expect(422);
    assert_eq!(
        causes(&status),
        [(
            "spec.fixed".to_owned(),
            "FieldValueInvalid".to_owned(),
            "Invalid value: \"y\": is immutable".to_owned()
        )]
    );
    stored["spec"]["fixed"] = json!("x");
    stored["spec"]["max"] = json!(9);
    server.put(&format!("{GADGETS}/a"), stored).await.expect(200);
}

#[tokio::test]
async fn definitions_with_wrong_schemas_are_refused() {
    let server = Server::with_extensions().await;
    // A schema that all versions share is named as that of the definition.
    let at = "spec.validation.openAPIV3Schema.properties[spec]";
    for (spec, field, message) in [
        (
            json!({}),
            format!("{at}.type"),
            "Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "integer", "default": "x"}),
            format!("{at}.default"),
            "Invalid value: \"string\": ",
        ),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.nope > 1"}]}),
            format!("{at}.x-kubernetes-validations[0].rule"),
            "Invalid value: {\"Rule\":\"self.nope \\u003e 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\
             \"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:5: undefined field 'nope'",
        ),
        (
            json!({"type": "array", "items": {"type": "string"},
                "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x != y))"}]}),
            format!("{at}.x-kubernetes-validations[0].rule"),
            "Forbidden: estimated rule cost exceeds budget by factor of more than 100x",
        ),
    ] {
        let status = server.post(DEFINITIONS, definition(spec.clone())).await.expect(422);
        let found = causes(&status);
        assert!(
            found
                .iter()
                .any(|(at, _, text)| *at == field && text.starts_with(message)),
            "{spec}: {found:?}"
        );
    }
}
