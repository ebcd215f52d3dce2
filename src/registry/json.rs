//! Access to objects that are JSON maps, for strategies and printers.
//!
//! Readers treat what is absent, null or of another type as empty, as Go's zero values read; nothing panics on
//! unexpected shapes.

use super::strategy::Object;
use crate::quantity::Quantity;
use serde_json::Value;

/// The value at a path of object keys.
pub fn at<'a>(object: &'a Object, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(object.get(*first)?, |value, key| value.get(key))
}

/// The string at a path, empty if there is none.
pub fn text<'a>(object: &'a Object, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a path, empty if there is none.
pub fn items<'a>(object: &'a Object, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The objects of the list at a path, with their index.
pub fn objects<'a>(object: &'a Object, path: &[&str]) -> impl Iterator<Item = (usize, &'a Object)> {
    items(object, path)
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, item.as_object()?)))
}

/// The map at a path.
pub fn map<'a>(object: &'a Object, path: &[&str]) -> Option<&'a Object> {
    at(object, path).and_then(Value::as_object)
}

/// Keys and string values of the map at a path.
pub fn texts<'a>(object: &'a Object, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    map(object, path)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// The integer at a path, 0 if there is none.
pub fn number(object: &Object, path: &[&str]) -> i64 {
    integer(object, path).unwrap_or_default()
}

/// The integer at a path.
pub fn integer(object: &Object, path: &[&str]) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

/// True only if there is a `true` at the path.
pub fn boolean(object: &Object, path: &[&str]) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or_default()
}

/// A quantity as clients send it: a string, or a plain number.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// How Go names the type of a decoded value.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Whether there is something other than an empty string, list or map at the key.
pub fn is_set(object: &Object, key: &str) -> bool {
    match object.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

/// Sets what is absent.
pub fn default_to(object: &mut Object, key: &str, value: impl Into<Value>) {
    if object.get(key).is_none_or(Value::is_null) {
        object.insert(key.to_owned(), value.into());
    }
}

/// Sets a string that is absent or empty.
pub fn default_text(object: &mut Object, key: &str, value: &str) {
    if text(object, &[key]).is_empty() {
        object.insert(key.to_owned(), value.into());
    }
}

/// Sets a number that is absent or zero.
pub fn default_number(object: &mut Object, key: &str, value: i64) {
    if number(object, &[key]) == 0 {
        object.insert(key.to_owned(), value.into());
    }
}

/// The map at a key, if there is one.
pub fn child<'a>(object: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    object.get_mut(key).and_then(Value::as_object_mut)
}

/// The map at a key, created if there is none.
pub fn child_or_new<'a>(object: &'a mut Object, key: &str) -> &'a mut Object {
    let value = object.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Object::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was just made an object"),
    }
}

/// The objects of the list at a key.
pub fn children<'a>(object: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> {
    object
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Puts the value of `from` at `key` into `to`, or removes it there.
pub fn restore(to: &mut Object, from: &Object, key: &str) {
    match from.get(key) {
        Some(value) => {
            to.insert(key.to_owned(), value.clone());
        }
        None => {
            to.remove(key);
        }
    }
}
