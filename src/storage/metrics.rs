//! Counters of the store, read by `/metrics` (upstream: `etcd_request_*`, `apiserver_storage_*`, `apiserver_watch_cache_*`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`Metrics::commit_buckets`], in microseconds; the last bucket has none.
pub const COMMIT_BUCKETS_MICROS: [u64; 9] = [250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// All only grow, but where "now" is said.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Writes that were acknowledged.
    pub writes: AtomicU64,
    /// Writes refused by compare-and-swap: conflict, already exists, not found.
    pub writes_refused: AtomicU64,
    /// Writes that failed because their transaction did.
    pub writes_failed: AtomicU64,
    /// Transactions that wrote objects, and the time that they took together.
    pub commits: AtomicU64,
    pub commit_micros: AtomicU64,
    /// Commits by duration; not cumulative. The bounds are [`COMMIT_BUCKETS_MICROS`].
    pub commit_buckets: [AtomicU64; COMMIT_BUCKETS_MICROS.len() + 1],
    /// Bytes of JSON written.
    pub written_bytes: AtomicU64,
    /// Rows deleted by compaction.
    pub compacted_rows: AtomicU64,
    /// Watches that fell out of history.
    pub watches_compacted: AtomicU64,
    /// Watches that are open now.
    pub watches: AtomicU64,
    /// Changes remembered now, and bytes of replaced and deleted versions that they hold.
    pub history_events: AtomicU64,
    pub history_bytes: AtomicU64,
    /// Size of a SQLite file without its log as of the last look; 0 for PostgreSQL.
    pub database_bytes: AtomicU64,
}

impl Metrics {
    pub(super) fn committed(&self, writes: u64, bytes: u64, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = COMMIT_BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        add(&self.writes, writes);
        add(&self.written_bytes, bytes);
        add(&self.commits, 1);
        add(&self.commit_micros, micros);
        add(&self.commit_buckets[bucket], 1);
    }
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

pub(super) fn subtract(gauge: &AtomicU64, by: u64) {
    gauge.fetch_sub(by, Ordering::Relaxed);
}
