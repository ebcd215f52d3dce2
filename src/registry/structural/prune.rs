//! Drops what no schema names: unknown members, nulls where there may be none, unknown metadata
//! (upstream: `schema/pruning`, `schema/defaulting/prunenulls.go`, `schema/objectmeta`).

use super::embedded::{META_FIELDS, object_meta};
use super::node::{Additional, Node};
use crate::registry::schema;
use crate::registry::strategy::Object;
use serde_json::Value;
use std::fmt::Write;

/// The way to a member as field validation writes it: `spec.list[0].name`.
#[derive(Default)]
pub(super) struct Dotted(String);

impl Dotted {
    /// Goes on to a member; the length to come back to.
    pub fn member(&mut self, name: &str) -> usize {
        let before = self.0.len();
        if before > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        before
    }
    pub fn index(&mut self, index: usize) -> usize {
        let before = self.0.len();
        write!(self.0, "[{index}]").unwrap_or_default();
        before
    }
    pub fn back(&mut self, to: usize) {
        self.0.truncate(to);
    }
    fn with(&self, name: &str) -> String {
        if self.0.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.0)
        }
    }
}

/// Drops unknown members of the object; their paths, sorted.
pub(super) fn unknown(object: &mut Object, root: &Node) -> Vec<String> {
    let mut pruner = Pruner::default();
    pruner.object(object, root, true, false);
    pruner.dropped.sort();
    pruner.dropped
}

/// Drops unknown members of a value.
pub(super) fn unknown_in(value: &mut Value, node: &Node, is_resource: bool) {
    let mut pruner = Pruner::default();
    match value {
        Value::Object(object) => pruner.object(object, node, is_resource, false),
        value => pruner.value(value, Some(node), false),
    }
}

#[derive(Default)]
struct Pruner {
    path: Dotted,
    dropped: Vec<String>,
}

impl Pruner {
    /// `keep`: a list around it preserves what is unknown.
    fn value(&mut self, value: &mut Value, node: Option<&Node>, keep: bool) {
        match (value, node) {
            (Value::Object(object), Some(node)) => self.object(object, node, node.embedded, keep),
            (Value::Object(object), None) if !keep => {
                for (name, _) in std::mem::take(object) {
                    self.dropped.push(self.path.with(&name));
                }
            }
            (Value::Array(items), node) => {
                let keep = keep || node.is_some_and(|node| node.preserve_unknown);
                for (index, item) in items.iter_mut().enumerate() {
                    let back = self.path.index(index);
                    self.value(item, node.and_then(|node| node.items.as_deref()), keep);
                    self.path.back(back);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, object: &mut Object, node: &Node, is_resource: bool, keep: bool) {
        let keep = keep || node.preserve_unknown;
        object.retain(|name, value| {
            if is_resource && META_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let part = match (node.property(name), &node.additional) {
                (Some(property), _) => Some(property),
                (None, Additional::Schema(schema)) => Some(&**schema),
                // What `additionalProperties: true` lets in has no schema, so nothing inside of it is known.
                (None, Additional::Anything | Additional::Nothing) => None,
                (None, Additional::Absent) => {
                    if !keep {
                        self.dropped.push(self.path.with(name));
                    }
                    return keep;
                }
            };
            let back = self.path.member(name);
            self.value(value, part, false);
            self.path.back(back);
            true
        });
    }
}

/// Drops nulls that are neither allowed nor replaced by a default.
pub(super) fn nulls(value: &mut Value, node: &Node) {
    match value {
        Value::Object(object) => nulls_of(object, node),
        Value::Array(items) => {
            if let Some(node) = node.items.as_deref() {
                items.iter_mut().for_each(|item| nulls(item, node));
            }
        }
        _ => {}
    }
}

pub(super) fn nulls_of(object: &mut Object, node: &Node) {
    object.retain(|name, value| match node.member(name) {
        Some(part) if value.is_null() => part.nullable || part.default.is_some(),
        Some(part) => {
            nulls(value, part);
            true
        }
        None => true,
    });
}

/// Drops unknown members of the metadata of the object and of the objects embedded in it; their paths.
pub(super) fn metadata(object: &mut Object, root: &Node) -> Vec<String> {
    let mut path = Dotted::default();
    let mut dropped = Vec::new();
    metadata_of(object, root, true, &mut path, &mut dropped);
    dropped.sort();
    dropped
}

fn metadata_of(object: &mut Object, node: &Node, is_resource: bool, path: &mut Dotted, dropped: &mut Vec<String>) {
    for (name, value) in object.iter_mut() {
        let back = path.member(name);
        if is_resource && name == "metadata" {
            along(value, &schema::Node::Object(object_meta()), path, dropped);
            if let Value::Object(metadata) = value {
                metadata.retain(|name, value| name != "creationTimestamp" || !value.is_null());
            }
        } else if let Some(part) = node.member(name) {
            metadata_in(value, part, path, dropped);
        }
        path.back(back);
    }
}

fn metadata_in(value: &mut Value, node: &Node, path: &mut Dotted, dropped: &mut Vec<String>) {
    match value {
        Value::Object(object) => metadata_of(object, node, node.embedded, path, dropped),
        Value::Array(items) => {
            let Some(node) = node.items.as_deref() else { return };
            for (index, item) in items.iter_mut().enumerate() {
                let back = path.index(index);
                metadata_in(item, node, path, dropped);
                path.back(back);
            }
        }
        _ => {}
    }
}

/// Drops what a definition does not name.
fn along(value: &mut Value, node: &schema::Node, path: &mut Dotted, dropped: &mut Vec<String>) {
    match (value, node) {
        (Value::Object(object), schema::Node::Object(definition)) => object.retain(|name, value| {
            let Some(property) = definition.object().property(name) else {
                dropped.push(path.with(name));
                return false;
            };
            let back = path.member(name);
            along(value, &property.node, path, dropped);
            path.back(back);
            true
        }),
        (Value::Array(items), schema::Node::List(item)) => {
            for (index, value) in items.iter_mut().enumerate() {
                let back = path.index(index);
                along(value, item, path, dropped);
                path.back(back);
            }
        }
        _ => {}
    }
}
