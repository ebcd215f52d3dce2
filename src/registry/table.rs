//! The table of all kinds, looked up by resource, by kind and by where objects are stored
//! (upstream: the REST storage maps of `pkg/registry/*/rest`, apimachinery's `runtime.Scheme`, and the map of served
//! storages of `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`).
//!
//! Built-in kinds are fixed. Custom kinds come and go in [`Snapshot`]s: a reader that needs more than one look-up to
//! agree takes one and keeps it.

use super::{Kind, rows};
use crate::storage;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// A group and its versions, preferred version first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Empty for the core group.
    pub name: &'static str,
    pub versions: Vec<&'static str>,
}

/// By version and resource or kind, within a group.
type Lookup = HashMap<(&'static str, &'static str), Arc<Kind>, ahash::RandomState>;

/// All served kinds.
pub struct Registry {
    current: RwLock<Arc<Snapshot>>,
}

/// All kinds that are served at one time.
#[derive(Clone)]
pub struct Snapshot {
    /// Grows with every change of the custom kinds; what was derived from one generation holds for it.
    pub generation: u64,
    builtin: Arc<Builtin>,
    custom: BTreeMap<&'static str, Arc<CustomGroup>>,
}

struct Builtin {
    kinds: Vec<Arc<Kind>>,
    groups: Vec<Group>,
    by_group: HashMap<&'static str, GroupKinds, ahash::RandomState>,
    by_storage: HashMap<&'static str, Arc<Kind>, ahash::RandomState>,
}

/// The kinds of one group.
#[derive(Default)]
struct GroupKinds {
    by_version: HashMap<&'static str, Vec<Arc<Kind>>, ahash::RandomState>,
    by_resource: Lookup,
    by_kind: Lookup,
}

/// The custom kinds of one group. Replaced as a whole, so that one that is the same is unchanged.
#[derive(Default)]
pub struct CustomGroup {
    /// By the name of the CustomResourceDefinition; a kind in every version, those that are not served included.
    definitions: BTreeMap<&'static str, Vec<Arc<Kind>>>,
    /// Those with a served kind, preferred version first.
    versions: Vec<&'static str>,
    kinds: GroupKinds,
    by_storage: HashMap<&'static str, Arc<Kind>, ahash::RandomState>,
}

impl Registry {
    /// The built-in kinds. They are built once per process; what is added is this registry's own.
    pub fn builtin() -> Arc<Registry> {
        static BUILTIN: OnceLock<Arc<Builtin>> = OnceLock::new();
        Arc::new(Self::of(
            BUILTIN.get_or_init(|| Arc::new(Builtin::new(rows::all()))).clone(),
        ))
    }

    /// A registry of `kinds`, which stand in discovery order.
    pub fn new(kinds: Vec<Kind>) -> Self {
        Self::of(Arc::new(Builtin::new(kinds)))
    }

    fn of(builtin: Arc<Builtin>) -> Self {
        let snapshot = Snapshot {
            generation: 0,
            builtin,
            custom: BTreeMap::new(),
        };
        Self {
            current: RwLock::new(Arc::new(snapshot)),
        }
    }

    /// What is served now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    /// All kinds in discovery order.
    pub fn kinds(&self) -> impl Iterator<Item = Arc<Kind>> + use<> {
        self.snapshot().kinds().into_iter()
    }

    /// Groups in discovery order, the core group first.
    pub fn groups(&self) -> Vec<Group> {
        self.snapshot().groups()
    }

    /// Whether a group has built-in kinds.
    pub fn is_builtin_group(&self, name: &str) -> bool {
        self.current.read().builtin.by_group.contains_key(name)
    }

    /// By the plural name of the URL.
    pub fn lookup(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Kind>> {
        self.current.read().lookup(group, version, resource)
    }

    /// By the kind as it stands in objects.
    pub fn lookup_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.current.read().lookup_kind(group, version, kind)
    }

    /// The row in whose version the objects of a storage resource (`pods`, `deployments.apps`) are stored.
    pub fn lookup_storage(&self, resource: &str) -> Option<Arc<Kind>> {
        self.current.read().lookup_storage(resource)
    }

    /// Replaces the kinds of CustomResourceDefinitions, which are named `<plural>.<group>`; without kinds, a
    /// definition is gone.
    pub fn set_custom(&self, changes: Vec<(&'static str, Vec<Arc<Kind>>)>) {
        if changes.is_empty() {
            return;
        }
        let mut by_group: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (name, kinds) in changes {
            by_group.entry(group_of(name)).or_default().push((name, kinds));
        }
        let mut current = self.current.write();
        let mut next = Snapshot::clone(&current);
        next.generation += 1;
        for (group, changes) in by_group {
            let mut definitions = next
                .custom
                .get(group)
                .map(|g| g.definitions.clone())
                .unwrap_or_default();
            for (name, kinds) in changes {
                match kinds.is_empty() {
                    true => definitions.remove(name),
                    false => definitions.insert(name, kinds),
                };
            }
            match definitions.is_empty() {
                true => next.custom.remove(group),
                false => next.custom.insert(group, Arc::new(CustomGroup::new(definitions))),
            };
        }
        *current = Arc::new(next);
    }
}

/// `example.com` of `widgets.example.com`.
fn group_of(definition: &'static str) -> &'static str {
    definition.split_once('.').map_or("", |(_, group)| group)
}

impl Snapshot {
    /// All kinds in discovery order.
    pub fn kinds(&self) -> Vec<Arc<Kind>> {
        let mut kinds = self.builtin.kinds.clone();
        for group in self.custom.values() {
            kinds.extend(group.kinds());
        }
        kinds
    }

    /// The built-in kinds in discovery order.
    pub fn builtin_kinds(&self) -> &[Arc<Kind>] {
        &self.builtin.kinds
    }

    /// The groups of the built-in kinds.
    pub fn builtin_groups(&self) -> &[Group] {
        &self.builtin.groups
    }

    /// Groups in discovery order: upstream's order of the built-in ones, then custom ones by name.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = self.builtin.groups.clone();
        for (name, custom) in &self.custom {
            match groups.iter_mut().find(|group| group.name == *name) {
                // A definition may extend a built-in group.
                Some(group) => {
                    let versions = custom
                        .versions
                        .iter()
                        .filter(|version| !group.versions.contains(version));
                    let versions: Vec<_> = versions.copied().collect();
                    group.versions.extend(versions);
                }
                None if custom.versions.is_empty() => {}
                None => groups.push(Group {
                    name,
                    versions: custom.versions.clone(),
                }),
            }
        }
        groups
    }

    /// One group.
    pub fn group(&self, name: &str) -> Option<Group> {
        let builtin = self.builtin.groups.iter().find(|group| group.name == name);
        let custom = self.custom.get(name).filter(|group| !group.versions.is_empty());
        if custom.is_some() && builtin.is_some() {
            return self.groups().into_iter().find(|group| group.name == name);
        }
        let (name, _) = self.custom.get_key_value(name).unzip();
        builtin.cloned().or_else(|| {
            Some(Group {
                name: name?,
                versions: custom?.versions.clone(),
            })
        })
    }

    /// The kinds of one group-version in discovery order.
    pub fn kinds_in(&self, group: &str, version: &str) -> Vec<Arc<Kind>> {
        let builtin = self.builtin.by_group.get(group).and_then(|g| g.by_version.get(version));
        let custom = self.custom.get(group).and_then(|g| g.kinds.by_version.get(version));
        let kinds = builtin.into_iter().chain(custom).flatten();
        kinds.cloned().collect()
    }

    /// The groups that have custom kinds, by name.
    pub fn custom_groups(&self) -> &BTreeMap<&'static str, Arc<CustomGroup>> {
        &self.custom
    }

    pub fn lookup(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Kind>> {
        self.find(group, |kinds| kinds.by_resource.get(&(version, resource)).cloned())
    }

    pub fn lookup_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.find(group, |kinds| kinds.by_kind.get(&(version, kind)).cloned())
    }

    fn find(&self, group: &str, find: impl Fn(&GroupKinds) -> Option<Arc<Kind>>) -> Option<Arc<Kind>> {
        let builtin = self.builtin.by_group.get(group).and_then(&find);
        builtin.or_else(|| self.custom.get(group).and_then(|custom| find(&custom.kinds)))
    }

    pub fn lookup_storage(&self, resource: &str) -> Option<Arc<Kind>> {
        if let Some(kind) = self.builtin.by_storage.get(resource) {
            return Some(kind.clone());
        }
        let (_, group) = resource.split_once('.')?;
        self.custom.get(group)?.by_storage.get(resource).cloned()
    }

    /// All versions of a CustomResourceDefinition, those that are not served included.
    pub fn definition(&self, name: &str) -> Option<&[Arc<Kind>]> {
        let (_, group) = name.split_once('.')?;
        self.custom.get(group)?.definitions.get(name).map(Vec::as_slice)
    }
}

impl Builtin {
    fn new(kinds: Vec<Kind>) -> Self {
        let kinds: Vec<Arc<Kind>> = kinds.into_iter().map(Arc::new).collect();
        let mut groups: Vec<Group> = Vec::new();
        let mut by_group: HashMap<_, GroupKinds, _> = HashMap::default();
        let mut by_storage = HashMap::default();
        for kind in &kinds {
            match groups.iter_mut().find(|group| group.name == kind.group) {
                Some(group) if group.versions.contains(&kind.version) => {}
                Some(group) => group.versions.push(kind.version),
                None => groups.push(Group {
                    name: kind.group,
                    versions: vec![kind.version],
                }),
            }
            by_group.entry(kind.group).or_default().add(kind);
            if kind.group_version() == kind.storage_group_version {
                by_storage.insert(kind.storage_resource, kind.clone());
            }
        }
        Self {
            kinds,
            groups,
            by_group,
            by_storage,
        }
    }
}

impl GroupKinds {
    fn add(&mut self, kind: &Arc<Kind>) {
        self.by_version.entry(kind.version).or_default().push(kind.clone());
        self.by_resource.insert((kind.version, kind.resource), kind.clone());
        self.by_kind.insert((kind.version, kind.kind), kind.clone());
    }
}

impl CustomGroup {
    fn new(definitions: BTreeMap<&'static str, Vec<Arc<Kind>>>) -> Self {
        let mut group = Self {
            definitions,
            ..Self::default()
        };
        for kind in group.definitions.values().flatten() {
            if kind.custom.as_ref().is_some_and(|custom| custom.served) {
                group.kinds.add(kind);
            }
            if kind.group_version() == kind.storage_group_version {
                group.by_storage.insert(kind.storage_resource, kind.clone());
            }
        }
        group.versions = group.kinds.by_version.keys().copied().collect();
        group
            .versions
            .sort_by(|left, right| super::custom::compare_versions(right, left));
        group
    }

    /// The names of the definitions.
    pub fn definitions(&self) -> impl Iterator<Item = &'static str> {
        self.definitions.keys().copied()
    }

    /// Served versions, preferred version first.
    pub fn versions(&self) -> &[&'static str] {
        &self.versions
    }

    /// The served kinds in discovery order.
    pub fn kinds(&self) -> impl Iterator<Item = Arc<Kind>> {
        let versions = self
            .versions
            .iter()
            .filter_map(|version| self.kinds.by_version.get(version));
        versions.flatten().cloned()
    }

    /// The served kinds of a version.
    pub fn kinds_of(&self, version: &str) -> &[Arc<Kind>] {
        self.kinds.by_version.get(version).map_or(&[], Vec::as_slice)
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
