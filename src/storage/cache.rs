//! Everything in memory: the resources, and the one way in which commits reach them (upstream: `cacher.Cacher`).

use super::metrics::{Metrics, add, subtract};
use super::resource::{Position, ResourceCache, held_bytes};
use super::{Entry, Event};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// Changes that are visible, and of which those who wait for changes have not heard yet.
#[must_use]
pub(super) struct Published<'a> {
    cache: &'a Cache,
    touched: Vec<Arc<ResourceCache>>,
}

impl Published<'_> {
    pub fn wake(self) {
        for resource in &self.touched {
            resource.awake.notify_waiters();
        }
        self.cache.published.send_replace(self.cache.revision());
    }
}

pub(super) struct Cache {
    pub position: Arc<Position>,
    pub metrics: Arc<Metrics>,
    /// Never shrinks: resources are kinds, and there are few.
    resources: RwLock<HashMap<Arc<str>, Arc<ResourceCache>>>,
    /// The latest revision, for those who wait for one.
    published: watch::Sender<u64>,
}

impl Cache {
    /// `floor` is the compaction floor, and the revision as long as nothing is published.
    pub fn new(floor: u64) -> Cache {
        let position = Position::default();
        position.revision.store(floor, Ordering::Release);
        position.floor.store(floor, Ordering::Release);
        Cache {
            position: Arc::new(position),
            metrics: Arc::default(),
            resources: RwLock::default(),
            published: watch::Sender::new(floor),
        }
    }

    pub fn revision(&self) -> u64 {
        self.position.revision()
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub fn find(&self, resource: &str) -> Option<Arc<ResourceCache>> {
        self.resources.read().get(resource).cloned()
    }

    /// The resource, made if this is its first use: something may be watched before it exists.
    pub fn resource(&self, resource: &str) -> Arc<ResourceCache> {
        if let Some(found) = self.find(resource) {
            return found;
        }
        let mut resources = self.resources.write();
        if let Some(found) = resources.get(resource) {
            return found.clone();
        }
        let name: Arc<str> = resource.into();
        let made = ResourceCache::new(name.clone(), self.position.clone(), self.metrics.clone());
        let made = Arc::new(made);
        resources.insert(name, made.clone());
        made
    }

    pub fn resources(&self) -> Vec<Arc<ResourceCache>> {
        self.resources.read().values().cloned().collect()
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.find(resource)?.get(namespace, name)
    }

    /// Makes committed changes visible, all at once and in order. Those who wait for them sleep until
    /// [`Published::wake`]. Only one task may call this and [`Cache::forget`].
    pub fn publish(&self, events: &[Arc<Event>]) -> Published<'_> {
        let Some(last) = events.last() else {
            return Published {
                cache: self,
                touched: Vec::new(),
            };
        };
        let mut touched: Vec<Arc<ResourceCache>> = Vec::new();
        let mut places = Vec::with_capacity(events.len());
        for event in events {
            let name = &event.entry.key.resource;
            let place = touched.iter().position(|resource| resource.name == *name);
            places.push(place.unwrap_or_else(|| {
                touched.push(self.resource(name));
                touched.len() - 1
            }));
        }
        // Readers hold one lock at a time and no other task takes several, so there is no deadlock.
        let mut states: Vec<_> = touched.iter().map(|resource| resource.write()).collect();
        let floor = self.position.floor();
        for (event, place) in events.iter().zip(places) {
            let remember = event.revision() > floor;
            if remember {
                add(&self.metrics.history_events, 1);
                add(&self.metrics.history_bytes, held_bytes(event));
            }
            states[place].apply(event.clone(), remember);
        }
        let revision = last.revision().max(self.revision());
        self.position.revision.store(revision, Ordering::Release);
        drop(states);
        Published { cache: self, touched }
    }

    /// Raises the floor and drops the events at or below it.
    pub fn forget(&self, floor: u64) {
        self.position.floor.store(floor, Ordering::Release);
        for resource in self.resources() {
            let dropped = resource.write().forget(floor);
            // Counted, and freed, after the lock.
            subtract(&self.metrics.history_events, dropped.len() as u64);
            subtract(&self.metrics.history_bytes, dropped.iter().map(|e| held_bytes(e)).sum());
        }
    }

    /// Ends all watches.
    pub fn close(&self) {
        self.position.closed.store(true, Ordering::Release);
        for resource in self.resources() {
            resource.awake.notify_waiters();
        }
    }
}
