//! Paths taken out of an object (upstream: `typed/remove.go`).

use crate::registry::managed::element::Element;
use crate::registry::managed::set::Set;
use crate::registry::managed::types::{Fields, Items, Shape, Type, element_of};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::{Map, Value};

/// Removes every path of `set`. What becomes empty becomes null.
pub fn remove(definition: &Definition, object: &mut Object, set: &Set<'_>) {
    if let Shape::Map { fields, .. } = Type::root(definition) {
        map(fields, object, set);
    }
}

fn value(kind: Type<'_>, value: &mut Value, set: &Set<'_>) {
    let emptied = match (kind.shape(Some(value)), &mut *value) {
        (Shape::Map { atomic: false, fields }, Value::Object(members)) => {
            map(fields, members, set);
            members.is_empty()
        }
        (Shape::List { items, element }, Value::Array(list)) if items != Items::Atomic => {
            self::list(items, element, list, set);
            list.is_empty()
        }
        (Shape::Scalar(_), _) => false,
        // What is one leaf cannot lose a part.
        _ => true,
    };
    if emptied {
        *value = Value::Null;
    }
}

fn map(fields: Fields<'_>, map: &mut Map<String, Value>, set: &Set<'_>) {
    for node in set.nodes() {
        let Element::Field(name) = &node.element else { continue };
        if node.member {
            map.shift_remove(&**name);
        } else if !node.children.is_empty()
            && let Some(member) = map.get_mut(&**name)
        {
            value(fields.get_or_deduce(name).0, member, &node.children);
        }
    }
}

fn list(items: Items<'_>, element: Type<'_>, list: &mut Vec<Value>, set: &Set<'_>) {
    list.retain_mut(|item| {
        let key = element_of(items, element, item).ok().map(Element::into_owned);
        let Some(node) = key.and_then(|key| set.node(&key)) else {
            return true;
        };
        if !node.member && !node.children.is_empty() {
            value(element, item, &node.children);
        }
        !node.member
    });
}
