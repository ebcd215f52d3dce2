//! Port-forward over SPDY: a pair of streams, error and data, for each connection (upstream:
//! `portforward/httpstream.go`).

use super::Pod;
use crate::kubelet::server::Server;
use crate::kubelet::server::spdy::{ResetReason, Session, Stream};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Upstream's default: by then the second stream of a pair must have been opened.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream that waits for the other one of its pair.
struct Half {
    stream: Stream,
    kind: Kind,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Data,
}

pub async fn serve<Io>(server: &Server, io: Io, pod: Pod)
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = Session::start(io, server.options.idle_max, &server.shutdown, &server.tasks);
    let pod = Arc::new(pod);
    let mut waiting: HashMap<String, Half> = HashMap::new();
    // Dropped with the session: connections to the pod do not outlive their client.
    let mut connections = JoinSet::new();
    loop {
        let next_deadline = waiting.values().map(|half| half.deadline).min();
        tokio::select! {
            stream = session.accept() => {
                let Some(stream) = stream else {
                    return;
                };
                if let Some((error, data, port)) = pair(stream, &mut waiting).await {
                    connections.spawn(connection(pod.clone(), error, data, port));
                }
            }
            () = sleep_until(next_deadline) => {
                let now = Instant::now();
                waiting.retain(|_, half| half.deadline > now);
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Accepts a stream; the pair and its port when it is the second of one. What makes no pair is reset.
async fn pair(stream: Stream, waiting: &mut HashMap<String, Half>) -> Option<(Stream, Stream, u16)> {
    let kind = match stream.headers.get("streamtype") {
        Some("error") => Kind::Error,
        Some("data") => Kind::Data,
        _ => {
            stream.refuse(ResetReason::ProtocolError);
            return None;
        }
    };
    let port = stream.headers.get("port").and_then(|port| port.parse().ok());
    let Some(port) = port.filter(|port: &u16| *port > 0) else {
        stream.refuse(ResetReason::ProtocolError);
        return None;
    };
    if stream.accept().await.is_err() {
        return None;
    }
    let id = request_id(&stream, kind);
    match waiting.remove(&id) {
        Some(other) if other.kind != kind => Some(match kind {
            Kind::Data => (other.stream, stream, port),
            Kind::Error => (stream, other.stream, port),
        }),
        // Two of a kind: the older one is reset by being dropped.
        _ => {
            let half = Half {
                stream,
                kind,
                deadline: Instant::now() + STREAM_CREATION_TIMEOUT,
            };
            waiting.insert(id, half);
            None
        }
    }
}

/// What the streams of a pair have in common. Old clients send none, and open data right after error.
fn request_id(stream: &Stream, kind: Kind) -> String {
    match (stream.headers.get("requestid"), kind) {
        (Some(id), _) => id.to_owned(),
        (None, Kind::Error) => stream.id.to_string(),
        (None, Kind::Data) => stream.id.saturating_sub(2).to_string(),
    }
}

async fn connection(pod: Arc<Pod>, mut error: Stream, data: Stream, port: u16) {
    let Stream {
        incoming,
        mut outgoing,
        reset,
        ..
    } = data;
    tokio::select! {
        () = pod.forward(port, incoming, &mut outgoing, &mut error.outgoing) => {}
        () = reset.cancelled() => {}
    }
}
