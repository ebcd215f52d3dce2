//! Whether a configuration that is applied fits its schema (upstream: `typed/validate.go`, `typed/helpers.go`).

use crate::registry::managed::element::Element;
use crate::registry::managed::types::{Fields, Items, Scalar, Shape, Type, element_of};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::{Map, Value};
use std::fmt;

/// Checks the whole object. Err is upstream's text: one error, or a list of them.
pub fn validate(definition: &Definition, object: &Object) -> Result<(), String> {
    let mut walk = Walk::default();
    if let Shape::Map { fields, .. } = Type::root(definition) {
        walk.map(fields, object);
    }
    match walk.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

#[derive(Default)]
struct Walk {
    path: String,
    errors: Vec<String>,
}

impl Walk {
    fn error(&mut self, text: impl fmt::Display) {
        let error = if self.path.is_empty() {
            text.to_string()
        } else {
            format!("{}: {text}", self.path)
        };
        self.errors.push(error);
    }

    fn below(&mut self, element: &Element<'_>, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&element.to_string());
        visit(self);
        self.path.truncate(length);
    }

    fn value(&mut self, kind: Type<'_>, value: &Value) {
        match (kind.shape(Some(value)), value) {
            // Null fits everywhere.
            (_, Value::Null) => {}
            (Shape::Scalar(scalar), value) => self.scalar(scalar, value),
            (Shape::List { items, element }, Value::Array(list)) => self.list(items, element, list),
            (Shape::List { .. }, value) => self.error(format_args!("expected list, got &{{{}}}", GoValue(value))),
            (Shape::Map { fields, .. }, Value::Object(map)) => self.map(fields, map),
            (Shape::Map { .. }, value) => self.error(format_args!("expected map, got &{{{}}}", GoValue(value))),
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        match (scalar, value) {
            (Scalar::String | Scalar::Any, Value::String(_))
            | (Scalar::Number | Scalar::Any, Value::Number(_))
            | (Scalar::Boolean | Scalar::Any, Value::Bool(_)) => {}
            (Scalar::Number, value) => {
                let go = match value {
                    Value::String(_) => "string",
                    Value::Bool(_) => "bool",
                    Value::Array(_) => "[]interface {}",
                    _ => "map[string]interface {}",
                };
                self.error(format_args!("expected numeric (int or float), got {go}"));
            }
            (Scalar::String, value) => {
                let value = GoSyntax(value);
                self.error(format_args!(
                    "expected string, got &value.valueUnstructured{{Value:{value}}}"
                ));
            }
            (Scalar::Boolean, value) => self.error(format_args!("expected boolean, got &{{{}}}", GoValue(value))),
            (Scalar::Any, value) => self.error(format_args!("expected any scalar, got &{{{}}}", GoValue(value))),
        }
    }

    fn list(&mut self, items: Items<'_>, kind: Type<'_>, list: &[Value]) {
        let mut seen: Vec<Element<'_>> = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let element = match items {
                Items::Atomic => Element::Index(i64::try_from(index).unwrap_or(i64::MAX)),
                _ => match element_of(items, kind, item) {
                    Ok(element) => element,
                    Err(error) => return self.error(format_args!("element {index}: {error}")),
                },
            };
            self.below(&element, |walk| walk.value(kind, item));
            if items != Items::Atomic {
                // Sorted, so that long lists stay cheap.
                match seen.binary_search(&element) {
                    Ok(_) => self.error(format_args!("duplicate entries for key {element}")),
                    Err(at) => seen.insert(at, element),
                }
            }
        }
    }

    fn map(&mut self, fields: Fields<'_>, map: &Map<String, Value>) {
        for (name, value) in map {
            let element = Element::field(name);
            match fields.get(name) {
                Some((kind, _)) => self.below(&element, |walk| walk.value(kind, value)),
                // Upstream stops at the first one, too.
                None => return self.below(&element, |walk| walk.error("field not declared in schema")),
            }
        }
    }
}

/// `%v` of a decoded JSON value.
struct GoValue<'a>(&'a Value);

impl fmt::Display for GoValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            Value::String(text) => f.write_str(text),
            Value::Array(items) => {
                f.write_str("[")?;
                for (position, item) in items.iter().enumerate() {
                    let space = if position > 0 { " " } else { "" };
                    write!(f, "{space}{}", Self(item))?;
                }
                f.write_str("]")
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                f.write_str("map[")?;
                for (position, (key, value)) in entries.into_iter().enumerate() {
                    let space = if position > 0 { " " } else { "" };
                    write!(f, "{space}{key}:{}", Self(value))?;
                }
                f.write_str("]")
            }
            other => write!(f, "{other}"),
        }
    }
}

/// `%#v` of a decoded JSON value.
struct GoSyntax<'a>(&'a Value);

impl fmt::Display for GoSyntax<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("interface {}(nil)"),
            Value::Array(items) => {
                f.write_str("[]interface {}{")?;
                for (position, item) in items.iter().enumerate() {
                    let comma = if position > 0 { ", " } else { "" };
                    write!(f, "{comma}{}", Self(item))?;
                }
                f.write_str("}")
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                f.write_str("map[string]interface {}{")?;
                for (position, (key, value)) in entries.into_iter().enumerate() {
                    let comma = if position > 0 { ", " } else { "" };
                    write!(f, "{comma}{key:?}:{}", Self(value))?;
                }
                f.write_str("}")
            }
            other => write!(f, "{other}"),
        }
    }
}
