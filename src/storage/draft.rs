//! Serialising an object once, with room for its resourceVersion (upstream: `storage/versioner.go`).

use super::{Draft, Entry, Index};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

impl Draft {
    /// Serialises `object`. A `metadata.resourceVersion` that it has is blanked where it stands, otherwise
    /// the field is put where upstream's field order has it: after `uid`, or at the end of the metadata.
    pub fn new(object: &Map<String, Value>, index: Index) -> Draft {
        let mut out = Out {
            json: Vec::with_capacity(1024),
            revision_at: None,
        };
        out.json.push(b'{');
        for (position, (name, value)) in object.iter().enumerate() {
            out.name(position == 0, name);
            match value {
                Value::Object(metadata) if name == "metadata" => out.metadata(metadata),
                _ => out.value(value),
            }
        }
        if out.revision_at.is_none() {
            out.name(object.is_empty(), "metadata");
            out.metadata(&Map::new());
        }
        out.json.push(b'}');
        Draft {
            revision_at: out.revision_at.unwrap_or(out.json.len()),
            json: out.json,
            index,
        }
    }

    /// The finished JSON: one allocation of the exact size, since it is kept as long as the object is.
    pub(super) fn splice(&self, revision: u64) -> Bytes {
        let digits = revision.to_string();
        let (head, tail) = self.json.split_at(self.revision_at);
        let mut bytes = Vec::with_capacity(self.json.len() + digits.len());
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(tail);
        Bytes::from(bytes)
    }

    /// Whether writing this over `entry` would change nothing but the resourceVersion.
    pub fn same_as(&self, entry: &Entry) -> bool {
        let (head, tail) = self.json.split_at(self.revision_at);
        let digits = entry.revision.to_string();
        entry.bytes.len() == self.json.len() + digits.len()
            && entry.bytes.starts_with(head)
            && entry.bytes[head.len()..].starts_with(digits.as_bytes())
            && entry.bytes.ends_with(tail)
    }
}

struct Out {
    json: Vec<u8>,
    revision_at: Option<usize>,
}

impl Out {
    fn name(&mut self, first: bool, name: &str) {
        if !first {
            self.json.push(b',');
        }
        self.value(name);
        self.json.push(b':');
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Neither a JSON value nor a string can fail to serialise, and a Vec takes every byte.
        serde_json::to_writer(&mut self.json, value).expect("a JSON value serialises");
    }

    fn metadata(&mut self, metadata: &Map<String, Value>) {
        let placed = metadata.contains_key("resourceVersion");
        let after_uid = !placed && metadata.contains_key("uid");
        self.json.push(b'{');
        for (position, (name, value)) in metadata.iter().enumerate() {
            if name == "resourceVersion" {
                self.revision(position == 0);
                continue;
            }
            self.name(position == 0, name);
            self.value(value);
            if after_uid && name == "uid" {
                self.revision(false);
            }
        }
        if !placed && !after_uid {
            self.revision(metadata.is_empty());
        }
        self.json.push(b'}');
    }

    fn revision(&mut self, first: bool) {
        self.name(first, "resourceVersion");
        self.json.push(b'"');
        self.revision_at = Some(self.json.len());
        self.json.push(b'"');
    }
}
