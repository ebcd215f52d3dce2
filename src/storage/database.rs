//! All SQL of the store, through sea-orm, portable between SQLite and PostgreSQL (upstream: `storage/etcd3`'s client).

use super::entities::{change, meta, object};
use super::error::is_lock_timeout;
use super::lock::{DatabaseLock, private_file};
use super::migrations::migrate;
use super::{Event, EventKind, StorageError};
use futures_util::stream::BoxStream;
use sea_orm::sea_query::{ExprTrait, OnConflict, Query};
use sea_orm::sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectOptions, ConnectionTrait, Database as SeaOrm, DatabaseConnection,
    DatabaseTransaction, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, RuntimeErr,
    TransactionTrait,
};
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A statement takes at most so many keys: SQLite limits the depth of expressions to 1000.
const KEYS_PER_STATEMENT: usize = 100;
/// Bytes of a page of a new SQLite file. Most objects have two to four KiB: of pages of 4 KiB they would waste half.
const PAGE_BYTES: u32 = 8192;
/// Free pages are given back to the file system so many at a time (1 MiB), and only while more than
/// `FREE_PAGES_KEPT` and an eighth of the file are free: most of them are wanted again soon.
const RECLAIMED_PAGES: u64 = 128;
const FREE_PAGES_KEPT: u64 = 32;
/// "krust" as the key of PostgreSQL's advisory lock.
const ADVISORY_LOCK: i64 = 0x006b_7275_7374;
/// The revision of a store in which nothing was written yet: 0 has a meaning of its own in the API.
const FIRST_REVISION: i64 = 1;

pub(super) struct Database {
    connection: DatabaseConnection,
    /// Sessions opened with a server so far, and which of them has the lock: after a lost one the pool
    /// silently opens another, which has not.
    sessions: Arc<AtomicU64>,
    locked_session: AtomicU64,
    /// For messages: without user and password.
    name: String,
    /// Dropped after the connection.
    _lock: Option<DatabaseLock>,
}

impl Database {
    /// Opens, locks and migrates the database; a SQLite file is created if it is not there.
    pub async fn open(url: &str) -> Result<Database, StorageError> {
        let file = sqlite_file(url)?;
        let lock = file.map(|file| create_and_lock(&file)).transpose()?;
        let sessions = Arc::new(AtomicU64::new(0));
        let connection = SeaOrm::connect(connect_options(url, sessions.clone()))
            .await
            .map_err(|error| StorageError::database("opening the database", error))?;
        let database = Database {
            connection,
            sessions,
            locked_session: AtomicU64::new(0),
            name: url.rsplit('@').next().unwrap_or_default().to_owned(),
            _lock: lock,
        };
        database.lock().await?;
        migrate(&database.connection).await?;
        Ok(database)
    }

    fn backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    /// Takes PostgreSQL's lock on the database again: it is the session's, and a failed operation may mean
    /// that the session was lost and is now another. Nothing to do for SQLite, whose lock is a file.
    pub async fn lock(&self) -> Result<(), StorageError> {
        if self.backend() != DbBackend::Postgres {
            return Ok(());
        }
        let failed = |error| StorageError::database("locking the database", error);
        // Waits a little: the session of a server that was just killed ends when PostgreSQL notices.
        let wait = "SET lock_timeout = '3s'";
        self.connection.execute_unprepared(wait).await.map_err(failed)?;
        let lock = format!("SELECT pg_advisory_lock({ADVISORY_LOCK})");
        match self.connection.execute_unprepared(&lock).await {
            Ok(_) => {}
            Err(error) if is_lock_timeout(&error) => {
                return Err(StorageError::InUse {
                    database: self.name.clone(),
                });
            }
            Err(error) => return Err(failed(error)),
        }
        let forever = "SET lock_timeout = 0";
        self.connection.execute_unprepared(forever).await.map_err(failed)?;
        let session = self.sessions.load(Ordering::Acquire);
        self.locked_session.store(session, Ordering::Release);
        Ok(())
    }

    /// Begins a transaction in the session that has the lock.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let transaction = self.connection.begin().await?;
        // Only taking the connection opens a session, and this task alone takes it.
        if self.sessions.load(Ordering::Acquire) != self.locked_session.load(Ordering::Acquire) {
            let lost = "the session was lost, and with it the lock on the database";
            return Err(DbErr::Conn(RuntimeErr::Internal(lost.to_owned())));
        }
        Ok(transaction)
    }

    /// The compaction floor; in a new database, the first revision.
    pub async fn floor(&self) -> Result<u64, DbErr> {
        let row = meta::Entity::find_by_id(meta::FLOOR).one(&self.connection).await?;
        Ok(row.map_or(FIRST_REVISION, |row| row.value) as u64)
    }

    /// Changes after `revision`, in order.
    pub async fn changes_after(&self, revision: u64) -> Result<BoxStream<'_, Result<change::Model, DbErr>>, DbErr> {
        let rows = change::Entity::find()
            .filter(change::Column::Revision.gt(revision as i64))
            .order_by_asc(change::Column::Revision)
            .stream(&self.connection)
            .await?;
        Ok(Box::pin(rows))
    }

    /// Revisions of the current objects, ascending.
    pub async fn object_revisions(&self) -> Result<Vec<i64>, DbErr> {
        object::Entity::find()
            .select_only()
            .column(object::Column::Revision)
            .order_by_asc(object::Column::Revision)
            .into_tuple()
            .all(&self.connection)
            .await
    }

    /// Writes a batch of changes in one transaction. When this returns without an error they are on disk.
    /// After an error they may be there or not: look with [`Database::changes_after`].
    pub async fn append(&self, events: &[Arc<Event>]) -> Result<(), DbErr> {
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        let mut seen = HashSet::new();
        // Only the last change of each key makes it to the table of objects.
        for event in events.iter().rev() {
            let key = &event.entry.key;
            if seen.insert(key) {
                match event.kind {
                    EventKind::Put => puts.push(object::ActiveModel {
                        resource: Set(key.resource.to_string()),
                        namespace: Set(key.namespace.to_string()),
                        name: Set(key.name.to_string()),
                        revision: Set(event.revision() as i64),
                    }),
                    EventKind::Delete => deletes.push(key),
                }
            }
        }
        let transaction = self.begin().await?;
        change::Entity::insert_many(events.iter().map(|event| row(event)))
            .exec_without_returning(&transaction)
            .await?;
        if !puts.is_empty() {
            let key = [
                object::Column::Resource,
                object::Column::Namespace,
                object::Column::Name,
            ];
            object::Entity::insert_many(puts)
                .on_conflict(
                    OnConflict::columns(key)
                        .update_column(object::Column::Revision)
                        .to_owned(),
                )
                .exec_without_returning(&transaction)
                .await?;
        }
        for keys in deletes.chunks(KEYS_PER_STATEMENT) {
            let any = keys.iter().fold(Condition::any(), |any, key| {
                any.add(
                    object::Column::Resource
                        .eq(&*key.resource)
                        .and(object::Column::Namespace.eq(&*key.namespace))
                        .and(object::Column::Name.eq(&*key.name)),
                )
            });
            object::Entity::delete_many().filter(any).exec(&transaction).await?;
        }
        transaction.commit().await
    }

    /// Raises the floor from `from` to `to` and deletes the changes that nothing needs any more: of those in
    /// between, the versions that they replaced and the deletions. A version has one successor only, so what
    /// a change at or below the floor replaced is neither current nor the previous version of a change above.
    pub async fn compact(&self, from: u64, to: u64) -> Result<u64, DbErr> {
        let between = |column: change::Column| column.gt(from as i64).and(column.lte(to as i64));
        let replaced = Query::select()
            .column(change::Column::PrevRevision)
            .from(change::Entity)
            .and_where(between(change::Column::Revision))
            .and_where(change::Column::PrevRevision.gt(0))
            .to_owned();
        let deletions = between(change::Column::Revision).and(change::Column::Kind.eq(change::Kind::Delete));

        let transaction = self.begin().await?;
        // Replaced first: the deletions name the last versions.
        let replaced = change::Entity::delete_many()
            .filter(change::Column::Revision.in_subquery(replaced))
            .exec(&transaction)
            .await?;
        let deletions = change::Entity::delete_many()
            .filter(deletions)
            .exec(&transaction)
            .await?;
        let floor = meta::ActiveModel {
            name: Set(meta::FLOOR.to_owned()),
            value: Set(to as i64),
        };
        meta::Entity::insert_many([floor])
            .on_conflict(
                OnConflict::column(meta::Column::Name)
                    .update_column(meta::Column::Value)
                    .to_owned(),
            )
            .exec_without_returning(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(replaced.rows_affected + deletions.rows_affected)
    }

    /// Gives some free pages of a SQLite file back to the file system. True if there are more to give; when there are
    /// none, the log is moved into the file, which shrinks only then.
    pub async fn reclaim(&self) -> Result<bool, DbErr> {
        if self.backend() != DbBackend::Sqlite {
            return Ok(false);
        }
        let free = self.pragma("freelist_count").await?;
        let pages = self.pragma("page_count").await?;
        if free <= std::cmp::max(FREE_PAGES_KEPT, pages / 8) {
            self.connection
                .execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)")
                .await?;
            return Ok(false);
        }
        let reclaim = format!("PRAGMA incremental_vacuum({RECLAIMED_PAGES})");
        self.connection.execute_unprepared(&reclaim).await?;
        Ok(true)
    }

    /// Size of the database without its log, in bytes; None where the server knows better.
    pub async fn size_bytes(&self) -> Result<Option<u64>, DbErr> {
        if self.backend() != DbBackend::Sqlite {
            return Ok(None);
        }
        Ok(Some(self.pragma("page_count").await? * self.pragma("page_size").await?))
    }

    async fn pragma(&self, name: &str) -> Result<u64, DbErr> {
        let query = sea_orm::Statement::from_string(self.backend(), format!("PRAGMA {name}"));
        let row = self.connection.query_one_raw(query).await?;
        let value = row.map(|row| row.try_get_by_index::<i64>(0)).transpose()?;
        Ok(value.unwrap_or(0) as u64)
    }

    /// Moves SQLite's log into the database file, or gives PostgreSQL's lock back, and closes.
    pub async fn close(self) -> Result<(), DbErr> {
        let last = match self.backend() {
            DbBackend::Sqlite => "PRAGMA wal_checkpoint(TRUNCATE)",
            _ => "SELECT pg_advisory_unlock_all()",
        };
        self.connection.execute_unprepared(last).await?;
        self.connection.close().await
    }
}

fn row(event: &Event) -> change::ActiveModel {
    let entry = &event.entry;
    let kind = match (event.kind, &event.previous) {
        (EventKind::Delete, _) => change::Kind::Delete,
        (EventKind::Put, Some(_)) => change::Kind::Put,
        (EventKind::Put, None) => change::Kind::Create,
    };
    change::ActiveModel {
        revision: Set(entry.revision as i64),
        resource: Set(entry.key.resource.to_string()),
        namespace: Set(entry.key.namespace.to_string()),
        name: Set(entry.key.name.to_string()),
        kind: Set(kind),
        prev_revision: Set(event.previous.as_ref().map_or(0, |previous| previous.revision as i64)),
        value: Set(entry.bytes.to_vec()),
    }
}

/// Makes the file if it is not there, so that it is for the owner's eyes only, and locks it.
fn create_and_lock(file: &Path) -> Result<DatabaseLock, StorageError> {
    let created = private_file(file)
        .and_then(|made| {
            match file
                .parent()
                .filter(|_| made.metadata().is_ok_and(|data| data.len() == 0))
            {
                // SQLite syncs the directory for its logs, not for the database: its name must survive as well.
                Some(directory) if directory != Path::new("") => File::open(directory)?.sync_all(),
                _ => Ok(()),
            }
        })
        .and_then(|()| file.canonicalize());
    let file = created.map_err(|source| StorageError::file("creating", file, source))?;
    DatabaseLock::acquire(&file)
}

/// The file of a `sqlite:` address; None for a database in memory or on a server.
fn sqlite_file(url: &str) -> Result<Option<PathBuf>, StorageError> {
    let unusable = |reason: &str| StorageError::Url {
        // A server's address may hold a password.
        url: url.split_once("://").map_or("", |(scheme, _)| scheme).to_owned(),
        reason: reason.to_owned(),
    };
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(None);
    }
    let path = url
        .strip_prefix("sqlite:")
        .ok_or_else(|| unusable("it must begin with sqlite:// or postgres://"))?;
    match path.strip_prefix("//").unwrap_or(path) {
        ":memory:" => return Ok(None),
        "" => return Err(unusable("it names no file")),
        _ => {}
    }
    let options: SqliteConnectOptions = url.parse().map_err(|error| unusable(&format!("{error}")))?;
    Ok(Some(options.get_filename().to_owned()))
}

fn connect_options(url: &str, sessions: Arc<AtomicU64>) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        // One writer, and reads never come here. A database in memory would be another one per connection.
        .max_connections(1)
        .min_connections(0)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_sqlite_pool_opts(|pool| pool.idle_timeout(None).max_lifetime(None))
        .map_sqlx_postgres_pool_opts(move |pool| {
            let sessions = sessions.clone();
            pool.idle_timeout(None).max_lifetime(None).after_connect(move |_, _| {
                sessions.fetch_add(1, Ordering::AcqRel);
                Box::pin(async { Ok(()) })
            })
        })
        .map_sqlx_sqlite_opts(|options| {
            options
                .create_if_missing(true)
                .page_size(PAGE_BYTES)
                .journal_mode(SqliteJournalMode::Wal)
                // The log is synced at every commit: what is acknowledged survives a power cut.
                .synchronous(SqliteSynchronous::Full)
                .auto_vacuum(SqliteAutoVacuum::Incremental)
                // Pages of the log before it is moved into the file (8 MiB), and what the log keeps on disk.
                .pragma("wal_autocheckpoint", "1000")
                .pragma("journal_size_limit", "33554432")
                .foreign_keys(false)
                .row_buffer_size(512)
        });
    options
}
