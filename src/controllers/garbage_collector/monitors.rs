//! One watch of metadata for every resource that is served, as they come and go
//! (upstream: the monitors in `graph_builder.go`).

use super::Queues;
use super::cluster::Cluster;
use super::graph::{Graph, Seen};
use super::identity::{Identity, Type, Uid, owners};
use super::plan::{FOREGROUND, ORPHAN};
use super::worker::Worker;
use crate::client::discovery::{Discovery, Metadata, Resource, Resources};
use crate::client::lean::Lean;
use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What must be possible with a resource for its objects to be collected.
const VERBS: [&str; 3] = ["delete", "list", "watch"];

pub struct Monitors {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    queues: Queues,
    /// By group-resource.
    running: Mutex<BTreeMap<String, Monitor>>,
    tasks: TaskTracker,
    /// Definitions that were seen.
    definitions: Arc<Mutex<BTreeSet<String>>>,
    /// All watches of the first discovery are set up.
    begun: watch::Sender<bool>,
}

struct Monitor {
    resource: Arc<Resource>,
    stop: CancellationToken,
    listed: watch::Receiver<bool>,
}

impl Monitors {
    pub fn new(client: Client, graph: Arc<Mutex<Graph>>, queues: Queues) -> Self {
        Self {
            client,
            graph,
            queues,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            definitions: Arc::default(),
            begun: watch::channel(false).0,
        }
    }

    /// Waits until everything that was served at the start is in the graph.
    pub async fn synced(&self) {
        // The sender lives in `self`.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
        let listed: Vec<watch::Receiver<bool>> = {
            let running = self.running.lock();
            running.values().map(|monitor| monitor.listed.clone()).collect()
        };
        for mut listed in listed {
            // One that was stopped has nothing to wait for.
            let _ = listed.wait_for(|listed| *listed).await;
        }
    }

    /// Starts and ends watches as resources come and go.
    pub async fn follow<C: Cluster>(&self, discovery: &Discovery, worker: &Worker<C>) {
        discovery.current().await;
        let mut changes = discovery.subscribe();
        while changes.changed().await.is_ok() {
            let resources = changes.borrow_and_update().clone();
            let vanished = self.update(&resources);
            for resource in resources.preferred() {
                worker.type_is_served(&resource.api.group, &resource.api.kind);
            }
            for resource in vanished {
                if self.was_defined(&resource).await {
                    worker.type_is_gone(&resource.api.group, &resource.api.kind);
                }
                self.change(|graph| graph.lose_sight(|kind| is_of(kind, &resource)));
            }
            for uid in worker.take_waiting() {
                self.queues.examine.add(uid);
            }
            self.begun.send_replace(true);
        }
    }

    pub async fn stop(&self) {
        self.running.lock().values().for_each(|monitor| monitor.stop.cancel());
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What is watched from now on; what no longer can be is returned.
    fn update(&self, resources: &Resources) -> Vec<Arc<Resource>> {
        let wanted = resources.preferred().filter(|resource| {
            // Events own nothing, and there are many of them.
            resource.has_verbs(&VERBS) && resource.api.plural != "events"
        });
        let wanted: BTreeMap<String, &Arc<Resource>> =
            wanted.map(|resource| (resource.group_resource(), resource)).collect();
        let mut running = self.running.lock();
        let mut vanished = Vec::new();
        running.retain(|name, monitor| {
            if wanted.contains_key(name) || is_stale(resources, &monitor.resource) {
                return true;
            }
            monitor.stop.cancel();
            vanished.push(monitor.resource.clone());
            false
        });
        for (name, resource) in wanted {
            let known = running.get(&name);
            if known.is_some_and(|monitor| monitor.resource.api == resource.api) {
                continue;
            }
            let replaces = known.is_some();
            if let Some(monitor) = known {
                monitor.stop.cancel();
            }
            running.insert(name, self.start(resource.clone(), replaces));
        }
        vanished
    }

    /// With `replaces`, objects of the kind are in the graph already.
    fn start(&self, resource: Arc<Resource>, replaces: bool) -> Monitor {
        let (listed, is_listed) = watch::channel(false);
        let stop = CancellationToken::new();
        let feed = Feed {
            kind: Type::new(&resource.api.api_version, &resource.api.kind),
            resource: resource.clone(),
            graph: self.graph.clone(),
            queues: self.queues.clone(),
            definitions: self.definitions.clone(),
            listed,
            relist: replaces,
            present: HashSet::default(),
        };
        let (client, stopped) = (self.client.clone(), stop.clone());
        self.tasks
            .spawn(async move { stopped.run_until_cancelled(feed.run(client)).await });
        Monitor {
            resource,
            stop,
            listed: is_listed,
        }
    }

    /// The resource was that of a definition, which is deleted, and so are its objects.
    async fn was_defined(&self, resource: &Resource) -> bool {
        let name = resource.group_resource();
        if !self.definitions.lock().contains(&name) {
            return false;
        }
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        matches!(definitions.get_metadata_opt(&name).await, Ok(None))
    }

    fn change(&self, change: impl FnOnce(&mut Graph)) {
        apply(&self.graph, &self.queues, change);
    }
}

fn apply(graph: &Mutex<Graph>, queues: &Queues, change: impl FnOnce(&mut Graph)) {
    let work = {
        let mut graph = graph.lock();
        change(&mut graph);
        graph.take_work()
    };
    queues.take(work);
}

fn is_of(kind: &Type, resource: &Resource) -> bool {
    kind.group() == resource.api.group && *kind.kind == *resource.api.kind
}

/// Its own server does not answer: nothing is known of what it serves.
fn is_stale(resources: &Resources, resource: &Resource) -> bool {
    resources.stale.contains(&resource.api.api_version)
}

/// From one watch into the graph.
struct Feed {
    kind: Arc<Type>,
    resource: Arc<Resource>,
    graph: Arc<Mutex<Graph>>,
    queues: Queues,
    definitions: Arc<Mutex<BTreeSet<String>>>,
    listed: watch::Sender<bool>,
    /// Objects that a list does not show any more may be in the graph.
    relist: bool,
    /// What the list that is coming in has shown.
    present: HashSet<Uid, ahash::RandomState>,
}

impl Feed {
    async fn run(mut self, client: Client) {
        let api: Api<Lean<Metadata>> = Api::all_with(client, &self.resource.api);
        let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => self.present.clear(),
                Ok(Event::InitApply(Lean(object))) => {
                    if self.relist {
                        self.present.insert(uid(&object.metadata));
                    }
                    self.observe(&object.metadata);
                }
                Ok(Event::InitDone) => self.end_list(),
                Ok(Event::Apply(Lean(object))) => self.observe(&object.metadata),
                Ok(Event::Delete(Lean(object))) => {
                    apply(&self.graph, &self.queues, |graph| graph.vanish(&uid(&object.metadata)));
                }
                Err(error) => {
                    let resource = self.resource.group_resource();
                    tracing::debug!(resource, %error, "a watch of the garbage collector is set up again");
                }
            }
        }
    }

    fn observe(&self, metadata: &ObjectMeta) {
        if self.resource.api.kind == "CustomResourceDefinition" {
            self.definitions
                .lock()
                .insert(metadata.name.clone().unwrap_or_default());
        }
        let seen = seen(&self.kind, metadata);
        apply(&self.graph, &self.queues, |graph| graph.observe(seen));
    }

    fn end_list(&mut self) {
        if self.relist {
            let present = std::mem::take(&mut self.present);
            apply(&self.graph, &self.queues, |graph| {
                let gone = graph.seen_of(|kind| is_of(kind, &self.resource));
                for uid in gone.iter().filter(|uid| !present.contains(*uid)) {
                    graph.vanish(uid);
                }
            });
        }
        self.relist = true;
        self.listed.send_replace(true);
    }
}

fn uid(metadata: &ObjectMeta) -> Uid {
    Uid::new(metadata.uid.as_deref().unwrap_or_default())
}

fn seen(kind: &Arc<Type>, metadata: &ObjectMeta) -> Seen {
    let has = |finalizer: &str| metadata.finalizers.iter().flatten().any(|name| name == finalizer);
    Seen {
        identity: Identity {
            kind: kind.clone(),
            namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
            uid: uid(metadata),
        },
        owners: owners(metadata),
        deleting: metadata.deletion_timestamp.is_some(),
        foreground: has(FOREGROUND),
        orphan: has(ORPHAN),
    }
}
