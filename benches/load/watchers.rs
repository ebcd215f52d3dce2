//! Many watchers of one resource: the time from the sending of a write to the arrival of its event at each of them.

use crate::Options;
use crate::connection::{Connection, Error, Target};
use crate::stats::Latencies;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "krust-bench-watch";
const SECONDS: usize = 10;
const WRITERS: usize = 8;
/// Stands before the number of a write in its event.
const MARK: &[u8] = b"\"seq\":\"";

pub async fn run(target: &Target, options: &Options) -> Result<(), Error> {
    let mut admin = target.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    admin
        .call(Method::POST, "/api/v1/namespaces", namespace.to_string().into())
        .await?;
    for number in 0..WRITERS {
        admin.call(Method::POST, &collection(), object(number, 0)).await?;
    }
    let version = admin.get_json(&collection()).await?["metadata"]["resourceVersion"].clone();
    let version = version.as_str().ok_or("the list has no resourceVersion")?.to_owned();
    let writes = options.write_rate * SECONDS;
    println!(
        "\n{} watchers of one resource, {} writes a second for {SECONDS} s",
        options.watchers, options.write_rate
    );
    let sent: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..=writes).map(|_| OnceLock::new()).collect());
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..options.watchers {
        let uri = format!("{}?watch=true&resourceVersion={version}", collection());
        let (connection, body) = target.connect().await?.stream(&uri).await?;
        watchers.spawn(listen(connection, body, sent.clone(), writes));
    }
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let mut connection = target.connect().await?;
        let (sent, rate) = (sent.clone(), options.write_rate as f64);
        writers.spawn(async move {
            for sequence in (1..=writes).filter(|sequence| sequence % WRITERS == number) {
                let due = started + Duration::from_secs_f64(sequence as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                // Set once: every number is written by one writer.
                let _ = sent[sequence].set(Instant::now());
                let path = format!("{}/w-{number}", collection());
                connection.call(Method::PUT, &path, object(number, sequence)).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    println!(
        "{:<36} {:>9.0}/s",
        "writes",
        writes as f64 / started.elapsed().as_secs_f64()
    );
    let mut all = Latencies::default();
    while let Some(done) = watchers.join_next().await {
        all.merge(done??);
    }
    if all.len() != writes * options.watchers {
        return Err(format!("{} events arrived of {}", all.len(), writes * options.watchers).into());
    }
    all.print_tail("write to event at a watcher");
    Ok(())
}

fn collection() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn object(number: usize, sequence: usize) -> Bytes {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("w-{number}")},
        "data": {"seq": sequence.to_string(), "payload": "x".repeat(512)}});
    object.to_string().into()
}

/// Takes the time of every event until all have come. The connection lives as long as its body is read.
async fn listen(
    _connection: Connection,
    mut body: hyper::body::Incoming,
    sent: Arc<Vec<OnceLock<Instant>>>,
    writes: usize,
) -> Result<Latencies, Error> {
    // What is spent on searching here, the server beside it lacks.
    let mark = memchr::memmem::Finder::new(MARK);
    let mut latencies = Latencies::default();
    let mut rest = Vec::new();
    while latencies.len() < writes {
        let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await?;
        let Ok(data) = frame.ok_or("the watch ended")??.into_data() else {
            continue;
        };
        let now = Instant::now();
        rest.extend_from_slice(&data);
        let mut read = 0;
        while let Some(end) = memchr::memchr(b'\n', &rest[read..]) {
            let line = &rest[read..read + end];
            read += end + 1;
            let at = mark.find(line).ok_or("no number")?;
            let digits = line[at + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let sequence = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            let before = sent
                .get(sequence)
                .and_then(OnceLock::get)
                .ok_or("an event of no write")?;
            latencies.add(now.duration_since(*before));
        }
        rest.drain(..read);
    }
    Ok(latencies)
}
