//! The phases against the API: create, get, list, update, delete, watch delay. All in a namespace of our own.

use crate::Options;
use crate::connection::{Connection, Error, Target};
use crate::stats::Latencies;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "krust-bench";
const LISTED: usize = 1000;
const WATCH_ROUNDS: usize = 500;

pub async fn run(target: &Target, options: &Options) -> Result<(), Error> {
    let mut admin = target.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    admin
        .call(Method::POST, "/api/v1/namespaces", namespace.to_string().into())
        .await?;
    println!("\nConfigMaps of 1 KiB over TLS, {} s a phase", options.seconds);
    for &connections in &options.connections {
        throughput(target, options, connections).await?;
    }
    lists(target, options, &mut admin).await?;
    watch_delay(target, &mut admin).await?;
    admin
        .call(Method::DELETE, &format!("/api/v1/namespaces/{NAMESPACE}"), Bytes::new())
        .await?;
    Ok(())
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{name}")
}

fn collection() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn config_map(name: &str, bytes: usize) -> Bytes {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"payload": "x".repeat(bytes)}});
    object.to_string().into()
}

/// Runs `step` on every connection until the time or the work is over; `step` gets a number of its own each time.
async fn drive<F>(target: &Target, connections: usize, work: Work, what: &str, step: F) -> Result<usize, Error>
where
    F: AsyncStep,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    let started = Instant::now();
    for _ in 0..connections {
        let mut connection = target.connect().await?;
        let (next, step) = (next.clone(), step.clone());
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let over = match work {
                    Work::For(duration) => started.elapsed() >= duration,
                    Work::Count(count) => number >= count,
                };
                if over {
                    return Ok::<_, Error>(latencies);
                }
                let before = Instant::now();
                step.run(&mut connection, number).await?;
                latencies.add(before.elapsed());
            }
        });
    }
    let mut all = Latencies::default();
    while let Some(latencies) = tasks.join_next().await {
        all.merge(latencies??);
    }
    let done = all.len();
    all.print(what, connections, started.elapsed());
    Ok(done)
}

#[derive(Clone, Copy)]
enum Work {
    For(Duration),
    Count(usize),
}

/// One request of a phase.
trait AsyncStep: Clone + Send + 'static {
    fn run(&self, connection: &mut Connection, number: usize) -> impl Future<Output = Result<(), Error>> + Send;
}

#[derive(Clone)]
struct Call {
    method: Method,
    prefix: String,
    /// Numbers wrap around at this many objects.
    objects: usize,
}

impl AsyncStep for Call {
    async fn run(&self, connection: &mut Connection, number: usize) -> Result<(), Error> {
        let name = format!("{}-{}", self.prefix, number % self.objects);
        let (path, body) = match self.method {
            Method::POST => (collection(), config_map(&name, 1024)),
            Method::PUT => (path(&name), config_map(&name, 1024 + number % 7)),
            _ => (path(&name), Bytes::new()),
        };
        connection.call(self.method.clone(), &path, body).await.map(drop)
    }
}

async fn throughput(target: &Target, options: &Options, connections: usize) -> Result<(), Error> {
    let time = Work::For(Duration::from_secs(options.seconds));
    let prefix = format!("c{connections}");
    let call = |method: Method, objects| Call {
        method,
        prefix: prefix.clone(),
        objects,
    };
    let created = drive(target, connections, time, "create", call(Method::POST, usize::MAX)).await?;
    drive(target, connections, time, "get", call(Method::GET, created)).await?;
    drive(target, connections, time, "update", call(Method::PUT, created)).await?;
    drive(
        target,
        connections,
        Work::Count(created),
        "delete",
        call(Method::DELETE, created),
    )
    .await?;
    Ok(())
}

#[derive(Clone)]
struct List;

impl AsyncStep for List {
    async fn run(&self, connection: &mut Connection, _number: usize) -> Result<(), Error> {
        connection
            .call(Method::GET, &collection(), Bytes::new())
            .await
            .map(drop)
    }
}

async fn lists(target: &Target, options: &Options, admin: &mut Connection) -> Result<(), Error> {
    for number in 0..LISTED {
        admin
            .call(Method::POST, &collection(), config_map(&format!("l-{number}"), 64))
            .await?;
    }
    let bytes = admin.call(Method::GET, &collection(), Bytes::new()).await?.len();
    println!("\nLists of {LISTED} objects ({} KiB)", bytes / 1024);
    for &connections in &options.connections {
        drive(
            target,
            connections,
            Work::For(Duration::from_secs(options.seconds)),
            "list",
            List,
        )
        .await?;
    }
    Ok(())
}

/// From the sending of a write to the arrival of its event.
async fn watch_delay(target: &Target, admin: &mut Connection) -> Result<(), Error> {
    let list = admin.get_json(&format!("{}?limit=1", collection())).await?;
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .ok_or("the list has no resourceVersion")?;
    let path_of_watch = format!("{}?watch=true&resourceVersion={version}", collection());
    let (_connection, mut events) = target.connect().await?.stream(&path_of_watch).await?;
    println!();
    let mut latencies = Latencies::default();
    for round in 0..WATCH_ROUNDS {
        let before = Instant::now();
        let path = path("l-0");
        let (written, event) = tokio::join!(
            admin.call(Method::PUT, &path, config_map("l-0", 100 + round)),
            tokio::time::timeout(Duration::from_secs(10), events.frame()),
        );
        written?;
        event?.ok_or("the watch ended")??;
        latencies.add(before.elapsed());
    }
    latencies.print_times("write to watch event");
    Ok(())
}
