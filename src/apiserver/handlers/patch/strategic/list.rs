//! Lists in a strategic merge patch.

use super::order::{arrange, position};
use super::{DIRECTIVE, Shape, bad_format, merge as merge_map};
use crate::apiserver::error::ApiError;
use crate::registry::schema::{Node, Property};
use crate::registry::strategy::Object;
use serde_json::Value;

/// Merges the list `patch` into `before`, and puts the result in the order that `order` (or the patch) asks for.
pub fn merge(
    before: Vec<Value>,
    patch: &[Value],
    order: Option<&Value>,
    field: &str,
    property: Option<&Property>,
) -> Result<Vec<Value>, ApiError> {
    let merges = property.is_some_and(|property| property.patch_merge);
    if before.iter().chain(patch).any(Value::is_array) && merges {
        return Err(ApiError::unprocessable_patch());
    }
    let objects = before.first().or(patch.first()).is_some_and(Value::is_object);
    if !merges {
        return plain_items(patch, field);
    }
    let order = order.map(|order| {
        order
            .as_array()
            .ok_or_else(|| bad_format("$setElementOrder is no list"))
    });
    let order = order.transpose()?;
    if !objects {
        return Ok(merge_primitives(before, patch, order));
    }
    let key = property
        .and_then(|property| property.patch_merge_key.as_deref())
        .ok_or_else(|| bad_format(&format!("cannot merge lists without merge key for {field}")))?;
    merge_objects(before, patch, order, key, element_shape(property))
}

/// The patch's items as they become the list's: without nulls of nested maps and without directives.
fn plain_items(patch: &[Value], field: &str) -> Result<Vec<Value>, ApiError> {
    let mut items = Vec::with_capacity(patch.len());
    for item in patch {
        match item {
            Value::Object(item) => match item.get(DIRECTIVE).and_then(Value::as_str) {
                Some("replace" | "delete") => {}
                Some("merge") | None => items.push(Value::Object(merge_map(Object::new(), item, Shape::Unknown)?)),
                Some(other) => return Err(bad_format(&format!("unknown patch type {other:?} in {field}"))),
            },
            other => items.push(other.clone()),
        }
    }
    Ok(items)
}

fn merge_primitives(before: Vec<Value>, patch: &[Value], order: Option<&Vec<Value>>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(before.len() + patch.len());
    for item in before.iter().chain(patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    arrange(merged, order.map_or(patch, Vec::as_slice), &before, None)
}

fn merge_objects(
    before: Vec<Value>,
    patch: &[Value],
    order: Option<&Vec<Value>>,
    key: &str,
    shape: Shape<'_>,
) -> Result<Vec<Value>, ApiError> {
    let mut merged = before.clone();
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let map = item.as_object().ok_or_else(ApiError::unprocessable_patch)?;
        match map.get(DIRECTIVE) {
            None => plain.push(map),
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "delete" => {
                let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                merged.retain(|item| item.get(key) != Some(value));
            }
            Some(other) => return Err(bad_format(&format!("unknown patch type {other} in a list"))),
        }
    }
    if replace {
        return plain
            .into_iter()
            .map(|map| merge_map(Object::new(), map, shape).map(Value::Object))
            .collect();
    }
    for map in &plain {
        let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
        match merged.iter_mut().find(|item| item.get(key) == Some(value)) {
            Some(slot) => {
                let current = match slot.take() {
                    Value::Object(current) => current,
                    _ => Object::new(),
                };
                *slot = Value::Object(merge_map(current, map, shape)?);
            }
            None => merged.push(Value::Object(merge_map(Object::new(), map, shape)?)),
        }
    }
    if let Some(order) = order
        && plain
            .iter()
            .any(|map| position(order, &Value::Object((*map).clone()), Some(key)).is_none())
    {
        return Err(bad_format("$setElementOrder lacks an item of the list that it orders"));
    }
    let listed: Vec<Value> = plain.into_iter().map(|map| Value::Object(map.clone())).collect();
    Ok(arrange(merged, order.unwrap_or(&listed), &before, Some(key)))
}

fn no_merge_key(item: &Object, key: &str) -> ApiError {
    let item = Value::Object(item.clone());
    ApiError::bad_request(format!("map: {item} does not contain declared merge key: {key}"))
}

fn element_shape(property: Option<&Property>) -> Shape<'_> {
    match property.map(|property| &property.node) {
        Some(Node::List(items)) => Shape::of(items),
        _ => Shape::Unknown,
    }
}

/// `$setElementOrder` for a list that the patch leaves as it is.
pub fn reorder(target: &mut Object, field: &str, order: &Value, property: Option<&Property>) -> Result<(), ApiError> {
    let order = order
        .as_array()
        .ok_or_else(|| bad_format("$setElementOrder is no list"))?;
    if let Some(Value::Array(items)) = target.get_mut(field) {
        let before = items.clone();
        let key = property.and_then(|property| property.patch_merge_key.as_deref());
        *items = arrange(std::mem::take(items), order, &before, key);
    }
    Ok(())
}

/// `$deleteFromPrimitiveList`: removes the given scalars.
pub fn delete_primitives(target: &mut Object, field: &str, values: &Value) -> Result<(), ApiError> {
    let values = values
        .as_array()
        .ok_or_else(|| bad_format("$deleteFromPrimitiveList is no list"))?;
    if let Some(Value::Array(items)) = target.get_mut(field) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}
