//! What is said of schemas.

use super::*;

fn problems(schema: &Value) -> Vec<String> {
    super::super::check(schema, "s")
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn text() -> Value {
    json!({"type": "string"})
}

#[test]
fn good_schemas_pass() {
    for spec in [
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "additionalProperties": text()}),
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+%?$"}),
        json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "x"}]}),
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
            "items": {"type": "object", "required": ["a"], "properties": {"a": text()}}}),
        json!({"type": "object", "properties": {"a": text(), "b": text()}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            "not": {"properties": {"a": {"pattern": "x"}}}}),
        json!({"type": "object", "default": {"a": "x"}, "properties": {"a": {"type": "string", "maxLength": 3}}}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [
            {"rule": "self.a > 0", "messageExpression": "'a is %d'.format([self.a])", "reason": "FieldValueInvalid", "fieldPath": ".a"},
            {"rule": "self.a >= oldSelf.a"}]}),
    ] {
        let schema = with_spec(spec);
        assert_eq!(problems(&schema), [""; 0], "{schema}");
        assert!(Structural::compile(&schema).is_ok());
    }
}

#[test]
fn schemas_that_are_not_structural_are_named() {
    for (schema, expected) in [
        (json!({}), vec!["s.type: Required value: must not be empty at the root"]),
        (
            json!({"type": "string"}),
            vec![r#"s.type: Invalid value: "string": must be object at the root"#],
        ),
        (
            json!({"type": "object", "nullable": true}),
            vec!["s.nullable: Forbidden: nullable cannot be true at the root"],
        ),
        (
            with_spec(json!({})),
            vec!["s.properties[spec].type: Required value: must not be empty for specified object fields"],
        ),
        (
            with_spec(json!({"type": "array"})),
            vec!["s.properties[spec].items: Required value: must be specified"],
        ),
        (
            with_spec(json!({"type": "array", "items": {}})),
            vec!["s.properties[spec].items.type: Required value: must not be empty for specified array items"],
        ),
        (
            with_spec(json!({"type": "object", "properties": {"a": text()}, "additionalProperties": text()})),
            vec![
                "s.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        ),
        (
            json!({"type": "object", "additionalProperties": text()}),
            vec!["s.additionalProperties: Forbidden: must not be used at the root"],
        ),
        (
            with_spec(
                json!({"type": "object", "properties": {"a": text()}, "anyOf": [{"type": "object", "description": "x", "properties": {"a": {"default": "x"}, "b": {}}}]}),
            ),
            vec![
                "s.properties[spec].anyOf[0].description: Forbidden: must be empty to be structural",
                "s.properties[spec].anyOf[0].properties[a].default: Forbidden: must be undefined to be structural",
                "s.properties[spec].anyOf[0].type: Forbidden: must be empty to be structural",
            ],
        ),
        (
            json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": text()}}},
                "anyOf": [{"properties": {"spec": {"properties": {"a": {"minLength": 1}, "b": {"minLength": 1}}}}}]}),
            vec![
                "s.properties[spec].properties[b]: Required value: because it is defined in s.anyOf[0].properties[spec].properties[b]",
            ],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": text(), "labels": {"type": "object"}}}}}),
            vec![
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "x"}}}}}),
            vec![],
        ),
        (
            with_spec(json!({"type": "string", "x-kubernetes-embedded-resource": true})),
            vec![
                "s.properties[spec].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
                r#"s.properties[spec].type: Invalid value: "string": must be object if x-kubernetes-embedded-resource is true"#,
            ],
        ),
        (
            with_spec(json!({"type": "string", "pattern": "["})),
            vec![
                "s.properties[spec].pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ]: `[`",
            ],
        ),
        (
            with_spec(json!({"x-kubernetes-preserve-unknown-fields": false, "type": "object"})),
            vec![
                "s.properties[spec].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
            ],
        ),
        (
            with_spec(json!({"type": "object", "$ref": "#/x"})),
            vec!["s.properties[spec].$ref: Forbidden: $ref is not supported"],
        ),
        (
            with_spec(json!({"type": "file"})),
            vec![
                r#"s.properties[spec].type: Unsupported value: "file": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        (
            with_spec(json!({"type": "array", "uniqueItems": true, "items": text()})),
            vec![
                "s.properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
    ] {
        assert_eq!(problems(&schema), expected, "{schema}");
    }
}

#[test]
fn lists_and_maps_must_fit_their_types() {
    let item = json!({"type": "object", "properties": {"a": text(), "n": {"type": "object"}}});
    for (spec, expected) in [
        (
            json!({"type": "object", "x-kubernetes-list-type": "set"}),
            vec![r#"type: Invalid value: "object": must be array if x-kubernetes-list-type is specified"#],
        ),
        (
            json!({"type": "array", "x-kubernetes-map-type": "atomic", "items": text()}),
            vec![r#"type: Invalid value: "array": must be object if x-kubernetes-map-type is specified"#],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "bag", "items": text()}),
            vec![r#"x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-map-keys": ["a"], "items": item}),
            vec!["x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty"],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "items": item}),
            vec!["x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "z"], "items": item}),
            vec![
                r#"x-kubernetes-list-map-keys: Invalid value: ["a","z"]: entries must all be names of item properties"#,
                "items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"], "items": text()}),
            vec![
                r#"items.type: Invalid value: "string": must be object if parent array's x-kubernetes-list-type is map"#,
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}),
            vec![
                "items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string", "nullable": true}}),
            vec!["items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set"],
        ),
    ] {
        let expected: Vec<String> = expected
            .iter()
            .map(|text| format!("s.properties[spec].{text}"))
            .collect();
        assert_eq!(problems(&with_spec(spec.clone())), expected, "{spec}");
    }
}

#[test]
fn defaults_must_be_valid_and_pruned() {
    for (schema, expected) in [
        (
            with_spec(json!({"type": "integer", "default": "x"})),
            vec![
                r#"s.properties[spec].default: Invalid value: "string": s.properties[spec].default in body must be of type integer: "string""#,
            ],
        ),
        (
            with_spec(json!({"type": "object", "default": {"b": 1}, "properties": {"a": text()}})),
            vec![r#"s.properties[spec].default: Invalid value: {"b":1}: must not have unknown fields"#],
        ),
        (
            with_spec(json!({"type": "object", "default": {}, "required": ["a"], "properties": {"a": text()}})),
            vec!["s.properties[spec].default.a: Required value"],
        ),
        (
            with_spec(json!({"type": "integer", "default": 0, "x-kubernetes-validations": [{"rule": "self > 0"}]})),
            vec!["s.properties[spec].default: Invalid value: 0: failed rule: self > 0"],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "default": "x"}}}}}),
            vec!["s.properties[metadata].properties[name].default: Forbidden: must not be set in top-level metadata"],
        ),
    ] {
        let found = problems(&schema);
        // The first of these is worded by the value's own path, which is empty.
        let found: Vec<String> = found
            .iter()
            .map(|text| text.replace(":  in body", ": s.properties[spec].default in body"))
            .collect();
        assert_eq!(found, expected, "{schema}");
    }
}

#[test]
fn rules_are_looked_at() {
    let spec = |rules: Value| {
        with_spec(
            json!({"type": "object", "properties": {"a": {"type": "integer"}, "s": text()}, "x-kubernetes-validations": rules}),
        )
    };
    let at = "s.properties[spec].x-kubernetes-validations[0]";
    let rule = |text: &str| {
        format!(
            r#"{{"Rule":"{text}","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}}"#
        )
    };
    for (rules, expected) in [
        (
            json!([{"rule": " "}]),
            format!("{at}.rule: Required value: rule is not specified"),
        ),
        (
            json!([{"rule": "true", "message": " "}]),
            format!("{at}.message: Invalid value: \" \": must be non-empty if specified"),
        ),
        (
            json!([{"rule": "true", "message": "a\nb"}]),
            format!("{at}.message: Invalid value: \"a\\nb\": must not contain line breaks"),
        ),
        (
            json!([{"rule": "true &&\ntrue"}]),
            format!("{at}.message: Required value: message must be specified if rule contains line breaks"),
        ),
        (
            json!([{"rule": "true", "reason": "Other"}]),
            format!(
                "{at}.reason: Unsupported value: \"Other\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            ),
        ),
        (
            json!([{"rule": "true", "fieldPath": ".nope"}]),
            format!("{at}.fieldPath: Invalid value: \".nope\": must be a valid path"),
        ),
        (
            json!([{"rule": "self.nope"}]),
            format!(
                "{at}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^",
                rule("self.nope")
            ),
        ),
        (
            json!([{"rule": "self.a"}]),
            format!(
                "{at}.rule: Invalid value: {}: cel expression must evaluate to a bool",
                rule("self.a")
            ),
        ),
        (
            json!([{"rule": "true", "messageExpression": "1"}]),
            format!(
                "{at}.messageExpression: Invalid value: {}: messageExpression must evaluate to a string",
                rule("true").replace(r#""MessageExpression":"""#, r#""MessageExpression":"1""#)
            ),
        ),
        (
            json!([{"rule": "true", "optionalOldSelf": true}]),
            format!("{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"),
        ),
    ] {
        assert_eq!(problems(&spec(rules.clone())), [expected], "{rules}");
    }
    let list = with_spec(
        json!({"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
    );
    assert_eq!(
        problems(&list),
        [
            "s.properties[spec].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec]"
        ]
    );
}

#[test]
fn rules_may_not_cost_too_much() {
    let nested = |max: Option<i64>| {
        let mut list = json!({"type": "array", "items": {"type": "string"}});
        if let Some(max) = max {
            list["maxItems"] = max.into();
            list["items"]["maxLength"] = max.into();
        }
        list["x-kubernetes-validations"] = json!([{"rule": "self.all(x, self.all(y, x != y))"}]);
        with_spec(list)
    };
    assert_eq!(problems(&nested(Some(50))), [""; 0]);
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert_eq!(
        problems(&nested(None)),
        [
            format!("s.properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {hint}"),
            "s.properties[spec].x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema".to_owned(),
            format!("s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {hint}"),
        ]
    );
}

#[test]
fn the_root_is_restricted_where_there_is_a_status() {
    let problems = |schema: Value| super::super::check_with_status(&schema, "s").len();
    assert_eq!(
        problems(json!({"type": "object", "properties": {}, "description": "x"})),
        0
    );
    assert_eq!(problems(json!({"type": "array"})), 1);
    assert_eq!(problems(json!({"type": "object", "oneOf": [{"required": ["a"]}]})), 1);
}
