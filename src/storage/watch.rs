//! A watch: a cursor over a resource's events (upstream: `cacher.cacheWatcher`, which has a queue instead).
//!
//! A watch holds no events and no place in a list of receivers, so a slow one costs nothing and holds up
//! nobody; if it is so slow that history has gone on without it, it learns that it was compacted.

use super::metrics::{add, subtract};
use super::resource::{ResourceCache, State};
use super::{Event, StorageError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// At most this many events are handed out at once, so that a long catch-up is sent as it is read.
const BATCH_EVENTS_MAX: usize = 500;

pub struct Watch {
    resource: Arc<ResourceCache>,
    namespace: Option<String>,
    /// Everything up to here was handed out.
    cursor: u64,
    /// What was asked for: nothing up to here is handed out.
    after: u64,
}

impl Watch {
    /// Changes strictly after `from`, which may be yet to come.
    pub(super) fn new(resource: Arc<ResourceCache>, namespace: Option<&str>, from: u64) -> Result<Watch, StorageError> {
        let current = {
            let state = resource.read();
            let current = resource.position.revision();
            compacted(&state, from)?;
            current
        };
        add(&resource.metrics.watches, 1);
        Ok(Watch {
            resource,
            namespace: namespace.map(str::to_owned),
            cursor: from.min(current),
            after: from,
        })
    }

    /// The next changes, in order; waits until there is one. Nothing is lost if the future is dropped.
    /// `Compacted`: history went on without this watch. `Closed`: the store is shutting down.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, StorageError> {
        let resource = self.resource.clone();
        loop {
            // Made before looking: it is woken by what is published after this line.
            let changed = resource.awake.notified();
            let events = self.try_next()?;
            if !events.is_empty() {
                return Ok(events);
            }
            changed.await;
        }
    }

    /// Like [`Watch::next`], but returns nothing instead of waiting.
    pub fn try_next(&mut self) -> Result<Vec<Arc<Event>>, StorageError> {
        let state = self.resource.read();
        let current = self.resource.position.revision();
        if let Err(error) = compacted(&state, self.cursor) {
            add(&self.resource.metrics.watches_compacted, 1);
            return Err(error);
        }
        let mut events = Vec::new();
        for event in state.history.range(state.history_after(self.cursor)..) {
            if events.len() == BATCH_EVENTS_MAX {
                break;
            }
            self.cursor = event.revision();
            let namespace = self.namespace.as_deref();
            if self.cursor > self.after && namespace.is_none_or(|namespace| *event.entry.key.namespace == *namespace) {
                events.push(event.clone());
            }
        }
        if events.len() < BATCH_EVENTS_MAX {
            self.cursor = current;
        }
        if events.is_empty() && self.resource.position.closed.load(Ordering::Acquire) {
            return Err(StorageError::Closed);
        }
        Ok(events)
    }

    /// How many watches are open, over all resources.
    pub fn crowd(&self) -> u64 {
        self.resource.metrics.watches.load(Ordering::Relaxed)
    }

    /// The store's revision up to which everything was handed out: what a bookmark says. It grows also
    /// while only other resources change.
    pub fn revision(&self) -> u64 {
        let state = self.resource.read();
        let told = if state.changed > self.cursor {
            self.cursor
        } else {
            self.resource.position.revision()
        };
        told.max(self.after)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        subtract(&self.resource.metrics.watches, 1);
    }
}

/// A resource whose own events after `from` are all there can be watched from it, even below the store's floor.
fn compacted(state: &State, from: u64) -> Result<(), StorageError> {
    if from < state.forgotten {
        return Err(StorageError::Compacted {
            requested: from,
            oldest: state.forgotten,
        });
    }
    Ok(())
}
