//! A cluster where nothing happens: Deployments whose pods run on kubelets with the runtime in memory, and what the
//! server does all the same. The kubelets run in this process, so their share is told apart.

use crate::Options;
use crate::connection::Error;
use crate::krust::{Counted, Server, cpu_of};
use k8s_openapi::api::apps::v1::Deployment;
use krust::kubelet::{self, FileSharing, KubeletOptions};
use krust::runtime::fake::FakeRuntime;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const DEPLOYMENTS: usize = 50;
const REPLICAS: usize = 4;
/// As many as a node takes by default.
const PODS_OF_NODE: usize = 110;
const IMAGE: &str = "registry.example.com/idle:1";
const START_MAX: Duration = Duration::from_secs(300);
/// Statuses, events and endpoints of the start are written by then.
const SETTLE: Duration = Duration::from_secs(30);

pub async fn run(options: &Options) -> Result<(), Error> {
    let pods = DEPLOYMENTS * REPLICAS;
    println!("\n{DEPLOYMENTS} Deployments, {pods} pods that do nothing");
    let server = Server::start_with("none", &[]).await?;
    let client = server.client().await?;
    let files = tempfile::tempdir()?;
    let stop = CancellationToken::new();
    let mut kubelets = tokio::task::JoinSet::new();
    for number in 0..pods.div_ceil(PODS_OF_NODE) {
        let options = kubelet_options(&client, number, files.path());
        kubelets.spawn(kubelet::run(options, stop.clone()));
    }
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    for number in 0..DEPLOYMENTS {
        api.create(&PostParams::default(), &deployment(number)?).await?;
    }
    all_available(&api).await?;
    tokio::time::sleep(SETTLE).await;
    server.report_memory("with the pods");

    let before = Figures::of(&server).await?;
    tokio::time::sleep(Duration::from_secs(options.idle_seconds)).await;
    let after = Figures::of(&server).await?;
    after.report_since(&before);
    stop.cancel();
    while let Some(ended) = kubelets.join_next().await {
        ended??;
    }
    server.stop().await
}

fn kubelet_options(client: &Client, number: usize, files: &std::path::Path) -> KubeletOptions {
    let runtime = FakeRuntime::new();
    runtime.add_image(IMAGE);
    let name = format!("idle-{number}");
    KubeletOptions {
        node_ip: Some([127, 0, 0, 1].into()),
        client: client.clone(),
        runtime,
        listen: ([127, 0, 0, 1], 10250).into(),
        data_dir: files.join(&name),
        node_name: name,
        files: FileSharing::Shared,
        version: krust::app::KUBERNETES_VERSION.to_owned(),
        pods_max: PODS_OF_NODE as u32,
        shutdown_periods: Vec::new(),
        eviction: Default::default(),
        policy: Default::default(),
        cluster_dns: Vec::new(),
        static_pods: None,
    }
}

fn deployment(number: usize) -> Result<Deployment, Error> {
    let labels = json!({"app": format!("idle-{number}")});
    let container = json!({"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent"});
    let object = json!({"metadata": {"name": format!("idle-{number}")}, "spec": {"replicas": REPLICAS,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels},
            "spec": {"containers": [container], "automountServiceAccountToken": false}}}});
    Ok(serde_json::from_value(object)?)
}

async fn all_available(api: &Api<Deployment>) -> Result<(), Error> {
    let began = Instant::now();
    let is_there = |deployment: &Deployment| {
        let status = deployment.status.as_ref();
        status.and_then(|status| status.available_replicas) == i32::try_from(REPLICAS).ok()
    };
    while !api.list(&ListParams::default()).await?.items.iter().all(is_there) {
        if began.elapsed() > START_MAX {
            return Err("the Deployments do not become available".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// What is compared: before and after a time in which nothing happened.
struct Figures {
    at: Instant,
    server: Duration,
    kubelets: Duration,
    counted: Counted,
}

impl Figures {
    async fn of(server: &Server) -> Result<Self, Error> {
        Ok(Self {
            counted: server.counted().await?,
            at: Instant::now(),
            server: server.cpu()?,
            kubelets: cpu_of("self")?,
        })
    }

    fn report_since(&self, before: &Self) {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let share = |now: Duration, then: Duration| (now - then).as_secs_f64() / seconds * 100.0;
        println!(
            "{:<36} {:>8.2} % of a core, {:.2} % in the kubelets, over {seconds:.0} s",
            "idle, server",
            share(self.server, before.server),
            share(self.kubelets, before.kubelets),
        );
        let made = self.counted.requests_since(&before.counted);
        let heartbeats = |what: &str| matches!(what, "PATCH leases" | "PUT leases" | "PATCH nodes/status");
        let beats: u64 = made
            .iter()
            .filter(|(what, _)| heartbeats(what))
            .map(|(_, count)| count)
            .sum();
        let writes = self.counted.writes - before.counted.writes;
        println!(
            "{:<36} {writes:>9}, of which {beats} are heartbeats",
            "writes to the database"
        );
        let made: Vec<String> = made.iter().map(|(what, count)| format!("{count} {what}")).collect();
        println!("{:<36} {}", "requests meanwhile", made.join(", "));
    }
}
