//! The table of all kinds, looked up by resource, by kind and by where objects are stored
//! (upstream: the REST storage maps of `pkg/registry/*/rest` and apimachinery's `runtime.Scheme`).

use super::{Kind, rows};
use crate::storage;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// A group and its versions, preferred version first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Empty for the core group.
    pub name: &'static str,
    pub versions: Vec<&'static str>,
}

type Lookup = HashMap<(&'static str, &'static str, &'static str), Arc<Kind>>;

/// All served kinds.
pub struct Registry {
    kinds: Vec<Arc<Kind>>,
    groups: Vec<Group>,
    by_resource: Lookup,
    by_kind: Lookup,
    by_storage: HashMap<&'static str, Arc<Kind>>,
}

impl Registry {
    /// The built-in kinds. Built once per process and shared.
    pub fn builtin() -> Arc<Registry> {
        static BUILTIN: OnceLock<Arc<Registry>> = OnceLock::new();
        BUILTIN.get_or_init(|| Arc::new(Self::new(rows::all()))).clone()
    }

    /// A registry of `kinds`, which stand in discovery order.
    pub fn new(kinds: Vec<Kind>) -> Self {
        let kinds: Vec<Arc<Kind>> = kinds.into_iter().map(Arc::new).collect();
        let mut groups: Vec<Group> = Vec::new();
        let (mut by_resource, mut by_kind, mut by_storage) = (Lookup::new(), Lookup::new(), HashMap::new());
        for kind in &kinds {
            match groups.iter_mut().find(|group| group.name == kind.group) {
                Some(group) if group.versions.contains(&kind.version) => {}
                Some(group) => group.versions.push(kind.version),
                None => groups.push(Group {
                    name: kind.group,
                    versions: vec![kind.version],
                }),
            }
            by_resource.insert((kind.group, kind.version, kind.resource), kind.clone());
            by_kind.insert((kind.group, kind.version, kind.kind), kind.clone());
            if kind.group_version() == kind.storage_group_version {
                by_storage.insert(kind.storage_resource, kind.clone());
            }
        }
        Self {
            kinds,
            groups,
            by_resource,
            by_kind,
            by_storage,
        }
    }

    /// All kinds in discovery order.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter()
    }

    /// Groups in discovery order, the core group first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// By the plural name of the URL.
    pub fn lookup(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Kind>> {
        self.by_resource.get(&(group, version, resource)).cloned()
    }

    /// By the kind as it stands in objects.
    pub fn lookup_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.by_kind.get(&(group, version, kind)).cloned()
    }

    /// The row in whose version the objects of a storage resource (`pods`, `deployments.apps`) are stored.
    pub fn lookup_storage(&self, resource: &str) -> Option<Arc<Kind>> {
        self.by_storage.get(resource).cloned()
    }
}

impl storage::Indexer for Registry {
    fn index(&self, resource: &str, json: &[u8]) -> storage::Index {
        let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(json) else {
            tracing::error!(resource, "a stored object is no JSON object and cannot be selected");
            return storage::Index::default();
        };
        match self.lookup_storage(resource) {
            Some(kind) => super::index_of(&kind, &object),
            None => super::metadata_index(&object),
        }
    }
}
