//! An API server with everything that acts on it, which may be restarted; and hollow nodes, which behave.

use crate::faults::{Dice, Faults, Process, faulty};
use crate::history::History;
use crate::hollow::Hollow;
use crate::invariants::{self, Broken};
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
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const NODES: usize = 4;
/// Longer than any back-off of a controller that goes on failing.
const SETTLES_MAX: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "default";
const OWNED: [(&str, &str); 5] = [
    ("apps/v1", "deployments"),
    ("apps/v1", "statefulsets"),
    ("apps/v1", "daemonsets"),
    ("batch/v1", "jobs"),
    ("v1", "services"),
];

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
            let namespaces = dynamic(&admin, "v1", "namespaces", None);
            let body = object(json!({"metadata": {"name": name}}));
            namespaces.create(&PostParams::default(), &body).await.unwrap();
        }
        api.bootstrap().await.unwrap();
        quiet.spawn(api.clone().follow_definitions(stop.clone()));
        quiet.spawn(controllers::run_extensions(admin.clone(), stop.clone()));
        let hollow = Hollow::new(NODES, 110);
        hollow.register(&admin).await.unwrap();
        let (player, ends) = (admin.clone(), stop.clone());
        quiet.spawn(async move { hollow.run(player, Duration::from_millis(15), ends).await });
        let pods = Informers::new(admin.clone(), stop.clone()).of::<Pod>();
        pods.synced().await;
        let history = History::new();
        let mut cluster = Self {
            api,
            faults,
            dice: Dice::new(seed),
            seed,
            admin,
            broken: invariants::follow(&pods, &history),
            pods,
            pki: Arc::new(pki),
            acting: None,
            starts: 0,
            history,
            quiet: (stop, quiet),
            _directory: directory,
        };
        cluster.act();
        cluster
    }

    /// Starts controllers and scheduler.
    fn act(&mut self) {
        let stop = CancellationToken::new();
        self.starts += 1;
        let process = Process::new(self.starts, self.history.clone());
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
            issue: Box::new(|_, _, _, _| None),
            authority: String::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(controllers::run(clients, tokens, self.pki.clone(), stop.clone()));
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

    pub async fn create(&self, group_version: &str, plural: &str, value: Value) {
        let api = dynamic(&self.admin, group_version, plural, Some(NAMESPACE));
        api.create(&PostParams::default(), &object(value)).await.unwrap();
    }

    pub async fn patch(&self, group_version: &str, plural: &str, name: &str, patch: Value) {
        let api = dynamic(&self.admin, group_version, plural, Some(NAMESPACE));
        let patch = Patch::Merge(patch);
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Lets time pass, deletes pods, and restarts what acts.
    pub async fn disturb(&mut self, rounds: usize) {
        for _ in 0..rounds {
            tokio::time::sleep(Duration::from_millis(100 + self.dice.below(400) as u64)).await;
            match self.dice.below(3) {
                0 => {
                    let pods = self.pods.list();
                    // Pods of the job are left alone: one that is deleted counts as failed.
                    let pods: Vec<_> = pods.iter().filter(|pod| invariants::app(pod) != "work").collect();
                    if let Some(pod) = pods.get(self.dice.below(pods.len())) {
                        let api: Api<Pod> = Api::namespaced(self.admin.clone(), NAMESPACE);
                        let name = pod.metadata.name.as_deref().unwrap();
                        let _ = api.delete(name, &DeleteParams::default()).await;
                    }
                }
                1 => {
                    self.halt().await;
                    self.act();
                }
                _ => {}
            }
        }
    }

    /// Waits until everything is as it was asked for, and looks whether it stays so.
    pub async fn settles(&self) {
        self.becomes("everything is as it was asked for", async || self.wrong().await)
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let wrong = self.wrong().await;
        assert!(wrong.is_empty(), "seed {}: it does not stay so: {wrong:?}", self.seed);
        let injected = self.dice.injected.load(std::sync::atomic::Ordering::Relaxed);
        println!("seed {}: {injected} faults", self.seed);
        assert!(injected > 20, "seed {}: only {injected} faults", self.seed);
    }

    async fn becomes(&self, what: &str, wrong: impl AsyncFn() -> Vec<String>) {
        let began = Instant::now();
        loop {
            let wrong = wrong().await;
            if wrong.is_empty() {
                return;
            }
            assert!(
                began.elapsed() < SETTLES_MAX,
                "seed {} ({:?}): not so that {what}: {wrong:#?}",
                self.seed,
                self.faults
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, group_version: &str, plural: &str, name: &str) -> Value {
        let api = dynamic(&self.admin, group_version, plural, Some(NAMESPACE));
        serde_json::to_value(api.get(name).await.unwrap()).unwrap()
    }

    async fn list(&self, group_version: &str, plural: &str) -> Vec<Value> {
        let api = dynamic(&self.admin, group_version, plural, Some(NAMESPACE));
        let list = api.list(&ListParams::default()).await.unwrap();
        list.items
            .into_iter()
            .map(|item| serde_json::to_value(item).unwrap())
            .collect()
    }

    /// What is not as it was asked for.
    async fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expect = |what: &str, found: Value, expected: Value| {
            if found != expected {
                wrong.push(format!("{what}: {found} instead of {expected}"));
            }
        };
        let web = self.get("apps/v1", "deployments", "web").await;
        let status = |object: &Value, field: &str| object["status"][field].clone();
        expect(
            "web's generation",
            status(&web, "observedGeneration"),
            web["metadata"]["generation"].clone(),
        );
        for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
            expect(&format!("web's {field}"), status(&web, field), json!(4));
        }
        let db = self.get("apps/v1", "statefulsets", "db").await;
        for field in ["replicas", "updatedReplicas", "readyReplicas", "currentReplicas"] {
            expect(&format!("db's {field}"), status(&db, field), json!(3));
        }
        expect(
            "db's revision",
            status(&db, "currentRevision"),
            status(&db, "updateRevision"),
        );
        let agent = self.get("apps/v1", "daemonsets", "agent").await;
        for field in ["desiredNumberScheduled", "currentNumberScheduled", "numberReady"] {
            expect(&format!("agent's {field}"), status(&agent, field), json!(NODES));
        }
        let work = self.get("batch/v1", "jobs", "work").await;
        expect("work's successes", status(&work, "succeeded"), json!(8));
        expect("work's indexes", status(&work, "completedIndexes"), json!("0-7"));
        let conditions = work["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let complete = conditions
            .iter()
            .any(|c| c["type"] == "Complete" && c["status"] == "True");
        expect("work is complete", json!(complete), json!(true));

        let pods = self.list("v1", "pods").await;
        let of = |app: &str| -> Vec<&Value> {
            pods.iter()
                .filter(|pod| pod["metadata"]["labels"]["app"] == app)
                .collect()
        };
        for (app, count) in [("web", 4), ("db", 3), ("agent", NODES), ("work", 8)] {
            expect(&format!("pods of {app}"), json!(of(app).len()), json!(count));
        }
        let kept = of("work")
            .iter()
            .filter(|pod| pod["metadata"].get("finalizers").is_some())
            .count();
        expect("pods of work with finalizers", json!(kept), json!(0));
        let updated = ["web", "db"].iter().flat_map(|app| of(app));
        let stale = updated.filter(|pod| pod["metadata"]["annotations"]["v"] != "2").count();
        expect("pods of the old template", json!(stale), json!(0));
        let sets = self.list("apps/v1", "replicasets").await;
        let replicas: i64 = sets.iter().filter_map(|set| set["spec"]["replicas"].as_i64()).sum();
        expect("replicas of all sets", json!(replicas), json!(4));

        let slices = self.list("discovery.k8s.io/v1", "endpointslices").await;
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let served: Vec<String> = endpoints
            .filter_map(|endpoint| endpoint["targetRef"]["name"].as_str().map(str::to_owned))
            .collect();
        let names: BTreeSet<String> = of("web")
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        expect("endpoints", json!(served.len()), json!(names.len()));
        expect(
            "pods with an endpoint",
            json!(served.iter().collect::<BTreeSet<_>>()),
            json!(names),
        );
        wrong
    }

    /// No bound was broken since the start.
    pub fn bounds_held(&self) {
        let broken = self.broken.all();
        assert!(broken.is_empty(), "seed {}: {}", self.seed, broken.join("\n"));
    }

    /// Deletes what was made, and waits until nothing of it is left.
    pub async fn deletes_all(&self) {
        for (group_version, plural) in OWNED {
            let api = dynamic(&self.admin, group_version, plural, Some(NAMESPACE));
            let how = if self.dice.below(2) == 0 {
                DeleteParams::foreground()
            } else {
                DeleteParams::background()
            };
            for item in self.list(group_version, plural).await {
                api.delete(item["metadata"]["name"].as_str().unwrap(), &how)
                    .await
                    .unwrap();
            }
        }
        let kinds = OWNED.into_iter().chain([
            ("v1", "pods"),
            ("apps/v1", "replicasets"),
            ("apps/v1", "controllerrevisions"),
            ("discovery.k8s.io/v1", "endpointslices"),
            ("v1", "endpoints"),
        ]);
        let kinds: Vec<_> = kinds.collect();
        self.becomes("nothing is left", async || {
            let mut left = Vec::new();
            for (group_version, plural) in &kinds {
                for item in self.list(group_version, plural).await {
                    left.push(format!("{plural} {}", item["metadata"]));
                }
            }
            left
        })
        .await;
    }

    pub async fn stop(mut self) {
        self.halt().await;
        self.quiet.0.cancel();
        self.quiet.1.shutdown().await;
    }
}

fn dynamic(client: &Client, group_version: &str, plural: &str, namespace: Option<&str>) -> Api<DynamicObject> {
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
