//! Streams through the API server and the kubelet on real engines: a thousand at once, of every kind, half of which are
//! dropped in the middle; and large transfers next to the engine's own stream.

use crate::Options;
use crate::connection::Error;
use crate::engine::{Engine, on_each};
use crate::krust::Server;
use crate::stats::show;
use crate::support::images::BUSYBOX;
use crate::support::streams::{self, Place};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use krust::runtime::{ContainerConfig, ExecRequest, PodIdentity, Runtime, SandboxConfig};
use kube::api::{Api, AttachParams, DeleteParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const WAIT_MAX: Duration = Duration::from_secs(120);
const ECHO_PORT: u16 = 7;
const SOURCE_PORT: u16 = 19;
const PIECE_BYTES: usize = 64 << 10;
/// Of a stream in the client.
const BUFFER_BYTES: usize = 1 << 20;
/// How long what is left of streams may take to go.
const LEFT_MAX: Duration = Duration::from_secs(30);

pub async fn run(options: &Options) -> Result<(), Error> {
    on_each(&options.engines, "streams", async |engine, server| {
        measure(engine, server, options).await
    })
    .await
}

async fn measure(engine: &Engine, server: &Server, options: &Options) -> Result<(), Error> {
    let pods: Api<Pod> = Api::default_namespaced(server.client().await?);
    start(server, &pods, options.transfer_bytes).await?;
    crowd(server, &pods, options.streams).await?;
    transfers(engine, server, &pods, options.transfer_bytes).await?;
    let now = DeleteParams::default().grace_period(0);
    pods.delete("p", &now).await?;
    until(|| async { Ok(pods.get_opt("p").await?.is_none()) }).await
}

/// The pod that all streams are to: `main` says a line every 200 ms, the others serve ports.
async fn start(server: &Server, pods: &Api<Pod>, transfer_bytes: u64) -> Result<(), Error> {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(server.client().await?);
    until(|| async { Ok(accounts.get_opt("default").await?.is_some()) }).await?;
    let container = |name: &str, script: &str| json!({"name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]});
    let source = format!(
        "nc -ll -p {SOURCE_PORT} -e dd if=/dev/zero bs=1M count={}",
        transfer_bytes >> 20
    );
    let containers = [
        container("main", "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.2; done"),
        container("echo", &format!("nc -ll -p {ECHO_PORT} -e cat")),
        container("source", &source),
    ];
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "terminationGracePeriodSeconds": 0}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    until(|| async {
        let status = pods.get("p").await?.status.unwrap_or_default();
        let all = status.container_statuses.unwrap_or_default();
        Ok(all.len() == 3 && all.iter().all(|container| container.ready))
    })
    .await
}

async fn until<F>(condition: impl Fn() -> F) -> Result<(), Error>
where
    F: Future<Output = Result<bool, Error>>,
{
    let began = Instant::now();
    while !condition().await? {
        if began.elapsed() > WAIT_MAX {
            return Err("what should come does not come".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Everything that is open at the same time.
async fn crowd(server: &Server, pods: &Api<Pod>, count: usize) -> Result<(), Error> {
    let place = Place {
        pods: pods.clone(),
        pod: "p",
        container: "main",
        echo_port: ECHO_PORT,
    };
    // What only the first of each kind does.
    streams::open(&place, 4).await.finish().await?;
    settle(server, None).await;
    let before = Left::of(server)?;
    server.report_memory("before the streams");
    let began = Instant::now();
    let crowd = streams::open(&place, count).await;
    println!(
        "{:<36} {:>13}",
        format!("{count} streams opened in"),
        show(began.elapsed())
    );
    server.report_memory("with all streams open");
    let began = Instant::now();
    crowd.finish().await?;
    println!("{:<36} {:>13}", "nothing lost; ended in", show(began.elapsed()));
    settle(server, Some(&before)).await;
    let after = Left::of(server)?;
    println!(
        "{:<36} {} descriptors ({} before), {} processes of streams ({} before)",
        "left behind", after.descriptors, before.descriptors, after.processes, before.processes
    );
    server.report_memory("after the streams");
    Ok(())
}

async fn settle(server: &Server, wanted: Option<&Left>) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let done = match (wanted, Left::of(server)) {
            (None, _) => began.elapsed() > Duration::from_secs(3),
            (Some(wanted), Ok(now)) => now.descriptors <= wanted.descriptors && now.processes <= wanted.processes,
            (Some(_), Err(_)) => true,
        };
        if done || began.elapsed() > LEFT_MAX {
            return;
        }
    }
}

/// What streams may leave behind.
struct Left {
    descriptors: usize,
    /// `cat`s, of execs and of the port.
    processes: usize,
}

impl Left {
    fn of(server: &Server) -> Result<Self, Error> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count();
        let names = std::fs::read_dir("/proc")?.flatten();
        let names = names.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
        let processes = names.filter(|name| name.trim() == "cat").count();
        Ok(Self { descriptors, processes })
    }
}

async fn transfers(engine: &Engine, server: &Server, pods: &Api<Pod>, bytes: u64) -> Result<(), Error> {
    let mebibytes = bytes >> 20;
    let bare = Bare::start(engine).await?;
    let own = timed(async { bare.download(mebibytes).await }).await?;
    report(&format!("engine: exec, {mebibytes} MiB down"), bytes, own);
    let own_up = timed(async { bare.upload(bytes).await }).await?;
    report(&format!("engine: exec, {mebibytes} MiB up"), bytes, own_up);
    bare.runtime.remove_pod_sandbox(&bare.sandbox).await?;

    let memory = server.resident_kib();
    // By default this client passes a KiB at a time.
    let parameters = || {
        let parameters = AttachParams::default().stderr(false).container("main");
        parameters
            .max_stdin_buf_size(BUFFER_BYTES)
            .max_stdout_buf_size(BUFFER_BYTES)
    };
    let took = timed(async {
        let count = format!("count={mebibytes}");
        let words = ["dd", "if=/dev/zero", "bs=1M", &count];
        let mut attached = pods.exec("p", words, &parameters()).await?;
        let mut stdout = attached.stdout().ok_or("no stdout")?;
        count_exactly(&mut stdout, bytes).await
    })
    .await?;
    report(&format!("exec, {mebibytes} MiB down"), bytes, took);
    let took = timed(async {
        let mut attached = pods.exec("p", ["wc", "-c"], &parameters().stdin(true)).await?;
        let mut stdin = attached.stdin().ok_or("no stdin")?;
        let mut stdout = attached.stdout().ok_or("no stdout")?;
        send(&mut stdin, bytes).await?;
        stdin.shutdown().await?;
        counted(&mut stdout, bytes).await
    })
    .await?;
    report(&format!("exec, {mebibytes} MiB up"), bytes, took);
    let took = timed(async {
        let mut forwarder = pods.portforward("p", &[SOURCE_PORT]).await?;
        let mut stream = forwarder.take_stream(SOURCE_PORT).ok_or("no stream")?;
        count_exactly(&mut stream, bytes).await
    })
    .await?;
    report(&format!("port-forward, {mebibytes} MiB down"), bytes, took);
    let took = timed(async {
        let mut forwarder = pods.portforward("p", &[ECHO_PORT]).await?;
        let stream = forwarder.take_stream(ECHO_PORT).ok_or("no stream")?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::try_join!(send(&mut writer, bytes), count_exactly(&mut reader, bytes)).map(drop)
    })
    .await?;
    report(&format!("port-forward, {mebibytes} MiB both ways"), bytes, took);
    if let (Some(before), Some(after)) = (memory, server.resident_kib()) {
        println!(
            "{:<36} {:>5.1} MiB more",
            "resident memory, after them",
            (after - before) / 1024.0
        );
    }
    server.report_memory("with them");
    Ok(())
}

fn report(what: &str, bytes: u64, took: Duration) {
    let rate = bytes as f64 / took.as_secs_f64() / f64::from(1 << 20);
    println!("{what:<36} {:>13} {rate:>8.0} MiB/s", show(took));
}

async fn timed(work: impl Future<Output = Result<(), Error>>) -> Result<Duration, Error> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), bytes: u64) -> Result<(), Error> {
    let piece = vec![b'x'; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        writer.write_all(&piece[..length]).await?;
        left -= length as u64;
    }
    writer.flush().await?;
    Ok(())
}

async fn count_exactly(reader: &mut (impl AsyncRead + Unpin), bytes: u64) -> Result<(), Error> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut got = 0;
    while got < bytes {
        match reader.read(&mut piece).await? {
            0 => return Err(format!("{got} of {bytes} bytes came").into()),
            length => got += length as u64,
        }
    }
    Ok(())
}

/// What `wc -c` says.
async fn counted(reader: &mut (impl AsyncRead + Unpin), bytes: u64) -> Result<(), Error> {
    let mut text = String::new();
    reader.read_to_string(&mut text).await?;
    match text.trim().parse::<u64>()? {
        count if count == bytes => Ok(()),
        count => Err(format!("{count} of {bytes} bytes came").into()),
    }
}

/// The engine's own stream, by the backend without krust around it.
struct Bare {
    runtime: std::sync::Arc<dyn Runtime>,
    sandbox: String,
    container: String,
}

impl Bare {
    async fn start(engine: &Engine) -> Result<Self, Error> {
        let runtime = engine.connect("bench").await?;
        let pod = SandboxConfig {
            pod: PodIdentity {
                name: "bare".to_owned(),
                namespace: "default".to_owned(),
                uid: "bare".to_owned(),
                attempt: 0,
            },
            ..Default::default()
        };
        let container = ContainerConfig {
            name: "c".to_owned(),
            image: BUSYBOX.to_owned(),
            command: vec!["sleep".to_owned(), "3600".to_owned()],
            ..Default::default()
        };
        let sandbox = runtime.run_pod_sandbox(&pod).await?;
        let container = runtime.create_container(&sandbox, &container, &pod).await?;
        runtime.start_container(&container).await?;
        Ok(Self {
            runtime,
            sandbox,
            container,
        })
    }

    fn request(words: &[&str], stdin: bool) -> ExecRequest {
        ExecRequest {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            stdin,
            stdout: true,
            ..Default::default()
        }
    }

    async fn download(&self, mebibytes: u64) -> Result<(), Error> {
        let count = format!("count={mebibytes}");
        let request = Self::request(&["dd", "if=/dev/zero", "bs=1M", &count], false);
        let mut session = self.runtime.exec(&self.container, &request).await?;
        let mut stdout = session.stdout.take().ok_or("no stdout")?;
        count_exactly(&mut stdout, mebibytes << 20).await
    }

    async fn upload(&self, bytes: u64) -> Result<(), Error> {
        let request = Self::request(&["wc", "-c"], true);
        let mut session = self.runtime.exec(&self.container, &request).await?;
        let mut stdin = session.stdin.take().ok_or("no stdin")?;
        let mut stdout = session.stdout.take().ok_or("no stdout")?;
        send(&mut stdin, bytes).await?;
        stdin.shutdown().await?;
        drop(stdin);
        counted(&mut stdout, bytes).await
    }
}
