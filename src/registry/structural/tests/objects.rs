//! Pruning, defaulting and decoding of objects.

use super::*;
use crate::registry::schema::{self, Node};

#[test]
fn unknown_members_are_dropped() {
    let text = || json!({"type": "string"});
    for (what, spec, before, after, dropped) in [
        (
            "unknown members, also in lists",
            json!({"type": "object", "properties": {"a": text(), "l": {"type": "array", "items": {"type": "object", "properties": {"a": text()}}}}}),
            json!({"a": "x", "b": {"c": 1}, "l": [{"a": "x"}, {"b": 1}]}),
            json!({"a": "x", "l": [{"a": "x"}, {}]}),
            vec!["spec.b", "spec.l[1].b"],
        ),
        (
            "preserved as they are",
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"b": {"c": [1, {"d": null}]}}),
            json!({"b": {"c": [1, {"d": null}]}}),
            vec![],
        ),
        (
            "preserved, but not below named properties",
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"p": {"type": "object", "properties": {"a": text()}}}}),
            json!({"q": {"z": 1}, "p": {"a": "x", "z": 1}}),
            json!({"q": {"z": 1}, "p": {"a": "x"}}),
            vec!["spec.p.z"],
        ),
        (
            "additional properties",
            json!({"type": "object", "additionalProperties": {"type": "object", "properties": {"a": text()}}}),
            json!({"k": {"a": "x", "b": 1}}),
            json!({"k": {"a": "x"}}),
            vec!["spec.k.b"],
        ),
        (
            "additional properties without a schema: their insides are unknown",
            json!({"type": "object", "additionalProperties": true}),
            json!({"k": {"a": "x"}, "l": 1}),
            json!({"k": {}, "l": 1}),
            vec!["spec.k.a"],
        ),
        (
            "embedded objects keep type and metadata, of which the unknown is dropped",
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "foo": 1, "ownerReferences": [{"bar": 1}]}, "spec": {"x": 1}, "y": 1}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "ownerReferences": [{}]}, "spec": {}}),
            vec![
                "spec.metadata.foo",
                "spec.metadata.ownerReferences[0].bar",
                "spec.spec.x",
                "spec.y",
            ],
        ),
        (
            "lists that preserve the unknown",
            json!({"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "object", "properties": {"a": text()}}}),
            json!([{"a": "x", "b": 1}]),
            json!([{"a": "x", "b": 1}]),
            vec![],
        ),
        (
            "nulls where there may be none",
            json!({"type": "object", "properties": {"a": text(), "n": {"type": "string", "nullable": true}, "d": {"type": "string", "default": "x"}}}),
            json!({"a": null, "n": null, "d": null}),
            json!({"n": null, "d": null}),
            vec![],
        ),
    ] {
        let schema = with_spec(spec);
        let (got, paths) = pruned(
            &schema,
            json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "spec": before}),
        );
        assert_eq!(got["spec"], after, "{what}");
        assert_eq!(paths, dropped, "{what}");
        assert_eq!(got["metadata"], json!({"name": "n"}));
        assert_eq!(pruned(&schema, got.clone()), (got, vec![]), "{what}: pruning twice");
    }
}

#[test]
fn metadata_of_the_resource_is_pruned_too() {
    let (got, dropped) = pruned(
        &json!({"type": "object"}),
        json!({"metadata": {"name": "a", "creationTimestamp": null, "x": 1}, "z": 1, "kind": "K"}),
    );
    assert_eq!(got, json!({"metadata": {"name": "a"}, "kind": "K"}));
    assert_eq!(dropped, ["metadata.x", "z"]);
}

#[test]
fn defaults_are_set() {
    for (what, spec, before, after) in [
        (
            "absent and null",
            json!({"type": "object", "properties": {
                "a": {"type": "string", "default": "x"}, "n": {"type": "string", "default": "x"},
                "k": {"type": "string", "nullable": true, "default": "x"}, "o": {"type": "object"}}}),
            json!({"n": null, "k": null}),
            json!({"n": "x", "k": null, "a": "x"}),
        ),
        (
            "inside of a default",
            json!({"type": "object", "properties": {"o": {"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 0}}}}}),
            json!({}),
            json!({"o": {"a": 0}}),
        ),
        (
            "not inside of what is absent",
            json!({"type": "object", "properties": {"o": {"type": "object", "properties": {"a": {"type": "integer", "default": 0}}}}}),
            json!({}),
            json!({}),
        ),
        (
            "in lists",
            json!({"type": "array", "items": {"type": "object", "default": {"b": true}, "properties": {"a": {"type": "string", "default": "x"}, "b": {"type": "boolean"}}}}),
            json!([{}, {"a": "y"}, null]),
            json!([{"a": "x"}, {"a": "y"}, {"b": true, "a": "x"}]),
        ),
        (
            "in maps",
            json!({"type": "object", "additionalProperties": {"type": "object", "default": {"b": 1}, "properties": {"a": {"type": "string", "default": "x"}, "b": {"type": "integer"}}}}),
            json!({"k": {}, "n": null}),
            json!({"k": {"a": "x"}, "n": {"a": "x", "b": 1}}),
        ),
    ] {
        let got = defaulted(&with_spec(spec), json!({"spec": before}));
        assert_eq!(got["spec"], after, "{what}");
    }
}

#[test]
fn bodies_are_read_as_they_stand() {
    let schema = with_spec(json!({"type": "object", "properties": {
        "s": {"type": "string"}, "n": {"type": "number"}, "l": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "map": {"type": "object", "additionalProperties": {"type": "string"}}}}));
    let definition = compiled(&schema).definition("com.example.v1.Foo");
    let body = r#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"a","labels":{},"bogus":1,"creationTimestamp":null},
        "spec":{"s":1,"n":1.0,"l":"wrong","free":{"x":1,"x":{"y":null}},"map":{"k":null,"k":2},"zz":1,"s":"again"},"more":1}"#;
    let decoded = schema::decode(&definition, body.as_bytes()).expect("an object");
    assert_eq!(
        Value::Object(decoded.object),
        json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"},
            "spec": {"s": "again", "n": 1, "l": "wrong", "free": {"x": {"y": null}}, "map": {"k": 2}}})
    );
    assert_eq!(
        decoded.strict,
        [
            r#"unknown field "metadata.bogus""#,
            r#"duplicate field "spec.free.x""#,
            r#"duplicate field "spec.map.k""#,
            r#"unknown field "spec.zz""#,
            r#"duplicate field "spec.s""#,
            r#"unknown field "more""#,
        ]
    );
    let wrong = schema::decode(&definition, br#"{"metadata":{"labels":{"a":1}}}"#).err();
    assert!(wrong.is_some_and(|text| text.contains("cannot unmarshal number")));
}

#[test]
fn definitions_tell_server_side_apply_about_lists_and_maps() {
    let schema = with_spec(json!({"type": "object", "properties": {
        "plain": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}},
        "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"x": {"type": "string"}}},
        "any": {"x-kubernetes-preserve-unknown-fields": true},
        "port": {"x-kubernetes-int-or-string": true},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}));
    let definition = compiled(&schema).definition("com.example.v1.Foo");
    let root = definition.object();
    assert!(root.property("metadata").is_some() && root.property("kind").is_some());
    let spec = root.property("spec").and_then(|p| p.node.as_object()).expect("spec");
    let property = |name: &str| spec.object().property(name).expect("a property");
    assert_eq!(property("plain").list_type, Some(ListType::Atomic));
    assert_eq!(property("set").list_type, Some(ListType::Set));
    assert_eq!(property("map").list_map_keys, ["a", "b"]);
    assert!(property("atomic").atomic_map);
    assert!(matches!(property("any").node, Node::Any));
    assert!(matches!(property("port").node, Node::IntOrString));
    let embedded = property("embedded").node.as_object().expect("an object");
    assert!(embedded.object().preserve_unknown && embedded.object().property("metadata").is_some());
}

#[test]
fn what_cannot_be_compiled_says_why() {
    for (schema, error) in [
        (json!([]), "OpenAPIV3Schema must be an object"),
        (
            json!({"properties": {"a": {"$ref": "#/x"}}}),
            "OpenAPIV3Schema '$ref' is not supported",
        ),
        (
            json!({"items": [{"type": "string"}]}),
            "OpenAPIV3Schema 'items' must be a schema, but is an array",
        ),
        (json!({"type": "file"}), "OpenAPIV3Schema 'type' must not be \"file\""),
        (
            json!({"x-kubernetes-preserve-unknown-fields": false}),
            "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined",
        ),
    ] {
        assert_eq!(
            Structural::compile(&schema).err().map(|e| e.to_string()).as_deref(),
            Some(error)
        );
    }
}

#[test]
fn a_thousand_schemas_are_small() {
    let property =
        json!({"type": "string", "maxLength": 63, "pattern": "^[a-z]+$", "description": "A text about the field."});
    let spec: serde_json::Map<String, Value> = (0..30).map(|i| (format!("field{i}"), property.clone())).collect();
    let schema = with_spec(json!({"type": "object", "properties": spec, "required": ["field1"]}));
    let one = compiled(&schema);
    let nodes = one.root.properties[0].1.properties.len();
    assert_eq!(nodes, 30);
    // Upstream's own structs take kilobytes a field.
    let bytes = size_of::<Node>() + size_of::<node::Constraints>() + size_of::<(Arc<str>, node::Node)>();
    assert!(bytes < 800, "{bytes} bytes a field");
}
