//! What the number of stored objects costs: creates, memory, whole lists in JSON and protobuf.

use crate::Options;
use crate::connection::{Connection, Error, Target};
use crate::krust::Server;
use crate::stats::{Latencies, show};
use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub const NAMESPACE: &str = "krust-bench-size";
const CONNECTIONS: usize = 32;
/// Lists are measured when this many pods are there.
const LISTED: usize = 10_000;
const LIST_ROUNDS: usize = 20;
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// `server` is the process if it is ours, for its memory.
pub async fn run(target: &Target, options: &Options, server: Option<&Server>) -> Result<(), Error> {
    let mut admin = target.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    admin
        .call(Method::POST, "/api/v1/namespaces", namespace.to_string().into())
        .await?;
    // Where no controller makes it. Where one does, it may be there before.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    let _ = admin.call(Method::POST, &accounts, account.to_string().into()).await;
    println!("\nPods, up to {} of them, {CONNECTIONS} connections", options.objects);
    let before = server.and_then(Server::resident_kib);
    let mut steps = vec![options.objects.min(LISTED)];
    while let Some(&last) = steps.last().filter(|last| **last < options.objects) {
        steps.push((last * 2).min(options.objects));
    }
    let mut made = 0;
    let mut first = None;
    for upto in steps {
        // The last thousand of each step are compared, so that all are measured over the same time.
        create(target, made, upto - 1000).await?;
        let rate = create(target, upto - 1000, upto).await?;
        made = upto;
        let bytes = admin.call(Method::GET, &collection(), Bytes::new()).await?.len();
        let ratio = rate / *first.get_or_insert(rate);
        println!(
            "{:<36} {rate:>9.0}/s   {ratio:.2} of the first",
            format!("create at {upto} pods")
        );
        if let (Some(before), Some(after)) = (before, server.and_then(Server::resident_kib)) {
            let each = (after - before) * 1024.0 / upto as f64;
            let own = bytes as f64 / upto as f64;
            println!(
                "{:<36} {each:>9.0} B a pod, of which {own:.0} B are its JSON: {:.0} B beyond it",
                "resident memory with the last list",
                each - own
            );
        }
        if upto <= LISTED {
            lists(&mut admin, upto, bytes).await?;
        }
    }
    Ok(())
}

pub fn collection() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

fn pod(number: usize) -> Bytes {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("web-{number:06}"),
            "labels": {"app": "web", "pod-template-hash": "6d4cf56db6", "shard": (number % 10).to_string()},
            "annotations": {"example.com/checksum": "4a1c7e2f90b5d6c38e"},
        },
        "spec": {
            "nodeName": "bench-node",
            "containers": [{
                "name": "web", "image": "registry.example.com/team/web:1.27.3",
                "args": ["--port=8080", "--log-level=info"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "MODE", "value": "production"}, {"name": "REGION", "value": "north"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
            }],
        },
    });
    pod.to_string().into()
}

/// Creates the pods with these numbers; returns creates a second.
async fn create(target: &Target, from: usize, to: usize) -> Result<f64, Error> {
    let next = Arc::new(AtomicUsize::new(from));
    let mut tasks = tokio::task::JoinSet::new();
    let started = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut connection = target.connect().await?;
        let next = next.clone();
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= to {
                    return Ok::<_, Error>(());
                }
                connection.call(Method::POST, &collection(), pod(number)).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(to.saturating_sub(from) as f64 / started.elapsed().as_secs_f64())
}

async fn lists(admin: &mut Connection, count: usize, bytes: usize) -> Result<(), Error> {
    println!("\nLists of {count} pods ({} KiB of JSON)", bytes / 1024);
    // A write in between, so that nothing is ready: what a list costs.
    list(admin, "list after a change, JSON", "application/json", true).await?;
    list(admin, "list again, JSON", "application/json", false).await?;
    let before = Instant::now();
    let size = admin.get_as(&collection(), PROTOBUF).await?.len();
    println!(
        "{:<36} {:>13}   ({} KiB)",
        "first list, protobuf",
        show(before.elapsed()),
        size / 1024
    );
    list(admin, "list after a change, protobuf", PROTOBUF, true).await?;
    list(admin, "list again, protobuf", PROTOBUF, false).await?;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    list(admin, "table", table, false).await
}

async fn list(admin: &mut Connection, what: &str, accept: &str, change: bool) -> Result<(), Error> {
    let mut latencies = Latencies::default();
    for round in 0..LIST_ROUNDS {
        if change {
            let label =
                json!({"metadata": {"labels": {"round": format!("{accept}-{round}").replace(['/', ';', '='], "-")}}});
            let path = format!("{}/web-000000", collection());
            admin.call(Method::PATCH, &path, label.to_string().into()).await?;
        }
        let before = Instant::now();
        admin.get_as(&collection(), accept).await?;
        latencies.add(before.elapsed());
    }
    latencies.print_times(what);
    Ok(())
}
