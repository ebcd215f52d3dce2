//! Watches: order, resumption, namespaces, bookmarks, falling out of history.

use super::*;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn a_watch_tells_what_happens_and_what_was_before() {
    let storage = in_memory().await;
    let first = write(&storage, create("a", "1")).await;
    let mut watch = storage.watch("configmaps", None, first).unwrap();
    let second = write(&storage, update("a", first, "2")).await;
    let events = watch.next().await.unwrap();
    assert_eq!(told(&events[0]), "put 3 a after 2");
    assert_eq!(content(events[0].previous.as_ref().unwrap()), "1");
    write(&storage, delete("a", second)).await;
    let events = watch.next().await.unwrap();
    assert_eq!(told(&events[0]), "delete 4 a after 3");
    assert_eq!(content(&events[0].entry), "deleted");
    assert_eq!(content(events[0].previous.as_ref().unwrap()), "2");
    write(&storage, create("a", "3")).await;
    assert_eq!(told(&watch.next().await.unwrap()[0]), "put 5 a after 0");
}

#[tokio::test]
async fn a_watch_can_begin_at_any_remembered_revision_and_before_the_resource_exists() {
    let storage = in_memory().await;
    let mut early = storage.watch("configmaps", None, storage.revision()).unwrap();
    for n in 0..5 {
        write(&storage, create(&format!("n{n}"), "x")).await;
    }
    for from in 1..=6 {
        let revisions: Vec<_> = events(&storage, from).unwrap().iter().map(|e| e.revision()).collect();
        assert!(revisions.into_iter().eq(from + 1..=6), "from {from}");
    }
    assert_eq!(early.next().await.unwrap().len(), 5);
    // What is yet to come begins behind its revision.
    let mut future = storage.watch("configmaps", None, 7).unwrap();
    assert_eq!(future.revision(), 7);
    for name in ["seventh", "eighth"] {
        write(&storage, create(name, "x")).await;
    }
    let events = future.next().await.unwrap();
    assert_eq!(events.iter().map(|event| event.revision()).collect::<Vec<_>>(), [8]);
}

#[tokio::test]
async fn a_watch_of_a_namespace_hears_nothing_of_others_but_its_revision_goes_on() {
    let storage = in_memory().await;
    let mut watch = storage.watch("configmaps", Some("one"), 1).unwrap();
    write(&storage, create("two/a", "x")).await;
    write(&storage, create("one/a", "x")).await;
    write(&storage, create("two/b", "x")).await;
    let events = watch.next().await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(&*events[0].entry.key.namespace, "one");
    assert_eq!(watch.revision(), 4);
    // Another resource: no event, but a bookmark may say so.
    let lease = Operation::Create {
        key: Key::new("leases.coordination.k8s.io", "one", "l"),
        draft: draft("l", "x"),
    };
    assert_eq!(write(&storage, lease).await, 5);
    assert_eq!(watch.revision(), 5);
    assert!(watch.try_next().unwrap().is_empty());
    // What is not handed out yet is not counted.
    write(&storage, create("one/b", "x")).await;
    assert_eq!(watch.revision(), 5);
    assert_eq!(watch.next().await.unwrap().len(), 1);
    assert_eq!(watch.revision(), 6);
}

#[tokio::test]
async fn a_watch_that_is_dropped_while_waiting_loses_nothing() {
    let storage = in_memory().await;
    let mut watch = storage.watch("configmaps", None, 1).unwrap();
    assert_eq!(storage.metrics().watches.load(Ordering::Relaxed), 1);
    for n in 0..20 {
        let waited = tokio::time::timeout(Duration::from_micros(n * 37 % 500), watch.next()).await;
        assert!(waited.is_err(), "there is nothing yet");
        write(&storage, create(&format!("n{n}"), "x")).await;
        assert_eq!(watch.next().await.unwrap().len(), 1);
    }
    drop(watch);
    assert_eq!(storage.metrics().watches.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_watches_hear_everything_once_and_in_order() {
    let storage = in_memory().await;
    let watchers: Vec<_> = (0..20)
        .map(|_| {
            let mut watch = storage.watch("configmaps", None, 1).unwrap();
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                while revisions.len() < 400 {
                    revisions.extend(watch.next().await.unwrap().iter().map(|event| event.revision()));
                }
                revisions
            })
        })
        .collect();
    let writers = (0..8).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                write(&storage, create(&format!("w{writer}-{n}"), "x")).await;
            }
        })
    });
    futures_util::future::join_all(writers).await;
    for watcher in watchers {
        assert!(watcher.await.unwrap().into_iter().eq(2..=401));
    }
}

#[tokio::test]
async fn a_listed_revision_can_always_be_watched() {
    let storage = in_memory().await;
    let writer = tokio::spawn({
        let storage = storage.clone();
        async move {
            for n in 0..200 {
                write(&storage, create(&format!("n{n}"), "x")).await;
            }
        }
    });
    loop {
        let (snapshot, mut watch) = storage.list_and_watch("configmaps", None).unwrap();
        assert_eq!(snapshot.entries.len() as u64, snapshot.revision - 1);
        if snapshot.revision == 201 {
            break;
        }
        let next = watch.next().await.unwrap();
        assert_eq!(next[0].revision(), snapshot.revision + 1);
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn closing_ends_watches_after_their_last_event() {
    let storage = in_memory().await;
    let mut watch = storage.watch("configmaps", None, 1).unwrap();
    let waiting = tokio::spawn(async move {
        let first = watch.next().await.map(|events| events.len());
        (first, watch.next().await.map(|events| events.len()))
    });
    write(&storage, create("a", "x")).await;
    storage.close().await;
    let (first, last) = waiting.await.unwrap();
    assert_eq!(first.unwrap(), 1);
    assert!(matches!(last, Err(StorageError::Closed)));
}

#[tokio::test]
async fn waiting_for_a_revision_ends_with_it_or_with_the_time() {
    let storage = in_memory().await;
    assert!(storage.wait_for_revision(1, Duration::ZERO).await);
    assert!(!storage.wait_for_revision(2, Duration::from_millis(5)).await);
    let (reached, _) = tokio::join!(
        storage.wait_for_revision(2, Duration::from_secs(60)),
        write(&storage, create("a", "x"))
    );
    assert!(reached);
}
