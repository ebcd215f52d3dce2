//! An API server, a runtime in memory and a kubelet, for the tests of this binary.

use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ServiceAccount};
use krust::apiserver::{ApiServer, ApiServerOptions};
use krust::kubelet::eviction::EvictionPolicy;
use krust::kubelet::node_shutdown::{NodeShutdown, Period};
use krust::kubelet::static_pods::StaticPodOptions;
use krust::kubelet::{FileSharing, Kubelet, KubeletOptions, PodLookup, PodPolicy};
use krust::registry::Registry;
use krust::runtime::Runtime;
use krust::runtime::fake::FakeRuntime;
use krust::storage::{Options, Storage};
use krust::transport::InProcessIdentity;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const NODE: &str = "node-1";
const PATIENCE: Duration = Duration::from_secs(20);

/// An API server, a runtime, and a kubelet that can be stopped and started again.
pub struct Cluster {
    pub admin: kube::Client,
    node_client: kube::Client,
    /// The kubelet's changes do not come to the API server as long as this is set.
    pub held: Arc<AtomicBool>,
    pub runtime: Arc<FakeRuntime>,
    pub data: tempfile::TempDir,
    pub kubelet: Option<RunningKubelet>,
    /// Of kubelets that start from now on.
    pub shutdown_periods: Vec<Period>,
    /// Of the next kubelet that is started.
    pub eviction: EvictionPolicy,
    /// Of the next start.
    pub policy: PodPolicy,
}

pub struct RunningKubelet {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    pub lookup: Arc<dyn PodLookup>,
    pub node_shutdown: Arc<NodeShutdown>,
}

fn identity(user: &str, group: &str) -> InProcessIdentity {
    InProcessIdentity {
        user: user.to_owned(),
        groups: vec![group.to_owned()],
    }
}

/// A client whose changes wait while `held` is set.
fn holding(client: kube::Client, held: Arc<AtomicBool>) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, held) = (client.clone(), held.clone());
        async move {
            while request.method() == http::Method::PATCH && held.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            client.send(request).await
        }
    });
    kube::Client::new(service, "default")
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(PodPolicy::default()).await
    }

    pub async fn start_with(policy: PodPolicy) -> Self {
        let registry = Registry::builtin();
        let storage = Storage::open(Options::new("sqlite::memory:"), registry.clone())
            .await
            .unwrap();
        let server = ApiServer::new(ApiServerOptions::new(storage, registry));
        let client = |identity| krust::client::in_process(server.endpoint(), identity, "test");
        let admin = client(identity("system:admin", "system:masters"));
        let held = Arc::new(AtomicBool::new(false));
        let node_client = holding(client(identity("system:node:node-1", "system:nodes")), held.clone());
        for name in ["default", "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            let api: Api<Namespace> = Api::all(admin.clone());
            api.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap())
                .await
                .unwrap();
        }
        let account = json!({"metadata": {"name": "default"}});
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
        accounts
            .create(&PostParams::default(), &serde_json::from_value(account).unwrap())
            .await
            .unwrap();
        let runtime = FakeRuntime::new();
        runtime.add_image("app:1");
        let mut cluster = Self {
            admin,
            node_client,
            held,
            runtime,
            data: tempfile::tempdir().unwrap(),
            kubelet: None,
            shutdown_periods: Vec::new(),
            eviction: EvictionPolicy::default(),
            policy,
        };
        cluster.start_kubelet();
        cluster
    }

    pub fn start_kubelet(&mut self) {
        let kubelet = Kubelet::new(KubeletOptions {
            node_name: NODE.to_owned(),
            node_ip: Some([192, 168, 7, 1].into()),
            client: self.node_client.clone(),
            runtime: self.runtime.clone(),
            listen: ([127, 0, 0, 1], 10250).into(),
            data_dir: self.data.path().to_owned(),
            files: FileSharing::Shared,
            version: "v1.37.0-test".to_owned(),
            pods_max: 110,
            eviction: self.eviction.clone(),
            shutdown_periods: self.shutdown_periods.clone(),
            policy: self.policy.clone(),
            cluster_dns: Vec::new(),
            static_pods: Some(StaticPodOptions {
                directory: self.manifests(),
                complete: Arc::new(Ok),
            }),
        });
        let shutdown = CancellationToken::new();
        let (lookup, node_shutdown) = (kubelet.lookup(), kubelet.node_shutdown());
        let run = kubelet.run(shutdown.clone());
        let task = tokio::spawn(async move { run.await.expect("the kubelet runs until it is stopped") });
        self.kubelet = Some(RunningKubelet {
            shutdown,
            task,
            lookup,
            node_shutdown,
        });
    }

    /// Where the files of static pods are.
    pub fn manifests(&self) -> PathBuf {
        self.data.path().join("manifests")
    }

    pub async fn stop_kubelet(&mut self) {
        let kubelet = self.kubelet.take().unwrap();
        kubelet.shutdown.cancel();
        kubelet.task.await.unwrap();
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), "default")
    }

    /// Creates a pod that is bound already; grace 1 s unless the spec says otherwise.
    pub async fn create(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!(NODE);
        // No controller publishes here what the volume of a token is made of.
        if spec.get("automountServiceAccountToken").is_none() {
            spec["automountServiceAccountToken"] = json!(false);
        }
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        self.pods()
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap()
    }

    /// The pod once `done` holds.
    pub async fn wait(&self, name: &str, what: &str, done: impl Fn(&Pod) -> bool) -> Pod {
        let begun = Instant::now();
        loop {
            let pod = self.pods().get(name).await.unwrap();
            if done(&pod) {
                return pod;
            }
            let status = serde_json::to_string(&pod.status).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{name} is not {what}: {status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn wait_phase(&self, name: &str, phase: &str) -> Pod {
        self.wait(name, phase, |pod| {
            pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase)
        })
        .await
    }

    pub async fn wait_gone(&self, name: &str) {
        eventually(&format!("{name} is gone"), async || {
            self.pods().get_opt(name).await.unwrap().is_none()
        })
        .await;
    }

    pub async fn wait_event(&self, reason: &str, part: &str) -> Event {
        let events: Api<Event> = Api::namespaced(self.admin.clone(), "default");
        let begun = Instant::now();
        loop {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let fits =
                |e: &&Event| e.reason.as_deref() == Some(reason) && e.message.as_deref().unwrap_or("").contains(part);
            if let Some(found) = all.iter().find(fits) {
                return found.clone();
            }
            let seen: Vec<_> = all.iter().map(|e| (e.reason.clone(), e.message.clone())).collect();
            assert!(begun.elapsed() < PATIENCE, "no event {reason} {part:?} in {seen:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn container_ids(&self) -> Vec<String> {
        self.runtime
            .list_containers()
            .await
            .unwrap()
            .into_iter()
            .map(|c| c.id)
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        crate::mounts::unmount_below(self.data.path());
    }
}

pub async fn eventually(what: &str, done: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn app(command: &[&str]) -> Value {
    json!({"terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "app:1", "command": command}]})
}

/// Ends on the stop signal.
pub const POLITE: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600"];

pub fn state(pod: &Pod) -> (i32, Value) {
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    (status.restart_count, serde_json::to_value(&status.state).unwrap())
}
