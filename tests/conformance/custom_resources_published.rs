//! Custom resources in the OpenAPI documents, and what kubectl makes of them.

use crate::cluster::{Cluster, eventually_every};
use crate::custom_resources::{API, Definition, anything, version};
use crate::resource::json_patch;
use crate::runner::{Test, test};
use serde_json::{Value, json};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served",
            version_not_served,
        ),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed",
            version_renamed,
        ),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root",
            preserving_at_the_root,
        )
        .needs_kubectl(),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object",
            preserving_below,
        )
        .needs_kubectl(),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema",
            with_schema,
        )
        .needs_kubectl(),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema",
            without_schema,
        )
        .needs_kubectl(),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups",
            several_groups,
        ),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds",
            several_kinds,
        ),
        test(
            "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions",
            several_versions,
        ),
    ]
}

/// The documents are large: they are not asked for all the time.
const PAUSE: Duration = Duration::from_millis(200);

/// A schema with required members, descriptions and several types.
pub fn bars() -> Value {
    let bar = json!({
        "type": "object", "required": ["name"],
        "properties": {
            "name": {"type": "string", "description": "Name of Bar."},
            "age": {"type": "string", "description": "Age of Bar."},
            "feeling": {"type": "string", "description": "How it feels.", "enum": ["Great", "Down"]},
            "bazs": {"type": "array", "items": {"type": "string"}, "description": "List of Bazs."},
        },
    });
    json!({
        "type": "object", "description": "Foo CRD for Testing",
        "properties": {
            "spec": {
                "type": "object", "description": "Specification of Foo",
                "properties": {"bars": {"type": "array", "description": "List of Bars and their specs.", "items": bar}},
            },
            "status": {
                "type": "object", "description": "Status of Foo",
                "properties": {"bars": {"type": "array", "items": {"type": "object", "properties": {
                    "name": {"type": "string"}, "available": {"type": "boolean"},
                }}}},
            },
        },
    })
}

/// The definition of a custom kind in OpenAPI v2, by its name there: `com.example.<group>.v1.Kind`.
fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

async fn swagger(cluster: &Cluster) -> Value {
    cluster.get("/openapi/v2").await.expect(200)
}

/// The definitions of v2 once they have some names, and do not have others. Only then the text is parsed: it is large.
async fn definitions(cluster: &Cluster, with: &[&str], without: &[&str]) -> Value {
    let what = format!("v2 with {with:?} and without {without:?}");
    let text = eventually_every(PAUSE, &what, async || {
        let answer = cluster.get("/openapi/v2").await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        let has = |name: &&str| answer.text.contains(&format!("\"{name}\":"));
        (with.iter().all(has) && !without.iter().any(has)).then_some(answer.text)
    })
    .await;
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document["definitions"].take()
}

/// Waits until the kind stands in both forms of the document, and returns its definition of v2.
async fn published(cluster: &Cluster, group: &str, version: &str, kind: &str) -> Value {
    let name = definition_name(group, version, kind);
    eventually_every(PAUSE, &format!("{name} in v3"), async || {
        let answer = cluster.get(&format!("/openapi/v3/apis/{group}/{version}")).await;
        (answer.code == 200 && answer.json()["components"]["schemas"].get(&name).is_some()).then_some(())
    })
    .await;
    definitions(cluster, &[&name], &[]).await[&name].take()
}

async fn several_groups(cluster: Cluster) {
    let one = Definition::new(&cluster, "group-one")
        .schema(bars())
        .establish(&cluster)
        .await;
    let two = Definition::new(&cluster, "group-two")
        .schema(bars())
        .establish(&cluster)
        .await;
    for definition in [&one, &two] {
        let schema = published(&cluster, &definition.group, "v1", &definition.kind).await;
        assert_eq!(
            schema["x-kubernetes-group-version-kind"],
            json!([{"group": definition.group, "version": "v1", "kind": definition.kind}])
        );
        assert_eq!(schema["properties"]["spec"]["description"], "Specification of Foo");
        let document = swagger(&cluster).await;
        let path = format!(
            "/apis/{}/v1/namespaces/{{namespace}}/{}",
            definition.group, definition.plural
        );
        assert!(document["paths"][path]["post"].is_object());
    }
    one.delete(&cluster).await;
    two.delete(&cluster).await;
}

async fn several_kinds(cluster: Cluster) {
    let group = format!("{}.example.com", cluster.unique("kinds"));
    let one = Definition::named(&group, "Foo")
        .schema(bars())
        .establish(&cluster)
        .await;
    let two = Definition::named(&group, "Bar")
        .schema(bars())
        .establish(&cluster)
        .await;
    published(&cluster, &group, "v1", "Foo").await;
    published(&cluster, &group, "v1", "Bar").await;
    one.delete(&cluster).await;
    let [gone, stays] = ["Foo", "Bar"].map(|kind| definition_name(&group, "v1", kind));
    let left = definitions(&cluster, &[&stays], &[&gone]).await;
    assert!(left[&stays].is_object());
    two.delete(&cluster).await;
}

async fn several_versions(cluster: Cluster) {
    let definition = Definition::new(&cluster, "versions")
        .versions(vec![version("v2", bars()), version("v3", bars())])
        .establish(&cluster)
        .await;
    for version in ["v2", "v3"] {
        published(&cluster, &definition.group, version, &definition.kind).await;
    }
    definition.delete(&cluster).await;
}

async fn version_renamed(cluster: Cluster) {
    let definition = Definition::new(&cluster, "renamed")
        .versions(vec![version("v2", bars()), version("v3", bars())])
        .establish(&cluster)
        .await;
    let (group, kind) = (&definition.group, &definition.kind);
    published(&cluster, group, "v3", kind).await;
    let unchanged = published(&cluster, group, "v2", kind).await;
    let stored = cluster.resource(API, "customresourcedefinitions", None);
    let rename = json_patch(json!([{"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]));
    stored.patch(definition.name(), &rename).await.unwrap();
    published(&cluster, group, "v4", kind).await;
    definitions(&cluster, &[], &[&definition_name(group, "v3", kind)]).await;
    assert_eq!(published(&cluster, group, "v2", kind).await, unchanged);
    definition.delete(&cluster).await;
}

async fn version_not_served(cluster: Cluster) {
    let definition = Definition::new(&cluster, "unserved")
        .versions(vec![version("v5", bars()), version("v6alpha1", bars())])
        .establish(&cluster)
        .await;
    let (group, kind) = (&definition.group, &definition.kind);
    published(&cluster, group, "v6alpha1", kind).await;
    let unchanged = published(&cluster, group, "v5", kind).await;
    let stored = cluster.resource(API, "customresourcedefinitions", None);
    let hide = json_patch(json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]));
    stored.patch(definition.name(), &hide).await.unwrap();
    definitions(&cluster, &[], &[&definition_name(group, "v6alpha1", kind)]).await;
    assert_eq!(published(&cluster, group, "v5", kind).await, unchanged);
    definition.delete(&cluster).await;
}

/// An instance as kubectl takes it from a file.
fn manifest(definition: &Definition, name: &str, more: Value) -> String {
    definition.instance(name, more).to_string()
}

async fn with_schema(cluster: Cluster) {
    let definition = Definition::new(&cluster, "valid")
        .schema(bars())
        .establish(&cluster)
        .await;
    published(&cluster, &definition.group, "v1", &definition.kind).await;
    let namespace = cluster.namespace("valid").await;
    let good = manifest(
        &definition,
        "good",
        json!({"spec": {"bars": [{"name": "test-bar", "feeling": "Great"}]}}),
    );
    let unknown = manifest(
        &definition,
        "bad",
        json!({"spec": {"bars": [{"name": "b"}]}, "foo": true}),
    );
    let nested = manifest(
        &definition,
        "bad",
        json!({"spec": {"bars": [{"name": "b", "nope": "x"}]}}),
    );
    let missing = manifest(&definition, "bad", json!({"spec": {"bars": [{"age": "10"}]}}));
    let mood = manifest(
        &definition,
        "bad",
        json!({"spec": {"bars": [{"name": "b", "feeling": "NonExistent"}]}}),
    );
    let (plural, group) = (definition.plural.clone(), definition.group.clone());
    cluster
        .with_kubectl(move |kubectl| {
            let scope = |words: &[&str]| {
                let mut all = vec!["-n".to_owned(), namespace.clone()];
                all.extend(words.iter().map(|word| (*word).to_owned()));
                all
            };
            fn words(all: &[String]) -> Vec<&str> {
                all.iter().map(String::as_str).collect()
            }
            kubectl.ok_with(&words(&scope(&["create", "-f", "-"])), &good);
            kubectl.ok_with(&words(&scope(&["delete", "-f", "-"])), &good);
            kubectl.ok_with(&words(&scope(&["apply", "-f", "-"])), &good);
            kubectl.ok_with(&words(&scope(&["delete", "-f", "-"])), &good);
            for command in ["create", "apply"] {
                let arguments = scope(&[command, "-f", "-"]);
                let arguments = words(&arguments);
                for (wrong, text) in [
                    (&unknown, r#"unknown field "foo""#),
                    (&nested, r#"unknown field "spec.bars[0].nope""#),
                    (&missing, "spec.bars[0].name: Required value"),
                    (
                        &mood,
                        r#"spec.bars[0].feeling: Unsupported value: "NonExistent": supported values: "Great", "Down""#,
                    ),
                ] {
                    let refused = kubectl.fails_with(&arguments, wrong);
                    assert!(refused.contains(text), "{command}: {refused}");
                }
            }
            let explained = kubectl.ok(&["explain", &format!("{plural}.{group}")]);
            for text in [
                "KIND:",
                "Foo CRD for Testing",
                "apiVersion",
                "metadata",
                "Specification of Foo",
            ] {
                assert!(explained.contains(text), "{text}: {explained}");
            }
            let explained = kubectl.ok(&["explain", &format!("{plural}.{group}.spec")]);
            assert!(explained.contains("List of Bars and their specs."), "{explained}");
            let explained = kubectl.ok(&["explain", &format!("{plural}.{group}.spec.bars")]);
            for text in ["name", "-required-", "Name of Bar.", "List of Bazs."] {
                assert!(explained.contains(text), "{text}: {explained}");
            }
            kubectl.fails_with(&["explain", &format!("{plural}.{group}.spec.bars2")], "");
        })
        .await;
    definition.delete(&cluster).await;
}

/// kubectl takes any member below the root, and explains the kind.
async fn takes_anything(cluster: Cluster, schema: Value, more: Value, explained: Option<&'static str>) {
    let definition = Definition::new(&cluster, "free")
        .schema(schema)
        .establish(&cluster)
        .await;
    published(&cluster, &definition.group, "v1", &definition.kind).await;
    let namespace = cluster.namespace("free").await;
    let object = manifest(&definition, "one", more.clone());
    let kind = format!("{}.{}", definition.plural, definition.group);
    let stored = cluster
        .with_kubectl(move |kubectl| {
            for command in ["create", "apply"] {
                kubectl.ok_with(&["-n", &namespace, command, "-f", "-"], &object);
                if command == "create" {
                    kubectl.ok_with(&["-n", &namespace, "delete", "-f", "-"], &object);
                }
            }
            let stored = kubectl.ok(&["-n", &namespace, "get", &kind, "one", "-o", "json"]);
            let text = kubectl.ok(&["explain", &kind]);
            assert!(text.contains("KIND:") && text.contains("Thing"), "{text}");
            if let Some(explained) = explained {
                assert!(text.contains(explained), "{text}");
            }
            stored
        })
        .await;
    let stored: Value = serde_json::from_str(&stored).unwrap();
    for (member, value) in more.as_object().unwrap() {
        assert_eq!(&stored[member], value, "{member} is kept");
    }
    definition.delete(&cluster).await;
}

async fn without_schema(cluster: Cluster) {
    takes_anything(cluster, anything(), json!({"a": {"b": [1, "two"]}}), None).await;
}

async fn preserving_at_the_root(cluster: Cluster) {
    let mut schema = bars();
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let more = json!({"anything": true, "spec": {"bars": [{"name": "b"}]}});
    takes_anything(cluster, schema, more, Some("Foo CRD for Testing")).await;
}

async fn preserving_below(cluster: Cluster) {
    let schema = json!({
        "type": "object", "description": "preserve-unknown-properties in nested field for Testing",
        "properties": {
            "spec": {"type": "object", "description": "Specification of Waldo", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    let more = json!({"spec": {"free": {"deep": [{"a": 1}]}}});
    takes_anything(
        cluster,
        schema,
        more,
        Some("preserve-unknown-properties in nested field for Testing"),
    )
    .await;
}
