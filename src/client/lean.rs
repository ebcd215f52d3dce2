//! Objects decoded without their managed fields, which nobody in this process reads and which cost more than many an
//! object's rest (upstream: informers' transforms, which drop them once they are decoded).

use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

/// An object that its managed fields are left out of. To be decoded from JSON only, and where no tag follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lean<K>(pub K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        decode(json.get(), glance(json.get()).as_ref())
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// Makes a wrapper of an object the resource that the object is.
macro_rules! same_resource {
    ($wrapper:ident<$object:ident: $bound:path>, |$inner:ident| $mutable:expr) => {
        impl<$object: $bound> Resource for $wrapper<$object> {
            type DynamicType = $object::DynamicType;
            type Scope = $object::Scope;

            fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
                $object::kind(dt)
            }
            fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
                $object::group(dt)
            }
            fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
                $object::version(dt)
            }
            fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
                $object::plural(dt)
            }
            fn meta(&self) -> &ObjectMeta {
                self.0.meta()
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                let $inner = &mut self.0;
                $mutable.meta_mut()
            }
        }
    };
}
pub(super) use same_resource;

same_resource!(Lean<K: Resource>, |inner| inner);

/// What the JSON of an object says of its metadata, without decoding it.
#[derive(Debug, Default, PartialEq)]
pub struct Glance<'a> {
    pub uid: &'a str,
    pub resource_version: &'a str,
    /// The member, and the comma that goes with it; empty if there is none.
    managed_fields: Range<usize>,
}

/// None if the text is no object with metadata.
pub fn glance(json: &str) -> Option<Glance<'_>> {
    let mut scan = Scan { json, at: 0 };
    let mut found = None;
    scan.members(|scan, key, _| {
        if key != "metadata" || found.is_some() {
            return scan.skip_value();
        }
        let mut glance = Glance::default();
        scan.members(|scan, key, start| {
            let value = scan.at;
            scan.skip_value()?;
            let text = &scan.json[value..scan.at];
            match key {
                "uid" => glance.uid = text.trim_matches('"'),
                "resourceVersion" => glance.resource_version = text.trim_matches('"'),
                "managedFields" => glance.managed_fields = scan.with_comma(start),
                _ => {}
            }
            Some(())
        })?;
        found = Some(glance);
        // The rest is of no interest.
        None
    });
    found
}

/// The object, without its managed fields if `glance` is what was seen in `json`.
pub fn decode<K: DeserializeOwned>(json: &str, glance: Option<&Glance<'_>>) -> serde_json::Result<K> {
    match glance.map(|glance| &glance.managed_fields) {
        Some(cut) if !cut.is_empty() => {
            let mut lean = String::with_capacity(json.len() - cut.len());
            lean.push_str(&json[..cut.start]);
            lean.push_str(&json[cut.end..]);
            serde_json::from_str(&lean)
        }
        _ => serde_json::from_str(json),
    }
}

/// A place in a JSON text that is known to be valid.
struct Scan<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// The next byte that is no space, if it is `byte`, is passed over.
    fn pass(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Calls `member` with each key of an object and where the key begins, at the key's value, which it passes over.
    fn members(&mut self, mut member: impl FnMut(&mut Self, &'a str, usize) -> Option<()>) -> Option<()> {
        self.pass(b'{')?;
        while self.pass(b'}').is_none() {
            let _ = self.pass(b',');
            self.skip_space();
            let start = self.at;
            self.skip_string()?;
            let key = &self.json[start + 1..self.at - 1];
            self.pass(b':')?;
            self.skip_space();
            member(self, key, start)?;
        }
        Some(())
    }

    fn skip_string(&mut self) -> Option<()> {
        self.pass(b'"')?;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                _ => {
                    self.at += 1;
                    let ends = |byte: u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                    if depth > 0 || !self.peek().is_none_or(ends) {
                        continue;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// From the key at `start` to here, with the comma before it or else behind it.
    fn with_comma(&self, start: usize) -> Range<usize> {
        let before = self.json[..start].trim_end();
        if before.ends_with(',') {
            return before.len() - 1..self.at;
        }
        let after = self.json[self.at..].trim_start();
        let space = self.json.len() - self.at - after.len();
        let comma = usize::from(after.starts_with(','));
        start..self.at + if comma == 1 { space + 1 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::WatchEvent;
    use kube::core::object::ObjectList;
    use serde_json::{Value, json};

    #[test]
    fn managed_fields_are_left_out_wherever_they_stand() {
        let fields = r#""managedFields":[{"manager":"a]}\"","fieldsV1":{"f:data":{"f:x":{}}}}]"#;
        for (metadata, uid) in [
            (format!(r#"{{"uid":"u",{fields},"resourceVersion":"7"}}"#), "u"),
            (format!(r#"{{{fields},"uid":"u","resourceVersion":"7"}}"#), "u"),
            (format!(r#"{{ {fields} , "uid":"u", "resourceVersion" : "7" }}"#), "u"),
            (format!(r#"{{"uid":"u","resourceVersion":"7" , {fields} }}"#), "u"),
            (
                format!(r#"{{"resourceVersion":"7","labels":{{"uid":"no","managedFields":"[]"}},{fields}}}"#),
                "",
            ),
            (
                format!("{{\n  \"uid\": \"u\",\n  {fields},\n  \"resourceVersion\": \"7\"\n}}"),
                "u",
            ),
        ] {
            for text in [
                format!(r#"{{"kind":"ConfigMap","data":{{"metadata":"{{","e":"\\"}},"metadata":{metadata}}}"#),
                format!(r#"{{"metadata":{metadata},"immutable":true,"data":{{"n":"x"}}}}"#),
            ] {
                let seen = glance(&text).unwrap();
                assert_eq!((seen.uid, seen.resource_version), (uid, "7"), "{text}");
                let lean: Value = decode(&text, Some(&seen)).unwrap();
                let mut expected: Value = serde_json::from_str(&text).unwrap();
                expected["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("managedFields");
                assert_eq!(lean, expected, "{text}");
            }
        }
    }

    #[test]
    fn other_texts_are_decoded_whole() {
        for text in [
            "",
            "7",
            "[]",
            "{}",
            r#"{"a":[{"metadata":{}}]}"#,
            r#"{"metadata":nul"#,
            r#"{"a":"b"#,
            "{\"a",
        ] {
            assert_eq!(glance(text), None, "{text}");
        }
        let plain = r#"{"metadata":{"name":"n"},"data":{"a":"b"}}"#;
        let seen = glance(plain).unwrap();
        assert_eq!(seen, Glance::default());
        assert_eq!(
            decode::<Value>(plain, Some(&seen)).unwrap(),
            serde_json::from_str::<Value>(plain).unwrap()
        );
        // Of another type than it should be: a clear error and no panic.
        assert!(decode::<ConfigMap>(r#"{"metadata":7}"#, glance(r#"{"metadata":7}"#).as_ref()).is_err());
    }

    #[test]
    fn events_and_lists_bring_them() {
        let object = json!({"metadata": {"name": "n", "managedFields": [{"manager": "m"}]}, "data": {"a": "b"}});
        let event = json!({"type": "MODIFIED", "object": object}).to_string();
        let WatchEvent::Modified(Lean(map)) = serde_json::from_str::<WatchEvent<Lean<ConfigMap>>>(&event).unwrap()
        else {
            panic!("{event}");
        };
        assert!(map.metadata.managed_fields.is_none() && map.metadata.name.as_deref() == Some("n"));
        let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [object]});
        let list: ObjectList<Lean<ConfigMap>> = serde_json::from_str(&list.to_string()).unwrap();
        assert!(list.items[0].0.metadata.managed_fields.is_none() && list.items[0].0.data == map.data);
    }
}
