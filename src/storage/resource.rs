//! One resource in memory: its current objects and its recent events (upstream: `cacher`'s `watchCache`).

use super::metrics::Metrics;
use super::{Entry, Event, EventKind, Key, Snapshot, StorageError, Window};
use parking_lot::{RwLock, RwLockWriteGuard};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// Where the whole store stands. Both only grow.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// The latest committed revision, stored while the changed resources are locked for writing. Who reads
    /// it under a resource's lock therefore sees all of that resource's changes up to it and none after it.
    pub revision: AtomicU64,
    /// Events at or below are forgotten; stored before they are, so the same holds for who reads this.
    pub floor: AtomicU64,
    pub closed: AtomicBool,
}

impl Position {
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }
}

pub(super) struct ResourceCache {
    pub name: Arc<str>,
    pub position: Arc<Position>,
    pub metrics: Arc<Metrics>,
    state: RwLock<State>,
    /// Wakes the watches after their events are in `state`.
    pub awake: Notify,
}

/// What a resource's lock protects.
#[derive(Default)]
pub(super) struct State {
    /// By `namespace/`, so that iterating gives the order of lists (see [`Key::compare_path`]).
    namespaces: BTreeMap<String, Namespace>,
    pub objects: usize,
    /// Of all objects together.
    pub bytes: usize,
    /// Revision of the last change.
    pub changed: u64,
    /// In order of revision, complete above `forgotten`.
    pub history: VecDeque<Arc<Event>>,
    pub forgotten: u64,
}

struct Namespace {
    name: Arc<str>,
    objects: BTreeMap<Arc<str>, Arc<Entry>>,
    changed: u64,
}

impl ResourceCache {
    pub fn new(name: Arc<str>, position: Arc<Position>, metrics: Arc<Metrics>) -> ResourceCache {
        let state = State {
            forgotten: position.floor(),
            ..State::default()
        };
        ResourceCache {
            name,
            position,
            metrics,
            state: RwLock::new(state),
            awake: Notify::new(),
        }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let state = self.state.read();
        state.namespaces.get(&scope(namespace))?.objects.get(name).cloned()
    }

    /// How many objects, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.objects, state.bytes)
    }

    /// `at` is a revision, or None for now.
    pub fn list(&self, namespace: Option<&str>, at: Option<u64>) -> Result<Snapshot, StorageError> {
        let state = self.state.read();
        let requested = self.readable(at)?;
        let mut entries = state.entries(namespace);
        let undone = state.undone(namespace, requested);
        if undone.is_empty() && state.history_after(requested) == state.history.len() {
            return Ok(Snapshot {
                revision: requested,
                changed: state.changed_in(namespace),
                entries,
            });
        }
        entries.retain(|entry| !undone.contains_key(&entry.key));
        entries.extend(undone.values().filter_map(|previous| previous.cloned()));
        entries.sort_by(|left, right| left.key.cmp(&right.key));
        // What a reader derives from a past state is not worth keeping: it gets a name of its own.
        Ok(Snapshot {
            revision: requested,
            changed: requested,
            entries,
        })
    }

    /// `limit` objects of such a list from `namespace/name` on, without a look at those before.
    pub fn window(
        &self,
        namespace: Option<&str>,
        at: Option<u64>,
        start: (&str, &str),
        limit: usize,
    ) -> Result<Window, StorageError> {
        let state = self.state.read();
        let revision = self.readable(at)?;
        let undone = state.undone(namespace, revision);
        let not_before = |entry: &&Arc<Entry>| entry.key.compare_path(start.0, start.1) != std::cmp::Ordering::Less;
        let mut back: Vec<&Arc<Entry>> = undone
            .values()
            .filter_map(|previous| *previous)
            .filter(not_before)
            .collect();
        back.sort_by(|left, right| left.key.cmp(&right.key));
        let mut back = back.into_iter().peekable();
        let mut now = state
            .entries_from(namespace, start)
            .filter(|entry| undone.is_empty() || !undone.contains_key(&entry.key))
            .peekable();
        let mut entries = Vec::with_capacity(limit.min(state.objects));
        while entries.len() < limit {
            let next = match (now.peek(), back.peek()) {
                (Some(one), Some(other)) if other.key < one.key => back.next(),
                (Some(_), _) => now.next(),
                (None, _) => back.next(),
            };
            let Some(entry) = next else { break };
            entries.push(entry.clone());
        }
        Ok(Window {
            revision,
            entries,
            rest: now.count() + back.count(),
        })
    }

    /// The revision, if its state is still known. To be called under the lock of the state.
    fn readable(&self, at: Option<u64>) -> Result<u64, StorageError> {
        let current = self.position.revision();
        let requested = at.unwrap_or(current);
        if requested > current {
            return Err(StorageError::Future { requested, current });
        }
        let oldest = self.position.floor();
        if requested < oldest {
            return Err(StorageError::Compacted { requested, oldest });
        }
        Ok(requested)
    }

    /// The revision now, and the one by which what is derived from a list is named.
    pub fn changed(&self, namespace: Option<&str>) -> (u64, u64) {
        let state = self.state.read();
        (self.position.revision(), state.changed_in(namespace))
    }

    pub fn read(&self) -> parking_lot::RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// The same key with the strings that the cache already has, so that they exist once.
    pub fn intern(&self, key: Key) -> Key {
        let state = self.state.read();
        let namespace = state.namespaces.get(&scope(&key.namespace));
        Key {
            resource: self.name.clone(),
            namespace: namespace.map_or(key.namespace, |namespace| namespace.name.clone()),
            name: key.name,
        }
    }
}

impl State {
    /// Takes in a change that is newer than all before. `remember` is false for what lies at or below the floor.
    pub fn apply(&mut self, event: Arc<Event>, remember: bool) {
        let (key, revision) = (&event.entry.key, event.revision());
        self.changed = revision;
        let scope = scope(&key.namespace);
        match event.kind {
            EventKind::Put => {
                let namespace = self.namespaces.entry(scope).or_insert_with(|| Namespace {
                    name: key.namespace.clone(),
                    objects: BTreeMap::new(),
                    changed: revision,
                });
                namespace.changed = revision;
                // Removed first: `insert` would keep the old key, and with it the old entry's string.
                let replaced = namespace.objects.remove(&key.name);
                namespace.objects.insert(key.name.clone(), event.entry.clone());
                self.objects += usize::from(replaced.is_none());
                self.bytes += event.entry.bytes.len();
                self.bytes -= replaced.map_or(0, |replaced| replaced.bytes.len());
            }
            EventKind::Delete => {
                if let Some(namespace) = self.namespaces.get_mut(&scope) {
                    namespace.changed = revision;
                    if let Some(gone) = namespace.objects.remove(&key.name) {
                        self.objects -= 1;
                        self.bytes -= gone.bytes.len();
                    }
                    if namespace.objects.is_empty() {
                        self.namespaces.remove(&scope);
                    }
                }
            }
        }
        if remember {
            self.history.push_back(event);
        }
    }

    /// Drops and returns the events at or below `floor`.
    pub fn forget(&mut self, floor: u64) -> Vec<Arc<Event>> {
        let kept = self.history_after(floor);
        let dropped: Vec<_> = self.history.drain(..kept).collect();
        if let Some(last) = dropped.last() {
            self.forgotten = last.revision();
        }
        if self.history.capacity() > 64 && self.history.len() < self.history.capacity() / 4 {
            self.history.shrink_to(self.history.len() * 2);
        }
        dropped
    }

    /// Index in the history of the first event after `revision`.
    pub fn history_after(&self, revision: u64) -> usize {
        self.history.partition_point(|event| event.revision() <= revision)
    }

    /// What has changed after `revision`, and what it was then; None: it was not there.
    fn undone(&self, namespace: Option<&str>, revision: u64) -> HashMap<&Key, Option<&Arc<Entry>>> {
        let later = self.history_after(revision);
        let mut undone = HashMap::new();
        // Newest first, so that what stays for a key is what its first later change replaced.
        for event in self.history.range(later..).rev() {
            if namespace.is_none_or(|namespace| *event.entry.key.namespace == *namespace) {
                undone.insert(&event.entry.key, event.previous.as_ref());
            }
        }
        undone
    }

    /// In the order of lists, from `namespace/name` on.
    fn entries_from<'a>(
        &'a self,
        namespace: Option<&'a str>,
        start: (&'a str, &'a str),
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let first = scope(start.0);
        let wanted = namespace.map(scope);
        let from = wanted.clone().map_or(first.clone(), |wanted| wanted.max(first.clone()));
        let spaces = self.namespaces.range(from..);
        let spaces = spaces.take_while(move |(scope, _)| wanted.as_ref().is_none_or(|wanted| *scope <= wanted));
        spaces.flat_map(move |(scope, space)| {
            let from = if *scope == first { start.1 } else { "" };
            let names = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
            space.objects.range::<str, _>(names).map(|(_, entry)| entry)
        })
    }

    fn entries(&self, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        match namespace {
            Some(namespace) => {
                let objects = self.namespaces.get(&scope(namespace)).map(|n| n.objects.values());
                objects.map_or_else(Vec::new, |objects| objects.cloned().collect())
            }
            None => {
                let mut entries = Vec::with_capacity(self.objects);
                for namespace in self.namespaces.values() {
                    entries.extend(namespace.objects.values().cloned());
                }
                entries
            }
        }
    }

    /// Revision of the last change in the scope, or a later one if that is not known (an emptied namespace).
    fn changed_in(&self, namespace: Option<&str>) -> u64 {
        namespace
            .and_then(|namespace| self.namespaces.get(&scope(namespace)))
            .map_or(self.changed, |namespace| namespace.changed)
    }
}

/// How a namespace stands in the map of namespaces.
fn scope(namespace: &str) -> String {
    let mut scope = String::with_capacity(namespace.len() + 1);
    scope.push_str(namespace);
    scope.push('/');
    scope
}

/// Bytes that an event holds beyond the current state: the versions that it made obsolete.
pub(super) fn held_bytes(event: &Event) -> u64 {
    let previous = event.previous.as_ref().map_or(0, |entry| entry.bytes.len());
    let deleted = match event.kind {
        EventKind::Put => 0,
        EventKind::Delete => event.entry.bytes.len(),
    };
    (previous + deleted) as u64
}
