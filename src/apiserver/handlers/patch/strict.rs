//! JSON without a schema, read so that keys that are given twice are noticed
//! (upstream: `sigs.k8s.io/json`, UnmarshalStrict into maps).

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Upstream stops collecting at the same number.
const ERRORS_MAX: usize = 100;

/// A value, of equal keys the last, and `duplicate field "spec.x"` for each that was given again.
pub struct Strict {
    pub value: Value,
    pub errors: Vec<String>,
}

/// Reads one JSON value. Err is Go's text where it is known.
pub fn parse(bytes: &[u8]) -> Result<Strict, String> {
    let mut walk = Walk::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&mut walk)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            if error.is_eof() {
                "unexpected end of JSON input".to_owned()
            } else {
                error.to_string()
            }
        })?;
    Ok(Strict {
        value,
        errors: walk.errors,
    })
}

#[derive(Default)]
struct Walk {
    path: String,
    errors: Vec<String>,
}

impl Walk {
    fn below<T>(&mut self, step: &str, visit: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let result = visit(self);
        self.path.truncate(length);
        result
    }
}

struct Seed<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let walk = self.0;
        while let Some(item) = walk.below(&format!("[{}]", items.len()), |walk| {
            sequence.next_element_seed(Seed(walk))
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        let walk = self.0;
        while let Some(key) = map.next_key::<String>()? {
            let dot = if walk.path.is_empty() { "" } else { "." };
            if fields.contains_key(&key) && walk.errors.len() < ERRORS_MAX {
                walk.errors.push(format!("duplicate field \"{}{dot}{key}\"", walk.path));
            }
            let value = walk.below(&format!("{dot}{key}"), |walk| map.next_value_seed(Seed(walk)))?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_given_twice_are_named_and_the_last_counts() {
        let strict = parse(br#"{"a":1,"a":2,"l":[{"x":{"y":1,"y":2}}]}"#).unwrap();
        assert_eq!(
            strict.errors,
            [r#"duplicate field "a""#, r#"duplicate field "l[0].x.y""#]
        );
        assert_eq!(strict.value["a"], 2);
        assert_eq!(parse(b"{").err().as_deref(), Some("unexpected end of JSON input"));
        assert!(parse(b"{} x").is_err());
    }
}
