//! Whole lists in forms that cost something to make: their items are made once per change and shared by all who ask
//! (upstream makes every list anew). The plain JSON form is shared by the store itself.

use crate::apiserver::codec::protobuf;
use crate::apiserver::codec::shared::message;
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

/// Which list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scope {
    resource: &'static str,
    group: &'static str,
    version: &'static str,
    namespace: Option<String>,
}

/// The items of a list, as they stand in its message.
#[derive(Clone)]
pub struct Items {
    /// The list's resourceVersion.
    pub revision: u64,
    pub bytes: Bytes,
}

struct Slot {
    /// See [`crate::storage::Snapshot::changed`].
    changed: u64,
    bytes: Bytes,
    used: Instant,
}

type Place = Arc<Mutex<Option<Slot>>>;

#[derive(Default)]
pub struct SharedLists(Mutex<HashMap<Scope, Place>>);

impl SharedLists {
    /// All objects of the kind as items of a protobuf list. Blocks while they are made; who comes meanwhile waits for
    /// them instead of making them, too.
    pub fn protobuf(&self, storage: &Storage, kind: &Kind, namespace: Option<&str>) -> Result<Items, ApiError> {
        let place = self.place(kind, namespace);
        let mut slot = place.lock();
        let (revision, changed) = storage.changed(kind.storage_resource, namespace);
        if let Some(slot) = slot.as_mut().filter(|slot| slot.changed == changed) {
            slot.used = Instant::now();
            let bytes = slot.bytes.clone();
            return Ok(Items { revision, bytes });
        }
        let snapshot = storage
            .list(kind.storage_resource, namespace, None)
            .map_err(|error| ApiError::from_storage(error, kind))?;
        let mut items = Vec::with_capacity(snapshot.entries.iter().map(|entry| entry.bytes.len()).sum());
        for entry in &snapshot.entries {
            protobuf::push_item(&mut items, &message(kind, entry)?);
        }
        items.shrink_to_fit();
        let bytes = Bytes::from(items);
        *slot = (bytes.len() <= ONE_BYTES_MAX).then(|| Slot {
            changed: snapshot.changed,
            bytes: bytes.clone(),
            used: Instant::now(),
        });
        Ok(Items {
            revision: snapshot.revision,
            bytes,
        })
    }

    fn place(&self, kind: &Kind, namespace: Option<&str>) -> Place {
        let scope = Scope {
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
            let bytes = slot.as_ref().map_or(0, |slot| slot.bytes.len());
            let fits = kept + bytes <= KEPT_BYTES_MAX;
            kept += if fresh && fits { bytes } else { 0 };
            fresh && fits
        });
        places.entry(scope).or_default().clone()
    }
}
