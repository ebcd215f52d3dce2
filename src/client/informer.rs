//! One watch and one indexed cache per kind, shared by everybody in this process (upstream: `client-go/tools/cache`).
//!
//! A cache may be behind the API server, never ahead of it and never out of order. Who has just written can wait until
//! the cache shows it ([`Informer::seen`]). Objects are kept without their managed fields, which an update that leaves
//! them out does not touch.

use super::ObjectKey;
use super::copies::{Copies, Shared};
use futures_util::{Stream, StreamExt};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long [`Informer::seen`] waits: a relist may have passed over what it waits for.
const SEEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// A kind that can be watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + PartialEq + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + Clone + Debug + PartialEq + DeserializeOwned + Send + Sync + 'static
{
}

/// The informers of one client. Clones share them.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    shutdown: CancellationToken,
    by_type: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>,
    tasks: TaskTracker,
}

impl Informers {
    /// None is started yet. `client` must be allowed to list and watch whatever is asked for.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self {
            client,
            shutdown,
            by_type: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// The informer of `K`, whose watch begins when it is first asked for. Must be called within a runtime.
    pub fn of<K: Watched>(&self) -> Informer<K> {
        let mut by_type = self.by_type.lock();
        let known = by_type.get(&TypeId::of::<K>());
        if let Some(informer) = known.and_then(|informer| informer.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        let informer = Informer::with(Copies::of_process());
        by_type.insert(TypeId::of::<K>(), Box::new(informer.clone()));
        let api = Api::<Shared<K>>::all(self.client.clone());
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let fed = informer.clone();
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = fed.feed(events) => {}
                () = shutdown.cancelled() => {}
            }
            fed.inner.ended.cancel();
        });
        informer
    }

    /// Waits for all watches to end, after the shutdown.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// One object that came, changed or went: one of the two is there at least.
pub struct Change<K> {
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        Self {
            old: self.old.clone(),
            new: self.new.clone(),
        }
    }
}

impl<K> Change<K> {
    /// The object as it is now, or as it last was.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both, for who must look at what an object was before as well.
    pub fn each(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The cache of one kind. Clones share it.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

struct Inner<K> {
    copies: Copies<K>,
    state: RwLock<State<K>>,
    /// Held while a change is taken in and told, so that nobody who subscribes meanwhile misses or repeats it.
    listeners: Mutex<Listeners<K>>,
    listed: watch::Sender<bool>,
    revision: watch::Sender<u64>,
    /// When the last list that came whole was asked for.
    listed_at: Mutex<Option<Instant>>,
    /// Nothing more comes.
    ended: CancellationToken,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    by_controller: ByWord<K>,
}

struct Listeners<K> {
    /// Told first, so that handlers find them up to date.
    indexes: Vec<Handler<K>>,
    handlers: Vec<Handler<K>>,
}

impl<K: Watched> Informer<K> {
    /// One that nothing feeds; tests feed it themselves.
    pub fn unfed() -> Self {
        Self::with(Copies::own())
    }

    fn with(copies: Copies<K>) -> Self {
        Self {
            inner: Arc::new(Inner {
                copies,
                state: RwLock::new(State {
                    objects: BTreeMap::new(),
                    by_controller: HashMap::new(),
                }),
                listeners: Mutex::new(Listeners {
                    indexes: Vec::new(),
                    handlers: Vec::new(),
                }),
                listed: watch::Sender::new(false),
                revision: watch::Sender::new(0),
                listed_at: Mutex::default(),
                ended: CancellationToken::new(),
            }),
        }
    }

    /// The object of that name; `namespace` is empty for objects of the cluster.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.state.read().objects.get(key).cloned()
    }

    /// All of them, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.state.read().objects.values().cloned().collect()
    }

    /// Those of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.inner.state.read();
        let from = state.objects.range(ObjectKey::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Those whose controller has this uid.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.inner.state.read();
        let objects = state.by_controller.get(uid);
        objects.map_or_else(Vec::new, |objects| objects.values().cloned().collect())
    }

    /// How many they are.
    pub fn count_controlled_by(&self, uid: &str) -> usize {
        self.inner.state.read().by_controller.get(uid).map_or(0, BTreeMap::len)
    }

    /// Calls `handler` for every change from now on, and first for each object that is there, as one that came. It is
    /// called in the order of the changes, one at a time, after the cache holds the change; it must not block and must
    /// not subscribe to this informer.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut listeners = self.inner.listeners.lock();
        self.replay(&handler);
        listeners.handlers.push(Box::new(handler));
    }

    /// An index of one's own: the objects by each of the words that `words` gives for them.
    pub fn index(&self, words: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Index<K> {
        let index = Index {
            by_word: Arc::default(),
        };
        let by_word = Arc::clone(&index.by_word);
        let follow = move |change: &Change<K>| {
            let old = change.old.as_ref().map(|old| words(old)).unwrap_or_default();
            let new = change.new.as_ref().map(|new| words(new)).unwrap_or_default();
            let Some(key) = change.object().map(|object| ObjectKey::of(&**object)) else {
                return;
            };
            let mut by_word = by_word.write();
            for word in old.iter().filter(|word| !new.contains(word)) {
                take(&mut by_word, word, &key);
            }
            if let Some(object) = &change.new {
                for word in &new {
                    place(&mut by_word, word, &key, object);
                }
            }
        };
        let mut listeners = self.inner.listeners.lock();
        self.replay(&follow);
        listeners.indexes.push(Box::new(follow));
        index
    }

    fn replay(&self, handler: &impl Fn(&Change<K>)) {
        for object in self.list() {
            handler(&Change {
                old: None,
                new: Some(object),
            });
        }
    }

    /// Returns once the first list is in.
    pub async fn synced(&self) {
        let mut listed = self.inner.listed.subscribe();
        // The sender lives as long as this informer.
        let _ = listed.wait_for(|listed| *listed).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.inner.listed.borrow()
    }

    /// The newest revision that was seen of this kind.
    pub fn revision(&self) -> u64 {
        *self.inner.revision.borrow()
    }

    /// Whether a list is in that was asked for after `time`: it shows all that was written before.
    pub fn listed_since(&self, time: Instant) -> bool {
        self.inner.listed_at.lock().is_some_and(|asked| asked > time)
    }

    /// Waits until the cache is at least as new as an object of this kind that was written at `resource_version`; gives
    /// up after some seconds, and when the watch has ended, and says whether it is.
    pub async fn seen(&self, resource_version: &str) -> bool {
        let Ok(wanted) = resource_version.parse::<u64>() else {
            return false;
        };
        let mut revision = self.inner.revision.subscribe();
        let wait = revision.wait_for(|revision| *revision >= wanted);
        let wait = self.inner.ended.run_until_cancelled(wait);
        tokio::time::timeout(SEEN_WAIT_MAX, wait)
            .await
            .is_ok_and(|seen| seen.is_some())
    }

    /// Takes in what `events` bring until they end. For tests and for watches that are not of the shared client.
    pub async fn feed<T: Into<Arc<K>>>(&self, events: impl Stream<Item = watcher::Result<Event<T>>>) {
        let mut events = pin!(events);
        let mut relisted: BTreeSet<ObjectKey> = BTreeSet::new();
        // A list comes by name, so its newest object says nothing about the others before all are in.
        let mut newest = 0;
        let mut asked = Instant::now();
        while let Some(event) = events.next().await {
            match event {
                // Comes before the list is asked for.
                Ok(Event::Init) => {
                    relisted.clear();
                    asked = Instant::now();
                }
                Ok(Event::InitApply(object)) => {
                    let object = object.into();
                    relisted.insert(ObjectKey::of(&*object));
                    newest = newest.max(revision_of(&*object));
                    self.take_in(object, false);
                }
                Ok(Event::InitDone) => {
                    self.retain(&std::mem::take(&mut relisted));
                    self.inner.advance(newest);
                    *self.inner.listed_at.lock() = Some(asked);
                    self.inner.listed.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.take_in(object.into(), true),
                Ok(Event::Delete(object)) => self.delete(&object.into()),
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, %error, "a watch broke and is retried");
                }
            }
        }
    }

    /// Takes in an object that came or changed.
    pub fn apply(&self, object: K) {
        self.take_in(Arc::new(object), true);
    }

    /// `in_order`: everything older has been seen before.
    fn take_in(&self, mut object: Arc<K>, in_order: bool) {
        if object.meta().managed_fields.is_some() {
            Arc::make_mut(&mut object).meta_mut().managed_fields = None;
        }
        let revision = revision_of(&*object);
        let key = ObjectKey::of(&*object);
        let listeners = self.inner.listeners.lock();
        let old = self.inner.state.read().objects.get(&key).cloned();
        // A relist shows again what is known.
        let unchanged = old
            .as_ref()
            .is_some_and(|old| old.meta().uid == object.meta().uid && revision_of(&**old) == revision && revision > 0);
        if !unchanged {
            let object = self.inner.copies.share(object);
            // Another object of the same name: the one before is gone, although nobody said so.
            let replaced = old.as_ref().is_some_and(|old| old.meta().uid != object.meta().uid);
            if replaced {
                self.take_out(&key, &listeners, 0);
            }
            self.inner.state.write().put(key, &object);
            let old = if replaced { None } else { old };
            let revision = if in_order { revision } else { 0 };
            self.tell(&listeners, &Change { old, new: Some(object) }, revision);
        } else if in_order {
            self.inner.advance(revision);
        }
    }

    /// Takes in that `object` is gone.
    pub fn delete(&self, object: &K) {
        let listeners = self.inner.listeners.lock();
        let revision = revision_of(object);
        self.take_out(&ObjectKey::of(object), &listeners, revision);
        drop(listeners);
        self.inner.advance(revision);
    }

    /// What is not in `keys` went while nobody watched.
    fn retain(&self, keys: &BTreeSet<ObjectKey>) {
        let listeners = self.inner.listeners.lock();
        let gone: Vec<ObjectKey> = {
            let state = self.inner.state.read();
            state
                .objects
                .keys()
                .filter(|key| !keys.contains(key))
                .cloned()
                .collect()
        };
        for key in gone {
            self.take_out(&key, &listeners, 0);
        }
    }

    fn take_out(&self, key: &ObjectKey, listeners: &Listeners<K>, revision: u64) {
        let old = self.inner.state.write().remove(key);
        if let Some(gone) = &old {
            self.inner.copies.forget(gone);
            self.tell(listeners, &Change { old, new: None }, revision);
        }
    }

    /// Who is told of a change, and asks how new the cache is, must find that it has the change.
    fn tell(&self, listeners: &Listeners<K>, change: &Change<K>, revision: u64) {
        listeners.indexes.iter().for_each(|listener| listener(change));
        self.inner.advance(revision);
        listeners.handlers.iter().for_each(|listener| listener(change));
    }
}

impl<K> Inner<K> {
    fn advance(&self, revision: u64) {
        self.revision.send_if_modified(|newest| {
            let newer = revision > *newest;
            if newer {
                *newest = revision;
            }
            newer
        });
    }
}

impl<K: Watched> State<K> {
    fn put(&mut self, key: ObjectKey, object: &Arc<K>) {
        let owner = controller_uid(&**object);
        if let Some(owner) = owner {
            place(&mut self.by_controller, owner, &key, object);
        }
        match self.objects.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(object));
            }
            Entry::Occupied(mut entry) => {
                let old = entry.insert(Arc::clone(object));
                if let Some(before) = controller_uid(&*old).filter(|before| Some(*before) != owner) {
                    take(&mut self.by_controller, before, entry.key());
                }
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        if let Some(owner) = controller_uid(&*old) {
            take(&mut self.by_controller, owner, key);
        }
        Some(old)
    }
}

/// Puts an object in its place under a word. Most changes find their object there, whose key stays then.
fn place<K>(by_word: &mut ByWord<K>, word: &str, key: &ObjectKey, object: &Arc<K>) {
    let Some(objects) = by_word.get_mut(word) else {
        let first = BTreeMap::from([(key.clone(), Arc::clone(object))]);
        by_word.insert(word.to_owned(), first);
        return;
    };
    match objects.get_mut(key) {
        Some(known) => *known = Arc::clone(object),
        None => {
            objects.insert(key.clone(), Arc::clone(object));
        }
    }
}

fn take<K>(by_word: &mut ByWord<K>, word: &str, key: &ObjectKey) {
    if let Some(objects) = by_word.get_mut(word) {
        objects.remove(key);
        if objects.is_empty() {
            by_word.remove(word);
        }
    }
}

/// The uid of the owner that controls `object`.
pub fn controller_uid<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref()?;
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

fn revision_of<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Objects by word, and then in the order of all lists.
type ByWord<K> = HashMap<String, BTreeMap<ObjectKey, Arc<K>>>;

/// Objects by words of one's own choice; see [`Informer::index`]. Clones share it.
pub struct Index<K> {
    by_word: Arc<RwLock<ByWord<K>>>,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self {
            by_word: Arc::clone(&self.by_word),
        }
    }
}

impl<K> Index<K> {
    pub fn get(&self, word: &str) -> Vec<Arc<K>> {
        let by_word = self.by_word.read();
        by_word
            .get(word)
            .map(|objects| objects.values().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn object(name: &str, uid: &str, revision: &str, owner: &str) -> ConfigMap {
        let mut value = json!({"metadata": {"namespace": "a", "name": name, "uid": uid, "resourceVersion": revision,
            "managedFields": [{"manager": "m"}]}});
        if !owner.is_empty() {
            value["metadata"]["ownerReferences"] = json!([
                {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "no-controller"},
                {"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner, "controller": true}]);
        }
        serde_json::from_value(value).unwrap()
    }

    fn names(objects: &[Arc<ConfigMap>]) -> Vec<&str> {
        objects
            .iter()
            .map(|object| object.metadata.name.as_deref().unwrap())
            .collect()
    }

    fn told(informer: &Informer<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let write = Arc::clone(&log);
        informer.on_change(move |change| {
            let part = |object: &Option<Arc<ConfigMap>>| {
                object
                    .as_ref()
                    .and_then(|object| object.metadata.resource_version.clone())
                    .unwrap_or_else(|| "-".to_owned())
            };
            write
                .lock()
                .push(format!("{}>{}", part(&change.old), part(&change.new)));
        });
        log
    }

    #[tokio::test]
    async fn a_relist_tells_only_what_changed() {
        let informer = Informer::<ConfigMap>::unfed();
        let log = told(&informer);
        let events = [
            Event::Init,
            Event::InitApply(object("one", "1", "1", "")),
            Event::InitApply(object("two", "2", "2", "")),
            Event::InitApply(object("three", "3", "3", "")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(object("one", "1", "1", "")),
            Event::InitApply(object("two", "2", "7", "")),
            Event::InitDone,
            // The same name, another object.
            Event::Apply(object("one", "9", "9", "")),
            Event::Delete(object("two", "2", "11", "")),
        ];
        assert!(!informer.is_synced());
        informer.feed(stream::iter(events.map(Ok))).await;
        informer.synced().await;
        let expected = ["->1", "->2", "->3", "2>7", "3>-", "1>-", "->9", "7>-"];
        assert_eq!(*log.lock(), expected);
        assert_eq!(names(&informer.list()), ["one"]);
        assert!(informer.get("a", "one").unwrap().metadata.managed_fields.is_none());
        assert_eq!(informer.revision(), 11);
        assert!(informer.seen("11").await);
        // Who comes late is told what is there.
        assert_eq!(*told(&informer).lock(), ["->9"]);
    }

    #[tokio::test]
    async fn what_is_controlled_by_whom_follows_the_changes() {
        let informer = Informer::<ConfigMap>::unfed();
        let by_version = informer.index(|object| object.metadata.resource_version.clone().into_iter().collect());
        informer.apply(object("one", "1", "1", "owner"));
        informer.apply(object("two", "2", "2", "owner"));
        assert_eq!(names(&informer.controlled_by("owner")), ["one", "two"]);
        assert!(informer.controlled_by("no-controller").is_empty());
        informer.apply(object("one", "1", "3", "other"));
        assert_eq!(names(&informer.controlled_by("owner")), ["two"]);
        assert_eq!(names(&informer.controlled_by("other")), ["one"]);
        assert_eq!(names(&by_version.get("3")), ["one"]);
        assert!(by_version.get("1").is_empty());
        informer.delete(&object("two", "2", "4", "owner"));
        assert!(informer.controlled_by("owner").is_empty() && by_version.get("2").is_empty());
        assert_eq!(names(&informer.in_namespace("a")), ["one"]);
        assert!(informer.in_namespace("").is_empty());
    }

    #[test]
    fn who_is_told_finds_the_cache_as_new() {
        let informer = Informer::<ConfigMap>::unfed();
        let (log, seen): (Arc<Mutex<Vec<u64>>>, _) = (Arc::default(), informer.clone());
        let write = Arc::clone(&log);
        informer.on_change(move |_| write.lock().push(seen.revision()));
        informer.apply(object("one", "1", "5", ""));
        informer.apply(object("one", "1", "7", ""));
        informer.delete(&object("one", "1", "9", ""));
        assert_eq!(*log.lock(), [5, 7, 9]);
    }

    #[tokio::test]
    async fn waiting_for_a_revision_ends() {
        let informer = Informer::<ConfigMap>::unfed();
        let waiting = informer.clone();
        let wait = tokio::spawn(async move { waiting.seen("5").await });
        tokio::task::yield_now().await;
        informer.apply(object("one", "1", "5", ""));
        assert!(wait.await.unwrap());
        assert!(!informer.seen("no number").await);
    }
}
