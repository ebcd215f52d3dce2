//! What Go makes of a shape: its type's name, its elements, its zero value, and when a value counts as empty.

use super::{Node, Property};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The shape of the elements of a list or map, and their Go type.
pub(crate) fn element<'s>(node: &'s Node, go_type: &'static str) -> (&'s Node, &'static str) {
    let go_type = go_type.trim_start_matches('*');
    match node {
        Node::List(item) => (item, go_type.strip_prefix("[]").unwrap_or_default()),
        Node::Map(item) => {
            let value = go_type.strip_prefix("map[").and_then(|rest| rest.split_once(']'));
            (item, value.map_or("", |(_, value)| value))
        }
        node => (node, ""),
    }
}

/// Named list types (ExtraValue, Verbs) are protobuf messages of their own, whose only field is the list.
pub(crate) fn is_wrapper(node: &Node, go_type: &str) -> bool {
    let go_type = go_type.trim_start_matches('*');
    matches!(node, Node::List(_)) && !go_type.is_empty() && !go_type.starts_with("[]")
}

/// What Go would call the type, as far as the schema tells.
pub(super) fn go_type(node: &Node) -> Cow<'_, str> {
    match node {
        Node::Object(definition) | Node::Either(definition, _) => definition.go_type().into(),
        Node::Map(item) => format!("map[string]{}", go_type(item)).into(),
        Node::List(item) => format!("[]{}", go_type(item)).into(),
        Node::String => "string".into(),
        Node::Bytes => "[]uint8".into(),
        Node::Time => "v1.Time".into(),
        Node::MicroTime => "v1.MicroTime".into(),
        Node::Int32 => "int32".into(),
        Node::Int64 => "int64".into(),
        Node::Double => "float64".into(),
        Node::Boolean => "bool".into(),
        Node::IntOrString => "intstr.IntOrString".into(),
        Node::Quantity => "resource.Quantity".into(),
        Node::Any => "interface {}".into(),
    }
}

/// What `null` is where it cannot be left out: in a list or as a map's value.
pub(crate) fn zero(node: &Node) -> Value {
    match node {
        Node::Object(_) | Node::Map(_) | Node::Either(..) => Value::Object(Map::new()),
        Node::List(_) => Value::Array(Vec::new()),
        Node::String | Node::Bytes => Value::String(String::new()),
        Node::Quantity => Value::String("0".to_owned()),
        Node::Int32 | Node::Int64 | Node::Double | Node::IntOrString => Value::from(0),
        Node::Boolean => Value::Bool(false),
        Node::Time | Node::MicroTime | Node::Any => Value::Null,
    }
}

/// What Go writes of the field when nothing is said of it; None if it leaves the field out then.
pub(super) fn implied(name: &str, property: &Property) -> Option<Value> {
    let go_type = property.go_type;
    // The one field with `omitzero` that all objects have.
    if go_type.is_empty() || go_type.starts_with('*') || property.omit_empty || name == "creationTimestamp" {
        return None;
    }
    match property.node {
        Node::Any | Node::Bytes | Node::List(_) | Node::Map(_) => Some(Value::Null),
        _ => Some(zero(&property.node)),
    }
}

/// Whether Go's `omitempty` leaves the value out.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}
