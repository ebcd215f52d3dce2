//! Items that may stand only once in a list (upstream: `schema/listtype`).

use super::embedded::child;
use super::node::Node;
use crate::registry::field::FieldError;
use crate::registry::schema::ListType;
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::HashMap;

/// Duplicates in the lists of type set and map of the object.
pub(super) fn validate(object: &Object, node: &Node, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    members(object, node, path, &mut errors);
    errors
}

fn members(object: &Object, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    for (name, value) in object {
        if !matches!(value, Value::Array(_) | Value::Object(_)) {
            continue;
        }
        if let Some(schema) = node.additional_schema() {
            inside(value, schema, &format!("{path}[{name}]"), errors);
        }
        if let Some(property) = node.property(name) {
            inside(value, property, &child(path, name), errors);
        }
    }
}

fn inside(value: &Value, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(object) => members(object, node, path, errors),
        Value::Array(items) => {
            match node.list_type {
                Some(ListType::Set) => {
                    for (index, item) in repeated(items.iter().map(Some)) {
                        errors.push(FieldError::duplicate(format!("{path}[{index}]"), item.cloned()));
                    }
                }
                Some(ListType::Map) => map(items, node, path, errors),
                _ => {}
            }
            if let Some(node) = node.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    inside(item, node, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

/// The second of the items that are the same; a third and more are not repeated.
fn repeated<'v>(items: impl Iterator<Item = Option<&'v Value>>) -> Vec<(usize, Option<&'v Value>)> {
    let mut seen: HashMap<Option<String>, usize, ahash::RandomState> = HashMap::default();
    let mut repeated = Vec::new();
    for (index, item) in items.enumerate() {
        let times = seen.entry(item.map(canonical)).or_default();
        *times += 1;
        if *times == 2 {
            repeated.push((index, item));
        }
    }
    repeated
}

/// A text that is the same for the same value, whatever the order of its members.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(object) => {
                let mut members: Vec<_> = object.iter().collect();
                members.sort_by_key(|(name, _)| *name);
                Value::Object(
                    members
                        .into_iter()
                        .map(|(name, value)| (name.clone(), sorted(value)))
                        .collect(),
                )
            }
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            scalar => scalar.clone(),
        }
    }
    match value {
        Value::Object(_) | Value::Array(_) => sorted(value).to_string(),
        scalar => scalar.to_string(),
    }
}

fn map(items: &[Value], node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    if let Some((index, item)) = items
        .iter()
        .enumerate()
        .find(|(_, item)| !item.is_object() && !item.is_null())
    {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(format!("{path}[{index}]"), item.clone(), detail));
        return;
    }
    if items.len() <= 1 {
        return;
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| {
            let of_item = |key: &std::sync::Arc<str>| Some((key.to_string(), item.get(&**key)?.clone()));
            Value::Object(node.list_map_keys.iter().filter_map(of_item).collect())
        })
        .collect();
    for (index, key) in repeated(keys.iter().map(Some)) {
        errors.push(FieldError::duplicate(format!("{path}[{index}]"), key.cloned()));
    }
}
