//! Pods: after kills of krust at any moment of their lives they end in the state that they should, what ran goes on
//! undisturbed, what ran once is not run again, and nothing is left on the machine. The same when the engine is killed or
//! does not answer for a while.

use crate::support::images::BUSYBOX;
use crate::support::krust::Krust;
use crate::support::{containerd, dockerd};
use crate::{client, rounds, seed};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long pods may take to come into their states, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first of the ports of the node that pods have.
const HOST_PORTS: u16 = 18_000;
/// How much more the directories of krust and its engine may hold after any number of kills.
const FILES_MAX: i64 = 256 << 20;
/// Pods that there are at most at a time.
const SLOTS: usize = 6;

#[derive(Clone, Copy, Debug)]
pub enum Engine {
    Docker,
    Containerd,
}

impl Engine {
    fn start(self) -> Krust {
        match self {
            Self::Docker => {
                let settings = [("KRUST_RUNTIME__DOCKER_HOST", dockerd::shared().endpoint.as_str())];
                Krust::start_with(&["--runtime", "docker"], &settings)
            }
            Self::Containerd => {
                let engine = containerd::shared();
                let settings = [
                    ("KRUST_RUNTIME__CONTAINERD_ADDRESS", engine.address.as_str()),
                    ("KRUST_RUNTIME__POD_RANGE", &engine.pod_range),
                    ("KRUST_RUNTIME__POD_BRIDGE", &engine.pod_bridge),
                ];
                Krust::start_with(&["--runtime", "containerd"], &settings)
            }
        }
    }

    fn pid(self) -> nix::unistd::Pid {
        let pid = match self {
            Self::Docker => dockerd::shared().pid(),
            Self::Containerd => containerd::shared().pid(),
        };
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap())
    }

    fn kill(self) {
        match self {
            Self::Docker => dockerd::shared().kill(),
            Self::Containerd => containerd::shared().kill(),
        }
    }

    fn start_again(self) {
        match self {
            Self::Docker => dockerd::shared().start_again(),
            Self::Containerd => containerd::shared().start_again(),
        }
    }

    /// Whether containers outlive their daemon; Docker ends what it finds when it starts.
    fn keeps_containers(self) -> bool {
        matches!(self, Self::Containerd)
    }

    fn directory(self) -> &'static Path {
        match self {
            Self::Docker => dockerd::shared().directory(),
            Self::Containerd => containerd::shared().directory(),
        }
    }

    /// Everything that pods have on this machine, a line each.
    fn inventory(self, krust: &Krust) -> BTreeSet<String> {
        let directory = self.directory();
        let bridge = match self {
            Self::Docker => dockerd::shared().bridge(),
            Self::Containerd => containerd::shared().pod_bridge.as_str(),
        };
        let mut found = BTreeSet::new();
        let mut add = |kind: &str, what: &str| {
            found.insert(format!("{kind} {what}"));
        };
        match self {
            Self::Docker => {
                let all = dockerd::shared().docker(&["ps", "--all", "--quiet", "--no-trunc"]);
                all.lines().for_each(|id| add("container", id));
                let volumes = dockerd::shared().docker(&["volume", "ls", "--quiet"]);
                volumes.lines().for_each(|id| add("volume", id));
            }
            Self::Containerd => {
                for kind in ["containers", "tasks", "leases"] {
                    let all = containerd::shared().ctr(&[kind, "list", "--quiet"]);
                    all.lines().for_each(|id| add(kind, id));
                }
                let all = containerd::shared().ctr(&["snapshots", "list"]);
                let keys = all.lines().skip(1).filter_map(|line| line.split_whitespace().next());
                keys.for_each(|key| add("snapshot", key));
            }
        }
        if let Self::Containerd = self {
            // Without a host port the table has no such map.
            let mut list = std::process::Command::new("nft");
            list.args(["list", "map", "ip", bridge, "everywhere"]);
            let listed = list.output().expect("nft (package nftables) runs").stdout;
            let text = String::from_utf8_lossy(&listed).into_owned();
            let elements = text
                .split(['{', '}', ','])
                .filter(|part| part.contains(" . ") && part.contains(" : "));
            let elements = elements.filter(|part| !part.contains("type"));
            elements.for_each(|element| add("host port", element.trim()));
        }
        for port in entries(Path::new(&format!("/sys/class/net/{bridge}/brif"))) {
            add("interface", &port);
        }
        for entry in entries(&krust.data_dir().join("pods")) {
            add("directory of a pod", &entry);
        }
        for entry in entries(&krust.data_dir().join("containerd")) {
            add("directory of a container", &entry);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point).starts_with(directory) || Path::new(point).starts_with(krust.data_dir()) {
                add("mount", point);
            }
        }
        let directory = directory.display().to_string();
        for pid in entries(Path::new("/proc"))
            .iter()
            .filter(|name| name.parse::<u32>().is_ok())
        {
            // One that has just ended has none.
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("shim") && line.contains(&directory) {
                add("process", &format!("{pid} {line}"));
            }
        }
        found
    }
}

/// Files that go meanwhile count for nothing.
fn bytes_below(directory: &Path) -> i64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) if found.is_file() => found.blocks() as i64 * 512,
        _ => 0,
    });
    bytes.sum()
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// What a pod does, and what must come of it.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Runs,
    /// An init container that must run only once.
    Prepares,
    /// Ends by itself.
    Ends,
    /// Fails at first.
    Retries,
    Sidecar,
    /// Volumes of several kinds, and hooks.
    Mounts,
    /// A port of the node.
    Published,
}

impl Shape {
    const ALL: [Self; 7] = [
        Self::Runs,
        Self::Prepares,
        Self::Ends,
        Self::Retries,
        Self::Sidecar,
        Self::Mounts,
        Self::Published,
    ];

    fn pod(self, name: &str) -> Pod {
        const SLEEP: &str = "trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done";
        let container = |name: &str, script: &str| {
            json!({"name": name, "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]})
        };
        let mut spec = match self {
            Self::Runs => json!({"containers": [container("main", SLEEP)]}),
            Self::Prepares => json!({
                "initContainers": [container("init", "echo ran >> /data/ran; sleep 0.2")],
                "containers": [container("main", &format!("wc -l < /data/ran; {SLEEP}"))],
            }),
            Self::Ends => json!({
                "containers": [container("main", "echo ran >> /data/ran; sleep 0.3; wc -l < /data/ran")],
                "restartPolicy": "Never",
            }),
            Self::Retries => json!({
                "containers": [container("main", "echo ran >> /data/ran; sleep 0.2; test $(wc -l < /data/ran) = 2")],
                "restartPolicy": "OnFailure",
            }),
            Self::Published => {
                let mut main = container("main", SLEEP);
                // Names end in a number of their own.
                let number: u16 = name.rsplit('-').next().and_then(|end| end.parse().ok()).unwrap();
                main["ports"] = json!([{"containerPort": 80, "hostPort": HOST_PORTS + number}]);
                json!({"containers": [main]})
            }
            Self::Sidecar => {
                let mut sidecar = container("side", SLEEP);
                sidecar["restartPolicy"] = json!("Always");
                json!({"initContainers": [sidecar], "containers": [container("main", SLEEP)]})
            }
            Self::Mounts => {
                let mut main = container("main", SLEEP);
                main["lifecycle"] = json!({
                    "postStart": {"exec": {"command": ["sh", "-c", "echo started > /data/started"]}},
                    "preStop": {"exec": {"command": ["sh", "-c", "sleep 0.2"]}},
                });
                main["volumeMounts"] = json!([
                    {"name": "data", "mountPath": "/data"},
                    {"name": "memory", "mountPath": "/memory"},
                    {"name": "root", "mountPath": "/root-certificate", "subPath": "ca.crt"},
                ]);
                json!({"containers": [main], "volumes": [
                    {"name": "memory", "emptyDir": {"medium": "Memory"}},
                    {"name": "root", "configMap": {"name": "kube-root-ca.crt"}},
                ]})
            }
        };
        spec["terminationGracePeriodSeconds"] = json!(2);
        let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
        spec["volumes"] = json!([vec![json!({"name": "data", "emptyDir": {}})], volumes].concat());
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    /// Whether the pod is in the state that it must come to.
    fn has_settled(self, status: &Value) -> bool {
        let main = &status["containerStatuses"][0];
        match self {
            Self::Ends => status["phase"] == "Succeeded" && main["restartCount"] == 0,
            Self::Retries => status["phase"] == "Succeeded" && main["restartCount"] == 1,
            Self::Sidecar => {
                status["phase"] == "Running"
                    && main["ready"] == true
                    && status["initContainerStatuses"][0]["ready"] == true
            }
            Self::Runs | Self::Prepares | Self::Mounts | Self::Published => {
                status["phase"] == "Running" && main["ready"] == true
            }
        }
    }

    fn keeps_running(self) -> bool {
        !matches!(self, Self::Ends | Self::Retries)
    }

    /// Whether its log tells how often something ran that must run once.
    fn counts(self) -> bool {
        matches!(self, Self::Ends | Self::Prepares)
    }
}

/// A pod as the test knows it.
struct Known {
    shape: Shape,
    uid: String,
    /// Containers once it has settled.
    containers: Vec<String>,
}

pub struct World {
    pub krust: Krust,
    engine: Engine,
    random: StdRng,
    pods: BTreeMap<String, Known>,
    /// Deleted, and not seen gone.
    leaving: BTreeSet<String>,
    made: u32,
    /// Tests disturb their engine: one at a time.
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

static DOCKER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static CONTAINERD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl World {
    pub fn api(client: &Client) -> Api<Pod> {
        Api::namespaced(client.clone(), "default")
    }

    /// A server on an engine that has run a pod: what only the first one leaves is there.
    pub async fn new(engine: Engine) -> (Self, BTreeSet<String>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let alone = match engine {
            Engine::Docker => DOCKER.lock().await,
            Engine::Containerd => CONTAINERD.lock().await,
        };
        let krust = tokio::task::spawn_blocking(move || engine.start()).await.unwrap();
        let mut world = Self {
            krust,
            engine,
            random: StdRng::seed_from_u64(seed()),
            pods: BTreeMap::new(),
            leaving: BTreeSet::new(),
            made: 0,
            _alone: alone,
        };
        let client = client(&world.krust).await;
        world.wait_for_account(&client).await;
        world.create(&client, Shape::Mounts).await;
        world.settle(&client).await;
        world.delete_all(&client).await;
        world.settle(&client).await;
        let before = world.inventory_at_rest(|_| true).await;
        (world, before)
    }

    /// Until then pods are refused.
    async fn wait_for_account(&self, client: &Client) {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), "default");
        let begun = Instant::now();
        while accounts.get_opt("default").await.unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "no service account");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn create(&mut self, client: &Client, shape: Shape) {
        let name = format!("{}-{}", format!("{shape:?}").to_lowercase(), self.made);
        self.made += 1;
        let made = Self::api(client)
            .create(&PostParams::default(), &shape.pod(&name))
            .await
            .expect("the pod is created");
        let uid = made.metadata.uid.unwrap();
        let containers = Vec::new();
        self.pods.insert(name, Known { shape, uid, containers });
    }

    async fn delete(&mut self, client: &Client, name: &str) {
        let grace = *[None, None, Some(0), Some(1)].choose(&mut self.random).unwrap();
        let parameters = DeleteParams {
            grace_period_seconds: grace,
            ..Default::default()
        };
        Self::api(client)
            .delete(name, &parameters)
            .await
            .expect("the pod is deleted");
        self.pods.remove(name);
        self.leaving.insert(name.to_owned());
    }

    async fn delete_all(&mut self, client: &Client) {
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.delete(client, &name).await;
        }
    }

    /// A few changes of what there is.
    async fn act(&mut self, client: &Client) {
        for _ in 0..self.random.random_range(1..4) {
            let names: Vec<String> = self.pods.keys().cloned().collect();
            if names.len() < SLOTS && (names.is_empty() || self.random.random_bool(0.6)) {
                let shape = *Shape::ALL.choose(&mut self.random).unwrap();
                self.create(client, shape).await;
            } else {
                let name = names.choose(&mut self.random).unwrap().clone();
                self.delete(client, &name).await;
            }
        }
    }

    /// Waits until all pods are as they must be.
    pub async fn settle(&mut self, client: &Client) {
        let api = Self::api(client);
        let begun = Instant::now();
        loop {
            let list = api.list(&ListParams::default()).await.expect("a list");
            let found: BTreeMap<String, Value> = list
                .items
                .into_iter()
                .map(|pod| (pod.metadata.name.clone().unwrap(), serde_json::to_value(pod).unwrap()))
                .collect();
            let settled = self.pods.iter().all(|(name, known)| {
                let Some(pod) = found.get(name) else {
                    panic!("{name} is lost");
                };
                pod["metadata"]["uid"] == known.uid.as_str() && known.shape.has_settled(&pod["status"])
            });
            if settled && !self.leaving.iter().any(|name| found.contains_key(name)) {
                self.leaving.clear();
                for (name, known) in &mut self.pods {
                    Self::compare(name, known, &found[name]);
                }
                break;
            }
            if begun.elapsed() > PATIENCE {
                let unsettled: Vec<_> = found
                    .iter()
                    .filter(|(name, pod)| {
                        self.pods
                            .get(*name)
                            .is_none_or(|known| !known.shape.has_settled(&pod["status"]))
                    })
                    .collect();
                panic!("not settled: {unsettled:#?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (name, _) in self.pods.iter().filter(|(_, known)| known.shape.counts()) {
            // Just after a start the node may still be known by the kubelet's former port.
            let begun = Instant::now();
            let log = loop {
                let log = api.logs(name, &LogParams::default()).await;
                if log.as_ref().is_ok_and(|log| !log.is_empty()) || begun.elapsed() > PATIENCE {
                    break log.expect("the log");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            assert_eq!(log.trim(), "1", "{name} ran what must run once more often, or never");
        }
    }

    /// What runs is what ran.
    fn compare(name: &str, known: &mut Known, pod: &Value) {
        let of = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
        let ids: Vec<String> = [of("initContainerStatuses"), of("containerStatuses")]
            .concat()
            .iter()
            .map(|status| status["containerID"].as_str().unwrap_or_default().to_owned())
            .collect();
        if known.containers.is_empty() {
            known.containers = ids;
        } else if known.shape.keeps_running() {
            assert_eq!(ids, known.containers, "{name} was started again: {:#}", pod["status"]);
        }
    }

    /// What the files of krust and its engine hold.
    fn file_bytes(&self) -> i64 {
        bytes_below(self.engine.directory()) + bytes_below(self.krust.data_dir())
    }

    /// The inventory, once it is as wished.
    async fn inventory_at_rest(&self, good: impl Fn(&BTreeSet<String>) -> bool) -> BTreeSet<String> {
        let begun = Instant::now();
        let mut before = BTreeSet::new();
        loop {
            let now = self.engine.inventory(&self.krust);
            if (now == before && good(&now)) || begun.elapsed() > PATIENCE {
                return now;
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Takes all pods away.
    pub async fn take_away(&mut self, client: &Client) {
        self.delete_all(client).await;
        self.settle(client).await;
    }

    /// Takes all pods away, and looks for what they left.
    pub async fn end(mut self, before: &BTreeSet<String>) {
        let client = client(&self.krust).await;
        self.take_away(&client).await;
        let after = self.inventory_at_rest(|now| now.is_subset(before)).await;
        println!(
            "{:?}: {} things before, {} after",
            self.engine,
            before.len(),
            after.len()
        );
        let left: Vec<_> = after.difference(before).collect();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

async fn kills_of_krust(engine: Engine) {
    let rounds = rounds(12);
    let (mut world, before) = World::new(engine).await;
    let files_before = world.file_bytes();
    for round in 0..rounds {
        if round % 20 == 19 {
            let mib = (world.file_bytes() - files_before) / (1 << 20);
            println!("{engine:?}: {round} kills, {} pods, {mib} MiB more files", world.made);
        }
        let client = client(&world.krust).await;
        world.act(&client).await;
        // Half of them early, when most happens.
        let most = *[60, 300, 1_500].choose(&mut world.random).unwrap();
        let pause = Duration::from_millis(world.random.random_range(0..most));
        tokio::time::sleep(pause).await;
        world.krust.kill();
        let pause = Duration::from_millis(world.random.random_range(0..300));
        tokio::time::sleep(pause).await;
        world.krust.start_again();
        // Sometimes the next kill comes before all has settled.
        if world.random.random_bool(0.6) {
            let client = crate::client(&world.krust).await;
            world.settle(&client).await;
        }
    }
    let client = client(&world.krust).await;
    world.settle(&client).await;
    let files = world.file_bytes() - files_before;
    println!("{engine:?}: {rounds} kills, {} pods, {files} B more files", world.made);
    assert!(files < FILES_MAX, "{files} B of files are left");
    world.end(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and Docker"]
async fn pods_on_docker_survive_kills() {
    kills_of_krust(Engine::Docker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and containerd"]
async fn pods_on_containerd_survive_kills() {
    kills_of_krust(Engine::Containerd).await;
}

/// The engine goes under running pods, and one is made, one deleted and one goes on while it is away.
async fn kills_of_the_engine(engine: Engine) {
    let (mut world, before) = World::new(engine).await;
    let client = client(&world.krust).await;
    for _ in 0..2 {
        for shape in [Shape::Runs, Shape::Sidecar, Shape::Mounts] {
            world.create(&client, shape).await;
        }
        world.settle(&client).await;
        engine.kill();
        let name = world.pods.keys().next().unwrap().clone();
        world.delete(&client, &name).await;
        world.create(&client, Shape::Runs).await;
        world.create(&client, Shape::Ends).await;
        let pause = Duration::from_millis(world.random.random_range(0..3_000));
        tokio::time::sleep(pause).await;
        // The API does not wait for the engine.
        World::api(&client).list(&ListParams::default()).await.expect("a list");
        engine.start_again();
        if !engine.keeps_containers() {
            world.pods.values_mut().for_each(|known| known.containers.clear());
        }
        world.settle(&client).await;
    }
    world.end(&before).await;
}

/// The engine does not answer for a while.
async fn pauses_of_the_engine(engine: Engine) {
    use nix::sys::signal::{Signal, kill};
    let (mut world, before) = World::new(engine).await;
    let client = client(&world.krust).await;
    for shape in [Shape::Runs, Shape::Prepares, Shape::Mounts] {
        world.create(&client, shape).await;
    }
    world.settle(&client).await;
    kill(engine.pid(), Signal::SIGSTOP).unwrap();
    let name = world.pods.keys().next().unwrap().clone();
    world.delete(&client, &name).await;
    for shape in Shape::ALL {
        world.create(&client, shape).await;
    }
    let pause: u64 = std::env::var("CRASH_PAUSE").map_or(10, |n| n.parse().expect("CRASH_PAUSE is seconds"));
    for _ in 0..pause {
        tokio::time::sleep(Duration::from_secs(1)).await;
        World::api(&client).list(&ListParams::default()).await.expect("a list");
    }
    kill(engine.pid(), Signal::SIGCONT).unwrap();
    world.settle(&client).await;
    world.end(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and Docker"]
async fn pods_survive_kills_of_docker() {
    kills_of_the_engine(Engine::Docker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and containerd"]
async fn pods_survive_kills_of_containerd() {
    kills_of_the_engine(Engine::Containerd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and Docker"]
async fn pods_survive_pauses_of_docker() {
    pauses_of_the_engine(Engine::Docker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and containerd"]
async fn pods_survive_pauses_of_containerd() {
    pauses_of_the_engine(Engine::Containerd).await;
}
