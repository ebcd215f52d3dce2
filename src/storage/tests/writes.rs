//! Compare-and-swap, revisions, groups.

use super::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn the_revision_is_spliced_into_the_object() {
    let storage = in_memory().await;
    let entry = storage.write(create("a", "one")).await.unwrap();
    assert_eq!(
        std::str::from_utf8(&entry.bytes).unwrap(),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","uid":"uid-of-a","resourceVersion":"2","labels":{"a":"b"}},"data":{"content":"one"}}"#
    );
    assert!(Arc::ptr_eq(&entry, &storage.get("configmaps", "default", "a").unwrap()));
    assert_eq!(storage.revision(), 2);
    assert!(draft("a", "one").same_as(&entry));
    assert!(!draft("a", "two").same_as(&entry));
}

#[test]
fn a_draft_blanks_the_resource_version_wherever_it_stands() {
    let drafted = |object: Value| {
        let Value::Object(object) = object else {
            unreachable!("an object")
        };
        let draft = Draft::new(&object, Index::default());
        String::from_utf8(draft.splice(17).to_vec()).unwrap()
    };
    let here = json!({"metadata": {"resourceVersion": "9999", "name": "x"}, "spec": {"resourceVersion": "kept"}});
    assert_eq!(
        drafted(here),
        r#"{"metadata":{"resourceVersion":"17","name":"x"},"spec":{"resourceVersion":"kept"}}"#
    );
    assert_eq!(
        drafted(json!({"metadata": {}})),
        r#"{"metadata":{"resourceVersion":"17"}}"#
    );
    assert_eq!(
        drafted(json!({"metadata": {"name": "a\"b"}})),
        r#"{"metadata":{"name":"a\"b","resourceVersion":"17"}}"#
    );
    assert_eq!(drafted(json!({})), r#"{"metadata":{"resourceVersion":"17"}}"#);
    assert_eq!(
        drafted(json!({"a": 1})),
        r#"{"a":1,"metadata":{"resourceVersion":"17"}}"#
    );
}

#[tokio::test]
async fn writes_are_refused_by_what_is_there() {
    let storage = in_memory().await;
    let first = write(&storage, create("a", "1")).await;
    assert!(
        matches!(storage.write(create("a", "2")).await, Err(StorageError::AlreadyExists(key)) if *key.name == *"a")
    );
    assert!(matches!(
        storage.write(update("b", 1, "")).await,
        Err(StorageError::NotFound(_))
    ));
    assert!(matches!(
        storage.write(delete("b", 1)).await,
        Err(StorageError::NotFound(_))
    ));
    let second = write(&storage, update("a", first, "2")).await;
    for refused in [
        update("a", first, "3"),
        delete("a", first),
        update("a", second + 1, "3"),
    ] {
        let refusal = storage.write(refused).await;
        assert!(matches!(refusal, Err(StorageError::Conflict { current, .. }) if current == second));
    }
    // Refusals use up no revision.
    assert_eq!(write(&storage, delete("a", second)).await, second + 1);
    assert!(storage.get("configmaps", "default", "a").is_none());
    assert_eq!(write(&storage, create("a", "again")).await, second + 2);
    assert_eq!(storage.metrics().writes_refused.load(Ordering::Relaxed), 6);
    assert_eq!(storage.metrics().writes.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn writes_of_one_group_see_each_other() {
    let cache = cache::Cache::new(1);
    let mut batch = batch::Batch::new(&cache);
    assert_eq!(batch.add(create("a", "1")).unwrap().revision, 2);
    assert!(matches!(
        batch.add(create("a", "2")),
        Err(StorageError::AlreadyExists(_))
    ));
    assert_eq!(batch.add(update("a", 2, "2")).unwrap().revision, 3);
    assert!(matches!(
        batch.add(update("a", 2, "3")),
        Err(StorageError::Conflict { current: 3, .. })
    ));
    assert_eq!(batch.add(delete("a", 3)).unwrap().revision, 4);
    assert!(matches!(batch.add(delete("a", 3)), Err(StorageError::NotFound(_))));
    assert_eq!(batch.add(create("a", "4")).unwrap().revision, 5);
    let told: Vec<_> = batch.events.iter().map(|event| told(event)).collect();
    assert_eq!(
        told,
        [
            "put 2 a after 0",
            "put 3 a after 2",
            "delete 4 a after 3",
            "put 5 a after 0"
        ]
    );
    // Nothing shows before it is committed.
    assert!(cache.get("configmaps", "default", "a").is_none());
    assert_eq!(cache.revision(), 1);
}

#[tokio::test]
async fn a_group_that_writes_one_key_often_is_stored_whole() {
    let place = Place::new();
    let storage = place.open().await;
    let database = {
        storage.close().await;
        database::Database::open(&place.options().url).await.unwrap()
    };
    let cache = cache::Cache::new(1);
    let mut batch = batch::Batch::new(&cache);
    for operation in [
        create("a", "1"),
        update("a", 2, "2"),
        create("b", "1"),
        delete("b", 4),
        create("c", "1"),
        delete("c", 6),
        create("c", "2"),
    ] {
        batch.add(operation).unwrap();
    }
    database.append(&batch.events).await.unwrap();
    database.close().await.unwrap();
    let storage = place.open().await;
    assert_eq!(storage.revision(), 8);
    let list = storage.list("configmaps", None, None).unwrap();
    assert_eq!(shown(&list.entries), ["default/a=2", "default/c=2"]);
    assert_eq!(events(&storage, 1).unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_get_gap_free_revisions_in_few_transactions() {
    let place = Place::new();
    let storage = place.open().await;
    let writers = (0..32).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for round in 0..20 {
                revisions.push(write(&storage, create(&format!("w{writer}-{round}"), "x")).await);
            }
            assert!(revisions.is_sorted());
            revisions
        })
    });
    let mut all = BTreeSet::new();
    for writer in futures_util::future::join_all(writers).await {
        all.extend(writer.unwrap());
    }
    assert!(all.into_iter().eq(2..=641));
    let commits = storage.metrics().commits.load(Ordering::Relaxed);
    assert!(commits < 320, "{commits} transactions for 640 writes");
    assert_eq!(storage.resources(), [("configmaps".into(), 640)]);
}

#[tokio::test]
async fn a_closed_store_refuses_writes_after_writing_what_had_queued() {
    let place = Place::new();
    let storage = place.open().await;
    let queued: Vec<_> = (0..10).map(|n| create(&format!("n{n}"), "x")).collect();
    let writes = futures_util::future::join_all(queued.into_iter().map(|operation| storage.write(operation)));
    let (written, ()) = tokio::join!(writes, storage.close());
    assert!(written.iter().all(Result::is_ok));
    assert!(matches!(
        storage.write(create("late", "x")).await,
        Err(StorageError::Closed)
    ));
    drop(storage);
    assert_eq!(place.open().await.revision(), 11);
}
/// Appends to the content of `name`, or refuses.
fn append(name: &str, more: &'static str, refuse: bool) -> Alongside {
    let key = key(name);
    let of = key.name.clone();
    Alongside {
        key,
        revise: Box::new(move |entry| {
            if refuse {
                return Err("it is full".to_owned());
            }
            let object: Value = serde_json::from_slice(&entry.bytes).unwrap();
            let content = format!("{}{more}", object["data"]["content"].as_str().unwrap());
            Ok(Some(draft(&of, &content)))
        }),
    }
}

#[tokio::test]
async fn what_changes_alongside_is_decided_in_the_writers_turn_or_nothing_is_written() {
    let storage = in_memory().await;
    let first = write(&storage, create("sum", "")).await;
    let writes =
        ["a", "b", "c", "d"].map(|name| storage.write_with(create(name, "1"), vec![append("sum", "+", false)]));
    let written = futures_util::future::join_all(writes).await;
    assert!(written.iter().all(Result::is_ok));
    let shown = |storage: &Storage| shown(&storage.list("configmaps", None, None).unwrap().entries);
    let all = [
        "default/a=1",
        "default/b=1",
        "default/c=1",
        "default/d=1",
        "default/sum=++++",
    ];
    assert_eq!(shown(&storage), all);
    assert_eq!(storage.revision(), first + 8);
    let refused = storage
        .write_with(
            create("e", "1"),
            vec![append("sum", "-", false), append("a", "-", true)],
        )
        .await;
    assert!(matches!(refused, Err(StorageError::Refused { key, why }) if &*key.name == "e" && why == "it is full"));
    let taken = storage
        .write_with(create("a", "2"), vec![append("sum", "-", false)])
        .await;
    assert!(matches!(taken, Err(StorageError::AlreadyExists(_))));
    let beside_nothing = storage
        .write_with(create("f", "1"), vec![append("missing", "-", true)])
        .await;
    assert!(beside_nothing.is_ok());
    assert_eq!(
        shown(&storage),
        [&all[..4], &["default/f=1", "default/sum=++++"][..]].concat()
    );
}
