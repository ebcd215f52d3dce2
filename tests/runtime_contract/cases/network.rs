//! What the node's network shows of pods.

use crate::subject::{PATIENCE, Subject, is_not_found};
use krust::runtime::*;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SERVER: &str = "echo ready; exec httpd -f -p 8080 -h /etc";

/// A port that nobody has, and that nobody is given: one that the kernel hands out to whoever connects somewhere may be gone
/// before the engine, which takes its time, listens at it. Connections of the tests beside this one are many.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 31 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Who answers at the port; None if nobody does.
pub async fn answers(address: &str, port: u16) -> Option<String> {
    let asked = async {
        let mut stream = TcpStream::connect((address, port)).await.ok()?;
        stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.rsplit("\r\n").next()?.trim().to_owned()).filter(|name| !name.is_empty())
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("an answer or none")
}

pub async fn serve(subject: &Subject, name: &str, address: &str, port: u16) -> String {
    let mut config = subject.pod(name);
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp,
        container_port: 8080,
        host_port: port,
        host_ip: address.to_owned(),
    }];
    let sandbox = subject.sandbox(&config).await;
    let server = subject
        .start_in(&sandbox, &config, &subject.script("web", SERVER))
        .await;
    subject.logged(&server, 1).await;
    // The line comes just before the port is open.
    let begun = std::time::Instant::now();
    let at = if address.is_empty() { "127.0.0.1" } else { address };
    while answers(at, port).await.as_deref() != Some(name) {
        assert!(begun.elapsed() < PATIENCE, "{name} does not answer at {at}:{port}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    sandbox
}

/// A port of the node leads to a pod, by address, as long as the pod's sandbox has its network.
pub async fn host_ports(subject: &Subject) {
    let port = free_port();
    let one = serve(subject, "one", "127.0.0.1", port).await;
    serve(subject, "two", "127.0.0.2", port).await;
    assert_eq!(answers("127.0.0.1", port).await.as_deref(), Some("one"));
    let everywhere = free_port();
    serve(subject, "three", "", everywhere).await;
    assert_eq!(answers("127.0.0.2", everywhere).await.as_deref(), Some("three"));

    // A port that somebody has is refused, and the sandbox is gone.
    let mut again = subject.pod("again");
    again.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_port: port,
        host_ip: "127.0.0.1".to_owned(),
    }];
    let error = subject.runtime.run_pod_sandbox(&again).await.unwrap_err().to_string();
    assert!(error.contains(&port.to_string()), "{error}");
    let listed = subject.runtime.list_pod_sandboxes().await.unwrap();
    assert!(listed.iter().all(|sandbox| sandbox.pod.uid != again.pod.uid));

    subject.runtime.stop_pod_sandbox(&one).await.unwrap();
    assert_eq!(answers("127.0.0.1", port).await, None);
    assert_eq!(answers("127.0.0.2", port).await.as_deref(), Some("two"));
    serve(subject, "four", "127.0.0.1", port).await;
    subject.runtime.remove_pod_sandbox(&one).await.unwrap();
    assert!(is_not_found(subject.runtime.pod_sandbox_status(&one).await));
    assert_eq!(answers("127.0.0.1", port).await.as_deref(), Some("four"));
}
