//! Controllers and scheduler at work on many nodes: pods of a few Deployments onto hollow nodes, then a rolling update,
//! and what the API answers meanwhile. Everything that plays nodes runs beside the server on the same cores.

use crate::Options;
use crate::connection::{Error, Target};
use crate::krust::{Server, cpu_of};
use crate::stats::{Latencies, show};
use crate::support::hollow::Hollow;
use bytes::Bytes;
use hyper::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use krust::client::informer::{Informer, Informers};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const DEPLOYMENTS: usize = 10;
const STEP_MAX: Duration = Duration::from_secs(600);
const PROBE_EVERY: Duration = Duration::from_millis(50);

pub async fn run(server: &Server, options: &Options) -> Result<(), Error> {
    let client = server.client().await?;
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
        tokio::spawn(async move { hollow.run(client, &informers, Duration::ZERO, stop).await })
    };
    let probes = Probe::ALL.map(|probe| tokio::spawn(probe.run(server.target(), stop.clone())));

    // A tenth first, so that the cost of a pod can be compared.
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let mut each = None;
    for (step, count) in [(0, options.pods / 10), (1, options.pods)] {
        // Heartbeats and probes go on all the time. What comes of the new nodes, or of the pods before, ends.
        let mut idle = idle_share(server).await?;
        let calm = Instant::now();
        loop {
            let next = idle_share(server).await?;
            let settled = next > idle * 0.9;
            idle = idle.min(next);
            if settled {
                break;
            }
            if calm.elapsed() > STEP_MAX {
                return Err("the server does not come to rest".into());
            }
        }
        let counted = server.counted().await?;
        let (began, used) = (Instant::now(), Used::now(server)?);
        let before = counts.bound.load(Ordering::Relaxed);
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
        let bound = wait(|| counts.bound.load(Ordering::Relaxed) >= count).await?;
        let new = (count - before.min(count)).max(1);
        let rate = new as f64 / (bound.duration_since(began)).as_secs_f64();
        let running = wait(|| counts.running.load(Ordering::Relaxed) >= count).await?;
        println!("{:<36} {rate:>9.0}/s", format!("made and bound, up to {count} pods"));
        println!(
            "{:<36} {:>9}",
            format!("all of {count} running after"),
            show(running.duration_since(began))
        );
        // Statuses and events of the last pods are part of their cost.
        quiet(server, idle).await?;
        let counted = (counted, server.counted().await?);
        let used = Used::now(server)?.since(&used);
        let time = running.duration_since(began).as_secs_f64() / new as f64;
        let cost = (used.server.as_secs_f64() - idle * began.elapsed().as_secs_f64()) / new as f64;
        let (first_time, first_cost) = *each.get_or_insert((time, cost));
        println!(
            "{:<36} {:>6.2} ms a pod, {:.2} times the first's; {:.2} times the first's time",
            "processor time of the server",
            cost * 1e3,
            cost / first_cost,
            time / first_time
        );
        println!(
            "{:<36} {:>6.2} ms a pod",
            "processor time of the players",
            used.players.as_secs_f64() * 1e3 / new as f64
        );
        let requests = counted.1.requests_since(&counted.0).into_iter().take(12);
        let requests: Vec<String> = requests
            .map(|(what, count)| format!("{:.2} {what}", count as f64 / new as f64))
            .collect();
        println!("{:<36} {}", "requests a pod", requests.join(", "));
        server.report_memory("with the pods");
    }

    let replicas = options.pods / DEPLOYMENTS;
    let began = Instant::now();
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"again": "1"}}}}});
    api.patch("web-0", &PatchParams::default(), &Patch::Merge(template))
        .await?;
    let used = Used::now(server)?;
    let (rolled, pause) = rolled_out(&api, "web-0", replicas).await?;
    println!(
        "{:<36} {:>9}, without progress for {} at most",
        format!("rolling update of {replicas} replicas"),
        show(rolled.duration_since(began)),
        show(pause)
    );
    println!(
        "{:<36} {:>6.2} ms a replica",
        "processor time of the server",
        Used::now(server)?.since(&used).server.as_secs_f64() * 1e3 / replicas as f64
    );
    server.report_memory("after the rolling update");
    stop.cancel();
    for (probe, probing) in Probe::ALL.into_iter().zip(probes) {
        probing.await??.print_tail(probe.what());
    }
    playing.await?;
    Ok(())
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

/// When the update was through, and the longest time in which nothing of it could be seen.
async fn rolled_out(api: &Api<Deployment>, name: &str, replicas: usize) -> Result<(Instant, Duration), Error> {
    let all = Some(i32::try_from(replicas)?);
    let (began, mut moved, mut pause) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut last = None;
    loop {
        let deployment = api.get(name).await?;
        let status = deployment.status.unwrap_or_default();
        let seen = status.observed_generation == deployment.metadata.generation;
        let counts = (status.updated_replicas, status.available_replicas, status.replicas);
        if last.replace(counts) != Some(counts) {
            pause = pause.max(moved.elapsed());
            moved = Instant::now();
        }
        if seen && counts == (all, all, all) {
            return Ok((Instant::now(), pause));
        }
        if began.elapsed() > STEP_MAX {
            return Err(format!("the update does not end: {status:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How much of a processor the server takes while nothing new is asked of it.
async fn idle_share(server: &Server) -> Result<f64, Error> {
    const LOOK: Duration = Duration::from_secs(3);
    let (before, began) = (server.cpu()?, Instant::now());
    tokio::time::sleep(LOOK).await;
    Ok((server.cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Waits until the server has no more to do than before.
async fn quiet(server: &Server, idle: f64) -> Result<(), Error> {
    let began = Instant::now();
    while idle_share(server).await? > idle + 0.05 {
        if began.elapsed() > STEP_MAX {
            return Err("the server does not come to rest".into());
        }
    }
    Ok(())
}

/// Processor time.
struct Used {
    server: Duration,
    /// Everything in this process: nodes, probes, counting.
    players: Duration,
}

impl Used {
    fn now(server: &Server) -> Result<Self, Error> {
        Ok(Self {
            server: server.cpu()?,
            players: cpu_of("self")?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            server: self.server - before.server,
            players: self.players - before.players,
        }
    }
}

/// What a user beside all this does again and again.
#[derive(Clone, Copy)]
enum Probe {
    Get,
    Page,
    Write,
}

impl Probe {
    const ALL: [Self; 3] = [Self::Get, Self::Page, Self::Write];

    fn what(self) -> &'static str {
        match self {
            Self::Get => "GET of an object meanwhile",
            Self::Page => "LIST of 500 pods meanwhile",
            Self::Write => "PATCH of an object meanwhile",
        }
    }

    async fn run(self, target: Result<Target, Error>, stop: CancellationToken) -> Result<Latencies, Error> {
        const NAMESPACE: &str = "/api/v1/namespaces/default";
        let mut connection = target?.connect().await?;
        let mut latencies = Latencies::default();
        let maps = format!("{NAMESPACE}/configmaps");
        if let Self::Write = self {
            let map = json!({"metadata": {"name": "probe"}}).to_string();
            connection.call(Method::POST, &maps, map.into()).await?;
        }
        for round in 0.. {
            if stop.is_cancelled() {
                break;
            }
            let annotation = json!({"metadata": {"annotations": {"round": round.to_string()}}});
            let (method, path, body) = match self {
                Self::Get => (Method::GET, NAMESPACE.to_owned(), Bytes::new()),
                Self::Page => (Method::GET, format!("{NAMESPACE}/pods?limit=500"), Bytes::new()),
                Self::Write => (Method::PATCH, format!("{maps}/probe"), annotation.to_string().into()),
            };
            let began = Instant::now();
            connection.call(method, &path, body).await?;
            latencies.add(began.elapsed());
            tokio::time::sleep(PROBE_EVERY).await;
        }
        Ok(latencies)
    }
}
