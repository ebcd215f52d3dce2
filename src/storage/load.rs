//! From rows back to entries and events: at start, and after a commit whose outcome is unknown.

use super::cache::Cache;
use super::database::Database;
use super::entities::change;
use super::{Entry, Event, EventKind, Indexer, Key, StorageError};
use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows are indexed in groups of this size, several groups at a time.
const GROUP_ROWS: usize = 256;

/// A row with its JSON parsed.
struct Row {
    kind: change::Kind,
    prev_revision: u64,
    entry: Entry,
}

/// Publishes to the cache what the database holds beyond it. With a new cache that is everything.
pub(super) async fn catch_up(
    database: &Database,
    cache: &Cache,
    indexer: &Arc<dyn Indexer>,
    from: u64,
) -> Result<(), StorageError> {
    let mut replay = Replay::new(cache, from);
    let mut groups = FuturesOrdered::new();
    let in_flight_max = std::thread::available_parallelism().map_or(2, usize::from) + 1;
    {
        let failed = |error| StorageError::database("reading the database", error);
        let rows = database.changes_after(from).await.map_err(failed)?;
        let mut rows = rows.ready_chunks(GROUP_ROWS);
        while let Some(group) = rows.next().await {
            let group = group.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let indexer = indexer.clone();
            groups.push_back(tokio::task::spawn_blocking(move || index(group, &*indexer)));
            if groups.len() >= in_flight_max {
                replay.add(joined(groups.next().await))?;
            }
        }
    }
    while let Some(group) = groups.next().await {
        replay.add(joined(Some(group)))?;
    }
    cache.publish(&replay.events).wake();
    Ok(())
}

/// At start: everything, and the check that the two tables agree.
pub(super) async fn load(database: &Database, indexer: &Arc<dyn Indexer>) -> Result<Cache, StorageError> {
    let failed = |error| StorageError::database("reading the database", error);
    let cache = Cache::new(database.floor().await.map_err(failed)?);
    catch_up(database, &cache, indexer, 0).await?;
    let stored = database.object_revisions().await.map_err(failed)?;
    let mut replayed: Vec<i64> = Vec::with_capacity(stored.len());
    for resource in cache.resources() {
        let snapshot = resource.list(None, None)?;
        replayed.extend(snapshot.entries.iter().map(|entry| entry.revision as i64));
    }
    replayed.sort_unstable();
    if stored != replayed {
        return Err(StorageError::Corrupt {
            detail: format!(
                "the log of changes leads to {} objects, the table of objects has {}, and they are not the same",
                replayed.len(),
                stored.len()
            ),
        });
    }
    Ok(cache)
}

/// Blocking tasks end early only if they panic or the runtime shuts down; a panic goes on here.
fn joined(group: Option<Result<Vec<Row>, tokio::task::JoinError>>) -> Vec<Row> {
    match group {
        None => Vec::new(),
        Some(Ok(rows)) => rows,
        Some(Err(error)) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Vec::new(),
        },
    }
}

fn index(group: Vec<change::Model>, indexer: &dyn Indexer) -> Vec<Row> {
    let rows = group.into_iter().map(|row| Row {
        kind: row.kind,
        prev_revision: row.prev_revision as u64,
        entry: Entry {
            index: indexer.index(&row.resource, &row.value),
            revision: row.revision as u64,
            key: Key::new(&row.resource, &row.namespace, &row.name),
            bytes: Bytes::from(row.value),
        },
    });
    rows.collect()
}

/// Turns rows in order into events with their previous versions.
struct Replay<'a> {
    cache: &'a Cache,
    floor: u64,
    revision: u64,
    /// What the rows so far made of a key; what is not here is as in the cache.
    current: HashMap<Key, Option<Arc<Entry>>>,
    /// Strings that many keys share.
    strings: HashMap<Arc<str>, ()>,
    events: Vec<Arc<Event>>,
}

impl<'a> Replay<'a> {
    fn new(cache: &'a Cache, from: u64) -> Replay<'a> {
        Replay {
            cache,
            floor: cache.position.floor(),
            revision: from,
            current: HashMap::new(),
            strings: HashMap::new(),
            events: Vec::new(),
        }
    }

    fn add(&mut self, rows: Vec<Row>) -> Result<(), StorageError> {
        rows.into_iter().try_for_each(|row| self.add_row(row))
    }

    fn add_row(&mut self, row: Row) -> Result<(), StorageError> {
        let mut entry = row.entry;
        let revision = entry.revision;
        let corrupt = |detail: String| Err(StorageError::Corrupt { detail });
        // Below the floor there are gaps; above it every revision must be there.
        let expected = self.revision.max(self.floor) + 1;
        if revision > self.floor && revision != expected {
            return corrupt(format!("revision {expected} is missing from the log of changes"));
        }
        self.revision = revision;

        let previous = match self.current.get(&entry.key) {
            Some(current) => current.clone(),
            None => self
                .cache
                .get(&entry.key.resource, &entry.key.namespace, &entry.key.name),
        };
        let found = previous.as_ref().map_or(0, |previous| previous.revision);
        if revision > self.floor && found != row.prev_revision {
            return corrupt(format!(
                "{} at revision {revision} should follow {}, but follows {found}",
                entry.key, row.prev_revision
            ));
        }
        entry.key = match &previous {
            Some(previous) => previous.key.clone(),
            None => Key {
                resource: self.shared(entry.key.resource),
                namespace: self.shared(entry.key.namespace),
                name: entry.key.name,
            },
        };
        let kind = match row.kind {
            change::Kind::Create | change::Kind::Put => EventKind::Put,
            change::Kind::Delete => EventKind::Delete,
        };
        let entry = Arc::new(entry);
        let now = (kind == EventKind::Put).then(|| entry.clone());
        self.current.insert(entry.key.clone(), now);
        self.events.push(Arc::new(Event { kind, entry, previous }));
        Ok(())
    }

    fn shared(&mut self, string: Arc<str>) -> Arc<str> {
        if let Some((shared, ())) = self.strings.get_key_value(&string) {
            return shared.clone();
        }
        self.strings.insert(string.clone(), ());
        string
    }
}
