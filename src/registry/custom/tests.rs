//! Rows from definitions, and what they do with objects.

use super::*;
use crate::registry::strategy::Target;
use crate::storage::{Entry, Index, Key};
use bytes::Bytes;
use serde_json::json;

fn definition(change: impl FnOnce(&mut Value)) -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "color": {"type": "string", "default": "red"},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }});
    let mut definition = json!({
        "metadata": {"name": "widgets.example.com", "uid": "u"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "conversion": {"strategy": "None"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "additionalPrinterColumns": [
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
                        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ]},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
                {"name": "v1alpha1", "served": false, "storage": false,
                    "schema": {"openAPIV3Schema": {"type": "object"}}},
            ],
        },
        "status": {
            "acceptedNames": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                "shortNames": ["wg"], "categories": ["all"]},
            "conditions": [{"type": "Established", "status": "True"}],
        },
    });
    change(&mut definition);
    definition
}

fn entry(definition: &Value, revision: u64) -> Entry {
    Entry {
        key: Key::new(DEFINITIONS, "", "widgets.example.com"),
        revision,
        bytes: Bytes::from(definition.to_string()),
        index: Index::default(),
    }
}

fn kinds(change: impl FnOnce(&mut Value)) -> Vec<Arc<Kind>> {
    rows(&entry(&definition(change), 10), &[]).unwrap()
}

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

#[test]
fn an_established_definition_has_a_row_for_every_version_that_is_served_or_stored() {
    let kinds = kinds(|_| {});
    let versions: Vec<&str> = kinds.iter().map(|kind| kind.version).collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    let kind = &kinds[0];
    assert_eq!(kind.definition, "com.example.v1.Widget");
    assert_eq!(kind.storage_resource, "widgets.example.com");
    assert_eq!(kinds[1].storage_group_version, "example.com/v1");
    assert_eq!((kind.short_names, kind.categories), (&["wg"][..], &["all"][..]));
    let subresources: Vec<&str> = kind.subresources.iter().map(|sub| sub.name).collect();
    assert_eq!(subresources, ["scale", "status"]);
    assert!(kinds[1].subresources.is_empty());
    assert_eq!(
        kinds[1].custom.as_ref().unwrap().deprecation_warning.as_deref(),
        Some("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget")
    );
    let waiting = super::rows(&entry(&definition(|d| d["status"]["conditions"] = json!([])), 1), &[]);
    assert!(waiting.unwrap().is_empty());
}

#[test]
fn rows_stay_the_same_until_the_definition_changes() {
    let before = kinds(|_| {});
    let again = rows(
        &entry(&definition(|d| d["metadata"]["labels"] = json!({"a": "b"})), 11),
        &before,
    )
    .unwrap();
    assert!(Arc::ptr_eq(&before[0], &again[0]));
    let deleted = |d: &mut Value| d["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let going = rows(&entry(&definition(deleted), 12), &before).unwrap();
    let custom = going[0].custom.as_ref().unwrap();
    assert!(
        custom.terminating && custom.is_current(11),
        "its objects are as they were"
    );
    assert!(!going[0].has_verb("create"));
    let changed = |d: &mut Value| d["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object"});
    let changed = rows(&entry(&definition(changed), 13), &before).unwrap();
    let custom = changed[0].custom.as_ref().unwrap();
    assert!(!custom.is_current(13) && custom.is_current(14));
    assert_ne!(custom.digest, before[0].custom.as_ref().unwrap().digest);
}

#[test]
fn cells_follow_their_types() {
    let kind = &kinds(|_| {})[0];
    let columns: Vec<(&str, i32)> = kind.strategy.columns().iter().map(|c| (c.name, c.priority)).collect();
    assert_eq!(columns, [("Name", 0), ("Replicas", 0), ("Color", 1), ("Since", 0)]);
    let widget = object(json!({
        "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {"replicas": 2.0, "color": true},
    }));
    assert_eq!(
        kind.strategy.cells(&widget, 300),
        [json!("a"), json!(2), json!("true"), json!("5m")]
    );
    let empty = kind.strategy.cells(&object(json!({"spec": {"replicas": "x"}})), 0);
    assert_eq!(empty, [Value::Null, Value::Null, Value::Null, Value::Null]);
    let odd = |d: &mut Value| d["spec"]["versions"][0]["additionalPrinterColumns"][0]["jsonPath"] = json!(".a[");
    assert_eq!(kinds(odd)[0].strategy.columns().len(), 1);
    assert_eq!(kinds(|_| {})[1].strategy.columns()[1].name, "Age");
}

#[test]
fn the_status_is_not_the_mains_and_the_rest_is_not_the_statuss() {
    let kind = &kinds(|_| {})[0];
    let old = object(json!({
        "metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"color": "red"}, "status": {"replicas": 1},
    }));
    let new = || {
        object(json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "resourceVersion": "1"},
            "spec": {"color": "blue"}, "status": {"replicas": 2},
        }))
    };
    let mut main = new();
    kind.strategy.prepare_for_update(&mut main, &old, Target::Main);
    assert_eq!(
        (&main["spec"]["color"], &main["status"]["replicas"]),
        (&json!("blue"), &json!(1))
    );
    let mut status = new();
    kind.strategy.prepare_for_update(&mut status, &old, Target::Status);
    assert_eq!(
        status,
        object(json!({
            "metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"color": "red"}, "status": {"replicas": 2},
        }))
    );
    let without = &kinds(|_| {})[1];
    let mut main = new();
    without.strategy.prepare_for_update(&mut main, &old, Target::Main);
    assert_eq!(main["status"]["replicas"], 2);
    assert!(without.strategy.status_is_intent() && !kind.strategy.status_is_intent());
}

#[test]
fn replicas_are_numbers_that_are_not_negative() {
    let kind = &kinds(|d| d["spec"]["versions"][0]["schema"] = d["spec"]["versions"][1]["schema"].clone())[0];
    let told = |widget: Value| -> Vec<String> {
        let errors = kind.strategy.validate_create(&object(widget));
        errors.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        told(json!({"spec": {"replicas": -1}, "status": {"replicas": "x"}})),
        [
            ".spec.replicas: Invalid value: -1: should be a non-negative integer",
            ".status.replicas: Invalid value: 0: .status.replicas accessor error: x is of the type string, expected int64",
        ]
    );
    assert_eq!(
        told(json!({"spec": {"replicas": 2_147_483_648_i64}})),
        [".spec.replicas: Invalid value: 2147483648: should be less than or equal to 2147483647"]
    );
    assert!(told(json!({})).is_empty());
}

#[test]
fn objects_of_another_version_are_renamed_pruned_and_defaulted() {
    let kinds = kinds(|_| {});
    let mut widget = object(
        json!({"apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": {},
        "spec": {"replicas": 1, "more": true}}),
    );
    let custom = kinds[0].custom.as_ref().unwrap();
    assert!(custom.convert(&kinds[0], &mut widget));
    assert_eq!(widget["apiVersion"], "example.com/v1");
    assert_eq!(widget["spec"], json!({"replicas": 1, "color": "red"}));
    assert_eq!(custom.selectable(&widget, "spec.color").as_deref(), Some("red"));
    let webhook = self::kinds(|d| d["spec"]["conversion"]["strategy"] = json!("Webhook"));
    widget["apiVersion"] = json!("example.com/v1beta1");
    assert!(!webhook[0].custom.as_ref().unwrap().convert(&webhook[0], &mut widget));
}

#[test]
fn finalizers_should_name_a_domain() {
    let kind = &kinds(|_| {})[0];
    let widget = object(json!({"metadata": {"finalizers": ["example.com/a", "mine", "example.com", "orphan"]}}));
    assert_eq!(
        kind.strategy.warnings(&widget, None),
        [
            "metadata.finalizers: \"example.com\": prefer a domain-qualified finalizer name including a path (/) to avoid \
             accidental conflicts with other finalizer writers",
            "metadata.finalizers: \"mine\": prefer a domain-qualified finalizer name to avoid accidental conflicts with \
             other finalizer writers",
        ]
    );
    assert!(kind.strategy.warnings(&widget, Some(&widget)).is_empty());
}
