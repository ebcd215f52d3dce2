//! How many objects there are of kinds of which only the number counts: a watch of their metadata, begun when the
//! first quota names the kind (upstream: `resource_quota_monitor.go`, which watches all kinds always).

use crate::client::discovery::Metadata;
use crate::client::lean::Lean;
use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// Called with the kind and the namespace in which an object came or went.
pub type Changed = Arc<dyn Fn(&Counted, &str) + Send + Sync>;

/// Group and plural.
pub type Name = (String, String);

/// The kinds that are watched.
pub struct Kinds {
    client: Client,
    shutdown: CancellationToken,
    changed: Changed,
    watched: Mutex<BTreeMap<Name, Arc<Counted>>>,
}

/// One kind, and where objects of it are.
pub struct Counted {
    pub name: Name,
    resource: ApiResource,
    stop: CancellationToken,
    listed: AtomicBool,
    names: RwLock<BTreeMap<String, BTreeSet<String>>>,
}

impl Counted {
    /// How many the watch has seen in a namespace; None while the first list is not in.
    pub fn seen(&self, namespace: &str) -> Option<usize> {
        let listed = self.listed.load(Ordering::Acquire);
        listed.then(|| self.names.read().get(namespace).map_or(0, BTreeSet::len))
    }

    /// How many there are, by the API server.
    pub async fn ask(&self, client: &Client, namespace: &str) -> kube::Result<usize> {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &self.resource);
        Ok(api.list_metadata(&ListParams::default()).await?.items.len())
    }

    /// Takes in an event; the namespaces in which it changed something.
    fn take(&self, event: Event<Lean<Metadata>>, listing: &mut BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
        let place = |object: &Lean<Metadata>| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => {
                let (namespace, name) = place(&object);
                listing.entry(namespace).or_default().insert(name);
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut *self.names.write(), std::mem::take(listing));
                self.listed.store(true, Ordering::Release);
                let after = self.names.read();
                let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                let changed = all
                    .into_iter()
                    .filter(|namespace| before.get(*namespace) != after.get(*namespace));
                return changed.cloned().collect();
            }
            Event::Apply(object) => {
                let (namespace, name) = place(&object);
                if self.names.write().entry(namespace.clone()).or_default().insert(name) {
                    return vec![namespace];
                }
            }
            Event::Delete(object) => {
                let (namespace, name) = place(&object);
                let mut names = self.names.write();
                if let Some(here) = names.get_mut(&namespace) {
                    here.remove(&name);
                    if here.is_empty() {
                        names.remove(&namespace);
                    }
                    return vec![namespace];
                }
            }
        }
        Vec::new()
    }
}

impl Kinds {
    pub fn new(client: Client, shutdown: CancellationToken, changed: Changed) -> Self {
        Self {
            client,
            shutdown,
            changed,
            watched: Mutex::default(),
        }
    }

    /// The kind, whose watch begins now if nobody has asked before. None if there is no such kind, or none that is
    /// made, listed, watched and deleted in namespaces.
    pub async fn of(&self, group: &str, plural: &str) -> kube::Result<Option<Arc<Counted>>> {
        let name = (group.to_owned(), plural.to_owned());
        if let Some(known) = self.watched.lock().get(&name) {
            return Ok(Some(known.clone()));
        }
        let Some(resource) = discover(&self.client, group, plural).await? else {
            return Ok(None);
        };
        let mut watched = self.watched.lock();
        let counted = watched.entry(name.clone()).or_insert_with(|| {
            let counted = Arc::new(Counted {
                name,
                resource,
                stop: self.shutdown.child_token(),
                listed: AtomicBool::new(false),
                names: RwLock::default(),
            });
            tokio::spawn(follow(self.client.clone(), counted.clone(), self.changed.clone()));
            counted
        });
        Ok(Some(counted.clone()))
    }

    /// The kind is gone, or has changed: it is looked for anew when it is next asked for.
    pub fn forget(&self, group: &str, plural: &str) {
        let name = (group.to_owned(), plural.to_owned());
        if let Some(counted) = self.watched.lock().remove(&name) {
            counted.stop.cancel();
        }
    }
}

async fn follow(client: Client, counted: Arc<Counted>, changed: Changed) {
    let api: Api<Lean<Metadata>> = Api::all_with(client, &counted.resource);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let followed = async {
        let mut events = pin!(events);
        let mut listing = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    for namespace in counted.take(event, &mut listing) {
                        changed(&counted, &namespace);
                    }
                }
                Err(error) => {
                    let (group, plural) = &counted.name;
                    tracing::debug!(%group, %plural, %error, "a watch of what quotas count broke and is retried");
                }
            }
        }
    };
    counted.stop.run_until_cancelled(followed).await;
}

/// How the API server serves the kind, in the version that it prefers.
async fn discover(client: &Client, group: &str, plural: &str) -> kube::Result<Option<ApiResource>> {
    let found = if group.is_empty() {
        client.list_core_api_resources("v1").await
    } else {
        let groups = client.list_api_groups().await?.groups;
        let versions = groups.into_iter().find(|one| one.name == group);
        let Some(version) = versions.and_then(|one| one.preferred_version.or(one.versions.into_iter().next())) else {
            return Ok(None);
        };
        client.list_api_group_resources(&version.group_version).await
    };
    let list = match found {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error),
    };
    let version = list.group_version.rsplit('/').next().unwrap_or_default().to_owned();
    let needed = ["create", "list", "watch", "delete"];
    let resource = list.resources.into_iter().find(|resource| resource.name == plural);
    let counts = |verbs: &[String]| needed.iter().all(|needed| verbs.iter().any(|verb| verb == needed));
    Ok(resource
        .filter(|one| one.namespaced && counts(&one.verbs))
        .map(|resource| ApiResource {
            group: group.to_owned(),
            version,
            api_version: list.group_version,
            kind: resource.kind,
            plural: resource.name,
        }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(namespace: &str, name: &str) -> Lean<Metadata> {
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}})).unwrap()
    }

    #[test]
    fn what_a_watch_tells_is_counted_by_namespace() {
        let counted = Counted {
            name: (String::new(), "secrets".to_owned()),
            resource: ApiResource {
                group: String::new(),
                version: "v1".to_owned(),
                api_version: "v1".to_owned(),
                kind: "Secret".to_owned(),
                plural: "secrets".to_owned(),
            },
            stop: CancellationToken::new(),
            listed: AtomicBool::new(false),
            names: RwLock::default(),
        };
        let mut listing = BTreeMap::new();
        let mut take = |event| counted.take(event, &mut listing);
        take(Event::Init);
        take(Event::InitApply(object("a", "one")));
        assert_eq!(counted.seen("a"), None);
        assert_eq!(take(Event::InitDone), ["a"]);
        assert_eq!(take(Event::Apply(object("a", "two"))), ["a"]);
        assert!(take(Event::Apply(object("a", "two"))).is_empty());
        assert_eq!(take(Event::Apply(object("b", "one"))), ["b"]);
        assert_eq!(take(Event::Delete(object("a", "one"))), ["a"]);
        assert_eq!(
            (counted.seen("a"), counted.seen("b"), counted.seen("c")),
            (Some(1), Some(1), Some(0))
        );
        // A new list: what is not in it is gone.
        take(Event::Init);
        take(Event::InitApply(object("a", "two")));
        assert_eq!(take(Event::InitDone), ["b"]);
        assert_eq!(counted.seen("b"), Some(0));
    }
}
