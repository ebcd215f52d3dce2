//! What `fieldValidation=Strict` refuses: unknown and repeated members, on create and on server-side apply.

use crate::cluster::Cluster;
use crate::custom_resources::{Definition, anything};
use crate::runner::{Test, test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema",
            unknown_without_schema,
        ),
        test(
            "[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema",
            valid,
        ),
        test(
            "[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema",
            extra_properties,
        ),
        test(
            "[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields",
            duplicates,
        ),
        test(
            "[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR",
            unknown_metadata_of_custom,
        ),
        test(
            "[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object",
            typed,
        ),
        test(
            "[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object",
            unknown_metadata,
        ),
    ]
}

/// The answer to a create and to an apply of `text` under strict validation: codes and messages.
async fn strictly(cluster: &Cluster, collection: &str, name: &str, text: &str) -> [(u16, String); 2] {
    let message = |answer: crate::cluster::Answer| {
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        (answer.code, message)
    };
    let json = [("content-type", "application/json")];
    let uri = format!("{collection}?fieldValidation=Strict");
    let created = cluster.send("POST", &uri, &json, text).await;
    let uri = format!("{collection}/{name}?fieldValidation=Strict&fieldManager=tests&force=true");
    let apply = [("content-type", "application/apply-patch+yaml")];
    let applied = cluster.send("PATCH", &uri, &apply, text).await;
    [message(created), message(applied)]
}

fn deployment(spec: &str, metadata: &str) -> String {
    format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "strict"{metadata}}}, "spec": {{{spec}
            "selector": {{"matchLabels": {{"app": "x"}}}},
            "template": {{"metadata": {{"labels": {{"app": "x"}}}},
                "spec": {{"containers": [{{"name": "main", "image": "registry.example/pause:1"}}]}}}}}}}}"#
    )
}

async fn typed(cluster: Cluster) {
    let namespace = cluster.namespace("strict").await;
    let collection = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let text = deployment(r#""unknown": "x", "paused": true, "paused": false,"#, "");
    let [created, applied] = strictly(&cluster, &collection, "strict", &text).await;
    assert_eq!(
        created,
        (
            400,
            r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.unknown", duplicate field "spec.paused""#.to_owned()
        )
    );
    assert_eq!(applied.0, 500, "what the schema says comes first: {}", applied.1);
    let twice = deployment(r#""paused": true, "paused": false,"#, "");
    let [_, applied] = strictly(&cluster, &collection, "strict", &twice).await;
    assert_eq!(applied.0, 400, "{}", applied.1);
    assert!(
        applied.1.contains(r#"key "paused" already set in map"#),
        "{}",
        applied.1
    );
    let only_unknown = deployment(r#""unknown": "x","#, "");
    let [_, applied] = strictly(&cluster, &collection, "strict", &only_unknown).await;
    assert_eq!(applied.0, 500, "{}", applied.1);
    assert!(
        applied.1.contains(".spec.unknown: field not declared in schema"),
        "{}",
        applied.1
    );
}

async fn unknown_metadata(cluster: Cluster) {
    let namespace = cluster.namespace("strict").await;
    let collection = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let text = deployment("", r#", "unknownMeta": "x""#);
    let [created, _] = strictly(&cluster, &collection, "strict", &text).await;
    assert_eq!(
        created,
        (
            400,
            r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "metadata.unknownMeta""#.to_owned()
        )
    );
    let twice = deployment("", r#", "labels": {"a": "1"}, "labels": {"a": "2"}"#);
    let [created, _] = strictly(&cluster, &collection, "strict", &twice).await;
    assert!(
        created.0 == 400 && created.1.contains(r#"duplicate field "metadata.labels""#),
        "{created:?}"
    );
}

/// A definition with a known member and one that is an object of its own.
fn with_schema(cluster: &Cluster) -> Definition {
    Definition::new(cluster, "strict").schema(json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {
                "foo": {"type": "string"},
                "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                    "items": {"type": "object", "required": ["containerPort", "protocol"], "properties": {
                        "containerPort": {"type": "integer", "format": "int32"}, "hostPort": {"type": "integer"},
                        "protocol": {"type": "string"},
                    }}},
            }},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        },
    }))
}

async fn collection(cluster: &Cluster, definition: &Definition) -> String {
    let namespace = cluster.namespace("strict").await;
    definition.instances(cluster, "v1", Some(&namespace)).url
}

fn applied_and_created(answers: &[(u16, String); 2]) {
    assert_eq!(answers[0].0, 201, "{}", answers[0].1);
    assert_eq!(answers[1].0, 200, "{}", answers[1].1);
}

async fn unknown_without_schema(cluster: Cluster) {
    let definition = Definition::new(&cluster, "strict")
        .schema(anything())
        .establish(&cluster)
        .await;
    let collection = collection(&cluster, &definition).await;
    let object = definition.instance("one", json!({"spec": {"unknown": "x"}}));
    applied_and_created(&strictly(&cluster, &collection, "one", &object.to_string()).await);
    definition.delete(&cluster).await;
}

async fn valid(cluster: Cluster) {
    let definition = with_schema(&cluster).establish(&cluster).await;
    let collection = collection(&cluster, &definition).await;
    let ports = json!([{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}]);
    let object = definition.instance(
        "one",
        json!({"spec": {"foo": "foo1", "cronSpec": "* * * * */5", "ports": ports}}),
    );
    applied_and_created(&strictly(&cluster, &collection, "one", &object.to_string()).await);
    let wrong = definition.instance("two", json!({"spec": {"cronSpec": "sometimes"}}));
    let [created, _] = strictly(&cluster, &collection, "two", &wrong.to_string()).await;
    assert!(created.0 == 422 && created.1.contains("spec.cronSpec"), "{created:?}");
    definition.delete(&cluster).await;
}

async fn extra_properties(cluster: Cluster) {
    let definition = with_schema(&cluster).establish(&cluster).await;
    let collection = collection(&cluster, &definition).await;
    let ports = json!([{"containerPort": 80, "protocol": "TCP"}]);
    let object = definition.instance(
        "one",
        json!({"spec": {"foo": "foo1", "extra": true, "ports": ports}, "top": 1}),
    );
    let [created, applied] = strictly(&cluster, &collection, "one", &object.to_string()).await;
    assert_eq!(created.0, 400);
    for field in ["spec.extra", "top"] {
        assert!(
            created.1.contains(&format!("unknown field \"{field}\"")),
            "{}",
            created.1
        );
    }
    assert_ne!(applied.0, 200);
    assert!(
        applied.1.contains(".spec.extra: field not declared in schema"),
        "{}",
        applied.1
    );
    definition.delete(&cluster).await;
}

async fn duplicates(cluster: Cluster) {
    let definition = Definition::new(&cluster, "strict")
        .schema(anything())
        .establish(&cluster)
        .await;
    let collection = collection(&cluster, &definition).await;
    let text = format!(
        r#"{{"apiVersion": "{}/v1", "kind": "{}", "metadata": {{"name": "one"}}, "unknown": "a", "spec": {{"foo": "1", "foo": "2"}}}}"#,
        definition.group, definition.kind
    );
    let [created, applied] = strictly(&cluster, &collection, "one", &text).await;
    assert!(
        created.0 == 400 && created.1.contains(r#"duplicate field "spec.foo""#),
        "{created:?}"
    );
    assert!(
        applied.0 == 400 && applied.1.contains(r#"key "foo" already set in map"#),
        "{applied:?}"
    );
    definition.delete(&cluster).await;
}

async fn unknown_metadata_of_custom(cluster: Cluster) {
    let definition = with_schema(&cluster).establish(&cluster).await;
    let collection = collection(&cluster, &definition).await;
    let embedded: Value =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inner", "unknownInner": "x"}});
    let object = definition.instance("one", json!({"metadata": {"unknownOuter": "x"}, "embedded": embedded}));
    let [created, applied] = strictly(&cluster, &collection, "one", &object.to_string()).await;
    assert_eq!(created.0, 400, "{}", created.1);
    for field in ["metadata.unknownOuter", "embedded.metadata.unknownInner"] {
        assert!(
            created.1.contains(&format!("unknown field \"{field}\"")),
            "{}",
            created.1
        );
    }
    assert_ne!(applied.0, 200, "{}", applied.1);
    definition.delete(&cluster).await;
}
