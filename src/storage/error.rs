//! What can go wrong in the store (upstream: `storage/errors.go`).

use super::Key;
use sea_orm::{DbErr, RuntimeErr, SqlxError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{0} already exists")]
    AlreadyExists(Key),
    #[error("{0} not found")]
    NotFound(Key),
    #[error("{key} is at revision {current}")]
    Conflict { key: Key, current: u64 },
    /// What would have changed alongside did not let it be.
    #[error("{key} was refused: {why}")]
    Refused { key: Key, why: String },
    /// History before `oldest` is gone.
    #[error("revision {requested} was compacted, the oldest is {oldest}")]
    Compacted { requested: u64, oldest: u64 },
    #[error("revision {requested} is in the future, the current is {current}")]
    Future { requested: u64, current: u64 },
    /// The writers of one failed transaction share it. Nothing was changed unless the message says that
    /// the outcome is unknown; the writer finds out before it goes on.
    #[error("{operation}: {source}")]
    Database {
        operation: &'static str,
        source: Arc<DbErr>,
    },
    #[error("{operation} {path:?}: {source}")]
    File {
        operation: &'static str,
        path: PathBuf,
        source: Arc<std::io::Error>,
    },
    #[error("{url:?} is no database that can be used: {reason}")]
    Url { url: String, reason: String },
    /// Another server holds the database.
    #[error("the database {database} is in use by another krust")]
    InUse { database: String },
    #[error("the database is corrupt: {detail}")]
    Corrupt { detail: String },
    /// A later version of the program wrote the database.
    #[error("the database was written by a newer krust (migration {migration} is unknown to this one)")]
    NewerSchema { migration: String },
    #[error("the store is closed")]
    Closed,
}

impl StorageError {
    /// `operation` says what was tried, as in "opening the database".
    pub(super) fn database(operation: &'static str, source: DbErr) -> StorageError {
        match corruption(&source) {
            Some(detail) => StorageError::Corrupt { detail },
            None => StorageError::Database {
                operation,
                source: Arc::new(source),
            },
        }
    }

    pub(super) fn file(operation: &'static str, path: &Path, source: std::io::Error) -> StorageError {
        StorageError::File {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

/// SQLite's own words if it says that the file is damaged (SQLITE_CORRUPT, 11) or no database (SQLITE_NOTADB, 26).
fn corruption(error: &DbErr) -> Option<String> {
    let error = database_error(error)?;
    // The low byte of an extended result code is the primary one. PostgreSQL's codes have five characters.
    let code = error.code().filter(|code| code.len() < 5)?.parse::<u32>().ok()?;
    matches!(code & 0xff, 11 | 26).then(|| error.message().to_owned())
}

/// Whether PostgreSQL gave up waiting for a lock (`lock_not_available`).
pub(super) fn is_lock_timeout(error: &DbErr) -> bool {
    database_error(error).is_some_and(|error| error.code().is_some_and(|code| code == "55P03"))
}

/// What the database itself answered, if it did.
fn database_error(error: &DbErr) -> Option<&dyn sea_orm::sqlx::error::DatabaseError> {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    match &**error {
        SqlxError::Database(error) => Some(&**error),
        _ => None,
    }
}
