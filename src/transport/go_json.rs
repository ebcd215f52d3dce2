//! What Go's decoder of JSON says of a value that does not fit (upstream: `encoding/json`, UnmarshalTypeError).

use serde_json::Value;

/// `what` is `value`, or the struct's field.
pub fn mismatch(value: &Value, what: &str, go_type: &str) -> String {
    format!(
        "json: cannot unmarshal {} into Go {what} of type {go_type}",
        kind(value)
    )
}

/// What Go calls the kind of a JSON value.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
