//! Decides what a group of writes does: compare-and-swap, revisions, events (upstream: etcd's transactions). No I/O.

use super::cache::Cache;
use super::{Alongside, Draft, Entry, Event, EventKind, Key, Operation, StorageError};
use std::collections::HashMap;
use std::sync::Arc;

/// Writes that will be committed together. Each sees those before it.
pub(super) struct Batch<'a> {
    cache: &'a Cache,
    /// What the keys written by this batch are now; None is deleted.
    written: HashMap<Key, Option<Arc<Entry>>>,
    revision: u64,
    pub events: Vec<Arc<Event>>,
    /// Bytes of JSON in `events`.
    pub bytes: usize,
}

impl<'a> Batch<'a> {
    pub fn new(cache: &'a Cache) -> Batch<'a> {
        Batch {
            cache,
            written: HashMap::new(),
            revision: cache.revision(),
            events: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes a write in with what changes alongside, or refuses all of it. The entry is what the writer is answered
    /// once the batch is committed.
    pub fn add_with(&mut self, operation: Operation, alongside: Vec<Alongside>) -> Result<Arc<Entry>, StorageError> {
        let (kind, key, expected, draft) = match operation {
            Operation::Create { key, draft } => (EventKind::Put, key, None, draft),
            Operation::Update { key, expected, draft } => (EventKind::Put, key, Some(expected), draft),
            Operation::Delete { key, expected, draft } => (EventKind::Delete, key, Some(expected), draft),
        };
        let mut revised = Vec::new();
        for Alongside { key: other, revise } in alongside {
            let Some(entry) = self.current(&other) else { continue };
            let draft = revise(&entry).map_err(|why| StorageError::Refused { key: key.clone(), why })?;
            revised.extend(draft.map(|draft| (entry, draft)));
        }
        let previous = self.current(&key);
        match (&previous, expected) {
            (None, None) => {}
            (Some(_), None) => return Err(StorageError::AlreadyExists(key)),
            (None, Some(_)) => return Err(StorageError::NotFound(key)),
            (Some(entry), Some(expected)) if entry.revision != expected => {
                let current = entry.revision;
                return Err(StorageError::Conflict { key, current });
            }
            (Some(_), Some(_)) => {}
        }
        for (entry, draft) in revised {
            self.accept(EventKind::Put, entry.key.clone(), draft, Some(entry));
        }
        // The strings of a key exist once, however often the object is written.
        let key = match &previous {
            Some(entry) => entry.key.clone(),
            None => self.cache.resource(&key.resource).intern(key),
        };
        Ok(self.accept(kind, key, draft, previous))
    }

    #[cfg(test)]
    pub fn add(&mut self, operation: Operation) -> Result<Arc<Entry>, StorageError> {
        self.add_with(operation, Vec::new())
    }

    /// The object as the writes before left it.
    fn current(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.cache.get(&key.resource, &key.namespace, &key.name),
        }
    }

    fn accept(&mut self, kind: EventKind, key: Key, draft: Draft, previous: Option<Arc<Entry>>) -> Arc<Entry> {
        self.revision += 1;
        let entry = Arc::new(Entry {
            bytes: draft.splice(self.revision),
            revision: self.revision,
            key: key.clone(),
            index: draft.index,
        });
        self.bytes += entry.bytes.len();
        self.written
            .insert(key, (kind == EventKind::Put).then(|| entry.clone()));
        self.events.push(Arc::new(Event {
            kind,
            entry: entry.clone(),
            previous,
        }));
        entry
    }
}
