//! Clients that are not what they should be: both servers answer or hang up, and go on serving others.

use crate::cluster::Cluster;
use crate::websocket::connect_tls;
use rand::{Rng, RngCore, SeedableRng};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec?container=c&command=cat&stdin=true&stdout=true";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends a request's head and returns the connection and the head of the answer.
async fn send(cluster: &Cluster, port: u16, method: &str, path: &str, headers: &str) -> (TlsStream<TcpStream>, String) {
    let mut stream = connect_tls(cluster, port).await;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_none_are_client_errors() {
    let cluster = Cluster::start().await;
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    let unknown = format!("{spdy}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
    let no_key = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let old = WEBSOCKET.replace("13", "8");
    let no_streams = EXEC.replace("&stdin=true&stdout=true", "");
    let other_pod = EXEC.replace("/p/", "/other/");
    for (method, path, headers, code) in [
        ("GET", EXEC, "", "400"),
        ("POST", EXEC, "Content-Length: 0\r\n", "400"),
        ("POST", EXEC, spdy, "400"),
        ("POST", EXEC, &unknown, "403"),
        ("GET", EXEC, no_key, "400"),
        ("GET", EXEC, &old, "426"),
        ("GET", &no_streams, WEBSOCKET, "400"),
        ("GET", &other_pod, WEBSOCKET, "404"),
        ("GET", EXEC, "Connection: Upgrade\r\nUpgrade: h2c\r\n", "400"),
    ] {
        let (_, answer) = send(&cluster, cluster.api_port, method, path, headers).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{method} {path} {headers}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_lets_in_whom_the_api_server_lets() {
    let cluster = Cluster::start().await;
    // The administrator is of system:masters as well.
    let (_, answer) = send(&cluster, cluster.kubelet_port, "GET", "/pods", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for (path, code) in [
        ("/nothing", "404"),
        ("/containerLogs/default/p/x", "400"),
        ("/run/default/p/c", "405"),
    ] {
        let (_, answer) = send(&cluster, cluster.kubelet_port, "GET", path, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{path}: {answer}");
    }
    let ask =
        async |method: &str, path: &str, token: &str| ask_without_certificate(&cluster, method, path, token).await;
    for (method, path, token, code) in [
        ("GET", "/pods", "", "401"),
        ("GET", "/pods", "unknown", "401"),
        ("GET", "/pods", "broken", "401"),
        ("GET", "/pods", "pods", "200"),
        ("GET", "/pods", "nothing", "403"),
        ("GET", "/runningpods/", "pods", "200"),
        ("GET", "/configz", "pods", "403"),
        ("GET", "/stats/summary", "pods", "403"),
        ("GET", "/stats/summary", "statistics", "200"),
        ("GET", "/metrics/resource", "statistics", "403"),
        ("POST", "/run/default/p/c?cmd=true", "statistics", "403"),
        ("GET", "/exec/default/p/c", "pods", "403"),
    ] {
        let answer = ask(method, path, token).await;
        let expected = format!("HTTP/1.1 {code} ");
        assert!(answer.starts_with(&expected), "{method} {path} as {token:?}: {answer}");
    }
    let refused = ask("GET", "/healthz", "pods").await;
    let text = "Forbidden (user=pods, verb=get, resource=nodes, subresource(s)=[healthz proxy])";
    assert!(refused.contains(text), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_tells_what_is_used() {
    let cluster = Cluster::start().await;
    let (_, body) = get(&cluster, "/stats/summary").await;
    let summary: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(summary["node"]["nodeName"], "n");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().unwrap() > 0);
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64().unwrap() > 0);
    assert_eq!(summary["pods"][0]["containers"][0]["name"], "c");
    let (_, body) = get(&cluster, "/stats/summary?only_cpu_and_memory=true").await;
    assert!(!body.contains("capacityBytes"), "{body}");
    let (_, body) = get(&cluster, "/metrics/resource").await;
    assert!(body.contains("\nnode_memory_working_set_bytes "), "{body}");
    let (_, body) = get(&cluster, "/metrics/cadvisor").await;
    assert!(body.contains("\nmachine_memory_bytes "), "{body}");
    let (_, body) = get(&cluster, "/configz").await;
    assert!(body.contains("kubeletconfig"), "{body}");
}

/// As the administrator; head and body of the answer.
async fn get(cluster: &Cluster, path: &str) -> (String, String) {
    let (mut stream, head) = send(cluster, cluster.kubelet_port, "GET", path, "Connection: close\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    let mut body = String::new();
    stream.read_to_string(&mut body).await.unwrap();
    (head, body)
}

async fn ask_without_certificate(cluster: &Cluster, method: &str, path: &str, token: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    let authority = cluster.pki.authority_pem();
    roots
        .add(rustls::pki_types::pem::PemObject::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let nobody = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(("127.0.0.1", cluster.kubelet_port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(nobody)).connect(name, tcp).await.unwrap();
    let authorization = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Bytes that begin as the protocol's frames do and go on at random.
fn noise(random: &mut rand::rngs::StdRng, spdy: bool) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(1..4096)];
    random.fill_bytes(&mut bytes);
    for start in (0..bytes.len().saturating_sub(8)).step_by(64) {
        if spdy {
            let kind = random.random_range(0..11);
            bytes[start..start + 8].copy_from_slice(&[0x80, 3, 0, kind, random.random(), 0, 0, random.random()]);
        } else {
            bytes[start] = [0x82, 0x81, 0x02, 0x80, 0x89, 0x8a][random.random_range(0..6)];
            bytes[start + 1] = 0x80 | random.random_range(0..60);
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_after_the_handshake_ends_the_session_only() {
    let cluster = Cluster::start().await;
    let mut random = rand::rngs::StdRng::seed_from_u64(3);
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    let forward_spdy = spdy.replace("v4.channel.k8s.io", "portforward.k8s.io");
    let websocket = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n");
    let tunnel = format!("{WEBSOCKET}Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n");
    let forward = EXEC.replace("/exec?", "/portforward?");
    for (method, path, headers, is_spdy) in [
        ("POST", EXEC, spdy, true),
        ("POST", &forward, &forward_spdy, true),
        ("GET", EXEC, &websocket, false),
        ("GET", &forward, &tunnel, false),
    ] {
        for round in 0..20 {
            let (mut stream, answer) = send(&cluster, cluster.api_port, method, path, headers).await;
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
            // The server may hang up before it has taken all of it.
            let _ = stream.write_all(&noise(&mut random, is_spdy)).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{path} round {round}: the connection stays open");
        }
    }
    let ran = tokio::task::block_in_place(|| {
        cluster
            .kubectl("1.32")
            .run(&["exec", "p", "-c", "c", "--", "echo", "ok"])
    });
    assert_eq!(ran.stdout, "ok\n", "{}", ran.stderr);
    cluster.sessions_end().await;
}
