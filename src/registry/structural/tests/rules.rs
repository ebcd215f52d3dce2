//! Rules over objects.

use super::*;

/// A schema of `spec` with rules on it.
fn ruled(properties: Value, rules: Value) -> Value {
    with_spec(json!({"type": "object", "properties": properties, "x-kubernetes-validations": rules}))
}

#[test]
fn rules_that_do_not_hold_are_errors() {
    let numbers = || json!({"min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true}});
    let spec = || json!({"min": 2, "max": 1, "name": "n"});
    for (rules, expected) in [
        (
            json!([{"rule": "self.min <= self.max"}]),
            vec!["spec: Invalid value: failed rule: self.min <= self.max"],
        ),
        (json!([{"rule": "self.min >= self.max"}]), vec![]),
        (
            json!([{"rule": "self.min <= self.max", "message": " min above max "}]),
            vec!["spec: Invalid value: min above max"],
        ),
        (
            json!([{"rule": "self.min <= self.max", "messageExpression": "'min %d'.format([self.min])"}]),
            vec!["spec: Invalid value: min 2"],
        ),
        (
            json!([{"rule": "self.min <= self.max", "messageExpression": "string(self.min / 0)", "message": "fallback"}]),
            vec!["spec: Invalid value: fallback"],
        ),
        (
            json!([{"rule": "self.min <= self.max", "reason": "FieldValueForbidden", "message": "no", "fieldPath": ".min"}]),
            vec!["spec.min: Forbidden: no"],
        ),
        (
            json!([{"rule": "self.min <= self.max", "reason": "FieldValueRequired", "message": "no"}]),
            vec!["spec: Required value: no"],
        ),
        (
            json!([{"rule": "self.min <= self.max", "reason": "FieldValueDuplicate"}]),
            vec!["spec: Duplicate value"],
        ),
        (
            json!([{"rule": "self.min / 0 == 1"}]),
            vec![r#"spec: Invalid value: "object": division by zero evaluating rule: self.min / 0 == 1"#],
        ),
        (
            json!([{"rule": "self.port == 1"}]),
            vec![r#"spec: Invalid value: "object": no such key: port evaluating rule: self.port == 1"#],
        ),
        (
            json!([{"rule": "!has(self.port) && self.name.startsWith('n')"}]),
            vec![],
        ),
    ] {
        let schema = ruled(numbers(), rules.clone());
        assert_eq!(errors(&schema, json!({"spec": spec()}), None), expected, "{rules}");
    }
}

#[test]
fn rules_stand_anywhere() {
    let schema = json!({"type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name.size() < 4", "message": "name too long"}],
        "properties": {"spec": {"type": "object", "properties": {
            "items": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}},
            "a b": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
            "null": {"type": "integer", "nullable": true, "x-kubernetes-validations": [{"rule": "self > 0"}]}}}}});
    let object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "long"},
        "spec": {"items": ["ok", "bad"], "map": {"k": 0, "l": 1}, "a b": 0, "null": null}});
    assert_eq!(
        errors(&schema, object, None),
        [
            "<nil>: Invalid value: name too long",
            r#"spec.items[1]: Invalid value: "bad": failed rule: self != 'bad'"#,
            "spec.map[k]: Invalid value: 0: failed rule: self > 0",
            "spec.a b: Invalid value: 0: failed rule: self > 0",
        ]
    );
}

#[test]
fn transition_rules_need_something_to_come_from() {
    let schema = ruled(
        json!({"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "must not shrink"}]},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object",
                "properties": {"n": {"type": "string"}, "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}},
            "o": {"type": "integer", "x-kubernetes-validations": [{"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true, "message": "immutable"}]},
            "c": {"type": "integer", "x-kubernetes-validations": [{"rule": "oldSelf.hasValue()", "optionalOldSelf": true, "message": "only on update"}]}}),
        json!([{"rule": "!has(oldSelf.a) || has(self.a)", "message": "a may not go away"}]),
    );
    for (old, new, expected) in [
        (None, json!({"a": 1, "o": 1}), vec![]),
        (None, json!({"c": 1}), vec!["spec.c: Invalid value: 1: only on update"]),
        (
            Some(json!({"a": 2})),
            json!({"a": 1}),
            vec!["spec.a: Invalid value: 1: must not shrink"],
        ),
        (
            Some(json!({"a": 2})),
            json!({}),
            vec!["spec: Invalid value: a may not go away"],
        ),
        (Some(json!({})), json!({"a": 1}), vec![]),
        (
            Some(json!({"l": [{"n": "x", "v": 1}]})),
            json!({"l": [{"n": "y", "v": 5}, {"n": "x", "v": 2}]}),
            vec!["spec.l[1].v: Invalid value: 2: failed rule: self == oldSelf"],
        ),
        (
            Some(json!({"o": 1})),
            json!({"o": 2}),
            vec!["spec.o: Invalid value: 2: immutable"],
        ),
    ] {
        let old = old.map(|old| json!({"spec": old}));
        assert_eq!(errors(&schema, json!({"spec": new}), old), expected, "{new}");
    }
}

#[test]
fn unchanged_values_may_go_on_breaking_rules() {
    let schema = ruled(
        json!({"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}, "b": {"type": "integer"}}),
        json!([]),
    );
    let old = json!({"spec": {"a": 0, "b": 1}});
    assert_eq!(
        errors(&schema, json!({"spec": {"a": 0, "b": 2}}), Some(old.clone())),
        [""; 0]
    );
    assert_eq!(
        errors(&schema, json!({"spec": {"a": -1, "b": 1}}), Some(old)),
        ["spec.a: Invalid value: -1: failed rule: self > 0"]
    );
}

#[test]
fn rules_wait_for_the_schema_to_hold() {
    let schema = ruled(json!({"a": {"type": "integer"}}), json!([{"rule": "self.a > 0"}]));
    assert_eq!(
        errors(&schema, json!({"spec": {"a": "x"}}), None),
        [
            r#"spec.a: Invalid value: "string": spec.a in body must be of type integer: "string""#,
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn no_rule_holds_the_server_up() {
    let schema = ruled(
        json!({"l": {"type": "array", "items": {"type": "integer"}}}),
        json!([{"rule": "self.l.all(x, self.l.all(y, self.l.all(z, x + y + z >= 0)))"}, {"rule": "false"}]),
    );
    let list: Vec<i64> = (0..3000).collect();
    let found = errors(&schema, json!({"spec": {"l": list}}), None);
    assert_eq!(
        found,
        [
            "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation \
             rules will be run due to call cost exceeds limit for rule: self.l.all(x, self.l.all(y, self.l.all(z, x + y \
             + z >= 0)))"
        ]
    );
    // Many cheap evaluations end at the budget of the request.
    let schema = ruled(
        json!({"l": {"type": "array", "items": {"type": "array", "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": "self.all(x, x >= 0)"}]}}}),
        json!([]),
    );
    let inner: Vec<i64> = (0..1000).collect();
    let outer: Vec<Value> = (0..3000).map(|_| json!(inner)).collect();
    let found = errors(&schema, json!({"spec": {"l": outer}}), None);
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .ends_with("validation failed due to running out of cost budget, no further validation rules will be run")
    );
}
