//! Keeps the table of kinds in step with the stored definitions (upstream: the informers of
//! `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`).
//!
//! It is done on the request path: a request sees all definitions that were committed before it came, so that whoever
//! has seen a definition established can use it. Where nothing changed it costs a comparison.

use super::ApiServer;
use crate::registry::custom::{DEFINITIONS, rows};
use crate::registry::intern::intern;
use crate::registry::{Kind, Registry};
use crate::storage::{Entry, EventKind, Storage, StorageError, Watch};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far the table has followed the definitions.
#[derive(Default)]
pub struct CustomResources {
    /// Revision of the last definition that the table shows.
    seen: AtomicU64,
    watch: Mutex<Option<Watch>>,
}

/// Kinds by the name of their definition; none if it is gone.
type Changes = BTreeMap<&'static str, Vec<Arc<Kind>>>;

impl CustomResources {
    /// Brings the table up to the last committed definition.
    pub fn refresh(&self, server: &ApiServer) {
        let (_, changed) = server.storage.changed(DEFINITIONS, None);
        if self.seen.load(Ordering::Acquire) == changed {
            return;
        }
        let mut watch = self.watch.lock();
        if self.seen.load(Ordering::Acquire) >= changed {
            return;
        }
        let mut changes = Changes::new();
        let known = self.take_events(watch.as_mut(), &server.registry, &mut changes);
        if !known {
            match everything(&server.storage, &server.registry, &mut changes) {
                Ok(fresh) => *watch = Some(fresh),
                Err(error) => {
                    tracing::error!(%error, "the definitions of custom resources cannot be read");
                    return;
                }
            }
        }
        let snapshot = server.registry.snapshot();
        changes.retain(|name, kinds| !same(snapshot.definition(name).unwrap_or_default(), kinds));
        retire(&server.registry, &changes);
        server.registry.set_custom(changes.into_iter().collect());
        self.seen.store(changed, Ordering::Release);
    }

    /// What changed since the last time; false if that is not known.
    fn take_events(&self, watch: Option<&mut Watch>, registry: &Registry, changes: &mut Changes) -> bool {
        let Some(watch) = watch else { return false };
        loop {
            match watch.try_next() {
                Ok(events) if events.is_empty() => return true,
                Ok(events) => {
                    for event in events {
                        match event.kind {
                            EventKind::Put => take(registry, &event.entry, changes),
                            EventKind::Delete => {
                                changes.insert(intern(&event.entry.key.name), Vec::new());
                            }
                        }
                    }
                }
                Err(StorageError::Closed) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// All definitions, and a watch of what comes.
fn everything(storage: &Storage, registry: &Registry, changes: &mut Changes) -> Result<Watch, StorageError> {
    let (snapshot, watch) = storage.list_and_watch(DEFINITIONS, None)?;
    changes.clear();
    for group in registry.snapshot().custom_groups().values() {
        changes.extend(group.definitions().map(|name| (name, Vec::new())));
    }
    for entry in &snapshot.entries {
        take(registry, entry, changes);
    }
    Ok(watch)
}

fn take(registry: &Registry, entry: &Entry, changes: &mut Changes) {
    let name = intern(&entry.key.name);
    let snapshot = registry.snapshot();
    let before = match changes.get(name) {
        Some(kinds) if !kinds.is_empty() => kinds.as_slice(),
        _ => snapshot.definition(name).unwrap_or_default(),
    };
    match rows(entry, before) {
        Ok(kinds) => {
            changes.insert(name, kinds);
        }
        Err(error) => tracing::error!(%error, "a custom resource is not served"),
    }
}

fn same(left: &[Arc<Kind>], right: &[Arc<Kind>]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| Arc::ptr_eq(left, right))
}

/// Ends what follows objects of definitions that are gone or have another schema.
fn retire(registry: &Registry, changes: &Changes) {
    let snapshot = registry.snapshot();
    for (name, kinds) in changes {
        let token = |kinds: &[Arc<Kind>]| kinds.first()?.custom.as_ref().map(|custom| custom.digest.clone());
        let before = snapshot.definition(name).unwrap_or_default();
        if token(before) != token(kinds)
            && let Some(custom) = before.first().and_then(|kind| kind.custom.as_ref())
        {
            custom.retired().cancel();
        }
    }
}

/// Refreshes whenever a definition changes, for as long as the store is open.
pub async fn follow(server: Arc<ApiServer>) {
    loop {
        // From now on: what was before is taken in by the look that follows. So whatever the history has forgotten, this
        // does not come to the same place again.
        let Ok(mut watch) = server.storage.watch(DEFINITIONS, None, server.storage.revision()) else {
            tokio::task::yield_now().await;
            continue;
        };
        loop {
            server.custom_resources.refresh(&server);
            match watch.next().await {
                Ok(_) => {}
                Err(StorageError::Compacted { .. }) => break,
                Err(_) => return,
            }
        }
    }
}
