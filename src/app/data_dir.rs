//! The data directory: made, checked, and taken by one server at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot use the data directory {}: {source}. Name another with --data-dir or server.data_dir", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error("another krust{pid} is running on the data directory {}. Stop it, or name another directory with --data-dir", path.display())]
    InUse { path: PathBuf, pid: String },
}

/// A data directory that is ours until this is dropped. The kernel gives the lock back when the process dies.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, for its owner's eyes only, and takes it.
    pub fn take(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |source| DataDirError::Unusable {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(path.join("krust.pid")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let known = lock.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
                let pid = if known {
                    format!(" (process {})", pid.trim())
                } else {
                    String::new()
                };
                return Err(DataDirError::InUse { path, pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(DataDir { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::take(&path).unwrap();
        let error = DataDir::take(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && error.contains("--data-dir"),
            "{error}"
        );
        drop(first);
        DataDir::take(&path).unwrap();
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_named() {
        let error = DataDir::take(Path::new("/proc/krust")).unwrap_err().to_string();
        assert!(error.contains("/proc/krust") && error.contains("--data-dir"), "{error}");
    }
}
