//! Strategic merge patch (upstream: `apimachinery/pkg/util/strategicpatch`). Which lists merge, and by which key,
//! stands in the kind's schema.

mod list;
mod order;

use super::go_text::GoText;
use crate::apiserver::error::ApiError;
use crate::registry::schema::{self, Definition, Node, Property};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::sync::Arc;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Applies `patch` to `target`, an object of `definition`.
pub fn apply(target: Object, patch: &Object, definition: &Arc<Definition>) -> Result<Object, ApiError> {
    merge(target, patch, Shape::Object(definition.object()))
}

/// What the schema says of a map's members.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Object(&'a schema::Object),
    /// Any key, values of one shape.
    Map(&'a Node),
    Unknown,
}

impl<'a> Shape<'a> {
    fn of(node: &'a Node) -> Self {
        match node {
            Node::Object(definition) | Node::Either(definition, _) => Self::Object(definition.object()),
            Node::Map(values) => Self::Map(values),
            _ => Self::Unknown,
        }
    }

    fn property(self, name: &str) -> Option<&'a Property> {
        match self {
            Self::Object(object) => object.properties.get(name),
            _ => None,
        }
    }

    /// The shape of the member `name`, if that is a map.
    fn member(self, name: &str) -> Self {
        match self {
            Self::Object(object) => object.properties.get(name).map_or(Self::Unknown, |p| Self::of(&p.node)),
            Self::Map(values) => Self::of(values),
            Self::Unknown => Self::Unknown,
        }
    }
}

fn merge(mut target: Object, patch: &Object, shape: Shape<'_>) -> Result<Object, ApiError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "replace" => {
            let mut replaced = patch.clone();
            replaced.shift_remove(DIRECTIVE);
            return Ok(replaced);
        }
        Some(directive) if directive == "delete" => return Ok(Object::new()),
        Some(other) => return Err(unknown_directive(other, patch)),
    }
    retain_keys(&mut target, patch)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_PREFIX) {
            list::delete_primitives(&mut target, field, value);
        }
    }
    for (key, value) in patch {
        if key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX) {
            continue;
        }
        merge_member(&mut target, patch, key, value, shape)?;
    }
    // Orders of lists that the patch itself does not touch.
    for (key, order) in patch {
        if let Some(field) = key
            .strip_prefix(ORDER_PREFIX)
            .filter(|field| !patch.contains_key(*field))
        {
            list::reorder(&mut target, field, order, shape.property(field))?;
        }
    }
    Ok(target)
}

fn merge_member(
    target: &mut Object,
    patch: &Object,
    key: &str,
    value: &Value,
    shape: Shape<'_>,
) -> Result<(), ApiError> {
    let property = shape.property(key);
    let merged = match value {
        Value::Null => {
            target.shift_remove(key);
            return Ok(());
        }
        Value::Object(changes) => {
            let replaces = property.is_some_and(|property| property.patch_replace);
            let before = target.get_mut(key).map(Value::take);
            // A map that is not there yet is taken as it is given, but not one that is to be deleted or merely names a directive.
            let directive = changes.get(DIRECTIVE);
            let is_taken = directive.is_none_or(|directive| directive == "replace" && changes.len() > 1);
            if !before.as_ref().is_some_and(Value::is_object) && !is_taken {
                target.shift_remove(key);
                return Ok(());
            }
            let before = match before {
                Some(Value::Object(before)) if !replaces => before,
                _ => Object::new(),
            };
            Value::Object(merge(before, changes, shape.member(key))?)
        }
        Value::Array(changes) => {
            let before = match target.get_mut(key).map(Value::take) {
                Some(Value::Array(before)) => Some(before),
                _ => None,
            };
            let order = patch.get(&format!("{ORDER_PREFIX}{key}"));
            Value::Array(list::merge(before, changes, order, key, property)?)
        }
        scalar => scalar.clone(),
    };
    target.insert(key.to_owned(), merged);
    Ok(())
}

/// `$retainKeys`: drops what is not listed; what the patch sets must be listed.
fn retain_keys(target: &mut Object, patch: &Object) -> Result<(), ApiError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad_format = || ApiError::bad_request("invalid patch format of retainKeys");
    let keys = keys.as_array().ok_or_else(bad_format)?;
    let listed = |key: &str| keys.iter().any(|listed| listed == key);
    let mut set = patch
        .iter()
        .filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    if !set.all(|(key, _)| listed(key)) {
        return Err(bad_format());
    }
    target.retain(|key, _| listed(key));
    Ok(())
}

/// Upstream does not classify this: 500 without a reason.
fn unknown_directive(directive: &Value, patch: &Object) -> ApiError {
    let patch = Value::Object(patch.clone());
    ApiError::unclassified(format!(
        "unknown patch type: {} in map: {}",
        GoText(directive),
        GoText(&patch)
    ))
}

#[cfg(test)]
mod idempotence;
#[cfg(test)]
mod tests;
