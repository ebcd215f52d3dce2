//! The same store on PostgreSQL. Run with `--ignored` and the address of an empty database.

use super::*;
use sea_orm::{ConnectionTrait, Database};

const URL: &str = "KRUST_TEST_POSTGRES_URL";

#[tokio::test]
#[ignore = "needs an empty PostgreSQL database: KRUST_TEST_POSTGRES_URL=postgres://…"]
async fn the_store_runs_on_postgresql() {
    let url = std::env::var(URL).unwrap_or_else(|_| panic!("{URL} is not set"));
    let options = Options::new(&url);
    let other = Database::connect(&url).await.expect("PostgreSQL answers");
    model::run(100, options.clone()).await;

    let storage = open(options.clone()).await;
    let second = Storage::open(options.clone(), Arc::new(UidIndexer)).await;
    assert!(matches!(second, Err(StorageError::InUse { .. })), "{:?}", second.err());

    // A lost connection fails one write at most, and does not let another server in.
    let at = write(&storage, create("before", "x")).await;
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    other.execute_unprepared(others).await.unwrap();
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
