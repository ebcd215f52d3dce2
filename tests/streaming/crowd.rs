//! Many streams at once, and streams that nobody reads: nothing is lost, nothing is kept, nothing is left.

use crate::cluster::Cluster;
use crate::support::streams::{self, Place};
use crate::websocket::kube_client;
use krust::runtime::LogStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(60);
const STREAMS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_at_once_lose_nothing_and_leave_nothing() {
    let cluster = Cluster::start().await;
    let place = Place {
        pods: kube_client(&cluster).await,
        pod: "p",
        container: "c",
        echo_port: echo().await,
    };
    let (runtime, id) = (cluster.runtime.clone(), cluster.container_id.clone());
    let writer = tokio::spawn(async move {
        for number in 1u64.. {
            runtime
                .fake
                .write_log(&id, LogStream::Stdout, &format!("line {number}\n"));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    streams::open(&place, STREAMS).await.finish().await.unwrap();
    writer.abort();
    cluster.sessions_end().await;
}

/// Sends back what it gets as it gets it.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                // Whoever drops the stream in the middle is no failure here.
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

/// What may be on its way between a source and a client that does not read, with so many connections in between: what
/// the kernel keeps for each, and little of the servers' own.
fn on_the_way_max(connections: u64) -> u64 {
    const OWN_BYTES_MAX: u64 = 4 << 20;
    let most = |file: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{file}")).unwrap();
        text.split_whitespace().last().unwrap().parse().unwrap()
    };
    connections * (most("tcp_rmem") + most("tcp_wmem")) + OWN_BYTES_MAX
}

/// Waits until the source is held up, and sees that not too much was taken from it before.
async fn is_held_up(what: &str, taken: impl Fn() -> u64, at_most: u64) {
    let begun = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    while last == 0 || since.elapsed() < Duration::from_secs(1) {
        assert!(begun.elapsed() < PATIENCE, "{what}: {last} bytes were taken so far");
        let now = taken();
        assert!(
            now <= at_most,
            "{what}: {now} bytes were taken of which nobody reads one"
        );
        if now != last {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of a process of this machine that has exactly these arguments.
fn find(arguments: &[&str]) -> Option<PathBuf> {
    let wanted = arguments.join("\0") + "\0";
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter(|process| std::fs::read(process.join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
        .last()
}

fn written_by(process: &Path) -> u64 {
    let text = std::fs::read_to_string(process.join("io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_not_read_stays_with_its_process() {
    let cluster = Cluster::start().await;
    for version in ["1.27", "1.32"] {
        // The number, which makes it endless, tells the process from others.
        let count = format!("count={}", (1u64 << 40) + u64::from(std::process::id()));
        let words = ["dd", "if=/dev/zero", "bs=65536", count.as_str()];
        let mut command = cluster.kubectl(version).command(&["exec", "p", "-c", "c", "--"]);
        let child = command.args(words).stdout(Stdio::piped()).spawn().unwrap();
        until("the process starts", || find(&words).is_some()).await;
        let process = find(&words).unwrap();
        // kubectl is one more that keeps some.
        is_held_up(version, || written_by(&process), on_the_way_max(2)).await;
        end(child);
        until("the process ends", || find(&words).is_none()).await;
    }
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_not_read_stays_behind_its_port() {
    let cluster = Cluster::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = listener.local_addr().unwrap().port();
    for version in ["1.27", "1.32"] {
        let (child, port) = crate::forward::forward(&cluster, version, remote).await;
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut source, _) = listener.accept().await.unwrap();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = taken.clone();
        let ends = tokio::spawn(async move {
            let piece = vec![0; 65_536];
            while let Ok(length) = source.write(&piece).await {
                counter.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        // To kubectl, to the API server, to the kubelet, to the port.
        is_held_up(version, || taken.load(Ordering::Relaxed), on_the_way_max(4)).await;
        drop((client, child));
        let ended = tokio::time::timeout(PATIENCE, ends).await;
        ended.expect("the connection to the port ends").unwrap();
    }
    cluster.sessions_end().await;
}
