//! One server per SQLite file: a lock that the kernel drops with the process (upstream: etcd's `fileutil.LockFile`).

use super::StorageError;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Held as long as the database is open.
#[derive(Debug)]
pub(super) struct DatabaseLock {
    _file: File,
}

impl DatabaseLock {
    /// Locks `<database>-lock`. The database file itself is not taken: SQLite has its own locks on it.
    pub(super) fn acquire(database: &Path) -> Result<DatabaseLock, StorageError> {
        let mut path = database.as_os_str().to_owned();
        path.push("-lock");
        let path = PathBuf::from(path);
        let failed = |source| StorageError::file("locking", &path, source);
        let file = private_file(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(DatabaseLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse {
                database: database.display().to_string(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Opens a file for writing, made if need be for the owner's eyes only: secrets lie in these files.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}
