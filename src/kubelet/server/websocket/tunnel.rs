//! A byte stream carried in binary WebSocket messages: how newer clients take SPDY through proxies that only
//! know WebSocket (upstream: `client-go/tools/portforward/tunneling_connection.go`).

use super::Receiver;
use super::frame::{CloseCode, Sent, encode};
use crate::kubelet::server::mux::{self, Link, PIECE_BYTES_MAX, make_room};
use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Unwraps an upgraded WebSocket connection; the result is the stream inside. Its end closes the WebSocket in
/// order, and the client's close ends it.
pub fn tunnel<Io>(io: Io, idle_max: Duration, shutdown: &CancellationToken, tasks: &TaskTracker) -> DuplexStream
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let (link, queues) = Link::new(shutdown.child_token(), idle_max);
    let (read_half, write_half) = tokio::io::split(io);
    let (inner, outer) = tokio::io::duplex(2 * PIECE_BYTES_MAX);
    let (from_inner, to_inner) = tokio::io::split(outer);
    tasks.spawn(mux::write_frames(link.clone(), queues, write_half, |frame, output| {
        encode(&frame, output);
        true
    }));
    tasks.spawn(unwrap(Receiver::new(read_half, link.clone()), to_inner));
    tasks.spawn(wrap(from_inner, link));
    inner
}

async fn unwrap<R: AsyncRead + Unpin>(mut receiver: Receiver<R>, mut to: WriteHalf<DuplexStream>) {
    while let Some(piece) = receiver.next().await {
        if piece.text {
            receiver.close(CloseCode::ProtocolError).await;
            break;
        }
        let gone = receiver.link.gone().clone();
        let written = tokio::select! {
            written = to.write_all(&piece.payload) => written.is_ok(),
            () = gone.cancelled() => break,
        };
        if !written {
            // The stream inside has ended; `wrap` closes in order, which needs the client's answer read.
            while receiver.next().await.is_some() {}
            break;
        }
    }
    receiver.link.gone().cancel();
    // An error means that the other end has been dropped, which is an end as well.
    let _ended = to.shutdown().await;
}

async fn wrap(mut from: ReadHalf<DuplexStream>, link: Link<Sent>) {
    let mut buffer = BytesMut::new();
    loop {
        make_room(&mut buffer);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read,
            () = link.gone().cancelled() => return,
        };
        if !matches!(read, Ok(bytes) if bytes > 0) {
            break;
        }
        let payload = buffer.split().freeze();
        if link.send(Sent::Message { text: false, payload }).await.is_err() {
            return;
        }
    }
    if link.send(Sent::Close(CloseCode::Normal)).await.is_ok() {
        link.close().await;
    }
}
