//! Values as JSON, for what becomes a part of an object (upstream: `ConvertToNative` to `structpb.Value`).

use super::error::Error;
use super::library::native;
use super::value::{List, Map, Value};
use base64::Engine as _;
use serde_json::{Map as Members, Number, Value as Json};

/// Above this a double is no whole number that JSON could show without a fraction.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl Value<'_> {
    /// The value as JSON; Err if it has no form there.
    pub fn to_json(&self) -> Result<Json, Error> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Uint(value) => Json::from(*value),
            Self::Double(value) => number(*value)?,
            Self::String(text) => Json::from(&**text),
            Self::Bytes(bytes) => Json::from(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Self::Duration(_) | Self::Timestamp(_) | Self::Ip(_) | Self::Cidr(_) => match native("string") {
                Some(string) => string(std::slice::from_ref(self))?.to_json()?,
                None => return Err(Error::NoSuchOverload),
            },
            Self::Quantity(quantity) => Json::from(quantity.to_string()),
            Self::List(List::Json { items, .. }) => Json::Array(items.to_vec()),
            Self::List(List::Values(items)) => {
                Json::Array(items.iter().map(Value::to_json).collect::<Result<_, Error>>()?)
            }
            Self::Map(Map::Json { members, .. }) => Json::Object((*members).clone()),
            Self::Map(Map::Values(entries)) => {
                let mut members = Members::new();
                for (key, value) in entries.iter() {
                    let Value::String(name) = key else {
                        return Err(Error::of(format!(
                            "map key {key} is of type {}, not string",
                            key.type_name()
                        )));
                    };
                    members.insert(name.to_string(), value.to_json()?);
                }
                Json::Object(members)
            }
            Self::Struct(structure) => {
                let mut members = Members::new();
                for (name, value) in &structure.fields {
                    members.insert(name.to_string(), value.to_json()?);
                }
                Json::Object(members)
            }
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Optional(None) => Json::Null,
            Self::Preserved(json) => (*json).clone(),
            other => {
                let name = other.type_name();
                return Err(Error::of(format!("unsupported type conversion from '{name}' to JSON")));
            }
        })
    }
}

/// Whole numbers are written as such.
fn number(value: f64) -> Result<Json, Error> {
    if value.fract() == 0.0 && value.abs() < WHOLE_MAX {
        return Ok(Json::from(value as i64));
    }
    Number::from_f64(value)
        .map(Json::Number)
        .ok_or_else(|| Error::of(format!("{value} is no number of JSON")))
}
