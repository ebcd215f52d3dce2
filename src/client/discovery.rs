//! Which resources the API server serves, followed as definitions and aggregated APIs come and go
//! (upstream: `client-go/discovery` with its cache and `restmapper`).

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// A change is often one of several.
const SETTLE: Duration = Duration::from_millis(50);
/// Some servers publish what they serve a while after the definition is established.
const LATECOMERS: Duration = Duration::from_secs(3);
/// How long until an API that could not be asked is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// An object without what is particular to its kind. All requests for it are answered with as much.
pub type Metadata = PartialObjectMeta<DynamicObject>;

/// A served resource in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub api: ApiResource,
    pub namespaced: bool,
    pub verbs: BTreeSet<String>,
}

impl Resource {
    pub fn has_verbs(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.contains(*verb))
    }

    /// `pods`, `deployments.apps`.
    pub fn group_resource(&self) -> String {
        match self.api.group.as_str() {
            "" => self.api.plural.clone(),
            group => format!("{}.{group}", self.api.plural),
        }
    }

    pub fn api_all(&self, client: Client) -> Api<Metadata> {
        Api::all_with(client, &self.api)
    }

    /// Of the namespace if the resource has namespaces.
    pub fn api_in(&self, client: Client, namespace: &str) -> Api<Metadata> {
        if self.namespaced {
            Api::namespaced_with(client, namespace, &self.api)
        } else {
            Api::all_with(client, &self.api)
        }
    }
}

/// All that is served at one time.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    all: Vec<Arc<Resource>>,
    preferred: Vec<Arc<Resource>>,
    by_kind: HashMap<(String, String), Arc<Resource>>,
    /// Group versions whose own servers did not tell what they serve.
    pub stale: Vec<String>,
}

impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all && self.preferred == other.preferred && self.stale == other.stale
    }
}

impl Resources {
    /// One version of each resource, the one that its group prefers.
    pub fn preferred(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.preferred.iter()
    }

    /// By what stands in objects.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_kind.get(&(api_version.to_owned(), kind.to_owned()))
    }

    /// By group and plural, in the preferred version.
    pub fn by_plural(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.preferred
            .iter()
            .find(|resource| resource.api.group == group && resource.api.plural == plural)
    }

    /// `resources` stand in order: groups by priority, in them versions by preference.
    pub fn new(resources: Vec<Resource>, stale: Vec<String>) -> Self {
        let all: Vec<Arc<Resource>> = resources.into_iter().map(Arc::new).collect();
        let mut seen = BTreeSet::new();
        let preferred = all.iter().filter(|resource| seen.insert(resource.group_resource()));
        let preferred = preferred.cloned().collect();
        let mut by_kind = HashMap::new();
        for resource in &all {
            let key = (resource.api.api_version.clone(), resource.api.kind.clone());
            by_kind.entry(key).or_insert_with(|| resource.clone());
        }
        Self {
            all,
            preferred,
            by_kind,
            stale,
        }
    }
}

/// What is served now, for everybody who needs it.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
    current: watch::Receiver<Arc<Resources>>,
}

struct Shared {
    client: Client,
    /// Held while the server is asked; counts how often it was.
    asking: Mutex<()>,
    started: std::sync::atomic::AtomicU64,
    finished: std::sync::atomic::AtomicU64,
    publish: watch::Sender<Arc<Resources>>,
}

impl Discovery {
    /// Follows what is served until `shutdown`.
    pub fn start(client: Client, shutdown: CancellationToken) -> Self {
        let (publish, current) = watch::channel(Arc::default());
        let shared = Arc::new(Shared {
            client,
            asking: Mutex::new(()),
            started: Default::default(),
            finished: Default::default(),
            publish,
        });
        let discovery = Self { shared, current };
        let follower = discovery.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(follower.follow()).await });
        discovery
    }

    /// What was found last; waits for the first time.
    pub async fn current(&self) -> Arc<Resources> {
        let mut current = self.current.clone();
        // The sender lives in `self`.
        let found = current.wait_for(|resources| !resources.all.is_empty()).await;
        found.map(|resources| resources.clone()).unwrap_or_default()
    }

    /// What is served at a moment after this call. Callers at the same time share one answer.
    pub async fn fresh(&self) -> kube::Result<Arc<Resources>> {
        use std::sync::atomic::Ordering::SeqCst;
        let shared = &self.shared;
        let wanted = shared.started.load(SeqCst) + 1;
        let _asking = shared.asking.lock().await;
        if shared.finished.load(SeqCst) < wanted {
            let run = shared.started.fetch_add(1, SeqCst) + 1;
            let found = Arc::new(discover(&shared.client).await?);
            shared.finished.store(run, SeqCst);
            shared.publish.send_if_modified(|current| {
                let changed = *current != found;
                if changed {
                    *current = found;
                }
                changed
            });
        }
        Ok(self.current.borrow().clone())
    }

    /// Changes from now on, the present state first.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Resources>> {
        let mut current = self.current.clone();
        current.mark_changed();
        current
    }

    async fn follow(self) {
        let client = &self.shared.client;
        let definitions = touches(client, "apiextensions.k8s.io", "CustomResourceDefinition");
        let services = touches(client, "apiregistration.k8s.io", "APIService");
        let mut touched = std::pin::pin!(futures_util::stream::select(definitions, services));
        let mut again = Some(Duration::ZERO);
        loop {
            let pause = again.unwrap_or(Duration::MAX);
            tokio::select! {
                _ = touched.next() => {
                    // Whatever else comes in the meantime is part of it.
                    let _ = tokio::time::timeout(SETTLE, async { while touched.next().await.is_some() {} }).await;
                    again = Some(LATECOMERS);
                }
                () = tokio::time::sleep(pause.min(Duration::from_secs(86_400))), if again.is_some() => again = None,
            }
            match self.fresh().await {
                Ok(found) if found.stale.is_empty() => {}
                Ok(_) => again = Some(RETRY),
                Err(error) => {
                    tracing::warn!(%error, "what the API server serves is not known");
                    again = Some(RETRY);
                }
            }
        }
    }
}

/// Something for every change of a kind's objects.
fn touches(client: &Client, group: &str, kind: &str) -> impl Stream<Item = ()> + Send + use<> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let api: Api<Metadata> = Api::all_with(client.clone(), &kind);
    let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
    events.filter_map(|event| {
        let touched = match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
            Ok(_) => Some(()),
            Err(error) => {
                tracing::debug!(%error, "a watch for discovery is set up again");
                None
            }
        };
        std::future::ready(touched)
    })
}

async fn discover(client: &Client) -> kube::Result<Resources> {
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    let mut resources = Vec::new();
    let mut stale = Vec::new();
    for group in core.items.into_iter().chain(groups.items) {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for served in group.versions {
            let version = served.version.unwrap_or_default();
            let api_version = match name.as_str() {
                "" => version.clone(),
                group => format!("{group}/{version}"),
            };
            if served.freshness.as_deref() == Some("Stale") {
                stale.push(api_version.clone());
            }
            for resource in served.resources {
                let Some(kind) = resource.response_kind.and_then(|kind| kind.kind) else {
                    continue;
                };
                resources.push(Resource {
                    api: ApiResource {
                        group: name.clone(),
                        version: version.clone(),
                        api_version: api_version.clone(),
                        kind,
                        plural: resource.resource.unwrap_or_default(),
                    },
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    verbs: resource.verbs.into_iter().collect(),
                });
            }
        }
    }
    Ok(Resources::new(resources, stale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(group: &str, version: &str, plural: &str, kind: &str) -> Resource {
        Resource {
            api: ApiResource {
                group: group.into(),
                version: version.into(),
                api_version: if group.is_empty() {
                    version.into()
                } else {
                    format!("{group}/{version}")
                },
                kind: kind.into(),
                plural: plural.into(),
            },
            namespaced: true,
            verbs: ["list", "watch"].map(str::to_owned).into(),
        }
    }

    #[test]
    fn the_first_version_of_a_resource_is_preferred() {
        let resources = Resources::new(
            vec![
                resource("", "v1", "pods", "Pod"),
                resource("example.com", "v2", "as", "A"),
                resource("example.com", "v1", "as", "A"),
                resource("example.com", "v1", "bs", "B"),
            ],
            Vec::new(),
        );
        let preferred: Vec<&str> = resources.preferred().map(|r| r.api.api_version.as_str()).collect();
        assert_eq!(preferred, ["v1", "example.com/v2", "example.com/v1"]);
        assert_eq!(resources.by_kind("example.com/v1", "A").unwrap().api.plural, "as");
        assert!(resources.by_kind("example.com/v3", "A").is_none());
        assert_eq!(resources.by_plural("example.com", "as").unwrap().api.version, "v2");
        assert!(resources.by_plural("", "pods").unwrap().has_verbs(&["list"]));
        assert!(!resources.by_plural("", "pods").unwrap().has_verbs(&["list", "delete"]));
    }
}
