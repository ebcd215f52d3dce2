//! An API server with everything that acts on it, which may be restarted; and hollow nodes, which behave.

use crate::faults::{Dice, Faults, Lost, Process, faulty};
use crate::history::History;
use crate::hollow::Hollow;
use crate::invariants::{self, Broken};
use crate::shares;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::Device;
use krust::apiserver::{ApiServer, ApiServerOptions};
use krust::client::informer::{Informer, Informers};
use krust::controllers::{self, Clients, Tokens};
use krust::registry::Registry;
use krust::scheduler;
use krust::scheduler::configuration::Configuration;
use krust::scheduler::devices::Expressions;
use krust::storage::{Options, Storage};
use krust::transport::InProcessIdentity;
use krust::transport::pki::{Pki, ServerNames};
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams, PostParams,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Those that stay well; one more does not.
pub const NODES: usize = 4;
/// Longer than any back-off of a controller that has gone on failing, also on a machine that does a lot beside.
const SETTLES_MAX: Duration = Duration::from_secs(300);
const MISBEHAVES_IN_THE_END: Duration = Duration::from_secs(2);
const NAMESPACE: &str = "default";
/// How often what is asked of the API server is asked again, when something is not there yet that will come.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
const ASKED_MAX: Duration = Duration::from_secs(60);
const CLUSTER_WIDE: [&str; 13] = [
    "nodes",
    "namespaces",
    "persistentvolumes",
    "clusterroles",
    "certificatesigningrequests",
    "customresourcedefinitions",
    "storageclasses",
    "volumeattachments",
    "storageversionmigrations",
    "deviceclasses",
    "resourceslices",
    "devicetaintrules",
    "validatingadmissionpolicies",
];

/// Group version and resource.
pub type Kind = (&'static str, &'static str);

/// No node has any.
struct NoDevices;

impl Expressions for NoDevices {
    fn holds(&self, expression: &str, _driver: &str, _device: &Device) -> Result<bool, String> {
        Err(format!("nobody asked for {expression}"))
    }
}

pub struct Cluster {
    api: Arc<ApiServer>,
    faults: Faults,
    dice: Dice,
    seed: u64,
    admin: Client,
    pods: Informer<Pod>,
    pki: Arc<Pki>,
    broken: Broken,
    /// Ends what acts, and what does not misbehave.
    acting: Option<(Process, CancellationToken, JoinSet<()>)>,
    starts: usize,
    history: History,
    lost: Lost,
    quiet: (CancellationToken, JoinSet<()>),
    _directory: TempDir,
}

impl Cluster {
    pub async fn start(seed: u64, faults: Faults) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::builtin();
        let options = Options::sqlite(&directory.path().join("krust.db"));
        let storage = Storage::open(options, registry.clone()).await.unwrap();
        let api = ApiServer::new(ApiServerOptions::new(storage, registry));
        let identity = InProcessIdentity {
            user: "system:apiserver".into(),
            groups: vec!["system:masters".into()],
        };
        let admin = krust::client::in_process(api.endpoint(), identity, "test");
        let pki = Pki::load_or_create(&directory.path().join("pki"), ServerNames::default()).unwrap();
        let (stop, mut quiet) = (CancellationToken::new(), JoinSet::new());
        for name in [NAMESPACE, "kube-system", "kube-node-lease"] {
            let namespaces = dynamic(&admin, ("v1", "namespaces"), None);
            let body = object(json!({"metadata": {"name": name}}));
            namespaces.create(&PostParams::default(), &body).await.unwrap();
        }
        api.bootstrap().await.unwrap();
        quiet.spawn(api.clone().follow_definitions(stop.clone()));
        let hollow = Hollow::new(NODES + 1, 110);
        hollow.register(&admin).await.unwrap();
        let (player, ends) = (admin.clone(), stop.clone());
        let informers = Informers::new(admin.clone(), stop.clone());
        let pods = informers.of::<Pod>();
        quiet.spawn(async move { hollow.run(player, &informers, Duration::from_millis(15), ends).await });
        pods.synced().await;
        let (history, lost) = (History::new(), Lost::default());
        let mut cluster = Self {
            api,
            faults,
            dice: Dice::new(seed),
            seed,
            admin,
            broken: invariants::follow(&pods, &history, &lost),
            pods,
            pki: Arc::new(pki),
            acting: None,
            starts: 0,
            history,
            lost,
            quiet: (stop, quiet),
            _directory: directory,
        };
        shares::prepare(&cluster).await;
        cluster.act();
        cluster
    }

    /// Starts controllers and scheduler.
    fn act(&mut self) {
        let stop = CancellationToken::new();
        self.starts += 1;
        let process = Process::new(self.starts, self.history.clone(), self.lost.clone(), self.admin.clone());
        let client = {
            let (api, faults, dice) = (self.api.clone(), self.faults, self.dice.clone());
            let process = process.clone();
            move |user: &str, groups: &[&str]| {
                let identity = InProcessIdentity {
                    user: user.to_owned(),
                    groups: groups.iter().map(|group| (*group).to_owned()).collect(),
                };
                let endpoint = faulty(api.endpoint(), faults, dice.clone(), process.clone(), user);
                krust::client::in_process(endpoint, identity, "test")
            }
        };
        let clients = Clients {
            shared: client("system:kube-controller-manager", &[]),
            own: {
                let client = client.clone();
                Box::new(move |name| {
                    let user = format!("system:serviceaccount:kube-system:{name}");
                    client(&user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
                })
            },
            volumes_directory: std::env::temp_dir().join("krust-volumes"),
            type_check: Box::new(|_| Vec::new()),
        };
        let tokens = Tokens {
            issue: Box::new(|namespace, account, _, _| Some(format!("of {namespace}/{account}"))),
            authority: String::new(),
        };
        let all = controllers::Selection::new(&["*".to_owned()]).unwrap();
        let mut tasks = JoinSet::new();
        let extensions = client("system:apiserver", &["system:masters"]);
        tasks.spawn(controllers::run_extensions(extensions, stop.clone()));
        tasks.spawn(controllers::run(clients, tokens, self.pki.clone(), all, stop.clone()));
        tasks.spawn(scheduler::run(
            client("system:kube-scheduler", &[]),
            Configuration::default(),
            Arc::new(NoDevices),
            stop.clone(),
        ));
        self.acting = Some((process, stop, tasks));
    }

    /// Ends what acts: some of it in the middle of what it does.
    async fn halt(&mut self) {
        if let Some((process, stop, mut tasks)) = self.acting.take() {
            if self.dice.below(2) == 0 {
                // As with kill -9: nothing is finished.
                process.kill().await;
                tasks.shutdown().await;
                stop.cancel();
            } else {
                stop.cancel();
                while tasks.join_next().await.is_some() {}
                process.kill().await;
            }
        }
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        let namespace = (!CLUSTER_WIDE.contains(&kind.1)).then_some(NAMESPACE);
        dynamic(&self.admin, kind, namespace)
    }

    /// The kind in another namespace than the usual one.
    pub fn within(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        dynamic(&self.admin, kind, Some(namespace))
    }

    /// Makes an object of that name, which nobody else makes. What it needs may come a little later.
    pub async fn create(&self, kind: Kind, value: Value) -> Value {
        let api = match value["metadata"]["namespace"].as_str() {
            Some(namespace) => self.within(kind, namespace),
            None => self.api(kind),
        };
        let object = object(value);
        let began = Instant::now();
        loop {
            match api.create(&PostParams::default(), &object).await {
                Ok(created) => return serde_json::to_value(created).unwrap(),
                Err(error) => assert!(
                    began.elapsed() < ASKED_MAX,
                    "{kind:?} {:?}: {error}",
                    object.metadata.name
                ),
            }
            tokio::time::sleep(ASKED_AGAIN).await;
        }
    }

    pub async fn patch(&self, kind: Kind, name: &str, patch: Value) {
        self.patch_in(&self.api(kind), name, patch).await;
    }

    pub async fn patch_in(&self, api: &Api<DynamicObject>, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn patch_status(&self, kind: Kind, name: &str, patch: Value) {
        self.patch_subresource(kind, name, "status", patch).await;
    }

    pub async fn patch_subresource(&self, kind: Kind, name: &str, subresource: &str, patch: Value) {
        let (api, patch) = (self.api(kind), Patch::Merge(patch));
        let parameters = PatchParams::default();
        api.patch_subresource(subresource, name, &parameters, &patch)
            .await
            .unwrap();
    }

    pub async fn delete(&self, kind: Kind, name: &str) {
        self.delete_in(&self.api(kind), name).await;
    }

    pub async fn delete_as(&self, kind: Kind, name: &str, propagation: &str) {
        let how = match propagation {
            "Orphan" => DeleteParams::orphan(),
            "Foreground" => DeleteParams::foreground(),
            _ => DeleteParams::background(),
        };
        self.api(kind).delete(name, &how).await.unwrap();
    }

    /// Deletes what may be gone already, or not there yet.
    pub async fn delete_in(&self, api: &Api<DynamicObject>, name: &str) {
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("deleting {name}: {error}"),
        }
    }

    /// The object; null if there is none.
    pub async fn get(&self, kind: Kind, name: &str) -> Value {
        self.get_in(&self.api(kind), name).await
    }

    pub async fn get_in(&self, api: &Api<DynamicObject>, name: &str) -> Value {
        serde_json::to_value(api.get_opt(name).await.unwrap()).unwrap()
    }

    pub async fn list(&self, kind: Kind) -> Vec<Value> {
        self.list_in(&self.api(kind)).await
    }

    pub async fn list_in(&self, api: &Api<DynamicObject>) -> Vec<Value> {
        let list = api.list(&ListParams::default()).await.unwrap();
        let items = list.items.into_iter();
        items.map(|item| serde_json::to_value(item).unwrap()).collect()
    }

    /// Lets time pass, deletes and evicts pods, and restarts what acts.
    pub async fn disturb(&mut self, rounds: usize) {
        for _ in 0..rounds {
            tokio::time::sleep(Duration::from_millis(100 + self.dice.below(400) as u64)).await;
            let pods: Api<Pod> = Api::namespaced(self.admin.clone(), NAMESPACE);
            match self.dice.below(4) {
                0 => {
                    // Pods of the jobs are left alone: one that is deleted counts as failed.
                    if let Some(name) = self.any_pod(&["web", "db", "agent"]) {
                        let _ = pods.delete(&name, &DeleteParams::default()).await;
                    }
                }
                1 => {
                    for _ in 0..3 {
                        if let Some(name) = self.any_pod(&["guarded"]) {
                            // The budget may be spent.
                            let _ = pods.evict(&name, &EvictParams::default()).await;
                        }
                    }
                }
                2 => {
                    self.halt().await;
                    self.act();
                }
                _ => {}
            }
        }
    }

    fn any_pod(&self, apps: &[&str]) -> Option<String> {
        let pods = self.pods.in_namespace(NAMESPACE);
        let pods: Vec<_> = pods.iter().filter(|pod| apps.contains(&invariants::app(pod))).collect();
        let pod = pods.get(self.dice.below(pods.len()))?;
        pod.metadata.name.clone()
    }

    /// Waits until everything is as it was asked for, and nothing moves any more.
    pub async fn settles(&self) {
        self.dice.misbehave_for(MISBEHAVES_IN_THE_END);
        let before = Mutex::new(BTreeMap::new());
        let look = async || {
            let mut wrong = shares::wrong(self).await;
            if wrong.is_empty() {
                // What is right at a glance may have been put together from moments that do not belong together.
                let now = self.revisions().await;
                let seen = std::mem::replace(&mut *before.lock(), now.clone());
                let moved = now.iter().filter(|(name, revision)| seen.get(*name) != Some(revision));
                wrong.extend(moved.map(|(name, _)| format!("{name} still changes")));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            wrong
        };
        self.becomes("everything is as it was asked for", look).await;
        let injected = self.dice.injected.load(std::sync::atomic::Ordering::Relaxed);
        println!("seed {}: {injected} faults", self.seed);
        assert!(injected > 20, "seed {}: only {injected} faults", self.seed);
    }

    async fn revisions(&self) -> BTreeMap<String, String> {
        let mut revisions = BTreeMap::new();
        for kind in shares::DELETED.into_iter().chain(shares::GONE) {
            for item in self.list(kind).await {
                let metadata = &item["metadata"];
                let name = format!("{} {}", kind.1, metadata["name"].as_str().unwrap_or_default());
                revisions.insert(name, metadata["resourceVersion"].to_string());
            }
        }
        revisions
    }

    async fn becomes(&self, what: &str, wrong: impl AsyncFn() -> Vec<String>) {
        let (began, mut told) = (Instant::now(), Duration::from_secs(5));
        loop {
            let wrong = wrong().await;
            if wrong.is_empty() {
                return;
            }
            if began.elapsed() > told {
                println!(
                    "seed {}: after {told:?} it is not so that {what}: {wrong:#?}",
                    self.seed
                );
                told += Duration::from_secs(5);
            }
            assert!(
                began.elapsed() < SETTLES_MAX,
                "seed {} ({:?}): not so that {what}: {wrong:#?}\n{}",
                self.seed,
                self.faults,
                self.history.last(400)
            );
            // A look costs about as much as what it looks for.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// No bound was broken since the start.
    pub fn bounds_held(&self) {
        let broken = self.broken.all();
        assert!(broken.is_empty(), "seed {}: {}", self.seed, broken.join("\n"));
    }

    /// Deletes what was made, and waits until nothing of it is left.
    pub async fn deletes_all(&self) {
        self.dice.misbehave_for(MISBEHAVES_IN_THE_END);
        for kind in shares::DELETED {
            let api = self.api(kind);
            let how = if self.dice.below(2) == 0 {
                DeleteParams::foreground()
            } else {
                DeleteParams::background()
            };
            for name in self.left_of(kind).await {
                match api.delete(&name, &how).await {
                    Ok(_) => {}
                    // It went with something else.
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => panic!("deleting {} {name}: {error}", kind.1),
                }
            }
        }
        shares::end(self).await;
        self.becomes("nothing is left", async || {
            let mut left = Vec::new();
            for kind in shares::DELETED.into_iter().chain(shares::GONE).chain(shares::GONE_TOO) {
                let names = self.left_of(kind).await.into_iter();
                left.extend(names.map(|name| format!("{} {name}", kind.1)));
            }
            left
        })
        .await;
    }

    /// The objects of the kind that do not belong to every cluster.
    async fn left_of(&self, kind: Kind) -> Vec<String> {
        let items = self.list(kind).await;
        let names = items.iter().filter_map(|item| item["metadata"]["name"].as_str());
        let ours = names.filter(|name| !shares::IN_EVERY_CLUSTER.contains(name));
        ours.map(str::to_owned).collect()
    }

    pub async fn stop(mut self) {
        self.halt().await;
        self.quiet.0.cancel();
        self.quiet.1.shutdown().await;
    }
}

fn dynamic(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group_version, plural) = kind;
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: group_version.to_owned(),
        kind: String::new(),
        plural: plural.to_owned(),
    };
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// The kind stands in the URL.
fn object(value: Value) -> DynamicObject {
    let mut value = value;
    let metadata = value["metadata"].take();
    DynamicObject {
        types: None,
        metadata: serde_json::from_value(metadata).unwrap(),
        data: {
            value.as_object_mut().unwrap().remove("metadata");
            value
        },
    }
}
