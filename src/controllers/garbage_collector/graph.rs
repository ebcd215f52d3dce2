//! Who owns whom, as far as it was seen, and what is to be looked at when that changes. Pure
//! (upstream: `pkg/controller/garbagecollector/graph_builder.go`).

use super::absent::Absent;
use super::identity::{Identity, Owner, Type, Uid};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What came out of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Look whether it is garbage, or done with waiting for its dependents.
    Examine(Uid),
    /// The same, but not at once.
    ExamineLater(Uid),
    /// Its dependents are to lose it as their owner.
    Orphan(Uid),
    /// A dependent names an owner that is in another namespace.
    WrongNamespace { dependent: Identity, owner: Identity },
}

/// An object as a watch showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub identity: Identity,
    pub owners: Vec<Owner>,
    pub deleting: bool,
    /// It has the finalizer of deletion in the foreground.
    pub foreground: bool,
    /// It has the finalizer that orphans dependents.
    pub orphan: bool,
}

#[derive(Debug)]
struct Node {
    identity: Identity,
    owners: Box<[Owner]>,
    dependents: BTreeSet<Uid>,
    /// A watch has shown it; otherwise it is only known from its dependents.
    observed: bool,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

/// What a worker needs to know of a node.
#[derive(Clone, Debug)]
pub struct Item {
    pub identity: Identity,
    pub owners: Vec<Owner>,
    pub observed: bool,
    pub deleting: bool,
    /// Deletion in the foreground has begun.
    pub waits: bool,
    pub has_dependents: bool,
}

#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node, ahash::RandomState>,
    types: HashSet<Arc<Type>, ahash::RandomState>,
    namespaces: HashSet<Arc<str>, ahash::RandomState>,
    pub absent: Absent,
    work: Vec<Work>,
}

impl Node {
    /// Deletion in the foreground has begun.
    fn waits(&self) -> bool {
        self.deleting && self.foreground
    }

    fn is_blocking(&self, owner: &Uid) -> bool {
        self.owners
            .iter()
            .any(|reference| reference.blocks && reference.uid == *owner)
    }
}

impl Graph {
    /// What is to be done since the last call.
    pub fn take_work(&mut self) -> Vec<Work> {
        std::mem::take(&mut self.work)
    }

    /// An object is there, or has changed.
    pub fn observe(&mut self, mut seen: Seen) {
        self.intern(&mut seen);
        let uid = seen.identity.uid.clone();
        let Some(node) = self.nodes.get_mut(&uid) else {
            let owners: Box<[Owner]> = seen.owners.clone().into();
            self.nodes.insert(
                uid.clone(),
                Node {
                    identity: seen.identity.clone(),
                    owners,
                    dependents: BTreeSet::new(),
                    observed: true,
                    deleting: false,
                    foreground: false,
                    orphan: false,
                },
            );
            self.link(&uid, &seen.owners, false);
            self.transition(&uid, &seen);
            return;
        };
        let first = !node.observed;
        node.observed = true;
        let other_identity = node.identity != seen.identity;
        node.identity = seen.identity.clone();
        if first && other_identity {
            self.question_dependents(&seen.identity);
        }
        self.change_owners(&uid, &seen.owners);
        self.transition(&uid, &seen);
    }

    /// An object was deleted, as its watch tells.
    pub fn vanish(&mut self, uid: &Uid) {
        if let Some(node) = self.nodes.get(uid) {
            let identity = node.identity.clone();
            self.remove(&identity);
        }
    }

    /// Objects of the node's kind have no namespaces; what only dependents have told of it may say otherwise.
    pub fn is_in_cluster(&mut self, uid: &Uid) {
        if let Some(node) = self.nodes.get_mut(uid)
            && !node.observed
        {
            node.identity.namespace = "".into();
        }
    }

    /// The API server does not have the object that was asked for. `in_cluster`: its kind has no namespaces.
    pub fn not_found(&mut self, identity: &Identity, in_cluster: bool) {
        let Some(node) = self.nodes.get(&identity.uid) else {
            return;
        };
        let same = node.identity == *identity;
        if node.observed && same {
            self.remove(identity);
            return;
        }
        let (meant, others) = self.partition(identity, in_cluster);
        if !node.observed && others.is_empty() {
            self.remove(identity);
            return;
        }
        if !meant.is_empty() {
            self.absent.add(identity.clone());
            self.work.extend(meant.into_iter().map(Work::Examine));
        }
        if !node.observed
            && same
            && let Some(alternate) = self.alternate(&others, identity, in_cluster)
        {
            // Its dependents do not agree on what it is: try what else it may be.
            if let Some(node) = self.nodes.get_mut(&identity.uid) {
                node.identity = alternate;
            }
            self.work.push(Work::ExamineLater(identity.uid.clone()));
        }
    }

    /// What was seen of these kinds can no longer be followed: it may or may not be there.
    pub fn lose_sight(&mut self, is_of: impl Fn(&Type) -> bool) {
        for (uid, node) in &mut self.nodes {
            if node.observed && is_of(&node.identity.kind) {
                node.observed = false;
                self.work.push(Work::Examine(uid.clone()));
            }
        }
    }

    /// The objects of these kinds that were seen.
    pub fn seen_of(&self, is_of: impl Fn(&Type) -> bool) -> Vec<Uid> {
        let nodes = self.nodes.values();
        let of = nodes.filter(|node| node.observed && is_of(&node.identity.kind));
        of.map(|node| node.identity.uid.clone()).collect()
    }

    pub fn item(&self, uid: &Uid) -> Option<Item> {
        self.nodes.get(uid).map(|node| Item {
            identity: node.identity.clone(),
            owners: node.owners.to_vec(),
            observed: node.observed,
            deleting: node.deleting,
            waits: node.waits(),
            has_dependents: !node.dependents.is_empty(),
        })
    }

    /// Something that blocks its deletion in the foreground is there. What names it from where it cannot be an owner
    /// does not count, nor does the object itself.
    pub fn is_blocked(&self, uid: &Uid) -> bool {
        let Some(node) = self.nodes.get(uid) else {
            return false;
        };
        let place = &node.identity.namespace;
        node.dependents
            .iter()
            .filter(|dependent| *dependent != uid)
            .filter_map(|dependent| self.nodes.get(dependent))
            .filter(|dependent| place.is_empty() || dependent.identity.namespace == *place)
            .any(|dependent| dependent.is_blocking(uid))
    }

    /// A dependent waits for dependents of its own, so that there may be a circle.
    pub fn has_waiting_dependent(&self, uid: &Uid) -> bool {
        let dependents = self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents);
        dependents
            .filter_map(|dependent| self.nodes.get(dependent))
            .any(Node::waits)
    }

    pub fn dependents(&self, uid: &Uid) -> Vec<Identity> {
        let dependents = self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents);
        dependents
            .filter_map(|dependent| self.nodes.get(dependent))
            .map(|dependent| dependent.identity.clone())
            .collect()
    }

    /// The owner of something in `namespace` was seen, where it is said to be, and does not wait for its dependents.
    pub fn is_solid(&self, owner: &Owner, namespace: &str) -> bool {
        self.nodes.get(&owner.uid).is_some_and(|node| {
            let place = &*node.identity.namespace;
            node.observed && !node.waits() && owner.names(&node.identity) && (place.is_empty() || place == namespace)
        })
    }

    /// Strings that many nodes share exist once.
    fn intern(&mut self, seen: &mut Seen) {
        intern(&mut self.namespaces, &mut seen.identity.namespace);
        intern(&mut self.types, &mut seen.identity.kind);
        for owner in &mut seen.owners {
            intern(&mut self.types, &mut owner.kind);
        }
    }

    /// Notes a node with owners that are new to it. Those that were never seen get a node, too.
    fn link(&mut self, uid: &Uid, owners: &[Owner], mut doubtful: bool) {
        let Some(namespace) = self.nodes.get(uid).map(|node| node.identity.namespace.clone()) else {
            return;
        };
        for owner in owners {
            let Some(node) = self.nodes.get_mut(&owner.uid) else {
                let unseen = Node {
                    identity: owner.in_namespace(&namespace),
                    owners: Box::default(),
                    dependents: BTreeSet::from([uid.clone()]),
                    observed: false,
                    deleting: false,
                    foreground: false,
                    orphan: false,
                };
                self.nodes.insert(owner.uid.clone(), unseen);
                self.work.push(Work::Examine(owner.uid.clone()));
                continue;
            };
            node.dependents.insert(uid.clone());
            let place = &node.identity.namespace;
            let elsewhere = !place.is_empty() && *place != namespace;
            let unseen_in_cluster = !node.observed && place.is_empty() && !namespace.is_empty();
            let wrong = elsewhere || !owner.names(&node.identity) || unseen_in_cluster;
            if node.observed && elsewhere {
                self.report(uid, &owner.uid);
            } else if node.waits() {
                // Whoever comes late to an owner that waits goes with the others.
                doubtful = true;
            }
            doubtful |= wrong;
        }
        if doubtful {
            self.work.push(Work::Examine(uid.clone()));
        }
    }

    fn change_owners(&mut self, uid: &Uid, new: &[Owner]) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        if *node.owners == *new {
            return;
        }
        let old = std::mem::replace(&mut node.owners, new.into());
        let mut added = Vec::new();
        let mut doubtful = false;
        for owner in new {
            match old.iter().find(|before| before.uid == owner.uid) {
                None => added.push(owner.clone()),
                Some(before) => {
                    doubtful |= before.kind != owner.kind || before.name != owner.name;
                    if before.blocks && !owner.blocks {
                        self.work.push(Work::Examine(owner.uid.clone()));
                    }
                }
            }
        }
        for before in &old {
            if new.iter().all(|owner| owner.uid != before.uid) {
                if before.blocks {
                    self.work.push(Work::Examine(before.uid.clone()));
                }
                self.unlink(uid, &before.uid);
                // It may have been the one that nothing could be decided of.
                doubtful = true;
            }
        }
        self.link(uid, &added, doubtful);
    }

    /// Notes how the deletion of a node stands, and what begins with that.
    fn transition(&mut self, uid: &Uid, seen: &Seen) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        let orphaned = node.deleting && node.orphan;
        let waited = node.waits();
        node.deleting = seen.deleting;
        node.foreground = seen.foreground;
        node.orphan = seen.orphan;
        if seen.deleting && seen.orphan {
            if !orphaned {
                self.work.push(Work::Orphan(uid.clone()));
            }
        } else if node.waits() && !waited {
            self.work.extend(node.dependents.iter().cloned().map(Work::Examine));
            self.work.push(Work::Examine(uid.clone()));
        }
    }

    fn remove(&mut self, identity: &Identity) {
        let uid = &identity.uid;
        let Some(node) = self.nodes.remove(uid) else {
            return;
        };
        for owner in &node.owners {
            self.unlink(uid, &owner.uid);
            if self.nodes.get(&owner.uid).is_some_and(Node::waits) {
                self.work.push(Work::Examine(owner.uid.clone()));
            }
        }
        if !node.dependents.is_empty() {
            self.absent.add(identity.clone());
            self.work.extend(node.dependents.into_iter().map(Work::Examine));
        }
    }

    fn unlink(&mut self, uid: &Uid, owner: &Uid) {
        if let Some(node) = self.nodes.get_mut(owner) {
            node.dependents.remove(uid);
            if !node.observed && node.dependents.is_empty() {
                // It was there only for them.
                self.nodes.remove(owner);
            }
        }
    }

    /// A node turned out to be another than its dependents thought.
    fn question_dependents(&mut self, identity: &Identity) {
        let (_, others) = self.partition(identity, identity.namespace.is_empty());
        for dependent in others {
            let place = self.nodes.get(&dependent).map(|node| node.identity.namespace.clone());
            if !identity.namespace.is_empty() && place.is_some_and(|place| place != identity.namespace) {
                self.report(&dependent, &identity.uid);
            }
            self.work.push(Work::Examine(dependent));
        }
    }

    fn report(&mut self, dependent: &Uid, owner: &Uid) {
        let Some(node) = self.nodes.get(dependent) else {
            return;
        };
        if let Some(owner) = node.owners.iter().find(|reference| reference.uid == *owner) {
            self.work.push(Work::WrongNamespace {
                dependent: node.identity.clone(),
                owner: owner.in_namespace(&node.identity.namespace),
            });
        }
    }

    /// The dependents of a node that mean what `identity` says, and those that mean something else; one with several
    /// references may do both.
    fn partition(&self, identity: &Identity, in_cluster: bool) -> (Vec<Uid>, Vec<Uid>) {
        let (mut meant, mut others) = (Vec::new(), Vec::new());
        let dependents = self
            .nodes
            .get(&identity.uid)
            .into_iter()
            .flat_map(|node| &node.dependents);
        for node in dependents.filter_map(|dependent| self.nodes.get(dependent)) {
            let elsewhere = !in_cluster && node.identity.namespace != identity.namespace;
            let mut references = node.owners.iter().filter(|owner| owner.uid == identity.uid);
            if !elsewhere && references.clone().any(|owner| owner.names(identity)) {
                meant.push(node.identity.uid.clone());
            }
            if elsewhere || references.any(|owner| !owner.names(identity)) {
                others.push(node.identity.uid.clone());
            }
        }
        (meant, others)
    }

    /// What else `dependents` take an object for that was not looked for in vain yet: the next after `absent` in order,
    /// around the end.
    fn alternate(&self, dependents: &[Uid], absent: &Identity, in_cluster: bool) -> Option<Identity> {
        let mut candidates = BTreeSet::new();
        for node in dependents.iter().filter_map(|dependent| self.nodes.get(dependent)) {
            for owner in node.owners.iter().filter(|owner| owner.uid == absent.uid) {
                let mut candidate = owner.in_namespace(&node.identity.namespace);
                if in_cluster && candidate.kind == absent.kind {
                    // Such kinds have no namespaces.
                    candidate.namespace = absent.namespace.clone();
                }
                if candidate != *absent && !self.absent.has(&candidate) {
                    candidates.insert(candidate);
                }
            }
        }
        let following = candidates.range(absent..).next();
        following.or_else(|| candidates.first()).cloned()
    }
}

fn intern<T: ?Sized + Eq + std::hash::Hash>(known: &mut HashSet<Arc<T>, ahash::RandomState>, value: &mut Arc<T>) {
    match known.get(value) {
        Some(same) => *value = same.clone(),
        None => {
            known.insert(value.clone());
        }
    }
}
