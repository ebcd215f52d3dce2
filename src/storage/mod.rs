//! Revisions, watch cache and database (upstream: apiserver's `storage/etcd3` and `storage/cacher`).
//!
//! This module knows bytes, keys and revisions, nothing of Kubernetes kinds. Reads are served from
//! memory; writes go through one writer that commits what has queued in one transaction.

use bytes::Bytes;
use std::sync::Arc;

/// Where an object lives. `resource` is the group-resource (`pods`, `deployments.apps`),
/// `namespace` is empty for cluster-scoped objects. Ordered bytewise, as lists are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub resource: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// What selectors and the garbage collector need, extracted once when the object is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub uid: String,
    /// Sorted by key.
    pub labels: Vec<(String, String)>,
    /// Selectable fields besides `metadata.name` and `metadata.namespace`, path to value.
    pub fields: Vec<(&'static str, String)>,
    pub owner_uids: Vec<String>,
}

/// One version of an object: immutable, shared by the cache, lists and watches.
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    /// The resourceVersion, which also stands in `bytes`.
    pub revision: u64,
    /// The whole object as compact JSON in its storage version, `metadata.resourceVersion` included.
    pub bytes: Bytes,
    pub index: Index,
}

/// An object about to be written: JSON that lacks only the digits of its resourceVersion,
/// which the writer inserts at byte `revision_at` (`…"resourceVersion":"` | `","uid":…`).
#[derive(Clone, Debug)]
pub struct Draft {
    pub json: Vec<u8>,
    pub revision_at: usize,
    pub index: Index,
}

/// A write. `expected` is the revision that the writer saw; anything else is a conflict.
#[derive(Debug)]
pub enum Operation {
    Create {
        key: Key,
        draft: Draft,
    },
    Update {
        key: Key,
        expected: u64,
        draft: Draft,
    },
    /// `draft` is the object as the DELETED event shows it.
    Delete {
        key: Key,
        expected: u64,
        draft: Draft,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{0:?} already exists")]
    AlreadyExists(Key),
    #[error("{0:?} not found")]
    NotFound(Key),
    #[error("{key:?} is at revision {current}")]
    Conflict { key: Key, current: u64 },
    /// History before `oldest` is gone.
    #[error("revision {requested} was compacted, the oldest is {oldest}")]
    Compacted { requested: u64, oldest: u64 },
    #[error("revision {requested} is in the future, the current is {current}")]
    Future { requested: u64, current: u64 },
    #[error("{operation}: {source}")]
    Database {
        operation: &'static str,
        source: sea_orm::DbErr,
    },
    #[error("the store is closed")]
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// A committed change. For a deletion `entry` is the last object with the deletion's revision.
#[derive(Debug)]
pub struct Event {
    pub kind: EventKind,
    pub entry: Arc<Entry>,
    /// The version before; None for a creation. Selector transitions need it.
    pub previous: Option<Arc<Entry>>,
}

/// Objects of one resource (and namespace) at one revision, in key order.
#[derive(Debug)]
pub struct Snapshot {
    pub revision: u64,
    pub entries: Vec<Arc<Entry>>,
}

/// Extracts the index of an object when it is read back from the database at start.
pub trait Indexer: Send + Sync {
    fn index(&self, resource: &str, json: &[u8]) -> Index;
}
