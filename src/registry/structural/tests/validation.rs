//! Values against schemas, in upstream's words.

use super::*;

#[test]
fn values_are_judged_in_upstreams_words() {
    let text = || json!({"type": "string"});
    for (spec, value, expected) in [
        (
            json!({"type": "integer"}),
            json!("a"),
            vec![r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#],
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            vec![
                r#"spec: Invalid value: "number": spec in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec"#,
            ],
        ),
        (json!({"type": "integer"}), json!(2), vec![]),
        (json!({"type": "number"}), json!(2), vec![]),
        (
            json!({"type": "string"}),
            json!(null),
            vec![r#"spec: Invalid value: "null": spec in body must be of type string: "null""#],
        ),
        (json!({"type": "string", "nullable": true}), json!(null), vec![]),
        (
            json!({"type": "object", "properties": {"a": {"type": "boolean"}}}),
            json!({"a": []}),
            vec![r#"spec.a: Invalid value: "array": spec.a in body must be of type boolean: "array""#],
        ),
        (
            json!({"type": "object", "required": ["a", "b"], "properties": {"a": text()}}),
            json!({}),
            vec!["spec.a: Required value", "spec.b: Required value"],
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            vec![r#"spec: Unsupported value: "c": supported values: "a", "b""#],
        ),
        (
            json!({"type": "integer", "enum": [1, 2]}),
            json!(3),
            vec![r#"spec: Unsupported value: 3: supported values: "1", "2""#],
        ),
        (
            json!({"type": "string", "nullable": true, "enum": ["a"]}),
            json!(null),
            vec![r#"spec: Unsupported value: null: supported values: "a""#],
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("äöü"),
            vec!["spec: Too long: may not be more than 2 bytes"],
        ),
        (json!({"type": "string", "maxLength": 3}), json!("äöü"), vec![]),
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            vec![r#"spec: Invalid value: "a": spec in body should be at least 2 chars long"#],
        ),
        (
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            json!("A"),
            vec![r#"spec: Invalid value: "A": spec in body should match '^[a-z]+$'"#],
        ),
        (
            json!({"type": "array", "items": text(), "maxItems": 1}),
            json!(["a", "b"]),
            vec!["spec: Too many: 2: must have at most 1 item"],
        ),
        (
            json!({"type": "array", "items": text(), "minItems": 1}),
            json!([]),
            vec!["spec: Invalid value: 0: spec in body should have at least 1 items"],
        ),
        (
            json!({"type": "array", "items": text()}),
            json!(["a", 1]),
            vec![r#"spec[1]: Invalid value: "integer": spec[1] in body must be of type string: "integer""#],
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": text()}),
            json!(["a", "a"]),
            vec![r#"spec: Invalid value: "": spec in body shouldn't contain duplicates"#],
        ),
        (
            json!({"type": "object", "additionalProperties": text(), "maxProperties": 1}),
            json!({"a": "", "b": ""}),
            vec!["spec: Too many: 2: must have at most 1 item"],
        ),
        (
            json!({"type": "object", "additionalProperties": text(), "minProperties": 2}),
            json!({"a.b": 1}),
            vec![
                "spec: Invalid value: 1: spec in body should have at least 2 properties",
                r#"spec.a.b: Invalid value: "integer": spec.a.b in body must be of type string: "integer""#,
            ],
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            vec!["spec: Invalid value: 0: spec in body should be greater than or equal to 1"],
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            vec!["spec: Invalid value: 1: spec in body should be greater than 1"],
        ),
        (
            json!({"type": "integer", "maximum": 1}),
            json!(2),
            vec!["spec: Invalid value: 2: spec in body should be less than or equal to 1"],
        ),
        (
            json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
            json!(1.5),
            vec!["spec: Invalid value: 1.5: spec in body should be less than 1.5"],
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            vec!["spec: Invalid value: 7: spec in body should be a multiple of 5"],
        ),
        (json!({"type": "number", "multipleOf": 0.5}), json!(1.5), vec![]),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_i64),
            vec![r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec"#],
        ),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%"), vec![]),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            vec![r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("yesterday"),
            vec![r#"spec: Invalid value: "yesterday": spec in body must be of type date-time: "yesterday""#],
        ),
        (json!({"type": "string", "format": "unheard-of"}), json!("x"), vec![]),
        (
            json!({"type": "string", "format": "date"}),
            json!(1),
            vec![r#"spec: Invalid value: "int64": spec in body must be of type date: "int64""#],
        ),
    ] {
        let case = format!("{spec} {value}");
        assert_eq!(
            errors(&with_spec(spec), json!({"spec": value}), None),
            expected,
            "{case}"
        );
    }
}

#[test]
fn alternatives_name_the_nearest_failure() {
    let either = || json!([{"required": ["a"]}, {"required": ["b"]}]);
    let shape = |key: &str, value: Value| {
        let mut spec = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
        spec[key] = value;
        with_spec(spec)
    };
    for (schema, value, expected) in [
        (shape("anyOf", either()), json!({"b": ""}), vec![]),
        (
            shape("anyOf", either()),
            json!({}),
            vec![
                r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#,
                "spec.a: Required value",
            ],
        ),
        (
            shape("oneOf", either()),
            json!({"a": "", "b": ""}),
            vec![
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (
            shape("oneOf", either()),
            json!({}),
            vec![
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.a: Required value",
            ],
        ),
        (
            shape("allOf", either()),
            json!({"a": ""}),
            vec![
                "spec.b: Required value",
                r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)"#,
            ],
        ),
        (
            shape("allOf", either()),
            json!({}),
            vec![
                "spec.a: Required value",
                "spec.b: Required value",
                r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf). None validated"#,
            ],
        ),
        (
            shape("not", json!({"required": ["a"]})),
            json!({"a": ""}),
            vec![r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#],
        ),
        (shape("not", json!({"required": ["a"]})), json!({}), vec![]),
    ] {
        assert_eq!(errors(&schema, json!({"spec": value}), None), expected, "{value}");
    }
}

#[test]
fn lists_may_hold_an_item_only_once() {
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}});
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    for (spec, value, expected) in [
        (
            set.clone(),
            json!(["a", "b", "a", "a"]),
            vec![r#"spec[2]: Duplicate value: "a""#],
        ),
        (
            map.clone(),
            json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
            vec![],
        ),
        (
            map,
            json!([{"name": "a", "port": 1}, {"port": 1, "name": "a"}]),
            vec![r#"spec[1]: Duplicate value: {"name":"a","port":1}"#],
        ),
        (
            json!({"type": "object", "additionalProperties": set.clone()}),
            json!({"k": ["a", "a"]}),
            vec![r#"spec[k][1]: Duplicate value: "a""#],
        ),
    ] {
        assert_eq!(
            errors(&with_spec(spec), json!({"spec": value}), None),
            expected,
            "{value}"
        );
    }
    // Duplicates of before do not keep an object from being changed.
    let schema = with_spec(set);
    assert_eq!(
        errors(
            &schema,
            json!({"spec": ["a", "a", "b"]}),
            Some(json!({"spec": ["a", "a"]}))
        ),
        [""; 0]
    );
}

#[test]
fn what_did_not_change_may_stay_wrong() {
    let item = json!({"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string", "maxLength": 1}}});
    let schema = with_spec(json!({"type": "object", "required": ["must"], "properties": {
        "must": {"type": "string"},
        "a": {"type": "string", "enum": ["x"]},
        "b": {"type": "string"},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item},
        "plain": {"type": "array", "items": {"type": "string", "maxLength": 1}}}}));
    for (what, old, new, expected) in [
        (
            "an unchanged field",
            json!({"must": "", "a": "wrong", "b": "1"}),
            json!({"must": "", "a": "wrong", "b": "2"}),
            vec![],
        ),
        (
            "a changed field",
            json!({"must": "", "a": "wrong"}),
            json!({"must": "", "a": "worse"}),
            vec![r#"spec.a: Unsupported value: "worse": supported values: "x""#],
        ),
        (
            "a missing field of a changed object",
            json!({"b": "1"}),
            json!({"b": "2"}),
            vec!["spec.must: Required value"],
        ),
        ("nothing changed", json!({"b": "1"}), json!({"b": "1"}), vec![]),
        (
            "an unchanged item, found by key",
            json!({"must": "", "keyed": [{"name": "1", "value": "long"}]}),
            json!({"must": "", "keyed": [{"name": "2", "value": "s"}, {"name": "1", "value": "long"}]}),
            vec![],
        ),
        (
            "a changed item",
            json!({"must": "", "keyed": [{"name": "1", "value": "long"}]}),
            json!({"must": "", "keyed": [{"name": "1", "value": "longer"}]}),
            vec!["spec.keyed[0].value: Too long: may not be more than 1 byte"],
        ),
        (
            "an item of an atomic list that changed elsewhere",
            json!({"must": "", "plain": ["long"]}),
            json!({"must": "", "plain": ["long", "s"]}),
            vec!["spec.plain[0]: Too long: may not be more than 1 byte"],
        ),
        (
            "an unchanged atomic list",
            json!({"must": "", "plain": ["long"], "b": "1"}),
            json!({"must": "", "plain": ["long"]}),
            vec![],
        ),
    ] {
        assert_eq!(
            errors(&schema, json!({"spec": new}), Some(json!({"spec": old}))),
            expected,
            "{what}"
        );
    }
}

#[test]
fn embedded_objects_have_types_and_valid_metadata() {
    let schema = with_spec(
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
    );
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}),
            vec![],
        ),
        (
            json!({}),
            vec!["spec.apiVersion: Required value", "spec.kind: Required value"],
        ),
        (
            json!({"apiVersion": "a/b/c", "kind": ""}),
            vec![
                r#"spec.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
                r#"spec.kind: Invalid value: "": must not be empty"#,
            ],
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/b"}}),
            vec![r#"spec.metadata.name: Invalid value: "a/b": may not contain '/'"#],
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": "x"}),
            vec![
                r#"spec.metadata: Invalid value: "x": json: cannot unmarshal string into Go value of type v1.ObjectMeta"#,
            ],
        ),
    ] {
        assert_eq!(errors(&schema, json!({"spec": value}), None), expected, "{value}");
    }
}
