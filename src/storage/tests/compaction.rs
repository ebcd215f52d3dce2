//! Compaction: what is forgotten, what stays, and the size of the file.

use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Updates object `name` until it is at `revision`.
async fn churn(storage: &Storage, name: &str, revision: u64) {
    let mut at = storage.get("configmaps", "default", name).unwrap().revision;
    while at < revision {
        at = write(storage, update(name, at, "next")).await;
    }
}

#[tokio::test]
async fn history_is_bounded_by_count() {
    let place = Place::new();
    let options = Options {
        history_events_max: 100,
        ..place.options()
    };
    let storage = place.open_with(options.clone()).await;
    write(&storage, create("old", "stays")).await;
    let gone = write(&storage, create("gone", "x")).await;
    write(&storage, delete("gone", gone)).await;
    write(&storage, create("busy", "x")).await;
    churn(&storage, "busy", 1000).await;
    let remembered = storage.metrics().history_events.load(Ordering::Relaxed);
    assert!((80..=100).contains(&remembered), "{remembered} events");
    let floor = storage.oldest_revision();
    assert_eq!(floor + remembered, 1000);

    assert!(matches!(
        storage.watch("configmaps", None, floor - 1),
        Err(StorageError::Compacted { oldest, .. }) if oldest == floor
    ));
    assert!(matches!(
        storage.list("configmaps", None, Some(floor - 1)),
        Err(StorageError::Compacted { .. })
    ));
    let at_floor = storage.list("configmaps", None, Some(floor)).unwrap();
    assert_eq!(shown(&at_floor.entries), ["default/busy=next", "default/old=stays"]);
    let before: Vec<_> = events(&storage, floor)
        .unwrap()
        .iter()
        .map(|event| told(event))
        .collect();
    assert_eq!(before.len() as u64, remembered);

    // The same after a restart, with the first remembered event still knowing what it replaced.
    storage.close().await;
    drop(storage);
    let storage = place.open_with(options).await;
    assert_eq!((storage.revision(), storage.oldest_revision()), (1000, floor));
    let after: Vec<_> = events(&storage, floor)
        .unwrap()
        .iter()
        .map(|event| told(event))
        .collect();
    assert_eq!(after, before);
    assert!(storage.watch("configmaps", None, floor - 1).is_err());
}

#[tokio::test]
async fn a_watch_that_is_too_slow_learns_that_it_was_compacted() {
    let options = Options {
        history_events_max: 20,
        ..Options::memory()
    };
    let storage = Storage::open(options, Arc::new(UidIndexer)).await.unwrap();
    let mut quiet = storage.watch("secrets", None, 1).unwrap();
    let mut slow = storage.watch("configmaps", None, 1).unwrap();
    write(&storage, create("busy", "x")).await;
    churn(&storage, "busy", 100).await;
    assert!(matches!(
        slow.next().await,
        Err(StorageError::Compacted { requested: 1, .. })
    ));
    // Nothing that it should have heard of was forgotten.
    assert!(quiet.try_next().unwrap().is_empty());
    assert_eq!(quiet.revision(), 100);
}

#[tokio::test]
async fn history_is_bounded_by_size() {
    let options = Options {
        history_bytes_max: 100_000,
        ..Options::memory()
    };
    let storage = Storage::open(options, Arc::new(UidIndexer)).await.unwrap();
    let content = "x".repeat(10_000);
    let mut at = write(&storage, create("big", &content)).await;
    for _ in 0..50 {
        at = write(&storage, update("big", at, &content)).await;
        // The writer forgets after it has answered, before it takes the next write.
        let held = storage.metrics().history_bytes.load(Ordering::Relaxed);
        assert!(held <= 120_000, "{held} bytes");
    }
    assert!(storage.metrics().history_bytes.load(Ordering::Relaxed) > 50_000);
}

#[tokio::test]
async fn history_is_forgotten_by_age_without_further_writes() {
    let options = Options {
        history_age: Duration::from_millis(200),
        ..Options::memory()
    };
    let storage = Storage::open(options, Arc::new(UidIndexer)).await.unwrap();
    write(&storage, create("a", "1")).await;
    let last = write(&storage, update("a", 2, "2")).await;
    let mut waited = Duration::ZERO;
    while storage.oldest_revision() < last {
        tokio::time::sleep(Duration::from_millis(20)).await;
        waited += Duration::from_millis(20);
        assert!(
            waited < Duration::from_secs(10),
            "still at {}",
            storage.oldest_revision()
        );
    }
    assert_eq!(storage.metrics().history_events.load(Ordering::Relaxed), 0);
    assert_eq!(storage.metrics().history_bytes.load(Ordering::Relaxed), 0);
    assert_eq!(storage.metrics().compacted_rows.load(Ordering::Relaxed), 1);
    assert_eq!(content(&storage.get("configmaps", "default", "a").unwrap()), "2");
}

#[tokio::test]
async fn revisions_do_not_repeat_after_the_last_rows_were_compacted() {
    let place = Place::new();
    let storage = place.open().await;
    let at = write(&storage, create("a", "1")).await;
    let last = write(&storage, delete("a", at)).await;
    storage.close().await;
    drop(storage);
    let database = database::Database::open(&place.options().url).await.unwrap();
    assert_eq!(database.compact(1, last).await.unwrap(), 2);
    database.close().await.unwrap();
    let storage = place.open().await;
    assert_eq!(storage.revision(), last);
    assert_eq!(write(&storage, create("a", "1")).await, last + 1);
}

/// The rule, checked against a naive reading of it.
#[tokio::test]
async fn compaction_deletes_what_neither_the_present_nor_remembered_events_need() {
    let place = Place::new();
    let storage = place.open().await;
    let mut at = BTreeMap::new();
    for n in 0..60_u64 {
        let name = format!("n{}", n * 7 % 5);
        let operation = match at.get(&name).copied() {
            None => create(&name, "x"),
            Some(revision) if n % 4 == 0 => delete(&name, revision),
            Some(revision) => update(&name, revision, "y"),
        };
        let deleted = matches!(operation, Operation::Delete { .. });
        let revision = write(&storage, operation).await;
        if deleted {
            at.remove(&name);
        } else {
            at.insert(name, revision);
        }
    }
    let history = events(&storage, 1).unwrap();
    storage.close().await;
    drop(storage);
    let mut floor = 1;
    for next in [5, 6, 20, 41, 60, 61] {
        let database = database::Database::open(&place.options().url).await.unwrap();
        database.compact(floor, next).await.unwrap();
        floor = next;
        let mut rows = Vec::new();
        let mut stream = database.changes_after(0).await.unwrap();
        while let Some(row) = futures_util::StreamExt::next(&mut stream).await {
            rows.push(row.unwrap().revision as u64);
        }
        drop(stream);
        database.close().await.unwrap();
        let needed = |event: &&Arc<Event>| {
            let revision = event.revision();
            let mut later = history.iter().filter(|later| later.revision() > floor);
            revision > floor
                || at.values().any(|current| *current == revision)
                || later.any(|later| {
                    later
                        .previous
                        .as_ref()
                        .is_some_and(|previous| previous.revision == revision)
                })
        };
        let expected: Vec<_> = history.iter().filter(needed).map(|event| event.revision()).collect();
        assert_eq!(rows, expected, "floor {floor}");
        let storage = place.open().await;
        assert_eq!(storage.list("configmaps", None, None).unwrap().entries.len(), at.len());
        storage.close().await;
    }
}

#[tokio::test]
async fn the_file_does_not_grow_without_bound() {
    let place = Place::new();
    let options = Options {
        history_events_max: 500,
        ..place.options()
    };
    let storage = place.open_with(options).await;
    let content = "x".repeat(4000);
    let mut size_then = 0;
    for round in 0..6 {
        let writers = (0..20).map(|n| {
            let (storage, content) = (&storage, &content);
            async move {
                let name = format!("n{n}");
                let current = storage.get("configmaps", "default", &name);
                let mut at = match current {
                    Some(current) => current.revision,
                    None => write(storage, create(&name, content)).await,
                };
                for _ in 0..50 {
                    at = write(storage, update(&name, at, content)).await;
                }
            }
        });
        futures_util::future::join_all(writers).await;
        let size = std::fs::metadata(place.file()).unwrap().len();
        let log = std::fs::metadata(place.directory.path().join("krust.db-wal"))
            .unwrap()
            .len();
        assert!(log <= 40 << 20, "the log has {log} bytes");
        if round == 2 {
            size_then = size;
        }
    }
    storage.close().await;
    let size = std::fs::metadata(place.file()).unwrap().len();
    assert!(
        size <= size_then.max(500 * 8192) * 5 / 4,
        "{size_then} bytes after 3000 writes, {size} after 6000"
    );
}

#[tokio::test]
async fn after_churn_the_file_is_not_twice_as_large_as_what_is_in_it() {
    let place = Place::new();
    let options = Options {
        history_age: Duration::from_millis(300),
        ..place.options()
    };
    let storage = place.open_with(options).await;
    let content = |n: usize| "x".repeat(1800 + n * 37 % 1500);
    let churn = (0..400_usize).map(|n| {
        let storage = &storage;
        async move {
            let name = format!("n{n}");
            let mut at = write(storage, create(&name, &content(n))).await;
            for round in 1..12 {
                if (n + round) % 4 == 0 {
                    write(storage, delete(&name, at)).await;
                    at = write(storage, create(&name, &content(n + round))).await;
                } else {
                    at = write(storage, update(&name, at, &content(n + round))).await;
                }
            }
        }
    });
    futures_util::future::join_all(churn).await;
    let live: usize = storage
        .list("configmaps", None, None)
        .unwrap()
        .entries
        .iter()
        .map(|entry| entry.bytes.len())
        .sum();
    let mut waited = Duration::ZERO;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let log = place.directory.path().join("krust.db-wal");
        let sizes = [place.file(), log].map(|file| std::fs::metadata(file).unwrap().len());
        let bytes: u64 = sizes.iter().sum();
        if bytes <= 2 * live as u64 {
            println!("{bytes} bytes for {live} of live data");
            break;
        }
        waited += Duration::from_millis(50);
        assert!(
            waited < Duration::from_secs(20),
            "{sizes:?} bytes for {live} of live data"
        );
    }
    storage.close().await;
}

#[tokio::test]
async fn free_pages_are_given_back() {
    let place = Place::new();
    let options = Options {
        history_age: Duration::from_millis(200),
        ..place.options()
    };
    let storage = place.open_with(options).await;
    let content = "x".repeat(1 << 20);
    let mut at = write(&storage, create("big", &content)).await;
    for _ in 0..20 {
        at = write(&storage, update("big", at, &content)).await;
    }
    write(&storage, delete("big", at)).await;
    let mut waited = Duration::ZERO;
    let free_kept = 1024 * 4096;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let bytes = storage.metrics().database_bytes.load(Ordering::Relaxed);
        if storage.metrics().history_events.load(Ordering::Relaxed) == 0 && bytes > 0 && bytes < 2 * free_kept {
            break;
        }
        waited += Duration::from_millis(50);
        assert!(waited < Duration::from_secs(10), "{bytes} bytes after all was deleted");
    }
}
