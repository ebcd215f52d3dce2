//! Reads the parts of a JSON object that somebody looks at, and skips the rest: columns show little of an object, and
//! making a tree of all of it costs ten times what they cost. No upstream counterpart: upstream keeps objects decoded.

use super::strategy::Object;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::fmt;

/// Which parts of a value are read. Of a list the same parts of each item.
#[derive(Clone, Copy, Debug)]
pub enum Parts {
    All,
    /// Not read: the key is absent.
    Nothing,
    /// Of these keys these parts, and nothing of the others.
    Only(&'static [(&'static str, Parts)]),
    /// Of these keys these parts, and all of the others.
    But(&'static [(&'static str, Parts)]),
}

/// All but what nobody shows.
pub const WITHOUT_MANAGED_FIELDS: Parts = Parts::But(&[("metadata", Parts::But(&[("managedFields", Parts::Nothing)]))]);

impl Parts {
    /// Reads these parts of an object.
    pub fn read(self, json: &[u8]) -> serde_json::Result<Object> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        match self.deserialize(&mut reader)? {
            Value::Object(object) => Ok(object),
            _ => Err(serde_json::Error::custom("this is no object")),
        }
    }

    fn of(self, key: &str) -> Parts {
        let (keys, others) = match self {
            Parts::All | Parts::Nothing => return self,
            Parts::Only(keys) => (keys, Parts::Nothing),
            Parts::But(keys) => (keys, Parts::All),
        };
        let named = keys.iter().find(|(name, _)| *name == key);
        named.map_or(others, |(_, parts)| *parts)
    }
}

impl<'de> DeserializeSeed<'de> for Parts {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Parts::All => serde::Deserialize::deserialize(deserializer),
            Parts::Nothing => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null),
            Parts::Only(_) | Parts::But(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Parts {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            match self.of(&key) {
                Parts::Nothing => {
                    entries.next_value::<IgnoredAny>()?;
                }
                parts => {
                    object.insert(key.into_owned(), entries.next_value_seed(parts)?);
                }
            }
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// A key, borrowed where it can be: most are skipped.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

/// What stands at `wanted` in an object, as it stands there; what comes behind it is not looked at. None if there is no such
/// key, or if the object cannot be read as far as there.
pub fn raw_value<'a>(json: &'a [u8], wanted: &str) -> Option<&'a str> {
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let search = Search {
        wanted,
        found: &mut found,
    };
    // Stopping in the middle is an error to the reader.
    let _ = (&mut reader).deserialize_map(search);
    found
}

struct Search<'s, 'de> {
    wanted: &'s str,
    found: &'s mut Option<&'de str>,
}

impl<'de> Visitor<'de> for Search<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key_seed(Key)? {
            if key == self.wanted {
                let raw: &'de serde_json::value::RawValue = entries.next_value()?;
                *self.found = Some(raw.get());
                return Ok(());
            }
            entries.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OBJECT: &str =
        r#"{"a":{"b":[{"c":1,"d":-2},{"c":1.5},"x",null,true]},"e\n":"f","metadata":{"n":{"o":[]}},"z":{}}"#;

    #[test]
    fn only_what_is_asked_for() {
        for (parts, expected) in [
            (Parts::All, serde_json::from_str(OBJECT).unwrap()),
            (Parts::Only(&[]), json!({})),
            (
                Parts::Only(&[("z", Parts::Only(&[])), ("e\n", Parts::All)]),
                json!({"e\n": "f", "z": {}}),
            ),
            (
                Parts::Only(&[("a", Parts::Only(&[("b", Parts::Only(&[("c", Parts::All)]))]))]),
                json!({"a": {"b": [{"c": 1}, {"c": 1.5}, "x", null, true]}}),
            ),
            (
                Parts::But(&[
                    ("a", Parts::Nothing),
                    ("metadata", Parts::But(&[("n", Parts::Nothing)])),
                ]),
                json!({"e\n": "f", "metadata": {}, "z": {}}),
            ),
        ] {
            let read = parts.read(OBJECT.as_bytes()).unwrap();
            assert_eq!(Value::Object(read), expected, "{parts:?}");
        }
        assert!(Parts::All.read(b"[]").is_err());
        assert!(Parts::Only(&[]).read(br#"{"a":"#).is_err());
    }

    #[test]
    fn values_as_they_stand() {
        let found = |key| raw_value(OBJECT.as_bytes(), key);
        assert_eq!(found("metadata"), Some(r#"{"n":{"o":[]}}"#));
        assert_eq!((found("e\n"), found("n")), (Some(r#""f""#), None));
        assert_eq!(raw_value(br#"{"metadata":{},"#, "metadata"), Some("{}"));
        assert_eq!(raw_value(br#"{"a":,"metadata":{}}"#, "metadata"), None);
    }
}
