//! Finds keys that are given twice, with their lines (upstream: the strict mode of `go-yaml`).

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// One reading of a document, which ends at the first repeated key after `skip` others.
pub struct Walk {
    skip: usize,
    found: Option<String>,
}

impl Walk {
    pub fn new(skip: usize) -> Self {
        Self { skip, found: None }
    }

    /// `line 4: key "foo" already set in map`
    pub fn run(&mut self, document: serde_yaml_ng::Deserializer<'_>) -> Option<String> {
        let error = Any(self).deserialize(document).err()?;
        let key = self.found.take()?;
        let line = error.location().map_or(0, |location| location.line());
        Some(format!("line {line}: key {key:?} already set in map"))
    }
}

struct Any<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Any(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while map
            .next_key_seed(Key {
                walk: self.0,
                seen: &mut seen,
            })?
            .is_some()
        {
            map.next_value_seed(Any(self.0))?;
        }
        Ok(())
    }
}

/// A key, which fails if the map has it already: so the error has the key's own line.
struct Key<'w, 's> {
    walk: &'w mut Walk,
    seen: &'s mut HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        if self.seen.insert(key.to_owned()) {
            return Ok(());
        }
        if self.walk.skip > 0 {
            self.walk.skip -= 1;
            return Ok(());
        }
        self.walk.found = Some(key.to_owned());
        Err(E::custom("repeated"))
    }

    fn visit_bool<E: de::Error>(self, key: bool) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_i64<E: de::Error>(self, key: i64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_u64<E: de::Error>(self, key: u64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_f64<E: de::Error>(self, key: f64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::repeated_keys;

    #[test]
    fn every_repeated_key_has_its_line() {
        let text = b"a: 1\nb:\n  c: 1\n  c: 2\na: 2\nlist:\n- {x: 1, x: 2}\n";
        assert_eq!(
            repeated_keys(text),
            [
                "line 4: key \"c\" already set in map",
                "line 5: key \"a\" already set in map",
                "line 7: key \"x\" already set in map",
            ]
        );
        assert!(repeated_keys(b"{\"a\": {\"b\": 1}, \"b\": 1}").is_empty());
    }
}
