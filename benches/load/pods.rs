//! Pod start and deletion next to a bare `docker run` of the same image.

use crate::Options;
use crate::connection::{Connection, Error};
use crate::krust::Server;
use crate::stats::Latencies;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 10;
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Ends on SIGTERM at once, as a well-made server does.
const SCRIPT: &str = "trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done";

pub async fn run(options: &Options) -> Result<(), Error> {
    let engine = format!("unix://{}", options.engine_socket);
    let docker = |arguments: &[&str]| {
        Command::new("docker")
            .args(["--host", &engine])
            .args(arguments)
            .output()
    };
    match docker(&["image", "inspect", &options.image]) {
        Ok(output) if output.status.success() => {}
        _ => {
            println!(
                "\npod start: not measured, {engine} does not answer or has no image {}",
                options.image
            );
            return Ok(());
        }
    }
    println!();
    let mut bare = Latencies::default();
    for round in 0..ROUNDS {
        let (pause, app) = (format!("krust-bench-pause-{round}"), format!("krust-bench-app-{round}"));
        let before = Instant::now();
        docker(&["run", "-d", "--name", &pause, &options.image, "sh", "-c", SCRIPT])?;
        let network = format!("container:{pause}");
        let ran = docker(&[
            "run",
            "-d",
            "--name",
            &app,
            "--network",
            &network,
            &options.image,
            "sh",
            "-c",
            SCRIPT,
        ])?;
        bare.add(before.elapsed());
        docker(&["rm", "-f", &app, &pause])?;
        if !ran.status.success() {
            return Err(format!("docker run: {}", String::from_utf8_lossy(&ran.stderr)).into());
        }
    }
    let bare = bare.print_times("docker run of a sandbox and a container");
    let server = Server::start_cold("docker", &options.engine_socket).await?;
    let mut connection = server.target()?.connect().await?;
    let (mut starts, mut ends) = (Latencies::default(), Latencies::default());
    for round in 0..ROUNDS {
        let name = format!("bench-{round}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": options.image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", SCRIPT]}]}});
        let before = Instant::now();
        let created = connection
            .call(Method::POST, "/api/v1/namespaces/default/pods", pod.to_string().into())
            .await?;
        let created: Value = serde_json::from_slice(&created)?;
        let running = |event: &Value| event["object"]["status"]["phase"] == "Running";
        watch_until(&server, &name, &created, running).await?;
        starts.add(before.elapsed());
        let before = Instant::now();
        let deleted = delete(&mut connection, &name).await?;
        watch_until(&server, &name, &deleted, |event| event["type"] == "DELETED").await?;
        ends.add(before.elapsed());
    }
    let started = starts.print_times("pod created to Running");
    ends.print_times("pod deleted to gone");
    println!(
        "pod start is {:.2} times the engine's own",
        started.as_secs_f64() / bare.as_secs_f64()
    );
    server.stop().await
}

async fn delete(connection: &mut Connection, name: &str) -> Result<Value, Error> {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    Ok(serde_json::from_slice(
        &connection.call(Method::DELETE, &path, Bytes::new()).await?,
    )?)
}

/// Follows the pod from the version of `from` until an event is what is wanted.
async fn watch_until(server: &Server, name: &str, from: &Value, wanted: impl Fn(&Value) -> bool) -> Result<(), Error> {
    let version = from["metadata"]["resourceVersion"]
        .as_str()
        .ok_or("no resourceVersion")?;
    let path = format!(
        "/api/v1/namespaces/default/pods?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}"
    );
    let (_connection, mut body) = server.target()?.connect().await?.stream(&path).await?;
    let mut buffer = Vec::new();
    loop {
        let frame = tokio::time::timeout(WAIT_MAX, body.frame())
            .await?
            .ok_or("the watch ended")??;
        buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if wanted(&serde_json::from_slice(&line)?) {
                return Ok(());
            }
        }
    }
}
