//! Values of expressions. JSON is looked at where it stands, along its declaration, and never copied
//! (upstream: `cel-go/common/types`, `apiserver/pkg/cel/common/valuesunstructured.go`).

use super::decl::{ANY, Decl, ListKind, Shape, escape};
use super::error::Error;
use super::library::{authz::Authz, ip::Cidr, semver::Version, url::Url};
use super::structs::Structure;
use super::types::Type;
use crate::quantity::Quantity;
use crate::registry::string_formats as formats;
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Arc<str>),
    Url(Arc<Url>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Arc<Version>),
    /// A named format of strings.
    Format(&'static str),
    /// Data without a schema, which can only be compared.
    Preserved(&'a Json),
    /// What an expression made: an object, or a patch.
    Struct(Arc<Structure<'a>>),
    /// A question of who may do what, as far as it was asked.
    Authz(Authz<'a>),
}

/// A string, borrowed where it can be.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json { items: &'a [Json], decl: &'a Decl },
    Values(Arc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Json {
        members: &'a serde_json::Map<String, Json>,
        decl: &'a Decl,
    },
    Values(Arc<Entries<'a>>),
}

/// Entries in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Entries<'a> {
    list: Vec<(Value<'a>, Value<'a>)>,
    index: HashMap<Key, usize, ahash::RandomState>,
}

/// What can be a key: numbers of the same amount are the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Bool(bool),
    Number(i128),
    Text(Box<str>),
}

impl Key {
    fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Number((*value).into()),
            Value::Uint(value) => Self::Number((*value).into()),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e30 => Self::Number(*value as i128),
            Value::String(text) => Self::Text((**text).into()),
            _ => return None,
        })
    }
}

impl<'a> Entries<'a> {
    /// Adds an entry; Err if the key is there already or can be none.
    pub fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> Result<(), Error> {
        let name = Key::of(&key).ok_or_else(|| Error::of(format!("unsupported key type: {}", key.type_name())))?;
        match self.index.entry(name) {
            Entry::Occupied(_) => Err(Error::of(format!("insert failed: key {key} already exists"))),
            Entry::Vacant(place) => {
                place.insert(self.list.len());
                self.list.push((key, value));
                Ok(())
            }
        }
    }

    /// Sets an entry whether or not the key is there.
    pub fn set(&mut self, key: Value<'a>, value: Value<'a>) -> Result<(), Error> {
        let name = Key::of(&key).ok_or_else(|| Error::of(format!("unsupported key type: {}", key.type_name())))?;
        match self.index.get(&name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.index.insert(name, self.list.len());
                self.list.push((key, value));
            }
        }
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Value<'a>, Value<'a>)> {
        self.list.iter()
    }

    fn get(&self, key: &Value<'_>) -> Option<&Value<'a>> {
        let at = *self.index.get(&Key::of(key)?)?;
        Some(&self.list[at].1)
    }
}

impl<'a> From<String> for Value<'a> {
    fn from(text: String) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }
}

impl<'a> From<bool> for Value<'a> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<'a> Value<'a> {
    pub fn list(values: Vec<Value<'a>>) -> Self {
        Self::List(List::Values(Arc::new(values)))
    }

    pub fn map(entries: Entries<'a>) -> Self {
        Self::Map(Map::Values(Arc::new(entries)))
    }

    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// JSON without a schema.
    pub fn untyped(json: &'a Json) -> Self {
        Self::of(json, &ANY).unwrap_or(Self::Null)
    }

    /// JSON of a declaration; Err if it is of another type.
    pub fn of(json: &'a Json, decl: &'a Decl) -> Result<Self, Error> {
        if json.is_null() {
            return if decl.nullable {
                Ok(Self::Null)
            } else {
                Err(Error::of("invalid data, got null for schema with nullable=false"))
            };
        }
        let wrong = |expected: &str| {
            Err(Error::of(format!(
                "invalid data, expected {expected}, got {}",
                go_kind(json)
            )))
        };
        match (&decl.shape, json) {
            (Shape::Any, json) => Ok(match json {
                Json::Null => Self::Null,
                Json::Bool(value) => Self::Bool(*value),
                Json::String(text) => Self::from(text.as_str()),
                Json::Number(number) => match number.as_i64() {
                    Some(integer) => Self::Int(integer),
                    None => Self::Double(number.as_f64().unwrap_or_default()),
                },
                Json::Array(items) => Self::List(List::Json { items, decl }),
                Json::Object(members) => Self::Map(Map::Json { members, decl }),
            }),
            (Shape::Preserved, json) => Ok(Self::Preserved(json)),
            (Shape::IntOrString, Json::String(text)) => Ok(Self::from(text.as_str())),
            (Shape::IntOrString, Json::Number(number)) if number.is_i64() => {
                Ok(Self::Int(number.as_i64().unwrap_or_default()))
            }
            (Shape::IntOrString, _) => Err(Error::of(
                "invalid data, expected XIntOrString value to be either a string or integer",
            )),
            (Shape::Bool, Json::Bool(value)) => Ok(Self::Bool(*value)),
            (Shape::Bool, _) => wrong("bool"),
            (Shape::Int, Json::Number(number)) if number.is_i64() => Ok(Self::Int(number.as_i64().unwrap_or_default())),
            (Shape::Int, _) => wrong("int"),
            (Shape::Double, Json::Number(number)) => Ok(Self::Double(number.as_f64().unwrap_or_default())),
            (Shape::Double, _) => wrong("float"),
            (Shape::List { .. }, Json::Array(items)) => Ok(Self::List(List::Json { items, decl })),
            (Shape::List { .. }, _) => Err(Error::of(
                "invalid data, expected an array for the provided schema with type=array",
            )),
            (Shape::Map(_) | Shape::Object(_), Json::Object(members)) => Ok(Self::Map(Map::Json { members, decl })),
            (Shape::Map(_) | Shape::Object(_), _) => Err(Error::of(
                "invalid data, expected a map for the provided schema with type=object",
            )),
            (_, Json::String(text)) => Self::of_text(text, &decl.shape),
            _ => wrong("string"),
        }
    }

    fn of_text(text: &'a str, shape: &Shape) -> Result<Self, Error> {
        match shape {
            Shape::Duration => match formats::duration(text) {
                Some(nanos) => Ok(Self::Duration(nanos)),
                None => Err(Error::of(format!(
                    "Invalid duration {text}: unable to parse {text} as duration"
                ))),
            },
            Shape::Date => format!("{text}T00:00:00Z")
                .parse()
                .map(Self::Timestamp)
                .map_err(|_| Error::of(format!("Invalid date formatted string {text}: parsing time {text:?}"))),
            Shape::DateTime => parse_timestamp(text).map(Self::Timestamp).ok_or_else(|| {
                Error::of(format!(
                    "Invalid date-time formatted string {text}: parsing time {text:?}"
                ))
            }),
            Shape::Bytes => base64::engine::general_purpose::STANDARD
                .decode(text)
                .or_else(|_| base64::engine::general_purpose::URL_SAFE.decode(text))
                .map(|bytes| Self::Bytes(bytes.into()))
                .map_err(|error| Error::of(format!("Invalid byte formatted string {text}: {error}"))),
            _ => Ok(Self::from(text)),
        }
    }

    /// The name of the type, as `type(x)` has it.
    pub fn type_name(&self) -> Cow<'static, str> {
        let name = match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Url(_) => "kubernetes.URL",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Preserved(_) => "unknown",
            Self::Struct(structure) => return Cow::Owned(structure.name.to_string()),
            Self::Authz(question) => question.type_name(),
        };
        Cow::Borrowed(name)
    }

    /// How much there is of it, by which costs are counted: characters, bytes, items, entries; 1 of all else.
    pub fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(value)) => return value.size(),
            Self::Ip(IpAddr::V4(_)) => 4,
            Self::Ip(IpAddr::V6(_)) => 16,
            Self::Cidr(cidr) => return if cidr.address.is_ipv4() { 4 } else { 16 },
            _ => 1,
        };
        size as u64
    }

    /// Whether it is the zero value of its type.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            Self::Timestamp(_) => false,
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Optional(inner) => inner.as_ref().is_none_or(|inner| inner.is_zero()),
            Self::Struct(structure) => structure.fields.is_empty(),
            _ => false,
        }
    }
}

/// RFC 3339, or the same without a zone, which is then UTC.
pub(super) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

fn go_kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::String(_) => "string",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

impl<'a> List<'a> {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Json { items, .. } => items.len(),
            Self::Values(values) => values.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, Error>> {
        match self {
            Self::Json { items, decl } => Some(Value::of(items.get(index)?, item_decl(decl))),
            Self::Values(values) => values.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, Error>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub fn values(&self) -> Result<Vec<Value<'a>>, Error> {
        self.iter().collect()
    }

    pub fn kind(&self) -> &'a ListKind {
        match self {
            Self::Json { decl, .. } => match &decl.shape {
                Shape::List { kind, .. } => kind,
                _ => &ListKind::Atomic,
            },
            Self::Values(_) => &ListKind::Atomic,
        }
    }
}

fn item_decl(decl: &Decl) -> &Decl {
    match &decl.shape {
        Shape::List { item, .. } => item,
        _ => &ANY,
    }
}

impl<'a> Map<'a> {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Json { members, .. } => members.len(),
            Self::Values(entries) => entries.list.len(),
        }
    }

    /// The value at a key; members of objects go by the names that expressions use.
    pub fn get(&self, key: &Value<'_>) -> Option<Result<Value<'a>, Error>> {
        match self {
            Self::Json { .. } => match key {
                Value::String(name) => self.member(name),
                _ => None,
            },
            Self::Values(entries) => entries.get(key).cloned().map(Ok),
        }
    }

    pub fn member(&self, name: &str) -> Option<Result<Value<'a>, Error>> {
        let Self::Json { members, decl } = self else {
            return self.get(&Value::from(name.to_owned()));
        };
        match &decl.shape {
            Shape::Object(object) => {
                let field = object.fields.get(name)?;
                let json = members.get(&*field.name)?;
                // A field that is null is as good as absent.
                (!json.is_null()).then(|| Value::of(json, &field.decl))
            }
            Shape::Map(value) => Some(Value::of(members.get(name)?, value)),
            _ => Some(Value::of(members.get(name)?, &ANY)),
        }
    }

    /// All keys, of objects those that have a declaration.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Values(entries) => entries.list.iter().map(|(key, _)| key.clone()).collect(),
            Self::Json { members, decl } => members
                .keys()
                .filter_map(|name| match &decl.shape {
                    Shape::Object(object) => {
                        let escaped = escape(name)?;
                        object.fields.contains_key(&*escaped).then(|| Value::from(escaped))
                    }
                    _ => Some(Value::from(name.as_str())),
                })
                .collect(),
        }
    }
}

/// The type that a value of `Type::Type` stands for.
pub(super) fn type_value(of: &Type) -> Arc<str> {
    let name = match of {
        Type::Null => "null_type",
        Type::List(_) => "list",
        Type::Map(_) => "map",
        Type::Type(_) => "type",
        Type::Optional(_) => "optional_type",
        other => return other.to_string().into(),
    };
    name.into()
}

impl fmt::Display for Value<'_> {
    /// As keys and indexes stand in messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Double(value) => f.write_str(&crate::registry::field::go_float(*value)),
            Self::String(text) => f.write_str(text),
            other => f.write_str(&other.type_name()),
        }
    }
}
