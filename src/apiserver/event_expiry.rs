//! Events go when nobody has written them for a while (upstream: `--event-ttl`, where etcd's leases do it).
//!
//! All have the same time, so they come due in the order of their writes: nothing ever looks for old ones.

use super::following;
use crate::registry::strategy::Object;
use crate::storage::{Draft, Entry, EventKind, Key, Operation, Storage, StorageError};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const EVENTS: &str = "events";
/// Deletions that are committed together.
const AT_ONCE: usize = 64;
/// After a write that the store did not take.
const RETRY: Duration = Duration::from_secs(5);

/// An event as it was written once. If it was written again it comes due later.
struct Lease {
    due: Instant,
    key: Key,
    revision: u64,
}

/// Runs for as long as the store is open.
pub async fn run(storage: Arc<Storage>, ttl: Duration) {
    let trouble = "events do not expire for the moment";
    following::keep(trouble, RETRY, || follow(storage.clone(), ttl)).await;
}

async fn follow(storage: Arc<Storage>, ttl: Duration) -> Result<(), StorageError> {
    let (snapshot, mut watch) = storage.list_and_watch(EVENTS, None)?;
    let (now, today) = (Instant::now(), Timestamp::now());
    let mut leases: Vec<Lease> = snapshot
        .entries
        .iter()
        .map(|entry| {
            let age = last_written(entry).map_or(Duration::ZERO, |at| {
                today.duration_since(at).try_into().unwrap_or(Duration::ZERO)
            });
            lease(entry, now + ttl.saturating_sub(age))
        })
        .collect();
    leases.sort_by_key(|lease| lease.due);
    let mut leases = VecDeque::from(leases);
    loop {
        let due = leases.front().map(|lease| lease.due);
        tokio::select! {
            events = watch.next() => {
                let due = Instant::now() + ttl;
                let written = events?.into_iter().filter(|event| event.kind == EventKind::Put);
                leases.extend(written.map(|event| lease(&event.entry, due)));
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let now = Instant::now();
                let count = leases.iter().take(AT_ONCE).take_while(|lease| lease.due <= now).count();
                let over = leases.drain(..count).map(|lease| expire(&storage, lease));
                for result in join_all(over).await {
                    result?;
                }
            }
        }
    }
}

fn lease(entry: &Entry, due: Instant) -> Lease {
    Lease {
        due,
        key: entry.key.clone(),
        revision: entry.revision,
    }
}

/// Deletes the event if it is still the one of the lease.
async fn expire(storage: &Storage, lease: Lease) -> Result<(), StorageError> {
    let Lease { key, revision, .. } = lease;
    let entry = storage.get(&key.resource, &key.namespace, &key.name);
    let Some(entry) = entry.filter(|entry| entry.revision == revision) else {
        return Ok(());
    };
    let Ok(object) = serde_json::from_slice::<Object>(&entry.bytes) else {
        return Ok(());
    };
    let draft = Draft::new(&object, entry.index.clone());
    let expected = entry.revision;
    match storage.write(Operation::Delete { key, expected, draft }).await {
        // Somebody was faster: a new lease is on its way, or none is needed.
        Ok(_) | Err(StorageError::Conflict { .. } | StorageError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// When an event that was found at the start was written last, as far as it tells.
fn last_written(entry: &Entry) -> Option<Timestamp> {
    let event: Value = serde_json::from_slice(&entry.bytes).ok()?;
    [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ]
    .into_iter()
    .filter_map(|path| event.pointer(path)?.as_str()?.parse().ok())
    .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::storage::{Index, Options};
    use serde_json::json;

    async fn put(storage: &Storage, name: &str, mark: &str, expected: Option<u64>) -> u64 {
        let object =
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "uid": name}, "reason": mark});
        let draft = Draft::new(object.as_object().unwrap(), Index::default());
        let key = Key::new(EVENTS, "default", name);
        let operation = match expected {
            None => Operation::Create { key, draft },
            Some(expected) => Operation::Update { key, expected, draft },
        };
        storage.write(operation).await.unwrap().revision
    }

    #[tokio::test]
    async fn events_go_when_nobody_writes_them_any_more() {
        let storage = Storage::open(Options::memory(), Registry::builtin()).await.unwrap();
        let ttl = Duration::from_millis(600);
        let expiry = tokio::spawn(run(storage.clone(), ttl));
        // The watch is there before the first write.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let revision = put(&storage, "kept", "first", None).await;
        put(&storage, "left", "first", None).await;
        let written = Instant::now();
        tokio::time::sleep(Duration::from_millis(300)).await;
        put(&storage, "kept", "second", Some(revision)).await;
        let there = |name: &str| storage.get(EVENTS, "default", name).is_some();
        while there("left") {
            assert!(written.elapsed() < Duration::from_secs(10), "it does not expire");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(written.elapsed() >= ttl);
        assert!(there("kept"), "it was written again meanwhile");
        while there("kept") {
            assert!(written.elapsed() < Duration::from_secs(10), "it does not expire");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(written.elapsed() >= ttl + Duration::from_millis(300));
        storage.close().await;
        expiry.await.unwrap();
    }

    #[test]
    fn the_last_time_counts() {
        let entry = |event: Value| Entry {
            key: Key::new(EVENTS, "default", "e"),
            revision: 1,
            bytes: event.to_string().into(),
            index: Index::default(),
        };
        let event = entry(json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "lastTimestamp": "2026-01-01T00:10:00Z",
            "eventTime": null, "series": {"count": 2, "lastObservedTime": "2026-01-01T00:20:00.000000Z"},
        }));
        assert_eq!(last_written(&event), Some("2026-01-01T00:20:00Z".parse().unwrap()));
        assert_eq!(last_written(&entry(json!({}))), None);
    }
}
