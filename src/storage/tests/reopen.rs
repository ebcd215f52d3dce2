//! What a restart finds, and what stops one.

use super::*;
use sea_orm::{ConnectionTrait, Database};

#[tokio::test]
async fn objects_history_and_revision_are_there_after_a_restart() {
    let place = Place::new();
    let storage = place.open().await;
    write(&storage, create("x/a", "1")).await; // 2
    write(&storage, update("x/a", 2, "2")).await; // 3
    write(&storage, create("y/b", "1")).await; // 4
    write(&storage, delete("y/b", 4)).await; // 5
    let before: Vec<_> = events(&storage, 1).unwrap().iter().map(|event| told(event)).collect();
    storage.close().await;

    let storage = place.open().await;
    assert_eq!(storage.revision(), 5);
    let entry = storage.get("configmaps", "x", "a").unwrap();
    assert_eq!(
        (content(&entry), entry.revision, &*entry.index.uid),
        ("2".to_owned(), 3, "uid-of-a")
    );
    assert!(storage.get("configmaps", "y", "b").is_none());
    for from in 1..=5 {
        let after: Vec<_> = events(&storage, from)
            .unwrap()
            .iter()
            .map(|event| told(event))
            .collect();
        assert_eq!(after, before[from as usize - 1..], "resumed from {from}");
    }
    let deleted = events(&storage, 4).unwrap();
    assert_eq!(content(deleted[0].previous.as_ref().unwrap()), "1");
    assert_eq!(write(&storage, create("y/b", "2")).await, 6);
}

#[tokio::test]
async fn one_server_has_the_database() {
    let place = Place::new();
    let storage = place.open().await;
    let second = Storage::open(place.options(), Arc::new(UidIndexer)).await;
    assert!(matches!(second, Err(StorageError::InUse { .. })));
    storage.close().await;
    drop(storage);
    place.open().await;
}

#[tokio::test]
async fn the_file_is_where_it_was_asked_for_and_locked_by_whatever_name() {
    let place = Place::new();
    let directory = place.directory.path().join("50% of what? all of it");
    std::fs::create_dir(&directory).unwrap();
    let storage = open(Options::sqlite(&directory.join("krust.db"))).await;
    assert!(directory.join("krust.db-wal").exists());
    let link = place.directory.path().join("link");
    std::os::unix::fs::symlink(&directory, &link).unwrap();
    let second = Storage::open(Options::sqlite(&link.join("krust.db")), Arc::new(UidIndexer)).await;
    assert!(matches!(second, Err(StorageError::InUse { .. })));
    storage.close().await;
}

#[tokio::test]
async fn the_database_is_for_its_owners_eyes_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let storage = place.open().await;
    write(&storage, create("a", "secret")).await;
    let mut seen = 0;
    for file in std::fs::read_dir(place.directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            file.path()
        );
        seen += 1;
    }
    assert_eq!(seen, 4, "database, log, shared memory, lock");
}

#[tokio::test]
async fn what_is_no_database_is_called_so() {
    let place = Place::new();
    std::fs::write(
        place.file(),
        "not a database, but longer than the header of one".repeat(100),
    )
    .unwrap();
    let opened = Storage::open(place.options(), Arc::new(UidIndexer)).await;
    assert!(
        matches!(opened, Err(StorageError::Corrupt { .. })),
        "{:?}",
        opened.err()
    );
    for url in ["", "mysql://x:secret@y/z", "sqlite://"] {
        let opened = Storage::open(Options::new(url), Arc::new(UidIndexer)).await;
        let Err(StorageError::Url { url, .. }) = opened else {
            panic!("{url} was not refused by its address: {:?}", opened.err());
        };
        assert!(!url.contains("secret"));
    }
    let nowhere = Options::new("sqlite:///nonexistent/krust.db");
    let opened = Storage::open(nowhere, Arc::new(UidIndexer)).await;
    assert!(matches!(opened, Err(StorageError::File { .. })));
}

/// Opens a fresh store with an object in it, closes it, and runs `sql` on the file.
async fn tampered(sql: &str) -> Result<Arc<Storage>, StorageError> {
    let place = Place::new();
    let storage = place.open().await;
    write(&storage, create("a", "1")).await;
    write(&storage, update("a", 2, "2")).await;
    write(&storage, create("b", "1")).await;
    storage.close().await;
    drop(storage);
    let database = Database::connect(place.options().url).await.unwrap();
    database.execute_unprepared(sql).await.unwrap();
    database.close().await.unwrap();
    Storage::open(place.options(), Arc::new(UidIndexer)).await
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let opened = tampered("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)").await;
    assert!(matches!(opened, Err(StorageError::NewerSchema { migration }) if migration == "m9999_future"));
}

#[tokio::test]
async fn damage_is_noticed_at_start() {
    for damage in [
        "DELETE FROM changes WHERE revision = 3",
        "DELETE FROM changes WHERE revision = 2",
        "DELETE FROM objects WHERE revision = 4",
        "UPDATE objects SET revision = 2 WHERE revision = 3",
    ] {
        let opened = tampered(damage).await;
        assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "{damage}");
    }
}
