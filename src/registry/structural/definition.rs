//! What decoding and server-side apply need of a structural schema, in the form that built-in kinds have
//! (upstream: `managedfields.NewTypeConverter` over the published OpenAPI).

use super::embedded::object_meta;
use super::node::{Additional, Node, Type};
use crate::registry::schema::{self, Definition, ListType, Property};
use std::sync::Arc;

/// The definition of a whole resource: the schema's properties and the three that every object has.
pub(super) fn resource(name: &str, node: &Node) -> Arc<Definition> {
    Definition::new(name, object(name, node, true, false))
}

/// `keep`: a list around it preserves what is unknown.
fn object(name: &str, node: &Node, is_resource: bool, keep: bool) -> schema::Object {
    let mut properties: std::collections::HashMap<String, Property, ahash::RandomState> = node
        .properties
        .iter()
        .map(|(property, node)| {
            (
                property.to_string(),
                self::property(&format!("{name}.{property}"), node),
            )
        })
        .collect();
    if is_resource {
        properties.insert("apiVersion".into(), Property::of(schema::Node::String));
        properties.insert("kind".into(), Property::of(schema::Node::String));
        properties.insert("metadata".into(), Property::of(schema::Node::Object(object_meta())));
    }
    let required = node
        .constraints
        .as_ref()
        .map_or(&[][..], |constraints| &constraints.required);
    schema::Object {
        properties,
        required: required.iter().map(ToString::to_string).collect(),
        atomic: node.atomic_map,
        preserve_unknown: keep || node.preserve_unknown || matches!(node.additional, Additional::Anything),
        untyped: true,
    }
}

fn property(name: &str, node: &Node) -> Property {
    Property {
        list_type: (node.kind == Type::Array).then(|| node.list_type.unwrap_or(ListType::Atomic)),
        list_map_keys: node.list_map_keys.iter().map(ToString::to_string).collect(),
        // Of use where the field is a key of a list's items, and keys are scalars.
        default: node
            .default
            .as_deref()
            .filter(|value| !value.is_array() && !value.is_object())
            .cloned(),
        atomic_map: node.atomic_map,
        ..Property::of(shape(name, node, false))
    }
}

fn shape(name: &str, node: &Node, keep: bool) -> schema::Node {
    if node.int_or_string {
        return schema::Node::IntOrString;
    }
    let is_object = node.kind == Type::Object || !node.properties.is_empty() || node.embedded;
    match node.kind {
        Type::Array => {
            let item = node.items.as_deref().map_or(schema::Node::Any, |item| {
                shape(name, item, keep || node.preserve_unknown)
            });
            schema::Node::List(Arc::new(item))
        }
        Type::String => schema::Node::String,
        Type::Integer => schema::Node::Int64,
        Type::Number => schema::Node::Double,
        Type::Boolean => schema::Node::Boolean,
        _ if !is_object => schema::Node::Any,
        _ => match &node.additional {
            Additional::Schema(item) if node.properties.is_empty() => {
                schema::Node::Map(Arc::new(shape(name, item, false)))
            }
            Additional::Anything if node.properties.is_empty() => schema::Node::Map(Arc::new(schema::Node::Any)),
            _ => schema::Node::Object(Definition::new(name, object(name, node, node.embedded, keep))),
        },
    }
}
