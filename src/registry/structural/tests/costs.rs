//! Estimated costs: the figures that upstream has for the same schemas and rules.

use super::*;
use crate::registry::structural::rules::Rules;

fn cost(mut schema: Value, rule: &str) -> u64 {
    schema["x-kubernetes-validations"] = json!([{"rule": rule}]);
    let node = compile::node(&schema, &mut compile::Texts::default()).expect("a schema");
    let decl = data::declared(&node, false).expect("data");
    let rules: &Rules = node.rules.as_deref().expect("rules");
    match &rules.compiled(&node, &decl)[0].program {
        Some(Ok(program)) => program.cost_max(),
        other => panic!("{rule}: {other:?}"),
    }
}

fn typed(kind: &str) -> Value {
    match kind {
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "duration" | "date" | "date-time" => json!({"type": "string", "format": kind}),
        kind => json!({"type": kind}),
    }
}

fn limited(mut schema: Value, key: &str, max: Option<i64>) -> Value {
    if let Some(max) = max {
        schema[key] = max.into();
    }
    schema
}

fn array(items: Value) -> impl Fn(Option<i64>) -> Value {
    move |max| limited(json!({"type": "array", "items": items}), "maxItems", max)
}

fn map(values: Value) -> impl Fn(Option<i64>) -> Value {
    move |max| {
        limited(
            json!({"type": "object", "additionalProperties": values}),
            "maxProperties",
            max,
        )
    }
}

fn string(max: Option<i64>) -> Value {
    limited(json!({"type": "string"}), "maxLength", max)
}

#[test]
fn costs_are_estimated_as_upstream_does() {
    let objects = json!({"type": "object", "required": ["required"], "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}});
    let numbers = json!({"type": "array", "items": {"type": "number"}});
    type Make = Box<dyn Fn(Option<i64>) -> Value>;
    let of = |make: Make| make;
    let cases: Vec<(Make, &str, u64, i64, u64)> = vec![
        (
            of(Box::new(array(typed("number")))),
            "self.all(x, true)",
            4718591,
            10,
            32,
        ),
        (
            of(Box::new(array(typed("string")))),
            "self.all(x, true)",
            3145727,
            20,
            62,
        ),
        (
            of(Box::new(array(typed("boolean")))),
            "self.all(x, true)",
            1887437,
            5,
            17,
        ),
        (of(Box::new(array(numbers))), "self.all(x, true)", 3145727, 100, 302),
        (of(Box::new(array(objects))), "self.all(x, true)", 555128, 50, 152),
        (of(Box::new(map(typed("number")))), "self.all(x, true)", 1348169, 10, 32),
        (of(Box::new(map(typed("string")))), "self.all(x, true)", 1179647, 3, 11),
        (
            of(Box::new(map(typed("boolean")))),
            "self.all(x, true)",
            943718,
            100,
            302,
        ),
        (of(Box::new(string)), "self.contains('test')", 314574, 10, 5),
        (of(Box::new(string)), "self.startsWith('test')", 2, 15, 2),
        (
            of(Box::new(string)),
            "size(self + \"hello\") > size(\"hello\")",
            314578,
            4,
            7,
        ),
        (of(Box::new(array(typed("number")))), "self[1] == 0.0", 2, 5000, 2),
        (
            of(Box::new(array(typed("string")))),
            "self[1] == self[1]",
            314577,
            8,
            314577,
        ),
        (
            of(Box::new(array(typed("number")))),
            "self.all(x, self.all(y, true))",
            0,
            10,
            352,
        ),
        (
            of(Box::new(array(typed("number")))),
            "self.all(x, self.all(y, self.all(z, true)))",
            0,
            10,
            3552,
        ),
        (of(Box::new(string)), "self.matches(\"x\")", 314574, 50, 22),
        (
            of(Box::new(string)),
            "\"\".matches(\"(((((((((())))))))))[0-9]\")",
            7,
            10,
            7,
        ),
        (of(Box::new(string)), "self.matches(\"\")", 1, 100, 1),
        (of(Box::new(string)), "self == \"x\"", 2, 0, 1),
        (
            of(Box::new(array(typed("number")))),
            "self.all(x, x == 0.0)",
            6291454,
            3 * 1024 * 2048,
            25165826,
        ),
        (
            of(Box::new(array(typed("int-or-string")))),
            "self.all(x, true)",
            4718591,
            10,
            32,
        ),
        (of(Box::new(array(typed("int-or-string")))), "self[0] == 5", 3, 10, 3),
        (
            of(Box::new(array(typed("duration")))),
            "self.all(x, true)",
            2359295,
            5,
            17,
        ),
        (
            of(Box::new(array(typed("duration")))),
            "self[0].getHours() == 2",
            4,
            525,
            4,
        ),
        (of(Box::new(array(typed("date")))), "self.all(x, true)", 725936, 15, 47),
        (
            of(Box::new(array(typed("date-time")))),
            "self.all(x, true)",
            428963,
            25,
            77,
        ),
        (
            of(Box::new(map(typed("int-or-string")))),
            "self.all(x, true)",
            1348169,
            15,
            47,
        ),
        (
            of(Box::new(map(typed("duration")))),
            "self.all(x, true)",
            1048577,
            5,
            17,
        ),
        (of(Box::new(map(typed("date")))), "self.all(x, true)", 524288, 10, 32),
        (
            of(Box::new(map(typed("date-time")))),
            "self.all(x, true)",
            349526,
            25,
            77,
        ),
    ];
    let mut wrong = Vec::new();
    for (make, rule, unbounded, max, bounded) in cases {
        let open = cost(make(None), rule);
        if unbounded > 0 && open != unbounded {
            wrong.push(format!("{} {rule}: {open}, not {unbounded}", make(None)));
        }
        let closed = cost(make(Some(max)), rule);
        if closed != bounded {
            wrong.push(format!("{} {rule}: {closed}, not {bounded}", make(Some(max))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
