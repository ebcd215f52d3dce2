//! Reads a body along its schema, in one pass (upstream: `sigs.k8s.io/json` into Go structs, and back out).
//!
//! The result is what Go would write after reading the body: unknown fields, nulls and empty values that mean
//! "absent" are gone, times are UTC, base64 is canonical. Errors are in Go's words, because users search for them.

use super::shape::{element, go_type, is_empty, zero};
use super::{Definition, Node, scalars};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Levels of lists, maps and objects within one another.
const DEPTH_MAX: usize = 256;
/// Strict errors kept of one body; upstream stops collecting at the same number.
const STRICT_ERRORS_MAX: usize = 100;

/// A body that was read.
#[derive(Debug, Default)]
pub struct Decoded {
    pub object: Map<String, Value>,
    /// `unknown field "spec.foo"` and `duplicate field "spec.x"`, in the order in which they were met.
    pub strict: Vec<String>,
}

/// Reads a JSON body. Err is Go's text for what is wrong with it.
pub fn decode(definition: &Arc<Definition>, json: &[u8]) -> Result<Decoded, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let decoded = decode_from(definition, &mut deserializer)
        // Go looks at the whole text before it looks at types.
        .map_err(|error| {
            serde_json::from_slice::<IgnoredAny>(json)
                .err()
                .map_or(error, |syntax| syntax_error(&syntax))
        })?;
    deserializer.end().map_err(|error| syntax_error(&error))?;
    Ok(decoded)
}

/// Reads a value that is in memory already: a patched object.
pub fn prune(definition: &Arc<Definition>, value: Value) -> Result<Decoded, String> {
    decode_from(definition, value)
}

/// Reads from any self-describing format (YAML).
pub fn decode_from<'de, D: Deserializer<'de>>(
    definition: &Arc<Definition>,
    deserializer: D,
) -> Result<Decoded, String> {
    let node = Node::Object(definition.clone());
    let mut walk = Walk {
        path: Vec::with_capacity(16),
        ..Walk::default()
    };
    match (Seed {
        walk: &mut walk,
        node: &node,
        go_type: "",
    })
    .deserialize(deserializer)
    {
        Ok(Value::Object(object)) => Ok(Decoded {
            object,
            strict: walk.strict,
        }),
        // `null` is an empty object.
        Ok(_) => Ok(Decoded {
            object: Map::new(),
            strict: walk.strict,
        }),
        Err(error) => Err(walk.error.unwrap_or_else(|| error.to_string())),
    }
}

/// Go's words for JSON that is broken.
pub fn syntax_error(error: &serde_json::Error) -> String {
    if error.is_eof() {
        "unexpected end of JSON input".to_owned()
    } else {
        error.to_string()
    }
}

/// Where the walk is.
enum Step<'s> {
    Field(&'s str),
    Key(String),
    Index(usize),
}

/// What is gathered on the way.
#[derive(Default)]
struct Walk<'s> {
    path: Vec<Step<'s>>,
    strict: Vec<String>,
    /// The type whose field is being read.
    owner: Option<&'s Definition>,
    /// The error in Go's words; the deserializer's own error only ends the walk.
    error: Option<String>,
    depth: usize,
    scratch: Vec<u8>,
    /// Inside of objects that are read as they stand ([`super::Object::untyped`]).
    untyped: bool,
}

/// What unknown members of objects that keep them are read as.
static ANY: Node = Node::Any;

impl<'s> Walk<'s> {
    /// `spec.containers[0].name`
    fn path_to(&self, last: &str) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => push_name(&mut text, name),
                Step::Key(key) => push_name(&mut text, key),
                Step::Index(index) => write!(text, "[{index}]").unwrap_or_default(),
            }
        }
        push_name(&mut text, last);
        text
    }

    fn strict_error(&mut self, what: &str, name: &str) {
        if self.strict.len() < STRICT_ERRORS_MAX {
            let error = format!("{what} field \"{}\"", self.path_to(name));
            self.strict.push(error);
        }
    }

    fn fail<E: serde::de::Error>(&mut self, error: String) -> E {
        self.error = Some(error);
        E::custom("")
    }

    /// `json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool`
    fn mismatch<E: serde::de::Error>(&mut self, value: &str, go_type: &str) -> E {
        let mut error = format!("json: cannot unmarshal {value} into Go ");
        match self.owner {
            Some(owner) => {
                error.push_str("struct field ");
                error.push_str(owner.short_name());
                for step in &self.path {
                    if let Step::Field(name) = step {
                        error.push('.');
                        error.push_str(name);
                    }
                }
            }
            None => error.push_str("value"),
        }
        error.push_str(" of type ");
        error.push_str(go_type);
        self.fail(error)
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err(self.fail("exceeded max depth".to_owned()))
        } else {
            Ok(())
        }
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Reads one value of the shape `node`. `Value::Null` stands for "absent".
struct Seed<'w, 's> {
    walk: &'w mut Walk<'s>,
    node: &'s Node,
    /// Empty: the name follows from the node.
    go_type: &'static str,
}

/// Whole numbers are integers however they are written, and what no integer holds is a float, as in Go.
fn as_it_stands(number: Number) -> Number {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    let Some(float) = number.as_f64() else { return number };
    if number.is_f64() && float.fract() == 0.0 && float.abs() <= WHOLE_MAX {
        return Number::from(float as i64);
    }
    if number.is_u64() && number.as_i64().is_none() {
        return Number::from_f64(float).unwrap_or(number);
    }
    number
}

impl<'s> Seed<'_, 's> {
    /// Whether the value is taken whatever its type. A type of Go's own within a custom resource is not.
    fn takes_anything(&self) -> bool {
        self.walk.untyped
            && match self.node {
                Node::Object(definition) | Node::Either(definition, _) => definition.object().untyped,
                _ => true,
            }
    }

    fn mismatch<E: serde::de::Error>(self, value: &str) -> E {
        let go_type = match self.node {
            // These read an inner value themselves, so that is the type Go speaks of.
            Node::Time | Node::MicroTime => "string".into(),
            Node::IntOrString => "int32".into(),
            Node::Quantity => {
                let error = scalars::quantity("").err().unwrap_or_default();
                return self.walk.fail(error);
            }
            node => {
                let stated = self.go_type.trim_start_matches('*');
                if stated.is_empty() {
                    go_type(node)
                } else {
                    stated.into()
                }
            }
        };
        self.walk.mismatch(value, &go_type)
    }

    fn number<E: serde::de::Error>(self, number: Option<Number>, shown: impl FnOnce() -> String) -> Result<Value, E> {
        let Some(number) = number else {
            return Err(self.walk.fail(format!("json: unsupported value: {}", shown())));
        };
        if self.takes_anything() {
            return Ok(Value::Number(as_it_stands(number)));
        }
        let fits = match self.node {
            Node::Any | Node::Double => true,
            Node::Int64 => number.as_i64().is_some(),
            Node::Int32 | Node::IntOrString => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            // Read as text: `cpu: 2` is `cpu: "2"`.
            Node::Quantity => {
                let text = number.to_string();
                return scalars::quantity(&text)
                    .map(|canonical| Value::String(canonical.into_owned()))
                    .map_err(|error| self.walk.fail(error));
            }
            Node::Either(_, _) => false,
            _ => return Err(self.mismatch("number")),
        };
        if fits {
            Ok(Value::Number(number))
        } else {
            Err(self.mismatch(&format!("number {}", shown())))
        }
    }

    fn string<E: serde::de::Error>(self, text: Cow<'_, str>) -> Result<Value, E> {
        if self.takes_anything() {
            return Ok(Value::String(text.into_owned()));
        }
        let checked = match self.node {
            Node::String | Node::Any | Node::IntOrString => Ok(None),
            Node::Bytes => scalars::base64(&text, &mut self.walk.scratch).map(changed),
            Node::Time if text == scalars::ZERO_TIME => return Ok(Value::Null),
            Node::Time => scalars::time(&text).map(changed),
            Node::MicroTime => scalars::micro_time(&text).map(changed),
            Node::Quantity => scalars::quantity(&text).map(changed),
            _ => return Err(self.mismatch("string")),
        };
        match checked {
            Ok(changed) => Ok(Value::String(changed.unwrap_or_else(|| text.into_owned()))),
            Err(error) => Err(self.walk.fail(error)),
        }
    }
}

/// The new text where a scalar was not canonical.
fn changed(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.node {
            Node::Boolean | Node::Any => Ok(Value::Bool(value)),
            Node::Either(_, other) if matches!(**other, Node::Boolean) => Ok(Value::Bool(value)),
            _ if self.takes_anything() => Ok(Value::Bool(value)),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(Some(value.into()), || value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(Some(value.into()), || value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.number(Number::from_f64(value), || format!("{value:?}"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.string(Cow::Borrowed(text))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        self.string(Cow::Owned(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let list = match self.node {
            Node::Either(_, other) => other,
            Node::List(_) => self.node,
            _ if self.takes_anything() => &ANY,
            node => node,
        };
        let untyped = self.walk.untyped;
        if !matches!(list, Node::List(_) | Node::Any) {
            return Err(self.mismatch("array"));
        }
        let (item, go_type) = element(list, self.go_type);
        let walk = self.walk;
        walk.enter()?;
        let mut items = Vec::with_capacity(sequence.size_hint().unwrap_or(0).min(64));
        loop {
            walk.path.push(Step::Index(items.len()));
            let value = sequence.next_element_seed(Seed {
                walk: &mut *walk,
                node: item,
                go_type,
            })?;
            walk.path.pop();
            match value {
                Some(Value::Null) if !untyped => items.push(zero(item)),
                Some(value) => items.push(value),
                None => break,
            }
        }
        walk.depth -= 1;
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        match self.node {
            Node::Object(definition) | Node::Either(definition, _) => {
                self.walk.enter()?;
                let outer = self.walk.owner.replace(definition);
                let outer_untyped = std::mem::replace(&mut self.walk.untyped, definition.object().untyped);
                let object = visit_object(self.walk, definition, map)?;
                self.walk.owner = outer;
                self.walk.untyped = outer_untyped;
                self.walk.depth -= 1;
                Ok(Value::Object(object))
            }
            Node::Map(_) | Node::Any => {
                let (item, go_type) = element(self.node, self.go_type);
                self.walk.enter()?;
                let object = visit_entries(self.walk, item, go_type, map)?;
                self.walk.depth -= 1;
                Ok(Value::Object(object))
            }
            _ if self.takes_anything() => {
                self.walk.enter()?;
                let object = visit_entries(self.walk, &ANY, "", map)?;
                self.walk.depth -= 1;
                Ok(Value::Object(object))
            }
            _ => Err(self.mismatch("object")),
        }
    }
}

/// The fields of a struct.
fn visit_object<'de, 's, A: MapAccess<'de>>(
    walk: &mut Walk<'s>,
    definition: &'s Definition,
    mut map: A,
) -> Result<Map<String, Value>, A::Error> {
    let shape = definition.object();
    let properties = &shape.properties;
    let mut object = Map::with_capacity(map.size_hint().unwrap_or(4).min(properties.len()));
    let mut absent = false;
    while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
        let Some((name, property)) = properties.get_key_value(&*key) else {
            if shape.preserve_unknown {
                walk.path.push(Step::Key(key.clone().into_owned()));
                let value = map.next_value_seed(Seed {
                    walk: &mut *walk,
                    node: &ANY,
                    go_type: "",
                })?;
                walk.path.pop();
                if object.insert(key.clone().into_owned(), value).is_some() {
                    walk.strict_error("duplicate", &key);
                }
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            walk.strict_error("unknown", &key);
            continue;
        };
        walk.path.push(Step::Field(name));
        let value = map.next_value_seed(Seed {
            walk: &mut *walk,
            node: &property.node,
            go_type: property.go_type,
        })?;
        walk.path.pop();
        let value = if property.omit_empty && is_empty(&value) {
            Value::Null
        } else {
            value
        };
        if shape.untyped && value.is_null() && matches!(&property.node, Node::Object(of) if !of.object().untyped) {
            // `metadata: null`
            continue;
        }
        absent |= value.is_null() && !shape.untyped;
        // What is absent stays until the end as null, so that its second appearance is noticed.
        if object.insert(key.into_owned(), value).is_some() {
            walk.strict_error("duplicate", name);
        }
    }
    if absent {
        object.retain(|_, value| !value.is_null());
    }
    Ok(object)
}

/// The entries of a map.
fn visit_entries<'de, 's, A: MapAccess<'de>>(
    walk: &mut Walk<'s>,
    node: &'s Node,
    go_type: &'static str,
    mut map: A,
) -> Result<Map<String, Value>, A::Error> {
    let mut entries = Map::with_capacity(map.size_hint().unwrap_or(4).min(64));
    // Only below structs can something be found that needs the path.
    let structs = node.as_object().is_some() || walk.untyped;
    while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
        let key = key.into_owned();
        if structs {
            walk.path.push(Step::Key(key.clone()));
        }
        let value = map.next_value_seed(Seed {
            walk: &mut *walk,
            node,
            go_type,
        })?;
        if structs {
            walk.path.pop();
        }
        let value = if value.is_null() && !walk.untyped {
            zero(node)
        } else {
            value
        };
        // What is inside a RawExtension is nobody's business here.
        if (!matches!(node, Node::Any) || walk.untyped) && entries.contains_key(&key) {
            walk.strict_error("duplicate", &key);
        }
        entries.insert(key, value);
    }
    Ok(entries)
}

/// A key as text. YAML has others than strings.
struct Key<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
            fn visit_string<E>(self, key: String) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key)))
            }
            fn visit_bool<E>(self, key: bool) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_string())))
            }
            fn visit_i64<E>(self, key: i64) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_string())))
            }
            fn visit_u64<E>(self, key: u64) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_string())))
            }
            fn visit_f64<E>(self, key: f64) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_string())))
            }
        }
        deserializer.deserialize_any(Text)
    }
}
