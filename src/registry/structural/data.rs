//! What rules see of data that a schema describes (upstream: `SchemaDeclType` of `apiserver/pkg/cel/common`).

use super::node::{Additional, Node, Type};
use crate::registry::cel::Decl;
use crate::registry::cel::decl::{FieldDecl, ListKind, ObjectDecl, REQUEST_BYTES_MAX, Shape, escape};
use crate::registry::schema::ListType;
use std::collections::HashMap;
use std::sync::Arc;

/// Characters of the name of an object.
const NAME_LENGTH_MAX: i64 = 253;
const DURATION_BYTES: (u64, u64) = (3, 32);
const DATE_BYTES: u64 = 12;
const DATE_TIME_BYTES: (u64, u64) = (21, 32);

/// The declaration of a schema's data; None if rules cannot see it. `is_resource`: the root of an object, which
/// has type and name whatever the schema says.
pub(super) fn declared(node: &Node, is_resource: bool) -> Option<Arc<Decl>> {
    of(node, is_resource).map(Arc::new)
}

fn of(node: &Node, is_resource: bool) -> Option<Decl> {
    let none = super::node::Constraints::default();
    let constraints = node.constraints.as_deref().unwrap_or(&none);
    let count = |max: i64| u64::try_from(max).unwrap_or(0);
    let decl = |shape, elements_max, bytes_min| {
        Some(Decl {
            shape,
            nullable: node.nullable,
            elements_max,
            bytes_min,
        })
    };
    // Lengths are characters, of up to four bytes each.
    let length = constraints.max_length.map(|max| count(max).saturating_mul(4));
    if node.int_or_string {
        return decl(Shape::IntOrString, length.unwrap_or(REQUEST_BYTES_MAX - 2), 1);
    }
    match node.kind {
        Type::Array => {
            let items = node.items.as_deref()?;
            let item = declared(items, items.embedded)?;
            let most = (REQUEST_BYTES_MAX - 2) / (item.bytes_min + 1);
            let kind = match node.list_type {
                Some(ListType::Set) => ListKind::Set,
                Some(ListType::Map) => ListKind::Map(
                    node.list_map_keys
                        .iter()
                        .map(|key| escape(key).map_or_else(|| key.clone(), Arc::from))
                        .collect(),
                ),
                _ => ListKind::Atomic,
            };
            decl(Shape::List { item, kind }, constraints.max_items.map_or(most, count), 2)
        }
        Type::Object => match &node.additional {
            Additional::Schema(value) if !is_resource => {
                let value = declared(value, value.embedded)?;
                let most = (REQUEST_BYTES_MAX - 2) / (value.bytes_min + 6);
                decl(Shape::Map(value), constraints.max_properties.map_or(most, count), 2)
            }
            _ => {
                let (object, bytes_min) = object(node, &constraints.required, is_resource);
                decl(Shape::Object(object), 0, bytes_min)
            }
        },
        Type::String => {
            let format = constraints.format.as_ref().map_or("", |format| &format.0);
            match format {
                "byte" => {
                    let max = constraints.max_length.map_or(REQUEST_BYTES_MAX - 2, count);
                    decl(Shape::Bytes, max, 2)
                }
                "duration" => decl(Shape::Duration, DURATION_BYTES.1, DURATION_BYTES.0),
                "date" => decl(Shape::Date, DATE_BYTES, DATE_BYTES),
                "date-time" => decl(Shape::DateTime, DATE_TIME_BYTES.1, DATE_TIME_BYTES.0),
                _ => {
                    let longest = constraints
                        .enumeration
                        .iter()
                        .filter_map(|value| Some(value.as_str()?.len() as u64));
                    let most = if constraints.enumeration.is_empty() {
                        REQUEST_BYTES_MAX - 2
                    } else {
                        longest.max().unwrap_or(0)
                    };
                    decl(Shape::String, length.unwrap_or(most), 2)
                }
            }
        }
        Type::Boolean => decl(Shape::Bool, 0, 4),
        Type::Number => decl(Shape::Double, 0, 1),
        Type::Integer => decl(Shape::Int, 0, 1),
        Type::Absent => None,
    }
}

fn text(characters: Option<i64>) -> Arc<Decl> {
    let most = characters.map(|characters| u64::try_from(characters).unwrap_or(0) * 4);
    Arc::new(Decl {
        shape: Shape::String,
        nullable: false,
        elements_max: most.unwrap_or(REQUEST_BYTES_MAX - 2),
        bytes_min: 2,
    })
}

/// The fields of an object and the bytes of its shortest JSON.
fn object(node: &Node, required: &[Arc<str>], is_resource: bool) -> (ObjectDecl, u64) {
    let mut fields: HashMap<Arc<str>, FieldDecl, ahash::RandomState> = HashMap::default();
    let mut bytes_min = 2;
    for (name, property) in &node.properties {
        let Some(decl) = declared(property, property.embedded) else {
            continue;
        };
        if property.default.is_none() && required.contains(name) {
            bytes_min += name.len() as u64 + decl.bytes_min + 4;
        }
        if let Some(escaped) = escape(name) {
            let escaped: Arc<str> = if *escaped == **name {
                name.clone()
            } else {
                escaped.into()
            };
            fields.insert(
                escaped,
                FieldDecl {
                    name: name.clone(),
                    decl,
                },
            );
        }
    }
    if is_resource {
        let mut add = |name: &str, decl: Arc<Decl>| {
            fields.insert(
                name.into(),
                FieldDecl {
                    name: name.into(),
                    decl,
                },
            );
        };
        add("kind", text(None));
        add("apiVersion", text(None));
        add("metadata", metadata(node.property("metadata")));
    }
    let object = ObjectDecl {
        name: "object".into(),
        fields,
    };
    (object, bytes_min)
}

/// Of the metadata of an object rules see its name only.
fn metadata(node: Option<&Node>) -> Arc<Decl> {
    let limited = |name: &str, max: i64| {
        let stated = node
            .and_then(|node| node.property(name)?.constraints.as_deref()?.max_length)
            .unwrap_or(max);
        let decl = text(Some(stated.min(max)));
        (
            Arc::from(name),
            FieldDecl {
                name: name.into(),
                decl,
            },
        )
    };
    Arc::new(Decl {
        shape: Shape::Object(ObjectDecl {
            name: "object".into(),
            fields: [
                limited("name", NAME_LENGTH_MAX),
                limited("generateName", NAME_LENGTH_MAX - 1),
            ]
            .into_iter()
            .collect(),
        }),
        nullable: false,
        elements_max: 0,
        bytes_min: 2,
    })
}

/// The declaration of a part, as its parent has it; data of names that rules cannot spell has one of its own.
pub(super) fn property(decl: Option<&Arc<Decl>>, name: &str, node: &Node) -> Option<Arc<Decl>> {
    match escape(name) {
        Some(escaped) => match &decl?.shape {
            Shape::Object(object) => object.fields.get(&*escaped).map(|field| field.decl.clone()),
            _ => declared(node, node.embedded),
        },
        None => declared(node, node.embedded),
    }
}

pub(super) fn items(decl: Option<&Arc<Decl>>) -> Option<Arc<Decl>> {
    match &decl?.shape {
        Shape::List { item, .. } => Some(item.clone()),
        _ => None,
    }
}

pub(super) fn values(decl: Option<&Arc<Decl>>) -> Option<Arc<Decl>> {
    match &decl?.shape {
        Shape::Map(value) => Some(value.clone()),
        _ => None,
    }
}
