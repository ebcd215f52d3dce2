//! Revisions, watch cache and database (upstream: apiserver's `storage/etcd3` and `storage/cacher`).
//!
//! This module knows bytes, keys and revisions, nothing of Kubernetes kinds. Reads are served from
//! memory; writes go through one writer that commits what has queued in one transaction.
//!
//! - [`Storage`] (`store.rs`): the one door; everything else is behind it.
//! - `writer.rs`: the task that owns the database: collects, decides (`batch.rs`), commits, publishes, compacts.
//! - `cache.rs`, `resource.rs`: current objects and recent events per resource.
//! - [`Watch`] (`watch.rs`): a cursor over those events.
//! - `database.rs`, `entities/`, `migrations.rs`: SQL, through sea-orm; `load.rs`: from rows back to memory.
//! - `compact.rs`: how far history may be forgotten; `lock.rs`: one server per SQLite file.
//!
//! Invariants: revisions are gap-free and never repeat; what is acknowledged is on disk; the cache only
//! ever shows what is committed, in order; history above the floor is complete in memory and on disk.

mod batch;
mod cache;
mod compact;
mod database;
mod draft;
mod entities;
mod error;
mod load;
mod lock;
mod metrics;
mod migrations;
mod options;
mod resource;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod watch;
mod writer;

pub use error::StorageError;
pub use metrics::{COMMIT_BUCKETS_MICROS, Metrics};
pub use options::Options;
pub use store::Storage;
pub use types::{Alongside, Draft, Entry, Event, EventKind, Index, Indexer, Key, Operation, Revise, Snapshot, Window};
pub use watch::Watch;
