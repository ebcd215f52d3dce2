//! Controllers and scheduler at work on many nodes: pods of a few Deployments onto hollow nodes, then a rolling update,
//! and what the API answers meanwhile. Everything that plays nodes runs beside the server on the same cores.

use crate::Options;
use crate::connection::{Error, Target};
use crate::hollow::Hollow;
use crate::krust::Server;
use crate::stats::{Latencies, show};
use bytes::Bytes;
use hyper::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use krust::client::informer::{Informer, Informers};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const DEPLOYMENTS: usize = 10;
const STEP_MAX: Duration = Duration::from_secs(600);
const PROBE_EVERY: Duration = Duration::from_millis(20);

pub async fn run(server: &Server, options: &Options) -> Result<(), Error> {
    let client = client(server).await?;
    let stop = CancellationToken::new();
    println!(
        "\n{} hollow nodes, {} pods of {DEPLOYMENTS} Deployments",
        options.nodes, options.pods
    );
    let hollow = Hollow::new(options.nodes, 110);
    hollow.register(&client).await?;
    server.report_memory("with the nodes");
    let informers = Informers::new(client.clone(), stop.clone());
    let pods = informers.of::<Pod>();
    pods.synced().await;
    let counts = Counts::follow(&pods);
    let playing = {
        let (hollow, client, stop) = (hollow.clone(), client.clone(), stop.clone());
        tokio::spawn(async move { hollow.run(client, Duration::ZERO, stop).await })
    };
    let probe = tokio::spawn(probe(server.target()?, stop.clone()));

    // A tenth first, so that the cost of a pod can be compared.
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let mut each = None;
    for (step, count) in [(0, options.pods / 10), (1, options.pods)] {
        let began = Instant::now();
        let replicas = count / DEPLOYMENTS;
        for number in 0..DEPLOYMENTS {
            let name = format!("web-{number}");
            if step == 0 {
                api.create(&PostParams::default(), &deployment(&name, replicas)?)
                    .await?;
            } else {
                let patch = json!({"spec": {"replicas": replicas}});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
        }
        let before = counts.bound.load(Ordering::Relaxed);
        let bound = wait(|| counts.bound.load(Ordering::Relaxed) >= count).await?;
        let new = (count - before.min(count)).max(1);
        let rate = new as f64 / (bound.duration_since(began)).as_secs_f64();
        let running = wait(|| counts.running.load(Ordering::Relaxed) >= count).await?;
        let cost = running.duration_since(began).as_secs_f64() / new as f64;
        let ratio = cost / *each.get_or_insert(cost);
        println!("{:<36} {rate:>9.0}/s", format!("made and bound, up to {count} pods"));
        println!(
            "{:<36} {:>9}   {ratio:.2} times the first's time a pod",
            format!("all of {count} running after"),
            show(running.duration_since(began))
        );
        server.report_memory("with the pods");
    }

    let replicas = options.pods / DEPLOYMENTS;
    let began = Instant::now();
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"again": "1"}}}}});
    api.patch("web-0", &PatchParams::default(), &Patch::Merge(template))
        .await?;
    let rolled = rolled_out(&api, "web-0", replicas).await?;
    println!(
        "{:<36} {:>9}",
        format!("rolling update of {replicas} replicas"),
        show(rolled.duration_since(began))
    );
    server.report_memory("after the rolling update");
    stop.cancel();
    let latencies = probe.await??;
    latencies.print_tail("GET of an object meanwhile");
    playing.await?;
    Ok(())
}

async fn client(server: &Server) -> Result<Client, Error> {
    let kubeconfig = kube::config::Kubeconfig::read_from(server.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    Ok(Client::try_from(config)?)
}

fn deployment(name: &str, replicas: usize) -> Result<Deployment, Error> {
    let labels = json!({"app": name});
    let container = json!({"name": "c", "image": "registry.example.com/web:1",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
    let object: Value = json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": labels},
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "automountServiceAccountToken": false}}}});
    Ok(serde_json::from_value(object)?)
}

#[derive(Default)]
struct Counts {
    bound: AtomicUsize,
    running: AtomicUsize,
}

impl Counts {
    fn follow(pods: &Informer<Pod>) -> Arc<Self> {
        let counts = Arc::new(Self::default());
        let written = counts.clone();
        pods.on_change(move |change| {
            let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let is_running =
                |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            count(
                &written.bound,
                change.old.as_deref().is_some_and(is_bound),
                change.new.as_deref().is_some_and(is_bound),
            );
            count(
                &written.running,
                change.old.as_deref().is_some_and(is_running),
                change.new.as_deref().is_some_and(is_running),
            );
        });
        counts
    }
}

fn count(counter: &AtomicUsize, before: bool, after: bool) {
    match (before, after) {
        (false, true) => counter.fetch_add(1, Ordering::Relaxed),
        (true, false) => counter.fetch_sub(1, Ordering::Relaxed),
        _ => 0,
    };
}

async fn wait(done: impl Fn() -> bool) -> Result<Instant, Error> {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > STEP_MAX {
            return Err("the pods do not come".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Instant::now())
}

async fn rolled_out(api: &Api<Deployment>, name: &str, replicas: usize) -> Result<Instant, Error> {
    let began = Instant::now();
    loop {
        let deployment = api.get(name).await?;
        let status = deployment.status.unwrap_or_default();
        let all = i32::try_from(replicas)?;
        let seen = status.observed_generation == deployment.metadata.generation;
        if seen
            && status.updated_replicas == Some(all)
            && status.available_replicas == Some(all)
            && status.replicas == Some(all)
        {
            return Ok(Instant::now());
        }
        if began.elapsed() > STEP_MAX {
            return Err(format!("the update does not end: {status:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads an object again and again, as a user beside all this would.
async fn probe(target: Target, stop: CancellationToken) -> Result<Latencies, Error> {
    let mut connection = target.connect().await?;
    let mut latencies = Latencies::default();
    while !stop.is_cancelled() {
        let began = Instant::now();
        connection
            .call(Method::GET, "/api/v1/namespaces/default", Bytes::new())
            .await?;
        latencies.add(began.elapsed());
        tokio::time::sleep(PROBE_EVERY).await;
    }
    Ok(latencies)
}
