//! Looks at one object and does what is to be done with it (upstream: the workers in `garbagecollector.go`).

use super::cluster::{Cluster, Failure, Latest};
use super::graph::{Graph, Item};
use super::identity::{Identity, Owner, Uid};
use super::plan::{self, Action, FOREGROUND, ORPHAN, Policy, Standing, Subject};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// How often a write that somebody else was faster than is tried again at once.
const ATTEMPTS_MAX: usize = 5;
/// Dependents that are changed at once.
const PATCHES_AT_ONCE: usize = 16;

/// How it goes on with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was never seen by a watch, though it is there: look again after a while.
    Unseen,
}

pub struct Worker<C> {
    pub cluster: C,
    pub graph: Arc<Mutex<Graph>>,
    /// What cannot be decided before something is served that is not now.
    waits_for_types: Mutex<BTreeSet<Uid>>,
    /// Group and kind of deleted definitions: what was of these kinds is gone.
    gone_types: Mutex<HashSet<(String, String)>>,
}

/// Why an owner has no standing.
enum Undecided {
    /// Nothing is known of its type.
    NotServed,
    /// A cluster-scoped object cannot have an owner in a namespace, and nothing will change that.
    Impossible,
    Failed(Failure),
}

impl<C: Cluster> Worker<C> {
    pub fn new(cluster: C, graph: Arc<Mutex<Graph>>) -> Self {
        Self {
            cluster,
            graph,
            waits_for_types: Mutex::default(),
            gone_types: Mutex::default(),
        }
    }

    /// A kind's definition was deleted, and its objects before it.
    pub fn type_is_gone(&self, group: &str, kind: &str) {
        self.gone_types.lock().insert((group.to_owned(), kind.to_owned()));
    }

    /// A kind is served (again).
    pub fn type_is_served(&self, group: &str, kind: &str) {
        self.gone_types.lock().remove(&(group.to_owned(), kind.to_owned()));
    }

    /// What waited for other types to be served.
    pub fn take_waiting(&self) -> BTreeSet<Uid> {
        std::mem::take(&mut *self.waits_for_types.lock())
    }

    /// Collects the object if it is garbage, and releases it if it has waited for its dependents long enough.
    pub async fn examine(&self, uid: &Uid) -> Result<Outcome, Failure> {
        let Some(mut item) = self.graph.lock().item(uid) else {
            return Ok(Outcome::Done);
        };
        if self.needs_nothing(&item) {
            return Ok(Outcome::Done);
        }
        if !item.observed && self.cluster.namespaced(&item.identity.kind).await == Some(false) {
            self.graph.lock().is_in_cluster(uid);
            item.identity.namespace = "".into();
        }
        let latest = match self.cluster.get(&item.identity).await {
            Ok(latest) if latest.uid == *uid => latest,
            Ok(_) | Err(Failure::NotFound) => return Ok(self.not_found(&item.identity).await),
            Err(Failure::NotServed { .. }) if self.is_gone(&item.identity) => {
                return Ok(self.not_found(&item.identity).await);
            }
            Err(Failure::NotServed { .. }) => {
                self.waits_for_types.lock().insert(uid.clone());
                return Ok(Outcome::Done);
            }
            Err(failure) => return Err(failure),
        };
        if item.waits {
            self.remove_finalizer(&item.identity, latest, FOREGROUND).await?;
        } else if !latest.owners.is_empty() {
            self.collect(&item, latest).await?;
        }
        Ok(if item.observed { Outcome::Done } else { Outcome::Unseen })
    }

    /// Takes the object from its dependents' owners, and then its own finalizer that says so.
    pub async fn orphan(&self, uid: &Uid) -> Result<(), Failure> {
        let (item, dependents) = {
            let graph = self.graph.lock();
            (graph.item(uid), graph.dependents(uid))
        };
        let Some(item) = item else {
            return Ok(());
        };
        stream::iter(dependents)
            .map(async |dependent: Identity| {
                match self.cluster.drop_owners(&dependent, std::slice::from_ref(uid)).await {
                    Err(Failure::NotFound) => Ok(()),
                    result => result,
                }
            })
            .buffer_unordered(PATCHES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        match self.cluster.get(&item.identity).await {
            Ok(latest) if latest.uid == *uid => self.remove_finalizer(&item.identity, latest, ORPHAN).await,
            Ok(_) | Err(Failure::NotFound) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// What was seen says already that there is nothing to do; what comes later will be looked at then.
    fn needs_nothing(&self, item: &Item) -> bool {
        if item.deleting && !item.waits {
            return true;
        }
        let graph = self.graph.lock();
        if item.waits {
            return graph.is_blocked(&item.identity.uid);
        }
        let namespace = &item.identity.namespace;
        item.observed && item.owners.iter().all(|owner| graph.is_solid(owner, namespace))
    }

    async fn not_found(&self, identity: &Identity) -> Outcome {
        let namespaced = self.cluster.namespaced(&identity.kind).await;
        self.graph.lock().not_found(identity, namespaced != Some(true));
        Outcome::Done
    }

    fn is_gone(&self, identity: &Identity) -> bool {
        let key = (identity.kind.group().to_owned(), identity.kind.kind.to_string());
        self.gone_types.lock().contains(&key)
    }

    async fn collect(&self, item: &Item, mut latest: Latest) -> Result<(), Failure> {
        let identity = &item.identity;
        for _ in 0..ATTEMPTS_MAX {
            let mut owners = Vec::with_capacity(latest.owners.len());
            for owner in &latest.owners {
                match self.standing(owner, identity).await {
                    Ok(standing) => owners.push((owner.clone(), standing)),
                    Err(Undecided::NotServed) => {
                        self.waits_for_types.lock().insert(identity.uid.clone());
                        return Ok(());
                    }
                    Err(Undecided::Impossible) => return Ok(()),
                    Err(Undecided::Failed(failure)) => return Err(failure),
                }
            }
            let subject = Subject {
                has_dependents: item.has_dependents,
                has_waiting_dependent: self.graph.lock().has_waiting_dependent(&identity.uid),
                has_orphan_finalizer: latest.has(ORPHAN),
                has_foreground_finalizer: latest.has(FOREGROUND),
            };
            match plan::decide(subject, &owners) {
                Action::Nothing => return Ok(()),
                Action::DropOwners(owners) => {
                    return match self.cluster.drop_owners(identity, &owners).await {
                        Err(Failure::NotFound) => Ok(()),
                        result => result,
                    };
                }
                Action::Delete { policy, unblock } => {
                    match self.delete(identity, &latest, policy, unblock).await {
                        Ok(()) => return Ok(()),
                        Err(Failure::NotFound) => {
                            self.not_found(identity).await;
                            return Ok(());
                        }
                        // It is another than was decided on: look at it once more.
                        Err(Failure::Conflict) => {}
                        Err(failure) => return Err(failure),
                    }
                }
            }
            latest = match self.cluster.get(identity).await {
                Ok(latest) if latest.uid == identity.uid => latest,
                Ok(_) | Err(Failure::NotFound) => {
                    self.not_found(identity).await;
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            };
        }
        Err(Failure::Conflict)
    }

    async fn delete(&self, identity: &Identity, latest: &Latest, policy: Policy, unblock: bool) -> Result<(), Failure> {
        if !unblock || !latest.owners.iter().any(|owner| owner.blocks) {
            return self.cluster.delete(identity, &latest.resource_version, policy).await;
        }
        self.cluster.unblock(identity).await?;
        // That made another version of it, which is what is to go.
        Err(Failure::Conflict)
    }

    async fn standing(&self, owner: &Owner, dependent: &Identity) -> Result<Standing, Undecided> {
        if self.graph.lock().is_solid(owner, &dependent.namespace) {
            return Ok(Standing::Solid);
        }
        let namespace = match self.cluster.namespaced(&owner.kind).await {
            Some(true) if dependent.namespace.is_empty() => return Err(Undecided::Impossible),
            Some(true) => dependent.namespace.clone(),
            Some(false) => Arc::from(""),
            None if self.is_gone(&owner.in_namespace(&dependent.namespace)) => return Ok(Standing::Dangling),
            None => return Err(Undecided::NotServed),
        };
        let identity = owner.in_namespace(&namespace);
        if self.graph.lock().absent.has(&identity) {
            return Ok(Standing::Dangling);
        }
        match self.cluster.get(&identity).await {
            Ok(latest) if latest.uid != owner.uid => {}
            Ok(latest) if latest.deleting && latest.has(FOREGROUND) => return Ok(Standing::Waiting),
            Ok(_) => return Ok(Standing::Solid),
            Err(Failure::NotFound) => {}
            Err(Failure::NotServed { .. }) => return Err(Undecided::NotServed),
            Err(failure) => return Err(Undecided::Failed(failure)),
        }
        self.graph.lock().absent.add(identity);
        Ok(Standing::Dangling)
    }

    async fn remove_finalizer(&self, identity: &Identity, mut latest: Latest, finalizer: &str) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS_MAX {
            if latest.uid != identity.uid || !latest.has(finalizer) {
                return Ok(());
            }
            let rest: Vec<String> = latest
                .finalizers
                .iter()
                .filter(|name| *name != finalizer)
                .cloned()
                .collect();
            match self
                .cluster
                .set_finalizers(identity, &latest.resource_version, &rest)
                .await
            {
                Ok(()) | Err(Failure::NotFound) => return Ok(()),
                Err(Failure::Conflict) => {}
                Err(failure) => return Err(failure),
            }
            latest = match self.cluster.get(identity).await {
                Ok(latest) => latest,
                Err(Failure::NotFound) => return Ok(()),
                Err(failure) => return Err(failure),
            };
        }
        Err(Failure::Conflict)
    }
}
