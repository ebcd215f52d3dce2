//! Whole lists in forms that cost something to make: their items are made once per change and shared by all who ask
//! (upstream makes every list anew). The plain JSON form costs no more than a copy,
//! and is not kept.

use super::gzip::Packed;
use crate::apiserver::codec::protobuf;
use crate::apiserver::codec::shared::message;
use crate::apiserver::codec::stored::ItemHead;
use crate::apiserver::error::ApiError;
use crate::registry::Kind;
use crate::storage::Storage;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Larger ones are not kept.
const ONE_BYTES_MAX: usize = 32 << 20;
/// All that is kept together.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// What nobody asked for in this time is dropped.
const UNUSED_MAX: Duration = Duration::from_secs(60);

/// Which list, and what was made of its items.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scope {
    form: Form,
    resource: &'static str,
    group: &'static str,
    version: &'static str,
    namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As they stand in the message of a list.
    Protobuf,
    /// The same, compressed.
    PackedProtobuf,
    /// As they stand in a list of JSON, compressed.
    PackedJson,
}

/// The items of a list.
#[derive(Clone)]
pub enum Body {
    Plain(Bytes),
    Packed(Arc<Packed>),
}

impl Body {
    fn kept_bytes(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed(packed) => packed.deflated.len(),
        }
    }
}

#[derive(Clone)]
pub struct Items {
    /// The list's resourceVersion.
    pub revision: u64,
    pub body: Body,
}

struct Slot {
    /// See [`crate::storage::Snapshot::changed`].
    changed: u64,
    body: Body,
    /// Of a plain body: the revision of each item and where it ends, in order. What has not changed is copied.
    parts: Vec<(u64, usize)>,
    used: Instant,
}

type Place = Arc<Mutex<Option<Slot>>>;

#[derive(Default)]
pub struct SharedLists(Mutex<HashMap<Scope, Place>>);

impl SharedLists {
    /// All objects of the kind as the items of a list. Blocks while they are made; who comes meanwhile waits for them
    /// instead of making them, too.
    pub fn get(&self, storage: &Storage, kind: &Kind, namespace: Option<&str>, form: Form) -> Result<Items, ApiError> {
        let place = self.place(kind, namespace, form);
        let mut slot = place.lock();
        let (revision, changed) = storage.changed(kind.storage_resource, namespace);
        if let Some(slot) = slot.as_mut().filter(|slot| slot.changed == changed) {
            slot.used = Instant::now();
            let body = slot.body.clone();
            return Ok(Items { revision, body });
        }
        let mut parts = Vec::new();
        let (revision, changed, body) = match form {
            Form::Protobuf => {
                let snapshot = storage
                    .list(kind.storage_resource, namespace, None)
                    .map_err(|error| ApiError::from_storage(error, kind))?;
                let earlier = slot.take();
                let known = earlier.as_ref().map(known).unwrap_or_default();
                parts.reserve_exact(snapshot.entries.len());
                let mut items = Vec::with_capacity(snapshot.entries.iter().map(|entry| entry.bytes.len()).sum());
                for entry in &snapshot.entries {
                    match known.get(&entry.revision) {
                        Some(item) => items.extend_from_slice(item),
                        None => protobuf::push_item(&mut items, &message(kind, entry)?),
                    }
                    parts.push((entry.revision, items.len()));
                }
                items.shrink_to_fit();
                (snapshot.revision, snapshot.changed, Body::Plain(items.into()))
            }
            Form::PackedProtobuf => {
                let items = self.get(storage, kind, namespace, Form::Protobuf)?;
                let Body::Plain(bytes) = items.body else {
                    return Ok(items);
                };
                // Named by what was looked at before: what is newer is at worst made once more.
                (
                    items.revision,
                    changed,
                    Body::Packed(Arc::new(Packed::new([&bytes[..]]))),
                )
            }
            Form::PackedJson => {
                let list = storage
                    .list(kind.storage_resource, namespace, None)
                    .map_err(|error| ApiError::from_storage(error, kind))?;
                let item_head = ItemHead::of(kind);
                let items = list.entries.iter().enumerate();
                let pieces = items.flat_map(|(position, entry)| {
                    let comma: &[u8] = if position > 0 { b"," } else { b"" };
                    let [head, rest] = item_head.item(&entry.bytes);
                    [comma, head, rest]
                });
                let packed = Packed::new(pieces);
                (list.revision, list.changed, Body::Packed(Arc::new(packed)))
            }
        };
        *slot = (body.kept_bytes() <= ONE_BYTES_MAX).then(|| Slot {
            changed,
            body: body.clone(),
            parts,
            used: Instant::now(),
        });
        Ok(Items { revision, body })
    }

    fn place(&self, kind: &Kind, namespace: Option<&str>, form: Form) -> Place {
        let scope = Scope {
            form,
            resource: kind.storage_resource,
            group: kind.group,
            version: kind.version,
            namespace: namespace.map(str::to_owned),
        };
        let mut places = self.0.lock();
        let mut kept = 0;
        places.retain(|_, place| {
            // Locked means in use.
            let Some(slot) = place.try_lock() else {
                return true;
            };
            let fresh = slot.as_ref().is_some_and(|slot| slot.used.elapsed() < UNUSED_MAX);
            let bytes = slot.as_ref().map_or(0, |slot| slot.body.kept_bytes());
            let fits = kept + bytes <= KEPT_BYTES_MAX;
            kept += if fresh && fits { bytes } else { 0 };
            fresh && fits
        });
        places.entry(scope).or_default().clone()
    }
}

/// The items of an earlier list by revision, which every version of an object has for itself.
fn known(slot: &Slot) -> HashMap<u64, &[u8], ahash::RandomState> {
    let Body::Plain(bytes) = &slot.body else {
        return HashMap::default();
    };
    let starts = std::iter::once(0).chain(slot.parts.iter().map(|(_, end)| *end));
    let parts = slot.parts.iter().zip(starts);
    parts
        .map(|((revision, end), start)| (*revision, &bytes[start..*end]))
        .collect()
}
