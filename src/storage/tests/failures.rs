//! Transactions that fail, and commits whose answer is lost.

use super::*;
use sea_orm::{ConnectionTrait, Database};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_failed_transaction_fails_its_writers_and_uses_up_nothing() {
    let place = Place::new();
    let storage = place.open().await;
    write(&storage, create("a", "1")).await;
    let other = Database::connect(place.options().url).await.unwrap();
    other
        .execute_unprepared(
            "CREATE TRIGGER poison BEFORE INSERT ON changes WHEN NEW.name = 'poison' \
             BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END",
        )
        .await
        .unwrap();
    let group = [
        create("b", "1"),
        create("poison", "1"),
        create("b", "2"),
        update("a", 2, "2"),
    ];
    let answers = futures_util::future::join_all(group.into_iter().map(|operation| storage.write(operation))).await;
    for answer in answers {
        let error = answer.expect_err("the group fails");
        assert!(error.to_string().contains("the disk is on fire"), "{error}");
    }
    assert_eq!(storage.metrics().writes_failed.load(Ordering::Relaxed), 4);
    assert_eq!(storage.revision(), 2);
    assert_eq!(
        shown(&storage.list("configmaps", None, None).unwrap().entries),
        ["default/a=1"]
    );
    assert_eq!(write(&storage, update("a", 2, "2")).await, 3);
    assert_eq!(events(&storage, 1).unwrap().len(), 2);
}

#[tokio::test]
async fn what_was_committed_without_an_answer_is_found() {
    let place = Place::new();
    let indexer: Arc<dyn Indexer> = Arc::new(UidIndexer);
    let database = database::Database::open(&place.options().url).await.unwrap();
    let cache = load::load(&database, &indexer).await.unwrap();
    let mut batch = batch::Batch::new(&cache);
    batch.add(create("a", "1")).unwrap();
    batch.add(create("b", "1")).unwrap();
    database.append(&batch.events).await.unwrap();
    cache.publish(&batch.events).wake();
    let mut batch = batch::Batch::new(&cache);
    batch.add(update("a", 2, "2")).unwrap();
    batch.add(delete("b", 3)).unwrap();
    database.append(&batch.events).await.unwrap();
    // Not published: as if the server had not heard that the commit succeeded.
    load::catch_up(&database, &cache, &indexer, cache.revision())
        .await
        .unwrap();
    assert_eq!(cache.revision(), 5);
    let list = cache.resource("configmaps").list(None, None).unwrap();
    assert_eq!(shown(&list.entries), ["default/a=2"]);
    let told: Vec<_> = (cache
        .resource("configmaps")
        .read()
        .history
        .iter()
        .map(|event| told(event)))
    .collect();
    assert_eq!(
        told,
        [
            "put 2 a after 0",
            "put 3 b after 0",
            "put 4 a after 2",
            "delete 5 b after 3"
        ]
    );
}
