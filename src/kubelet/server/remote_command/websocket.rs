//! Sessions over WebSocket channels (upstream: `remotecommand/websocket.go`).

use super::{Session, StatusFormat, Streams};
use crate::kubelet::server::Server;
use crate::kubelet::server::mux::{Incoming, Outgoing, QUEUE_PIECES_MAX};
use crate::kubelet::server::websocket::{ChannelProtocol, Channels, CloseCode};
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The subprotocols, "" being a client that names none.
pub const PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// What is special about a subprotocol.
fn features(protocol: &str) -> (ChannelProtocol, StatusFormat) {
    let channels = ChannelProtocol {
        base64: protocol.contains("base64"),
        half_close: protocol.starts_with("v5."),
    };
    let status = if protocol.starts_with('v') {
        StatusFormat::Json
    } else {
        StatusFormat::Text
    };
    (channels, status)
}

pub async fn serve<Io>(server: &Server, io: Io, protocol: &str, session: Session)
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let (protocol, status_format) = features(protocol);
    let mut queues = BTreeMap::new();
    let mut incoming = |channel, wanted: bool| -> Option<Incoming> {
        let (sender, receiver) = mpsc::channel(QUEUE_PIECES_MAX);
        wanted.then(|| {
            queues.insert(channel, sender);
            receiver
        })
    };
    let exec = &session.exec;
    let stdin = incoming(STDIN, exec.stdin);
    let resize = incoming(RESIZE, exec.tty);
    let channels = Channels::start(
        io,
        protocol,
        queues,
        server.options.idle_max,
        // At shutdown the client is told so first.
        &CancellationToken::new(),
        &server.tasks,
    );
    let writer = |channel, wanted: bool| wanted.then(|| Box::new(channels.writer(channel)) as Box<dyn Outgoing>);
    let mut streams = Streams {
        stdin,
        stdout: writer(STDOUT, exec.stdout),
        stderr: writer(STDERR, exec.stderr),
        error: Box::new(channels.writer(ERROR)),
        resize,
        status_format,
        gone: channels.gone(),
    };
    // An empty message tells clients that the session stands; some wait for it.
    let first = match (&mut streams.stdout, &mut streams.stderr) {
        (Some(stdout), _) => stdout,
        (None, Some(stderr)) => stderr,
        (None, None) => &mut streams.error,
    };
    if first.send(Bytes::new()).await.is_err() {
        return;
    }
    session.run(server, streams).await;
    channels.close(CloseCode::Normal).await;
}
