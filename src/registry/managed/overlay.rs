//! An apply configuration that is laid over an object without owning anything, as mutating policies do
//! (upstream: `plugin/policy/mutating/patch/smd.go`).

use super::typed::{merge, validate};
use super::types::{Fields, Items, Shape, Type};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::Value;

/// The object with what the configuration says. Err is upstream's text.
pub fn overlay(definition: &Definition, object: &Object, config: &Object) -> Result<Object, String> {
    validate(definition, config).map_err(|error| format!("failed to convert patch object to typed object: {error}"))?;
    let mut atomic = Vec::new();
    if let Shape::Map { fields, .. } = Type::root(definition) {
        members(fields, config, "", &mut atomic);
    }
    if !atomic.is_empty() {
        // Whoever sets a part of these would remove the rest.
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomic.join(", ")
        ));
    }
    validate(definition, object)
        .map_err(|error| format!("failed to convert original object to typed object: {error}"))?;
    let mut merged = object.clone();
    merge(definition, &mut merged, config);
    Ok(merged)
}

fn members(fields: Fields<'_>, object: &Object, path: &str, atomic: &mut Vec<String>) {
    for (name, value) in object {
        if let Some((kind, true)) = fields.get(name) {
            look(kind, value, &format!("{path}.{name}"), atomic);
        }
    }
}

fn look(kind: Type<'_>, value: &Value, path: &str, atomic: &mut Vec<String>) {
    match (kind.shape(Some(value)), value) {
        (Shape::Map { atomic: whole, fields }, Value::Object(object)) => {
            if whole {
                atomic.push(path.to_owned());
            }
            members(fields, object, path, atomic);
        }
        (Shape::List { items, element }, Value::Array(list)) => {
            if items == Items::Atomic {
                atomic.push(path.to_owned());
            }
            for (index, item) in list.iter().enumerate() {
                look(element, item, &format!("{path}[{index}]"), atomic);
            }
        }
        _ => {}
    }
}
