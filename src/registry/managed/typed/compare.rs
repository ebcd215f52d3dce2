//! What changed between two objects (upstream: `typed/compare.go`).

use crate::registry::managed::element::{Element, same};
use crate::registry::managed::set::{Node, Set};
use crate::registry::managed::types::{Fields, Items, Shape, Type, element_of};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::{Map, Value};

#[derive(Debug, Default)]
pub struct Diff<'a> {
    /// Added, or there with another value.
    pub changed: Set<'a>,
    pub removed: Set<'a>,
}

impl Diff<'_> {
    pub fn is_empty(&self) -> bool {
        self.changed.nodes().is_empty() && self.removed.nodes().is_empty()
    }

    pub fn into_owned(self) -> Diff<'static> {
        Diff {
            changed: self.changed.into_owned(),
            removed: self.removed.into_owned(),
        }
    }
}

/// What happened to a path itself.
#[derive(Clone, Copy, Default)]
struct Mark {
    changed: bool,
    removed: bool,
}

/// Compares two objects of the definition.
pub fn compare<'a>(definition: &'a Definition, old: &'a Object, new: &'a Object) -> Diff<'a> {
    match Type::root(definition) {
        Shape::Map { fields, .. } => maps(fields, Some(old), Some(new)),
        _ => Diff::default(),
    }
}

/// The nodes of one level, as they are found.
#[derive(Default)]
struct Level<'a> {
    changed: Vec<Node<'a>>,
    removed: Vec<Node<'a>>,
}

impl<'a> Level<'a> {
    fn add(&mut self, element: Element<'a>, mark: Mark, below: Diff<'a>) {
        let changes = mark.changed || !below.changed.nodes().is_empty();
        let removes = mark.removed || !below.removed.nodes().is_empty();
        if changes && removes {
            self.changed.push(Node {
                element: element.clone(),
                member: mark.changed,
                children: below.changed,
            });
            self.removed.push(Node {
                element,
                member: mark.removed,
                children: below.removed,
            });
        } else if changes {
            self.changed.push(Node {
                element,
                member: mark.changed,
                children: below.changed,
            });
        } else if removes {
            self.removed.push(Node {
                element,
                member: mark.removed,
                children: below.removed,
            });
        }
    }

    fn diff(self) -> Diff<'a> {
        Diff {
            changed: Set::of(self.changed),
            removed: Set::of(self.removed),
        }
    }
}

/// Compares two values, at least one of which is there.
fn values<'a>(kind: Type<'a>, old: Option<&'a Value>, new: Option<&'a Value>) -> (Mark, Diff<'a>) {
    let (shape, other) = (kind.shape(new.or(old)), kind.shape(old.or(new)));
    match (shape, other) {
        (Shape::Map { atomic: false, fields }, Shape::Map { fields: old_fields, .. }) => {
            let (before, after) = (as_map(old), as_map(new));
            let empty = |map: Option<&Map<String, Value>>, fields: Fields<'_>| {
                map.is_none_or(|map| map.is_empty() && fields.implied().is_empty())
            };
            if empty(before, old_fields) && empty(after, fields) {
                return (leaf(old, new), Diff::default());
            }
            (presence(old, new), maps(fields, before, after))
        }
        (Shape::List { items, element }, Shape::List { .. }) if items != Items::Atomic => {
            let (before, after) = (as_list(old), as_list(new));
            if before.is_empty() && after.is_empty() {
                return (leaf(old, new), Diff::default());
            }
            (presence(old, new), lists(items, element, before, after))
        }
        // Of different shapes, or leaves: what was below is gone, what is below is new.
        (shape, other) => {
            let mut diff = Diff::default();
            if std::mem::discriminant(&shape) != std::mem::discriminant(&other) {
                if let (Shape::Map { atomic: false, fields }, Some(Value::Object(map))) = (other, old) {
                    diff.removed = maps(fields, Some(map), None).removed;
                }
                if let (Shape::Map { atomic: false, fields }, Some(Value::Object(map))) = (shape, new) {
                    diff.changed = maps(fields, None, Some(map)).changed;
                }
            }
            (leaf(old, new), diff)
        }
    }
}

fn as_map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn as_list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn presence(old: Option<&Value>, new: Option<&Value>) -> Mark {
    Mark {
        changed: old.is_none(),
        removed: new.is_none(),
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Mark {
    match (old, new) {
        (Some(old), Some(new)) => Mark {
            changed: !same(old, new),
            removed: false,
        },
        _ => presence(old, new),
    }
}

fn maps<'a>(fields: Fields<'a>, old: Option<&'a Map<String, Value>>, new: Option<&'a Map<String, Value>>) -> Diff<'a> {
    let mut level = Level::default();
    let implied = fields.implied();
    let implied_of = |name: &str| implied.iter().find(|(other, _)| other == name).map(|(_, value)| value);
    let of = |map: Option<&'a Map<String, Value>>, name: &str| {
        map.and_then(|map| map.get(name).or_else(|| implied_of(name)))
    };
    let mut visit = |name: &'a str, old: Option<&'a Value>, new: Option<&'a Value>| {
        let (mark, below) = values(fields.get_or_deduce(name).0, old, new);
        level.add(Element::field(name), mark, below);
    };
    for (name, value) in new.into_iter().flatten() {
        visit(name, of(old, name), Some(value));
    }
    for (name, value) in old.into_iter().flatten() {
        if new.is_none_or(|new| !new.contains_key(name)) {
            visit(name, Some(value), of(new, name));
        }
    }
    // Where both are there and say nothing of a field, both imply the same.
    match (old, new) {
        (None, Some(map)) => {
            for (name, value) in implied.iter().filter(|(name, _)| !map.contains_key(name)) {
                visit(name, None, Some(value));
            }
        }
        (Some(map), None) => {
            for (name, value) in implied.iter().filter(|(name, _)| !map.contains_key(name)) {
                visit(name, Some(value), None);
            }
        }
        _ => {}
    }
    level.diff()
}

fn lists<'a>(items: Items<'a>, element: Type<'a>, old: &'a [Value], new: &'a [Value]) -> Diff<'a> {
    if old == new {
        return Diff::default();
    }
    let mut level = Level::default();
    let (before, after) = (indexed(items, element, old), indexed(items, element, new));
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    loop {
        // Both are sorted: the next element is the lesser of the two, or the same on both sides.
        let order = match (before.peek(), after.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => break,
        };
        let left = if order.is_le() { before.next() } else { None };
        let right = if order.is_ge() { after.next() } else { None };
        let key = left.as_ref().or(right.as_ref()).map(|(key, _)| key.clone());
        let lefts = left.map(|(_, values)| values).unwrap_or_default();
        let rights = right.map(|(_, values)| values).unwrap_or_default();
        let Some(key) = key else { break };
        let (mark, below) = match (lefts.as_slice(), rights.as_slice()) {
            (left @ ([] | [_]), right @ ([] | [_])) => values(element, left.first().copied(), right.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                let equal = lefts.len() == rights.len() && lefts.iter().zip(&rights).all(|(a, b)| same(a, b));
                let mark = Mark {
                    changed: !equal,
                    removed: false,
                };
                (mark, Diff::default())
            }
            // What was there several times is now there once, or not at all.
            ([_, _, ..], right) => {
                let (mark, below) = match right.first() {
                    Some(value) => values(element, None, Some(*value)),
                    None => Default::default(),
                };
                (Mark { removed: true, ..mark }, below)
            }
            (left, _) => {
                let (mark, below) = match left.first() {
                    Some(value) => values(element, Some(*value), None),
                    None => Default::default(),
                };
                (Mark { changed: true, ..mark }, below)
            }
        };
        level.add(key, mark, below);
    }
    level.diff()
}

/// The items by their elements, sorted, those of the same element together.
fn indexed<'a>(items: Items<'a>, element: Type<'a>, list: &'a [Value]) -> Vec<(Element<'a>, Vec<&'a Value>)> {
    let mut found: Vec<(Element<'a>, Vec<&'a Value>)> = list
        .iter()
        .filter_map(|item| element_of(items, element, item).ok().map(|key| (key, vec![item])))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1.append(&mut later.1);
        }
        same
    });
    found
}
