//! What becomes of objects along a structural schema, and what is said of them: tables of situations.

mod check;
mod costs;
mod formats;
mod objects;
mod random;
mod rules;
mod validation;

use super::*;
use serde_json::json;

fn compiled(schema: &Value) -> Arc<Structural> {
    Structural::compile(schema).unwrap_or_else(|error| panic!("{error}: {schema}"))
}

/// A schema with one property `spec`.
fn with_spec(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn pruned(schema: &Value, value: Value) -> (Value, Vec<String>) {
    let mut object = object(value);
    let dropped = compiled(schema).prune(&mut object);
    (Value::Object(object), dropped)
}

fn defaulted(schema: &Value, value: Value) -> Value {
    let schema = compiled(schema);
    let mut object = object(value);
    schema.default(&mut object);
    let once = object.clone();
    schema.default(&mut object);
    assert_eq!(object, once, "defaulting twice changes something");
    Value::Object(object)
}

fn errors(schema: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let old = old.map(object);
    compiled(schema)
        .validate(&object(new), old.as_ref())
        .iter()
        .map(ToString::to_string)
        .collect()
}
