//! What the store can be told (upstream: `--etcd-*`, `--watch-cache` and etcd's `--auto-compaction-*`).

use std::path::Path;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite://path`, `sqlite::memory:` or `postgres://…`.
    pub url: String,
    /// Versions that were replaced longer ago than this are forgotten (etcd's compaction interval is 5 minutes).
    pub history_age: Duration,
    /// At most this many changes are remembered, over all resources.
    pub history_events_max: usize,
    /// At most this many bytes of replaced and deleted versions are held in memory.
    pub history_bytes_max: usize,
    /// At most this many writes, and about as many bytes, are committed in one transaction.
    pub batch_writes_max: usize,
    pub batch_bytes_max: usize,
    /// At most this many writes wait for the writer; more wait for a place.
    pub queue_writes_max: usize,
}

impl Options {
    pub fn new(url: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            history_age: Duration::from_secs(300),
            history_events_max: 100_000,
            history_bytes_max: 64 << 20,
            batch_writes_max: 256,
            batch_bytes_max: 8 << 20,
            queue_writes_max: 1024,
        }
    }

    /// A SQLite file, created if it is not there.
    pub fn sqlite(path: &Path) -> Options {
        // As in any address, these two have a meaning of their own.
        let path = path.display().to_string().replace('%', "%25").replace('?', "%3F");
        Options::new(format!("sqlite://{path}"))
    }

    /// A database that dies with the process: for tests.
    pub fn memory() -> Options {
        Options::new("sqlite::memory:")
    }
}
