//! Lists in a strategic merge patch.

use super::order::arrange;
use super::{DIRECTIVE, GoText, Shape, merge as merge_map, unknown_directive};
use crate::apiserver::error::ApiError;
use crate::registry::schema::{Node, Property};
use crate::registry::strategy::Object;
use serde_json::Value;

/// Merges the list `patch` into `before`, and puts the result in the order that `order` (or the patch) asks for.
pub fn merge(
    before: Option<Vec<Value>>,
    patch: &[Value],
    order: Option<&Value>,
    field: &str,
    property: Option<&Property>,
) -> Result<Vec<Value>, ApiError> {
    let order = order.map(as_order).transpose()?;
    let merge_key = property.and_then(|property| property.patch_merge_key.as_deref());
    let Some(before) = before else {
        // A list that is not there yet is taken as it is given.
        let items = plain_items(patch);
        return match (order, merge_key) {
            (Some(order), Some(key)) => {
                check_order(patch, &items, order, key)?;
                Ok(arrange(items, order, &[], merge_key))
            }
            (Some(order), None) => Ok(arrange(items, order, &[], None)),
            (None, _) => Ok(items),
        };
    };
    let merges = property.is_some_and(|property| property.patch_merge);
    if before.iter().chain(patch).any(Value::is_array) && merges {
        return Err(ApiError::unprocessable_patch());
    }
    let objects = before.first().or(patch.first()).is_some_and(Value::is_object);
    if !merges {
        return Ok(plain_items(patch));
    }
    if !objects {
        return Ok(merge_primitives(before, patch, order));
    }
    let key =
        merge_key.ok_or_else(|| ApiError::unclassified(format!("cannot merge lists without merge key for {field}")))?;
    merge_objects(before, patch, order, key, element_shape(property))
}

/// The list of a `$setElementOrder`.
fn as_order(order: &Value) -> Result<&Vec<Value>, ApiError> {
    order.as_array().ok_or_else(|| {
        let kind = match order {
            Value::Object(_) => "map",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "float64",
            Value::Number(_) => "int64",
            _ => "nil",
        };
        ApiError::unclassified(format!("expected a slice, but received a {kind}"))
    })
}

/// The patch's items as they become the list's: without nulls of nested maps and without directives.
fn plain_items(patch: &[Value]) -> Vec<Value> {
    let is_directive = |item: &Value| item.get(DIRECTIVE).is_some();
    let mut items: Vec<Value> = patch.iter().filter(|item| !is_directive(item)).cloned().collect();
    items.iter_mut().for_each(discard_nulls);
    items
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
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
            Some(directive) if directive == "replace" => replace = true,
            Some(directive) if directive == "delete" => {
                let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                merged.retain(|item| item.get(key) != Some(value));
            }
            Some(directive) if directive == "merge" => {
                let text = "merging lists cannot yet be specified in the patch";
                return Err(ApiError::unclassified(text));
            }
            Some(other) => return Err(unknown_directive(other, map)),
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
    let listed: Vec<Value> = plain.into_iter().map(|map| Value::Object(map.clone())).collect();
    if let Some(order) = order {
        check_order(patch, &listed, order, key)?;
    }
    Ok(arrange(merged, order.unwrap_or(&listed), &before, Some(key)))
}

/// The items of the patch must stand in its order, one after the other.
fn check_order(patch: &[Value], listed: &[Value], order: &[Value], key: &str) -> Result<(), ApiError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut order_left = order.iter();
    let in_order = listed
        .iter()
        .all(|item| order_left.any(|ordered| ordered.get(key).is_some() && ordered.get(key) == item.get(key)));
    if in_order {
        return Ok(());
    }
    let text = |list: &[Value]| GoText(&Value::Array(list.to_vec())).to_string();
    Err(ApiError::unclassified(format!(
        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
        text(patch),
        text(order)
    )))
}

fn no_merge_key(item: &Object, key: &str) -> ApiError {
    let item = Value::Object(item.clone());
    ApiError::unclassified(format!(
        "map: {} does not contain declared merge key: {key}",
        GoText(&item)
    ))
}

fn element_shape(property: Option<&Property>) -> Shape<'_> {
    match property.map(|property| &property.node) {
        Some(Node::List(items)) => Shape::of(items),
        _ => Shape::Unknown,
    }
}

/// `$setElementOrder` for a list that the patch leaves as it is.
pub fn reorder(target: &mut Object, field: &str, order: &Value, property: Option<&Property>) -> Result<(), ApiError> {
    let order = as_order(order)?;
    if let Some(Value::Array(items)) = target.get_mut(field) {
        let before = items.clone();
        let key = property.and_then(|property| property.patch_merge_key.as_deref());
        *items = arrange(std::mem::take(items), order, &before, key);
    }
    Ok(())
}

/// `$deleteFromPrimitiveList`: removes the given scalars. What is no list says nothing.
pub fn delete_primitives(target: &mut Object, field: &str, values: &Value) {
    let Some(values) = values.as_array() else { return };
    if let Some(Value::Array(items)) = target.get_mut(field) {
        items.retain(|item| !values.contains(item));
    }
}
