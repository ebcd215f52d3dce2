//! The same store on PostgreSQL. Run with `--ignored` and the address of an empty database.

use super::*;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, Statement};
use std::time::Duration;

const URL: &str = "KRUST_TEST_POSTGRES_URL";

#[tokio::test]
#[ignore = "needs an empty PostgreSQL database: KRUST_TEST_POSTGRES_URL=postgres://…"]
async fn the_store_runs_on_postgresql() {
    let url = std::env::var(URL).unwrap_or_else(|_| panic!("{URL} is not set"));
    let options = Options::new(&url);
    let mut single = ConnectOptions::new(&url);
    single.max_connections(1);
    let other = Database::connect(single).await.expect("PostgreSQL answers");
    let fresh = other.execute_unprepared("SELECT 1 FROM changes").await.is_err();
    assert!(fresh, "the database is not empty");
    model::run(100, options.clone()).await;

    let storage = open(options.clone()).await;
    let second = Storage::open(options.clone(), Arc::new(UidIndexer)).await;
    assert!(matches!(second, Err(StorageError::InUse { .. })), "{:?}", second.err());

    // A lost session fails one write at most, and the next one comes with the lock.
    let at = write(&storage, create("before", "x")).await;
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let terminate = format!("SELECT pg_terminate_backend(pid) {others}");
    other.execute_unprepared(&terminate).await.unwrap();
    // The signal is one thing, the end of the session another.
    let count = Statement::from_string(DbBackend::Postgres, format!("SELECT count(*) {others}"));
    let ended = async {
        let sessions = || async {
            other
                .query_one_raw(count.clone())
                .await
                .unwrap()
                .unwrap()
                .try_get_by_index::<i64>(0)
        };
        while sessions().await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("the session ends");
    let revision = match storage.write(create("after", "x")).await {
        Ok(entry) => entry.revision,
        Err(StorageError::Database { .. }) => write(&storage, create("after", "x")).await,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(revision, at + 1);
    let second = Storage::open(options.clone(), Arc::new(UidIndexer)).await;
    assert!(matches!(second, Err(StorageError::InUse { .. })), "{:?}", second.err());
    storage.close().await;
    drop(storage);
    assert_eq!(open(options).await.revision(), revision);
}
