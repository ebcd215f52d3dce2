//! Fills in defaults (upstream: `schema/defaulting/algorithm.go`).

use super::node::Node;
use crate::registry::strategy::Object;
use serde_json::Value;

/// Sets what is absent, and what is null without being nullable, to its default; inside of lists, maps and
/// of what was just set, too.
pub(super) fn object(object: &mut Object, node: &Node) {
    for (name, property) in &node.properties {
        let Some(default) = &property.default else { continue };
        match object.get_mut(&**name) {
            None => {
                object.insert(name.to_string(), (**default).clone());
            }
            Some(value) => replace_null(value, property),
        }
    }
    for (name, value) in object.iter_mut() {
        if let Some(property) = node.property(name) {
            inside(value, property);
        } else if let Some(schema) = node.additional_schema() {
            replace_null(value, schema);
            inside(value, schema);
        }
    }
}

fn inside(value: &mut Value, node: &Node) {
    match value {
        Value::Object(members) => object(members, node),
        Value::Array(items) => {
            let Some(node) = node.items.as_deref() else { return };
            for item in items {
                replace_null(item, node);
                inside(item, node);
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = (**default).clone();
    }
}
