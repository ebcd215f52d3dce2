//! Churn with a short memory for history, or an hour of it with a usual one: the size of the database beside that of the data in it.

use crate::Options;
use crate::connection::Error;
use crate::krust::Server;
use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const OBJECTS: usize = 2000;
const CONNECTIONS: usize = 16;
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

pub async fn run(options: &Options) -> Result<(), Error> {
    println!(
        "\nChurn of {OBJECTS} ConfigMaps for {} s, history of {} s",
        options.churn_seconds, options.churn_history_seconds
    );
    let history = options.churn_history_seconds.to_string();
    let environment = [("KRUST_STORAGE__HISTORY_AGE_SECONDS", history.as_str())];
    let server = Server::start_with("none", &environment).await?;
    let target = server.target()?;
    let until = Instant::now() + Duration::from_secs(options.churn_seconds);
    let writes = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    let rest = options
        .churn_rate
        .map(|rate| Duration::from_secs(CONNECTIONS as u64) / rate);
    for task in 0..CONNECTIONS {
        let mut connection = target.connect().await?;
        let writes = writes.clone();
        tasks.spawn(async move {
            for number in (task..OBJECTS).step_by(CONNECTIONS) {
                connection.call(Method::POST, COLLECTION, object(number, 0)).await?;
            }
            for round in 1.. {
                for number in (task..OBJECTS).step_by(CONNECTIONS) {
                    if Instant::now() > until {
                        return Ok::<_, Error>(());
                    }
                    let path = format!("{COLLECTION}/churn-{number}");
                    if round % 4 == 0 {
                        connection.call(Method::DELETE, &path, Bytes::new()).await?;
                        connection.call(Method::POST, COLLECTION, object(number, round)).await?;
                    } else {
                        connection.call(Method::PUT, &path, object(number, round)).await?;
                    }
                    writes.fetch_add(1, Ordering::Relaxed);
                    if let Some(rest) = rest {
                        tokio::time::sleep(rest).await;
                    }
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    println!("{:<36} {:>9}", "writes", writes.load(Ordering::Relaxed));
    let busy = server.database_bytes();
    let mut admin = target.connect().await?;
    let live = admin.call(Method::GET, COLLECTION, Bytes::new()).await?.len() as u64;
    // The history of the last seconds has to age before it is forgotten.
    let history = Duration::from_secs(options.churn_history_seconds);
    let settled = Instant::now();
    let mut smallest = busy;
    while settled.elapsed() < history * 2 + Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        smallest = smallest.min(server.database_bytes());
    }
    let show = |what: &str, bytes: u64| {
        let ratio = bytes as f64 / live as f64;
        println!(
            "{what:<36} {:>5.1} MiB   {ratio:.2} of the live data",
            bytes as f64 / 1048576.0
        );
    };
    show("live data", live);
    show("database under load, with its log", busy);
    show("database afterwards, with its log", smallest);
    server.stop().await
}

fn object(number: usize, round: usize) -> Bytes {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("churn-{number}")},
        "data": {"round": round.to_string(), "payload": "x".repeat(1500 + (number * 31 + round * 17) % 1000)}});
    object.to_string().into()
}
