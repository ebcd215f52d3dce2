//! An apply configuration merged over the live object (upstream: `typed/merge.go`).

use crate::registry::managed::element::Element;
use crate::registry::managed::types::{Fields, Items, Shape, Type, element_of};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Puts `config` over `live`. Both were found to fit the definition, and the configuration has no item twice.
pub fn merge(definition: &Definition, live: &mut Object, config: &Object) {
    if let Shape::Map { fields, .. } = Type::root(definition) {
        map(fields, live, config);
    }
}

fn map(fields: Fields<'_>, live: &mut Map<String, Value>, config: &Map<String, Value>) {
    for (name, value) in config {
        match live.get_mut(name) {
            Some(slot) => self::value(fields.get_or_deduce(name).0, slot, value),
            None => {
                live.insert(name.clone(), value.clone());
            }
        }
    }
}

fn value(kind: Type<'_>, live: &mut Value, config: &Value) {
    match (kind.shape(Some(live)), &mut *live, config) {
        (Shape::Map { atomic: false, fields }, Value::Object(live), Value::Object(config)) => {
            map(fields, live, config);
        }
        // Nothing is said of the members, so they stay.
        (Shape::Map { atomic: false, .. }, Value::Object(live), Value::Null)
            if !live.is_empty() && !matches!(kind.shape(Some(config)), Shape::Scalar(_)) => {}
        (Shape::List { items, element }, Value::Array(live), Value::Array(config)) if items != Items::Atomic => {
            *live = list(items, element, std::mem::take(live), config);
        }
        (Shape::List { items, .. }, Value::Array(live), Value::Null) if items != Items::Atomic && !live.is_empty() => {}
        _ => *live = config.clone(),
    }
}

/// The items of both: those of the configuration in its order, the others where they stood among them.
fn list(items: Items<'_>, element: Type<'_>, live: Vec<Value>, config: &[Value]) -> Vec<Value> {
    let keys_of = |list: &[Value]| -> Vec<Option<Element<'static>>> {
        list.iter()
            .map(|item| element_of(items, element, item).ok().map(Element::into_owned))
            .collect()
    };
    let live_keys = keys_of(&live);
    let config_keys = keys_of(config);
    // Where each element stands in the live list; None where it stands more than once.
    let mut places: BTreeMap<&Element<'static>, Option<usize>> = BTreeMap::new();
    for (place, key) in live_keys.iter().enumerate() {
        if let Some(key) = key {
            places.entry(key).and_modify(|at| *at = None).or_insert(Some(place));
        }
    }
    let wanted: std::collections::BTreeSet<&Element<'static>> = config_keys.iter().flatten().collect();
    let mut live: Vec<Option<Value>> = live.into_iter().map(Some).collect();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let mut merged: std::collections::BTreeSet<&Element<'static>> = std::collections::BTreeSet::new();
    // The shared items in the order of the configuration; one that comes out of turn in the live list is passed by.
    let mut shared = config_keys
        .iter()
        .flatten()
        .filter(|key| places.contains_key(key))
        .peekable();
    let (mut l, mut r) = (0, 0);
    while l < live.len() || r < config.len() {
        let left = live_keys.get(l).and_then(Option::as_ref);
        let right = config_keys.get(r).and_then(Option::as_ref);
        if l < live.len() && r < config.len() {
            if let (Some(left), Some(_)) = (left, right.filter(|right| Some(*right) == left)) {
                merged.insert(left);
                out.push(join(element, places[left].and_then(|at| live[at].take()), &config[r]));
                shared.next();
                l += 1;
                r += 1;
                continue;
            }
            if left.is_some_and(|left| wanted.contains(left) && shared.peek().is_some_and(|next| *next != left)) {
                l += 1;
                continue;
            }
        }
        if l < live.len() {
            match left {
                Some(key) if wanted.contains(key) => {
                    if merged.contains(key) {
                        l += 1;
                    }
                }
                _ => {
                    out.extend(live[l].take());
                    l += 1;
                    continue;
                }
            }
        }
        if r < config.len() {
            if let Some(right) = right {
                merged.insert(right);
                let current = places.get(right).copied().flatten().and_then(|at| live[at].take());
                out.push(join(element, current, &config[r]));
                if shared.peek() == Some(&right) {
                    shared.next();
                }
            }
            r += 1;
        }
    }
    out
}

fn join(element: Type<'_>, live: Option<Value>, config: &Value) -> Value {
    match live {
        Some(mut live) => {
            value(element, &mut live, config);
            live
        }
        None => config.clone(),
    }
}
