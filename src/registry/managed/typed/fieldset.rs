//! The paths that a configuration names (upstream: `typed/tofieldset.go`).

use crate::registry::managed::element::Element;
use crate::registry::managed::set::{Node, Set};
use crate::registry::managed::types::{Fields, Items, Shape, Type, element_of};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::{Map, Value};

/// All paths of `object`.
pub fn field_set<'a>(definition: &'a Definition, object: &'a Object) -> Set<'a> {
    match Type::root(definition) {
        Shape::Map { fields, .. } => map(fields, object),
        _ => Set::default(),
    }
}

/// Whether the value itself is a member, and what is below it.
fn value<'a>(kind: Type<'a>, value: &'a Value) -> (bool, Set<'a>) {
    match (kind.shape(Some(value)), value) {
        (Shape::Scalar(_), _)
        | (Shape::Map { atomic: true, .. }, _)
        | (
            Shape::List {
                items: Items::Atomic, ..
            },
            _,
        ) => (true, Set::default()),
        (Shape::Map { fields, .. }, Value::Object(fields_of)) => (false, map(fields, fields_of)),
        (Shape::List { items, element }, Value::Array(values)) => (false, list(items, element, values)),
        _ => (false, Set::default()),
    }
}

fn map<'a>(fields: Fields<'a>, map: &'a Map<String, Value>) -> Set<'a> {
    let mut nodes = Vec::with_capacity(map.len());
    for (name, member) in map {
        let (kind, declared) = fields.get_or_deduce(name);
        let (leaf, children) = value(kind, member);
        let empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
        let node = Node {
            element: Element::field(name),
            member: leaf || empty || !declared,
            children,
        };
        if node.member || !node.children.is_empty() {
            nodes.push(node);
        }
    }
    Set::of(nodes)
}

fn list<'a>(items: Items<'a>, element: Type<'a>, list: &'a [Value]) -> Set<'a> {
    let mut found: Vec<(Element<'a>, &'a Value)> = list
        .iter()
        .filter_map(|item| element_of(items, element, item).ok().map(|key| (key, item)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut nodes: Vec<Node<'a>> = Vec::with_capacity(found.len());
    for (key, item) in found {
        match nodes.last_mut() {
            // Of items that are there twice only the item itself is owned.
            Some(last) if last.element == key => last.children = Set::default(),
            _ => nodes.push(Node {
                element: key,
                member: true,
                children: value(element, item).1,
            }),
        }
    }
    Set::of(nodes)
}
