//! One step of a path: a field, an item of a list by its keys, by its value or by its place
//! (upstream: `fieldpath/element.go`, `serialize-pe.go`).

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Display, Write};

/// Borrowed from the object or the FieldsV1 that it was read from, wherever that is possible.
#[derive(Clone, Debug)]
pub enum Element<'a> {
    /// A field of a struct, or a key of a map.
    Field(Cow<'a, str>),
    /// The item of a list of maps whose keys have these values; sorted by name.
    Key(Vec<(Cow<'a, str>, Cow<'a, Value>)>),
    /// The item of a set.
    Item(Cow<'a, Value>),
    Index(i64),
}

impl<'a> Element<'a> {
    pub fn field(name: &'a str) -> Self {
        Self::Field(Cow::Borrowed(name))
    }

    /// Reads `f:name`, `k:{…}`, `v:…` and `i:…`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (tag, rest) = text.split_at_checked(2)?;
        match tag {
            "f:" => Some(Self::field(rest)),
            "k:" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).ok()?;
                let owned = |(name, value)| (Cow::<'a, str>::Owned(name), Cow::<'a, Value>::Owned(value));
                let mut fields: Vec<_> = fields.into_iter().map(owned).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                Some(Self::Key(fields))
            }
            "v:" => serde_json::from_str(rest)
                .ok()
                .map(|value| Self::Item(Cow::Owned(value))),
            "i:" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// The key in FieldsV1.
    pub fn serialized(&self) -> String {
        match self {
            Self::Field(name) => {
                let mut text = String::with_capacity(name.len() + 2);
                text.push_str("f:");
                text.push_str(name);
                text
            }
            Self::Key(fields) => {
                let mut text = String::with_capacity(48);
                text.push_str("k:{");
                for (position, (name, value)) in fields.iter().enumerate() {
                    if position > 0 {
                        text.push(',');
                    }
                    push_json(&mut text, &Value::String(name.to_string()));
                    text.push(':');
                    push_json(&mut text, value);
                }
                text.push('}');
                text
            }
            Self::Item(value) => {
                let mut text = "v:".to_owned();
                push_json(&mut text, value);
                text
            }
            Self::Index(index) => format!("i:{index}"),
        }
    }

    pub fn into_owned(self) -> Element<'static> {
        match self {
            Self::Field(name) => Element::Field(Cow::Owned(name.into_owned())),
            Self::Key(fields) => {
                let owned = |(name, value): (Cow<'_, str>, Cow<'_, Value>)| {
                    (Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned()))
                };
                Element::Key(fields.into_iter().map(owned).collect())
            }
            Self::Item(value) => Element::Item(Cow::Owned(value.into_owned())),
            Self::Index(index) => Element::Index(index),
        }
    }
}

/// Compact JSON as Go writes it: what HTML gives a meaning is escaped.
fn push_json(text: &mut String, value: &Value) {
    let json = value.to_string();
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        text.push_str(&json);
        return;
    }
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(text, "\\u{:04x}", u32::from(c)).unwrap_or_default();
            }
            other => text.push(other),
        }
    }
}

impl Ord for Element<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                for ((name_a, value_a), (name_b, value_b)) in a.iter().zip(b) {
                    let order = name_a.cmp(name_b).then_with(|| compare_values(value_a, value_b));
                    if order.is_ne() {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (Self::Item(a), Self::Item(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl Element<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Item(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl PartialOrd for Element<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element<'_> {}

/// Numbers before texts before booleans before lists before maps before null; numbers by their value.
pub fn compare_values(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x
                .as_f64()
                .unwrap_or_default()
                .total_cmp(&y.as_f64().unwrap_or_default()),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(x), Value::Array(y)) => {
            for (x, y) in x.iter().zip(y) {
                let order = compare_values(x, y);
                if order.is_ne() {
                    return order;
                }
            }
            x.len().cmp(&y.len())
        }
        (Value::Object(x), Value::Object(y)) => {
            let sorted = |map: &'_ Map<String, Value>| {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort_unstable();
                keys
            };
            let (left, right) = (sorted(x), sorted(y));
            for (key, other) in left.iter().zip(&right) {
                let order = key.cmp(other).then_with(|| compare_values(&x[key], &y[other]));
                if order.is_ne() {
                    return order;
                }
            }
            left.len().cmp(&right.len())
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

/// Whether two values are the same: numbers by their value, maps whatever their order.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || compare_values(a, b).is_eq(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => same_objects(x, y),
        (a, b) => a == b,
    }
}

/// [`same`] for objects.
pub fn same_objects(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
}

/// `.name`, `[name="c"]`, `[="x"]`, `[0]`: how errors name a path.
impl Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (position, (name, value)) in fields.iter().enumerate() {
                    let comma = if position > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Item(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_and_written() {
        for text in [
            "f:a:b/c",
            "f:",
            r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            r#"v:"x""#,
            "v:1",
            "i:3",
        ] {
            assert_eq!(Element::parse(text).unwrap().serialized(), text);
        }
        let shuffled = Element::parse(r#"k:{"b": 1, "a":"<"}"#).unwrap();
        assert_eq!(shuffled.serialized(), r#"k:{"a":"\u003c","b":1}"#);
        for bad in ["", "f", "x:y", "k:[]", "v:", "i:x"] {
            assert!(Element::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn errors_show_paths_as_upstream() {
        let rows = [
            ("f:spec", ".spec"),
            (r#"k:{"name":"c"}"#, r#"[name="c"]"#),
            (
                r#"k:{"containerPort":80,"protocol":"TCP"}"#,
                r#"[containerPort=80,protocol="TCP"]"#,
            ),
            (r#"v:"x""#, r#"[="x"]"#),
            ("i:0", "[0]"),
        ];
        for (text, shown) in rows {
            assert_eq!(Element::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn numbers_are_ordered_by_value() {
        let texts = ["f:z", r#"k:{"p":80}"#, r#"k:{"p":443}"#, r#"k:{"p":"1"}"#, "v:1", "i:0"];
        let elements: Vec<_> = texts.iter().map(|text| Element::parse(text).unwrap()).collect();
        assert!(elements.is_sorted(), "{elements:?}");
        assert_eq!(Element::parse("v:1.0").unwrap(), Element::parse("v:1").unwrap());
    }
}
