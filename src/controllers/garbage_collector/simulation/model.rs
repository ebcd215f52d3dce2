//! The cluster in memory: objects, the watches of their kinds, and others who write.

use super::super::cluster::{Cluster, Failure, Latest};
use super::super::identity::{Identity, Owner, Type, Uid};
use super::super::plan::{FOREGROUND, ORPHAN, Policy};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The last has no namespaces.
const KINDS: [&str; 3] = ["Gadget", "Widget", "Plan"];
const NAMESPACES: [&str; 2] = ["one", "two"];
const NAMES: usize = 6;
pub const OTHER_FINALIZER: &str = "example.com/other";

pub type Key = (usize, String, String);

#[derive(Clone, Debug)]
pub struct Stored {
    pub identity: Identity,
    pub latest: Latest,
}

#[derive(Clone, Debug)]
pub enum Event {
    Put(Stored),
    Gone(Uid),
}

pub struct Store {
    pub random: StdRng,
    pub objects: BTreeMap<Key, Stored>,
    /// What the watch of each kind shows, from the beginning.
    pub log: [Vec<Event>; 3],
    pub revision: u64,
    uids: u64,
    /// Nobody writes in between any more, and nothing fails.
    pub calm: bool,
}

pub struct Model(pub Mutex<Store>);

pub fn kind(index: usize) -> Arc<Type> {
    Type::new("example.com/v1", KINDS[index])
}

pub fn index(kind: &Type) -> Option<usize> {
    KINDS.iter().position(|name| *name == &*kind.kind)
}

impl Model {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Store {
            random: StdRng::seed_from_u64(seed),
            objects: BTreeMap::new(),
            log: Default::default(),
            revision: 0,
            uids: 0,
            calm: false,
        })))
    }
}

impl Store {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn key(identity: &Identity) -> Key {
        let kind = index(&identity.kind).expect("a kind of the model");
        (kind, identity.namespace.to_string(), identity.name.to_string())
    }

    pub fn put(&mut self, mut stored: Stored) {
        self.revision += 1;
        stored.latest.resource_version = self.revision.to_string();
        let key = Self::key(&stored.identity);
        if stored.latest.deleting && stored.latest.finalizers.is_empty() {
            self.objects.remove(&key);
            self.log[key.0].push(Event::Gone(stored.identity.uid));
        } else {
            self.log[key.0].push(Event::Put(stored.clone()));
            self.objects.insert(key, stored);
        }
    }

    pub fn delete(&mut self, key: &Key, policy: Option<Policy>) {
        let Some(mut stored) = self.objects.get(key).cloned() else {
            return;
        };
        if let Some(policy) = policy {
            stored
                .latest
                .finalizers
                .retain(|name| name != FOREGROUND && name != ORPHAN);
            match policy {
                Policy::Background => {}
                Policy::Foreground => stored.latest.finalizers.push(FOREGROUND.into()),
                Policy::Orphan => stored.latest.finalizers.push(ORPHAN.into()),
            }
        }
        stored.latest.deleting = true;
        self.put(stored);
    }

    /// The object that an owner reference of something in `namespace` means.
    fn owner(&self, owner: &Owner, namespace: &str) -> Option<&Stored> {
        let kind = index(&owner.kind)?;
        let namespace = if kind == 2 { "" } else { namespace };
        let found = self
            .objects
            .get(&(kind, namespace.to_owned(), owner.name.to_string()))?;
        (found.identity.uid == owner.uid).then_some(found)
    }

    pub fn lives(&self, owner: &Owner, namespace: &str) -> bool {
        let found = self.owner(owner, namespace);
        found.is_some_and(|found| !(found.latest.deleting && found.latest.has(FOREGROUND)))
    }

    /// Such references are never acted on.
    pub fn is_impossible(owner: &Owner, namespace: &str) -> bool {
        index(&owner.kind).is_none_or(|kind| kind != 2 && namespace.is_empty())
    }

    /// It waits, perhaps through others, for a dependent of which nothing can be decided.
    pub fn waits_for_undecided(&self, owner: &Stored, on_the_way: &mut BTreeSet<Uid>) -> bool {
        on_the_way.insert(owner.identity.uid.clone())
            && self.objects.values().any(|dependent| {
                let (namespace, owners) = (&*dependent.identity.namespace, &dependent.latest.owners);
                let blocks = |reference: &Owner| reference.blocks && reference.uid == owner.identity.uid;
                owners.iter().any(blocks)
                    && (owners.iter().any(|reference| Self::is_impossible(reference, namespace))
                        || self.waits_for_undecided(dependent, on_the_way))
            })
    }

    fn some_key(&mut self) -> Option<Key> {
        let count = self.objects.len();
        let at = self.random.random_range(0..count.max(1));
        self.objects.keys().nth(at).cloned()
    }

    /// References as people write them: right ones, and all kinds of wrong ones.
    fn some_owners(&mut self) -> Vec<Owner> {
        let mut owners: Vec<Owner> = Vec::new();
        for _ in 0..self.random.random_range(0..3) {
            let Some(key) = self.some_key() else { continue };
            let identity = self.objects[&key].identity.clone();
            let mut owner = Owner {
                kind: identity.kind,
                name: identity.name,
                uid: identity.uid,
                blocks: self.chance(60),
            };
            match self.random.random_range(0..20) {
                0 => owner.uid = Uid::new("never-there"),
                1 => owner.name = "never-there".into(),
                2 => owner.kind = kind(self.random.random_range(0..3)),
                3 if self.chance(30) => owner.kind = Type::new("example.com/v1", "Unknown"),
                _ => {}
            }
            if owners.iter().all(|other| other.uid != owner.uid) {
                owners.push(owner);
            }
        }
        owners
    }

    /// Somebody does something.
    pub fn act(&mut self) {
        match self.random.random_range(0..10) {
            0..=4 => {
                let kind_index = self.random.random_range(0..3);
                let namespace = match kind_index {
                    2 => "",
                    _ => NAMESPACES[self.random.random_range(0..2)],
                };
                let name = format!("n{}", self.random.random_range(0..NAMES));
                if self
                    .objects
                    .contains_key(&(kind_index, namespace.to_owned(), name.clone()))
                {
                    return;
                }
                self.uids += 1;
                let uid = Uid::new(&format!("uid-{}", self.uids));
                let owners = self.some_owners();
                let finalizers = if self.chance(10) {
                    vec![OTHER_FINALIZER.to_owned()]
                } else {
                    Vec::new()
                };
                self.put(Stored {
                    identity: Identity {
                        kind: kind(kind_index),
                        namespace: namespace.into(),
                        name: name.into(),
                        uid: uid.clone(),
                    },
                    latest: Latest {
                        uid,
                        resource_version: String::new(),
                        owners,
                        finalizers,
                        deleting: false,
                    },
                });
            }
            5 | 6 => {
                let policy = match self.random.random_range(0..4) {
                    0 => None,
                    1 => Some(Policy::Background),
                    2 => Some(Policy::Foreground),
                    _ => Some(Policy::Orphan),
                };
                if let Some(key) = self.some_key() {
                    self.delete(&key, policy);
                }
            }
            7 => {
                let Some(key) = self.some_key() else { return };
                let owners = self.some_owners();
                let mut stored = self.objects[&key].clone();
                stored.latest.owners = owners;
                self.put(stored);
            }
            8 => {
                let Some(key) = self.some_key() else { return };
                let mut stored = self.objects[&key].clone();
                stored.latest.finalizers.retain(|name| name != OTHER_FINALIZER);
                self.put(stored);
            }
            _ => {
                let Some(key) = self.some_key() else { return };
                let stored = self.objects[&key].clone();
                self.put(stored);
            }
        }
    }

    /// What may happen while the collector talks to the server.
    fn meanwhile(&mut self) -> Result<(), Failure> {
        if self.calm {
            return Ok(());
        }
        if self.chance(10) {
            self.act();
        }
        match self.chance(5) {
            true => Err(Failure::Conflict),
            false => Ok(()),
        }
    }

    fn found(&self, identity: &Identity) -> Result<Stored, Failure> {
        let known = index(&identity.kind).ok_or_else(|| Failure::NotServed {
            api_version: identity.kind.api_version.to_string(),
            kind: identity.kind.kind.to_string(),
        })?;
        let namespace = if known == 2 { "" } else { &identity.namespace };
        let key = (known, namespace.to_owned(), identity.name.to_string());
        self.objects.get(&key).cloned().ok_or(Failure::NotFound)
    }

    fn found_same(&self, identity: &Identity) -> Result<Stored, Failure> {
        let stored = self.found(identity)?;
        match stored.identity.uid == identity.uid {
            true => Ok(stored),
            false => Err(Failure::Conflict),
        }
    }
}

impl Cluster for Arc<Model> {
    async fn namespaced(&self, kind: &Type) -> Option<bool> {
        index(kind).map(|kind| kind != 2)
    }

    async fn get(&self, identity: &Identity) -> Result<Latest, Failure> {
        let mut store = self.0.lock();
        let found = store.found(identity).map(|stored| stored.latest);
        store.meanwhile()?;
        found
    }

    async fn delete(&self, identity: &Identity, resource_version: &str, policy: Policy) -> Result<(), Failure> {
        let mut store = self.0.lock();
        store.meanwhile()?;
        let stored = store.found_same(identity)?;
        if stored.latest.resource_version != resource_version {
            return Err(Failure::Conflict);
        }
        for owner in &stored.latest.owners {
            // Others may have changed the owner between the question and the deed, so only those count that have
            // been there all the time: such a change makes another version of the owner.
            let lives = store.lives(owner, &identity.namespace);
            assert!(
                !lives || !store.calm,
                "{identity} is deleted, and its owner {owner:?} lives"
            );
            if lives {
                let owner = store.owner(owner, &identity.namespace).expect("it lives");
                let age = store.revision - owner.latest.resource_version.parse::<u64>().unwrap();
                assert!(age < 12, "{identity} is deleted, and its owner {owner:?} lives");
            }
        }
        store.delete(&Store::key(identity), Some(policy));
        Ok(())
    }

    async fn drop_owners(&self, identity: &Identity, owners: &[Uid]) -> Result<(), Failure> {
        let mut store = self.0.lock();
        store.meanwhile()?;
        let mut stored = store.found_same(identity)?;
        stored.latest.owners.retain(|owner| !owners.contains(&owner.uid));
        store.put(stored);
        Ok(())
    }

    async fn unblock(&self, identity: &Identity) -> Result<(), Failure> {
        let mut store = self.0.lock();
        store.meanwhile()?;
        let mut stored = store.found_same(identity)?;
        stored.latest.owners.iter_mut().for_each(|owner| owner.blocks = false);
        store.put(stored);
        Ok(())
    }

    async fn set_finalizers(
        &self,
        identity: &Identity,
        resource_version: &str,
        finalizers: &[String],
    ) -> Result<(), Failure> {
        let mut store = self.0.lock();
        store.meanwhile()?;
        let mut stored = store.found_same(identity)?;
        if stored.latest.resource_version != resource_version {
            return Err(Failure::Conflict);
        }
        stored.latest.finalizers = finalizers.to_vec();
        store.put(stored);
        Ok(())
    }
}
