//! Port-forward: SPDY with 1.27 and 1.30, SPDY inside WebSocket with the others.

use crate::cluster::Cluster;
use crate::support::kubectl::VERSIONS;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

/// Answers every connection with what it was sent, once that has ended.
pub async fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut received = Vec::new();
                stream.read_to_end(&mut received).await.unwrap();
                stream.write_all(&received).await.unwrap();
            });
        }
    });
    port
}

/// kubectl port-forward and the local port that it listens on.
pub async fn forward(cluster: &Cluster, version: &str, remote: u16) -> (Child, u16) {
    let ports = format!(":{remote}");
    let command = cluster.kubectl(version).command(&["port-forward", "p", &ports]);
    let mut child = tokio::process::Command::from(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("a line that names the port");
    let port = line
        .rsplit_once(" -> ")
        .expect(&line)
        .0
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, port)
}

async fn exchange(port: u16, message: Vec<u8>) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&message).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once_get_their_own_answers() {
    let cluster = Cluster::start().await;
    let echo = echo_server().await;
    for version in VERSIONS {
        let (mut child, port) = forward(&cluster, version, echo).await;
        let mut exchanges = tokio::task::JoinSet::new();
        for index in 0..20u8 {
            exchanges.spawn(async move {
                let message = vec![index; 100_000 + usize::from(index)];
                assert!(exchange(port, message.clone()).await == message, "connection {index}");
            });
        }
        while let Some(exchanged) = exchanges.join_next().await {
            exchanged.unwrap_or_else(|error| panic!("{version}: {error}"));
        }
        child.kill().await.unwrap();
    }
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_a_listener_is_told() {
    let cluster = Cluster::start().await;
    let unused = crate::support::free_port();
    for version in VERSIONS {
        let (mut child, port) = forward(&cluster, version, unused).await;
        // kubectl closes the connection, and may do so before it has read what was sent: then the kernel resets it.
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer).await {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{version}");
        }
        assert_eq!(answer, b"", "{version}");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = String::new();
        while !told.contains("Connection refused") {
            told = lines.next_line().await.unwrap().expect("a line that names the failure");
        }
        assert!(
            told.contains(&format!("error forwarding port {unused} to pod default/p")),
            "{version}: {told}"
        );
        child.kill().await.unwrap();
    }
    cluster.sessions_end().await;
}
