//! What is derived from stored objects, kept up to date with every committed change (upstream: informers, which lag).
//!
//! Nothing runs in the background: whoever reads first takes in what was committed since the last look. So a
//! decision always rests on every write that was acknowledged before it, and a quiet store costs one comparison.

use crate::storage::{Entry, Event, EventKind, Storage, StorageError, Watch};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What objects of some resources are turned into.
pub trait Mirror: Default + Send + Sync {
    /// The resources that are followed.
    const RESOURCES: &'static [&'static str];

    /// Forgets all objects of a resource.
    fn clear(&mut self, resource: &str);

    /// Takes in an object; `previous` is the version that it replaces, if it was there.
    fn put(&mut self, entry: &Entry, previous: Option<&Entry>);

    /// The object is gone; `entry` is its last version.
    fn remove(&mut self, entry: &Entry);
}

/// A mirror and its place in the store's history.
pub struct Follower<M> {
    storage: Arc<Storage>,
    /// The revision that the mirror shows at least.
    seen: AtomicU64,
    watches: Mutex<Vec<Option<Watch>>>,
    mirror: RwLock<M>,
}

impl<M: Mirror> Follower<M> {
    pub fn new(storage: Arc<Storage>) -> Self {
        Self {
            storage,
            seen: AtomicU64::new(0),
            watches: Mutex::new(M::RESOURCES.iter().map(|_| None).collect()),
            mirror: RwLock::default(),
        }
    }

    /// The mirror with everything committed so far. Not to be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, M> {
        let now = self.storage.revision();
        if self.seen.load(Ordering::Acquire) < now {
            self.catch_up(now);
        }
        self.mirror.read()
    }

    fn catch_up(&self, now: u64) {
        let mut watches = self.watches.lock();
        if self.seen.load(Ordering::Acquire) >= now {
            return;
        }
        for (resource, watch) in M::RESOURCES.iter().zip(watches.iter_mut()) {
            if let Err(error) = self.follow(resource, watch) {
                // The store is closing: what is known stays.
                tracing::debug!(%error, resource, "changes can not be followed any longer");
                return;
            }
        }
        self.seen.store(now, Ordering::Release);
    }

    fn follow(&self, resource: &str, watch: &mut Option<Watch>) -> Result<(), StorageError> {
        loop {
            let events = match watch.as_mut().map(Watch::try_next) {
                Some(Ok(events)) => events,
                // History went on without us, or this is the first look.
                Some(Err(StorageError::Compacted { .. })) | None => {
                    let (snapshot, fresh) = self.storage.list_and_watch(resource, None)?;
                    let mut mirror = self.mirror.write();
                    mirror.clear(resource);
                    for entry in &snapshot.entries {
                        mirror.put(entry, None);
                    }
                    *watch = Some(fresh);
                    return Ok(());
                }
                Some(Err(error)) => return Err(error),
            };
            if events.is_empty() {
                return Ok(());
            }
            let mut mirror = self.mirror.write();
            for event in events {
                apply(&mut *mirror, &event);
            }
        }
    }
}

fn apply<M: Mirror>(mirror: &mut M, event: &Event) {
    match event.kind {
        EventKind::Put => mirror.put(&event.entry, event.previous.as_deref()),
        EventKind::Delete => mirror.remove(&event.entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Registry, metadata_index};
    use crate::storage::{Draft, Key, Operation, Options};
    use serde_json::json;
    use std::collections::BTreeSet;

    #[derive(Default)]
    struct Names(BTreeSet<String>);

    impl Mirror for Names {
        const RESOURCES: &'static [&'static str] = &["configmaps", "secrets"];

        fn clear(&mut self, resource: &str) {
            self.0.retain(|name| !name.starts_with(resource));
        }

        fn put(&mut self, entry: &Entry, _previous: Option<&Entry>) {
            self.0.insert(entry.key.to_string());
        }

        fn remove(&mut self, entry: &Entry) {
            self.0.remove(&entry.key.to_string());
        }
    }

    fn create(resource: &str, name: &str) -> Operation {
        let object = json!({"metadata": {"name": name}});
        let object = object.as_object().unwrap();
        Operation::Create {
            key: Key::new(resource, "default", name),
            draft: Draft::new(object, metadata_index(object)),
        }
    }

    #[tokio::test]
    async fn a_reader_sees_every_acknowledged_write_and_survives_forgotten_history() {
        let options = Options {
            history_events_max: 1,
            ..Options::memory()
        };
        let storage = Storage::open(options, Registry::builtin()).await.unwrap();
        storage.write(create("configmaps", "before")).await.unwrap();
        let follower: Follower<Names> = Follower::new(storage.clone());
        assert_eq!(follower.read().0.len(), 1);
        let entry = storage.write(create("secrets", "a")).await.unwrap();
        storage.write(create("pods", "other")).await.unwrap();
        assert!(follower.read().0.contains("secrets default/a"));
        for number in 0..20 {
            storage.write(create("secrets", &format!("s{number}"))).await.unwrap();
        }
        assert_eq!(follower.read().0.len(), 22);
        let object = json!({"metadata": {"name": "a"}});
        let object = object.as_object().unwrap();
        let delete = Operation::Delete {
            key: entry.key.clone(),
            expected: entry.revision,
            draft: Draft::new(object, metadata_index(object)),
        };
        storage.write(delete).await.unwrap();
        assert!(!follower.read().0.contains("secrets default/a"));
        storage.close().await;
        assert_eq!(follower.read().0.len(), 21, "a closed store leaves what is known");
    }
}
