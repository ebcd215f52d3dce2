//! Encodings of stored objects and of their events that several readers get: made once, and kept while they are
//! likely to be asked for (upstream: `cachingObject`, and the apiserver's encoder cache for watches).
//!
//! Every version of an object has a revision of its own, so a revision and a form name what was made. What was made
//! first is dropped first: events are read shortly after they happened.

use super::accept::{Format, Transform};
use super::{protobuf, stored};
use crate::apiserver::error::ApiError;
use crate::registry::{Kind, schema};
use crate::storage::Entry;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};

/// All that is kept together.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// Larger ones are not kept.
const ONE_BYTES_MAX: usize = KEPT_BYTES_MAX / 8;

/// What was made of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A custom resource as a webhook converted it, by the definition that this stands for.
    Converted(u64),
    /// The protobuf message without envelope.
    Message,
    /// A watch event.
    Event {
        /// `ADDED` and so on.
        event: &'static str,
        /// The version before, for a watcher whose selection the object has left.
        left: bool,
        format: Format,
        transform: Transform,
        framed: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    revision: u64,
    group: &'static str,
    version: &'static str,
    form: Form,
}

impl Key {
    fn of(kind: &Kind, revision: u64, form: Form) -> Self {
        Self {
            revision,
            group: kind.group,
            version: kind.version,
            form,
        }
    }
}

#[derive(Default)]
pub struct Shared(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    encoded: HashMap<Key, Bytes, ahash::RandomState>,
    /// In the order in which they were made.
    order: VecDeque<Key>,
    bytes: usize,
}

impl Shared {
    /// What was made of the version `revision` in this form, if it is there.
    pub fn get(&self, kind: &Kind, revision: u64, form: Form) -> Option<Bytes> {
        self.0.lock().encoded.get(&Key::of(kind, revision, form)).cloned()
    }

    pub fn keep(&self, kind: &Kind, revision: u64, form: Form, made: Bytes) {
        self.0.lock().keep(Key::of(kind, revision, form), made);
    }

    /// What was made of the version `revision` in this form; made now if it is not there. Two who come at once may
    /// both make it.
    pub fn get_or_make(
        &self,
        kind: &Kind,
        revision: u64,
        form: Form,
        make: impl FnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Bytes, ApiError> {
        if let Some(found) = self.get(kind, revision, form) {
            return Ok(found);
        }
        let made = make()?;
        self.keep(kind, revision, form, made.clone());
        Ok(made)
    }

    /// The object's protobuf message without envelope.
    pub fn protobuf(&self, kind: &Kind, entry: &Entry) -> Result<Bytes, ApiError> {
        self.get_or_make(kind, entry.revision, Form::Message, || message(kind, entry))
    }
}

/// The object's protobuf message without envelope, made anew: for lists, which would drive out all else.
pub fn message(kind: &Kind, entry: &Entry) -> Result<Bytes, ApiError> {
    let definition = schema::definition(kind);
    protobuf::encode_json(&definition, &stored::bytes(kind, entry)?)
        .map(Bytes::from)
        .map_err(ApiError::internal)
}

impl Kept {
    fn keep(&mut self, key: Key, bytes: Bytes) {
        if bytes.len() > ONE_BYTES_MAX || self.encoded.contains_key(&key) {
            return;
        }
        self.bytes += bytes.len();
        self.encoded.insert(key, bytes);
        self.order.push_back(key);
        while self.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.encoded.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn made_once_and_bounded() {
        let shared = Shared::default();
        let kind = Registry::builtin().lookup("", "v1", "pods").unwrap();
        let mut made = 0;
        for revision in [1, 2, 1, 2, 1] {
            let bytes = shared.get_or_make(&kind, revision, Form::Message, || {
                made += 1;
                Ok(Bytes::from(vec![0; 1000]))
            });
            assert_eq!(bytes.unwrap().len(), 1000);
        }
        assert_eq!(made, 2);
        for revision in 3..20_000 {
            let make = || Ok(Bytes::from(vec![0; 1000]));
            shared.get_or_make(&kind, revision, Form::Message, make).unwrap();
        }
        let kept = shared.0.lock();
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.bytes > KEPT_BYTES_MAX - 2000);
        assert_eq!(
            (kept.encoded.len(), kept.bytes),
            (kept.order.len(), kept.order.len() * 1000)
        );
    }
}
