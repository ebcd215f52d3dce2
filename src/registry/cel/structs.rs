//! What expressions of mutating policies make: apply configurations and JSON patches
//! (upstream: `apiserver/pkg/cel/mutation`, `apiserver/pkg/cel/library/jsonpatch.go`).

use super::error::Error;
use super::library::Native;
use super::types::Type;
use super::value::{List, Map, Value};
use std::sync::Arc;

/// The type of an object; that of a part of it is `Object.spec` and the like.
pub const OBJECT: &str = "Object";
/// The type of an operation of a JSON patch.
pub const PATCH: &str = "JSONPatch";
const ESCAPE_KEY: &str = "jsonpatch.escapeKey";

/// A value of a named type.
#[derive(Clone, Debug)]
pub struct Structure<'a> {
    pub name: Arc<str>,
    pub fields: Vec<(Arc<str>, Value<'a>)>,
}

pub(super) fn is_known(name: &str) -> bool {
    name == PATCH || is_object(name)
}

fn is_object(name: &str) -> bool {
    name.strip_prefix(OBJECT)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The type of a field; None if there is no such field. Objects may have any.
pub(super) fn field(structure: &str, field: &str) -> Option<Type> {
    if is_object(structure) {
        return Some(Type::Dyn);
    }
    match field {
        "op" | "path" | "from" => Some(Type::String),
        "value" => Some(Type::Dyn),
        _ => None,
    }
}

/// Functions that are there only where patches can be made.
pub(super) fn is_function(name: &str) -> bool {
    name == ESCAPE_KEY
}

pub(super) fn native(name: &str) -> Option<Native> {
    is_function(name).then_some(|arguments| match arguments {
        [Value::String(key)] => Ok(key.replace('~', "~0").replace('/', "~1").into()),
        _ => Err(Error::NoSuchOverload),
    })
}

impl<'a> Structure<'a> {
    pub fn field(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.fields.iter().find(|(other, _)| **other == *name);
        found.map(|(_, value)| value)
    }

    pub(super) fn equals(&self, other: &Structure<'_>) -> bool {
        self.name == other.name
            && self.fields.len() == other.fields.len()
            && self
                .fields
                .iter()
                .all(|(name, value)| other.field(name).is_some_and(|other| value.equals(other)))
    }

    /// Parts must have the types that their places say: `Object.spec` stands in `spec` of an `Object`. Lists and maps
    /// between them have no name. Err lists what is elsewhere.
    pub fn check_names(&self) -> Result<(), String> {
        let mut errors = Vec::new();
        self.check(&self.name, &mut errors);
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors.join("\n"))
        }
    }

    fn check(&self, place: &str, errors: &mut Vec<String>) {
        if *self.name != *place {
            errors.push(format!(
                "unexpected type name {:?}, expected {place:?}, which matches field name path from root Object type",
                &*self.name
            ));
        }
        for (name, value) in &self.fields {
            check(value, &format!("{place}.{name}"), errors);
        }
    }
}

fn check(value: &Value<'_>, place: &str, errors: &mut Vec<String>) {
    match value {
        Value::Struct(structure) => structure.check(place, errors),
        Value::List(List::Values(items)) => items.iter().for_each(|item| check(item, place, errors)),
        Value::Map(Map::Values(entries)) => entries.iter().for_each(|(_, value)| check(value, place, errors)),
        _ => {}
    }
}
