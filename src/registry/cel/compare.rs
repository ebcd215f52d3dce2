//! Equality and order of values (upstream: the `Equal` and `Compare` of `cel-go/common/types`).

use super::decl::{ListKind, Shape};
use super::value::{List, Map, Value};
use std::cmp::Ordering;

impl Value<'_> {
    /// Values of different types are different, but numbers are compared by amount.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::List(a), Value::List(b)) => lists(a, b),
            (Value::Map(a), Value::Map(b)) => maps(a, b),
            (Value::Optional(None), Value::Optional(None)) => true,
            (Value::Optional(Some(a)), Value::Optional(Some(b))) => a.equals(b),
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Url(a), Value::Url(b)) => a == b,
            (Value::Quantity(a), Value::Quantity(b)) => a == b,
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a), Value::Cidr(b)) => a == b,
            (Value::Semver(a), Value::Semver(b)) => a.cmp(b) == Ordering::Equal,
            (Value::Format(a), Value::Format(b)) => a == b,
            (Value::Preserved(a), Value::Preserved(b)) => a == b,
            (Value::Struct(a), Value::Struct(b)) => a.equals(b),
            (a, b) => numbers(a, b) == Some(Ordering::Equal),
        }
    }

    /// The order of two values of comparable types; None if they are of others, or not a number.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (a, b) => numbers(a, b),
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Uint(_) | Value::Double(_))
    }
}

fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Int(a), Value::Double(b)) => with_double(i128::from(*a), *b),
        (Value::Uint(a), Value::Double(b)) => with_double(i128::from(*a), *b),
        (Value::Double(a), Value::Int(b)) => with_double(i128::from(*b), *a).map(Ordering::reverse),
        (Value::Double(a), Value::Uint(b)) => with_double(i128::from(*b), *a).map(Ordering::reverse),
        _ => None,
    }
}

fn with_double(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    if b.abs() >= 1e30 {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = b.trunc() as i128;
    Some(
        a.cmp(&whole)
            .then_with(|| 0.0_f64.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal)),
    )
}

fn lists(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // The left side says whether order counts.
    match a.kind() {
        ListKind::Atomic => a.iter().zip(b.iter()).all(|pair| match pair {
            (Ok(a), Ok(b)) => a.equals(&b),
            _ => false,
        }),
        ListKind::Set | ListKind::Map(_) => {
            let sorted = |list: &List<'_>| {
                let mut texts: Vec<String> = list.values().ok()?.iter().map(canonical).collect();
                texts.sort_unstable();
                Some(texts)
            };
            sorted(a) == sorted(b)
        }
    }
}

/// A text that is the same for values that are equal.
fn canonical(value: &Value<'_>) -> String {
    match value {
        Value::Int(number) => format!("n{number}"),
        Value::Uint(number) => format!("n{number}"),
        Value::Double(number) => format!("n{number}"),
        Value::String(text) => format!("s{:?}", &**text),
        Value::List(list) => {
            let items: Vec<String> = list
                .iter()
                .map(|item| item.as_ref().map_or_else(ToString::to_string, canonical))
                .collect();
            format!("[{}]", items.join(","))
        }
        Value::Map(map) => {
            let mut entries: Vec<String> = map
                .keys()
                .iter()
                .map(|key| match map.get(key) {
                    Some(Ok(value)) => format!("{}:{}", canonical(key), canonical(&value)),
                    _ => canonical(key),
                })
                .collect();
            entries.sort_unstable();
            format!("{{{}}}", entries.join(","))
        }
        other => format!("{other:?}"),
    }
}

fn maps(a: &Map<'_>, b: &Map<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if let (
        Map::Json { members: a, decl },
        Map::Json {
            members: b,
            decl: other,
        },
    ) = (a, b)
    {
        let untyped = matches!(decl.shape, Shape::Any) && matches!(other.shape, Shape::Any);
        if untyped || std::ptr::eq(*a, *b) {
            return a == b;
        }
        // What has no declaration is compared as it stands.
        if let Shape::Object(object) = &decl.shape {
            let known = |name: &str| super::decl::escape(name).is_some_and(|name| object.fields.contains_key(&*name));
            let differs = a
                .iter()
                .any(|(name, value)| !known(name) && b.get(name).is_some_and(|other| other != value));
            if differs {
                return false;
            }
        }
    }
    a.keys().iter().all(|key| match (a.get(key), b.get(key)) {
        (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
        (None, None) => true,
        _ => false,
    })
}
