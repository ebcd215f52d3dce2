//! Finds what a part of an object was before the update (upstream: `apiserver/pkg/cel/common/equality.go`, `maplist.go`).

use super::node::{Node, Type};
use crate::registry::schema::ListType;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// A value of before, and the schema by which its parts are matched with the new ones.
#[derive(Clone, Copy)]
pub(super) struct Old<'a> {
    pub value: &'a Value,
    pub node: &'a Node,
}

/// The items of a list of before, by key.
pub(super) struct OldItems<'a> {
    node: &'a Node,
    keys: &'a [Arc<str>],
    items: HashMap<String, &'a Value, ahash::RandomState>,
}

/// All keys of an item as one text; None where one is missing or no scalar.
pub(super) fn key_of(keys: &[Arc<str>], item: &Map<String, Value>) -> Option<String> {
    let mut text = String::new();
    for key in keys {
        match item.get(&**key)? {
            value @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => write!(text, "\0{value}").ok()?,
            _ => return None,
        }
    }
    Some(text)
}

impl<'a> Old<'a> {
    /// The member that was there, if there was one and the schema knows it.
    pub fn member(self, name: &str) -> Option<Self> {
        Some(Self {
            value: self.value.as_object()?.get(name)?,
            node: self.node.member(name)?,
        })
    }

    /// Whether nothing changed: lists of type map may be in another order.
    pub fn is_equal(self, new: &Value) -> bool {
        match (self.value, new) {
            (Value::Array(before), Value::Array(after)) => {
                before.len() == after.len()
                    && match OldItems::of(self) {
                        None => before == after,
                        Some(items) => after
                            .iter()
                            .all(|item| items.get(item).is_some_and(|old| old.is_equal(item))),
                    }
            }
            (Value::Object(before), Value::Object(after)) => {
                before.len() == after.len()
                    && after
                        .iter()
                        .all(|(name, value)| self.member(name).is_some_and(|old| old.is_equal(value)))
            }
            (before, after) => before == after,
        }
    }
}

impl<'a> OldItems<'a> {
    /// None where items cannot be told apart by keys.
    pub fn of(old: Old<'a>) -> Option<Self> {
        let node = old.node;
        let Value::Array(items) = old.value else { return None };
        let is_map = node.kind == Type::Array && node.list_type == Some(ListType::Map);
        if !is_map || node.list_map_keys.is_empty() || items.is_empty() {
            return None;
        }
        let mut by_key: HashMap<String, &Value, _> = HashMap::default();
        for item in items {
            if let Some(key) = item.as_object().and_then(|item| key_of(&node.list_map_keys, item)) {
                by_key.entry(key).or_insert(item);
            }
        }
        Some(Self {
            node: node.items.as_deref()?,
            keys: &node.list_map_keys,
            items: by_key,
        })
    }

    /// What the item with the same keys was.
    pub fn get(&self, new: &Value) -> Option<Old<'a>> {
        let key = key_of(self.keys, new.as_object()?)?;
        Some(Old {
            value: self.items.get(&key)?,
            node: self.node,
        })
    }
}
