//! Sessions over SPDY streams (upstream: `remotecommand/httpstream.go`).

use super::{Session, StatusFormat, Streams};
use crate::kubelet::server::Server;
use crate::kubelet::server::mux::Outgoing;
use crate::kubelet::server::spdy;
use crate::kubelet::server::spdy::{ResetReason, Stream};
use crate::runtime::ExecRequest;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub const PROTOCOLS: &[&str] = &[
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// Upstream's default: by then the client must have opened its streams.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

pub async fn serve<Io>(server: &Server, io: Io, protocol: &str, session: Session)
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    // At shutdown the client is told so first, hence a token of its own.
    let never = CancellationToken::new();
    let mut connection = spdy::Session::start(io, server.options.idle_max, &never, &server.tasks);
    let resizes = session.exec.tty && matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let collecting = collect(&mut connection, &session.exec, resizes);
    let opened = tokio::select! {
        opened = tokio::time::timeout(STREAM_CREATION_TIMEOUT, collecting) => opened,
        () = server.shutdown.cancelled() => return,
    };
    let mut opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client left before it had opened its streams");
            return;
        }
        Err(_) => {
            tracing::debug!("a client did not open the streams of its session in time");
            return;
        }
    };
    let Some(error) = opened.remove("error") else {
        return; // not reached: the error stream is among those collected
    };
    let mut output = |name| {
        opened
            .remove(name)
            .map(|stream: Stream| Box::new(stream.outgoing) as Box<dyn Outgoing>)
    };
    let (stdout, stderr) = (output("stdout"), output("stderr"));
    // The other halves are kept open to the end: a dropped one would reset the stream.
    let mut kept = Vec::new();
    let mut input = |name| {
        opened.remove(name).map(|stream: Stream| {
            kept.push(stream.outgoing);
            stream.incoming
        })
    };
    let streams = Streams {
        stdin: input("stdin"),
        resize: input("resize"),
        stdout,
        stderr,
        error: Box::new(error.outgoing),
        status_format: if protocol == "v4.channel.k8s.io" {
            StatusFormat::Json
        } else {
            StatusFormat::Text
        },
        gone: connection.gone(),
    };
    session.run(server, streams).await;
    for mut half in kept {
        if half.finish().await.is_err() {
            return;
        }
    }
    connection.close().await;
}

/// Takes the streams that the session consists of, in any order.
async fn collect(
    connection: &mut spdy::Session,
    exec: &ExecRequest,
    resizes: bool,
) -> io::Result<HashMap<&'static str, Stream>> {
    let mut missing = vec!["error"];
    missing.extend(exec.stdin.then_some("stdin"));
    missing.extend(exec.stdout.then_some("stdout"));
    missing.extend(exec.stderr.then_some("stderr"));
    missing.extend(resizes.then_some("resize"));
    let mut streams = HashMap::new();
    while !missing.is_empty() {
        let Some(stream) = connection.accept().await else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let wanted = stream.headers.get("streamtype");
        let Some(position) = missing.iter().position(|name| Some(*name) == wanted) else {
            stream.refuse(ResetReason::ProtocolError);
            continue;
        };
        stream.accept().await?;
        streams.insert(missing.swap_remove(position), stream);
    }
    Ok(streams)
}
