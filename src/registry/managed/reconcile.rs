//! Owned fields in the light of a schema that has changed: what is one leaf now is owned as one
//! (upstream: `typed/reconcile_schema.go`).

use super::element::Element;
use super::set::{Node, Set};
use super::types::{Fields, Items, Shape, Type};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::{Map, Value};

/// Owners of something inside a value that is atomic now own the value. True if that changed the set.
pub fn reconcile(definition: &Definition, live: &Object, set: &mut Set<'_>) -> bool {
    match Type::root(definition) {
        Shape::Map { fields, .. } => map(fields, live, set),
        _ => false,
    }
}

fn map(fields: Fields<'_>, live: &Map<String, Value>, set: &mut Set<'_>) -> bool {
    let mut changed = false;
    for node in set.nodes_mut() {
        if node.children.nodes().is_empty() {
            continue;
        }
        let Element::Field(name) = &node.element else { continue };
        // What is not declared says nothing of its schema.
        let Some((kind, true)) = fields.get(name) else { continue };
        let member = live.get(&**name);
        changed |= value(kind, member, node);
    }
    changed
}

fn value(kind: Type<'_>, live: Option<&Value>, node: &mut Node<'_>) -> bool {
    match kind.shape(live) {
        Shape::Map { atomic: true, .. }
        | Shape::List {
            items: Items::Atomic, ..
        } => {
            node.member = true;
            node.children = Set::default();
            true
        }
        Shape::Map { fields, .. } => match live {
            Some(Value::Object(members)) => map(fields, members, &mut node.children),
            _ => false,
        },
        // Items are few and their types are those of their list: the item itself does not matter.
        Shape::List { element, .. } => {
            let mut changed = false;
            for item in node.children.nodes_mut() {
                if !item.children.nodes().is_empty()
                    && let Shape::Map { atomic: false, fields } = element.shape(None)
                {
                    changed |= map(fields, &Map::new(), &mut item.children);
                }
            }
            changed
        }
        Shape::Scalar(_) => false,
    }
}
