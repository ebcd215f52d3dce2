//! The words of the store: key, entry, draft, operation, event, snapshot (upstream: `storage.Interface`'s arguments).

use bytes::Bytes;
use std::cmp::Ordering;
use std::sync::Arc;

/// Where an object lives. `resource` is the group-resource (`pods`, `deployments.apps`),
/// `namespace` is empty for cluster-scoped objects. Ordered as lists are: see [`Key::compare_path`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub resource: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(resource: &str, namespace: &str, name: &str) -> Key {
        Key {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Compares with `namespace/name` as upstream's etcd keys compare: bytewise with the slash, so
    /// that `a-b/x` stands before `a/x`. Continue tokens are positions in this order.
    pub fn compare_path(&self, namespace: &str, name: &str) -> Ordering {
        compare_namespaces(&self.namespace, namespace).then_with(|| (*self.name).cmp(name))
    }
}

/// Bytewise order of `namespace/`.
fn compare_namespaces(left: &str, right: &str) -> Ordering {
    left.bytes().chain([b'/']).cmp(right.bytes().chain([b'/']))
}

/// `pods default/web`, `nodes one`.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.resource, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.resource, self.name),
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.resource.cmp(&other.resource)).then_with(|| self.compare_path(&other.namespace, &other.name))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
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
#[derive(Clone, Debug)]
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

/// Decides what an object becomes, looking at what it is; None leaves it. Err refuses the write that this belongs to.
pub type Revise = Box<dyn FnOnce(&Entry) -> Result<Option<Draft>, String> + Send>;

/// A change of another object that belongs to a write. The writer has it decided in its turn, on what the other object
/// is then, so that it meets no conflict; both are committed, or neither. Nothing if there is no such object.
pub struct Alongside {
    pub key: Key,
    pub revise: Revise,
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

impl Event {
    pub fn revision(&self) -> u64 {
        self.entry.revision
    }
}

/// Objects of one resource (and namespace) at one revision, in key order.
#[derive(Debug)]
pub struct Snapshot {
    /// The store's revision that the list shows, which is the list's resourceVersion.
    pub revision: u64,
    /// Equal for two lists of the same scope means that they hold the same objects: what was derived
    /// from one (a Table, a compressed body) may be used for the other.
    pub changed: u64,
    pub entries: Vec<Arc<Entry>>,
}

impl Snapshot {
    /// Index of the first entry at or after `namespace/name`, where a chunked list goes on.
    pub fn position(&self, namespace: &str, name: &str) -> usize {
        (self.entries).partition_point(|entry| entry.key.compare_path(namespace, name) == Ordering::Less)
    }
}

/// A part of a list: see [`Snapshot`].
#[derive(Debug)]
pub struct Window {
    pub revision: u64,
    pub entries: Vec<Arc<Entry>>,
    /// So many come after them.
    pub rest: usize,
}

/// Extracts the index of an object when it is read back from the database at start.
pub trait Indexer: Send + Sync {
    fn index(&self, resource: &str, json: &[u8]) -> Index;
}
