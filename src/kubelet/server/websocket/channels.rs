//! Several byte streams over one WebSocket: each message is a channel number and a piece of that channel's data
//! (upstream: `wsstream/conn.go`, the `channel.k8s.io` family of subprotocols).

use super::frame::{CloseCode, Sent, encode};
use super::{Piece, Receiver};
use crate::kubelet::server::mux::{self, Link, Outgoing};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The channel of v5 on which a peer half-closes another: its payload is the number of that one.
const CLOSE_CHANNEL: u8 = 255;

/// What the subprotocols differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelProtocol {
    /// Text messages, the channel as an ASCII digit, the data in base64.
    pub base64: bool,
    /// The client can half-close a channel (v5).
    pub half_close: bool,
}

/// The server's side of a connection. Dropping it ends the connection at once.
pub struct Channels {
    link: Link<Sent>,
    protocol: ChannelProtocol,
    _ends: DropGuard,
}

/// The way to the client on one channel. There is no half-close in this direction.
pub struct ChannelWriter {
    channel: u8,
    protocol: ChannelProtocol,
    link: Link<Sent>,
}

#[async_trait]
impl Outgoing for ChannelWriter {
    async fn send(&mut self, data: Bytes) -> io::Result<()> {
        let message = if self.protocol.base64 {
            let mut text = BytesMut::with_capacity(1 + data.len().div_ceil(3) * 4);
            text.put_u8(b'0'.wrapping_add(self.channel));
            text.put_slice(STANDARD.encode(&data).as_bytes());
            Sent::Message {
                text: true,
                payload: text.freeze(),
            }
        } else {
            Sent::Channel {
                channel: self.channel,
                payload: data,
            }
        };
        self.link.send(message).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channels {
    /// Speaks channels over an upgraded connection. `incoming` holds the queues of the channels that the client
    /// writes; messages on others are dropped. The two tasks are spawned on `tasks`; they end with the handle,
    /// with the client, after `idle_max` without traffic, and with `shutdown`.
    pub fn start<Io>(
        io: Io,
        protocol: ChannelProtocol,
        incoming: BTreeMap<u8, mpsc::Sender<Bytes>>,
        idle_max: Duration,
        shutdown: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Channels
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        let gone = shutdown.child_token();
        let (link, queues) = Link::new(gone.clone(), idle_max);
        let (read_half, write_half) = tokio::io::split(io);
        tasks.spawn(mux::write_frames(link.clone(), queues, write_half, |frame, output| {
            encode(&frame, output);
            true
        }));
        let dispatcher = Dispatcher {
            link: link.clone(),
            protocol,
            incoming,
            target: Target::Start,
            undecoded: BytesMut::new(),
        };
        tasks.spawn(dispatcher.run(Receiver::new(read_half, link.clone())));
        Channels {
            link,
            protocol,
            _ends: gone.drop_guard(),
        }
    }

    pub fn writer(&self, channel: u8) -> ChannelWriter {
        ChannelWriter {
            channel,
            protocol: self.protocol,
            link: self.link.clone(),
        }
    }

    /// Cancelled when the connection ends.
    pub fn gone(&self) -> CancellationToken {
        self.link.gone().clone()
    }

    /// Ends the connection in order, after everything that was sent.
    pub async fn close(self, code: CloseCode) {
        if self.link.send(Sent::Close(code)).await.is_ok() {
            self.link.close().await;
        }
    }
}

/// Where the pieces of the current message go.
enum Target {
    /// The channel byte has not arrived.
    Start,
    Channel(u8),
    HalfClose,
    Nowhere,
}

/// Sorts the client's messages into the queues.
struct Dispatcher {
    link: Link<Sent>,
    protocol: ChannelProtocol,
    incoming: BTreeMap<u8, mpsc::Sender<Bytes>>,
    target: Target,
    /// Base64 text of the current message that is no multiple of four characters yet.
    undecoded: BytesMut,
}

impl Dispatcher {
    async fn run<R: AsyncRead + Unpin>(mut self, mut receiver: Receiver<R>) {
        while let Some(piece) = receiver.next().await {
            if let Err(error) = self.dispatch(piece).await {
                tracing::debug!(%error, "a WebSocket message does not decode");
                receiver.close(CloseCode::ProtocolError).await;
            }
        }
        self.link.gone().cancel();
    }

    async fn dispatch(&mut self, piece: Piece) -> Result<(), base64::DecodeError> {
        let mut payload = piece.payload;
        if piece.start {
            self.target = Target::Start;
            self.undecoded.clear();
        }
        if matches!(self.target, Target::Start) && !payload.is_empty() {
            let first = payload.split_to(1)[0];
            self.target = self.target_of(first);
        }
        // Binary and text are one: Python's client sends what it was given.
        if self.protocol.base64 {
            payload = self.decode(&payload, piece.end)?;
        }
        if payload.is_empty() {
            return Ok(());
        }
        match self.target {
            Target::Channel(channel) => {
                if let Some(queue) = self.incoming.get(&channel)
                    && !self.link.deliver(queue, payload, || Sent::Ping).await
                {
                    self.incoming.remove(&channel);
                }
            }
            Target::HalfClose => {
                self.incoming.remove(&payload[0]);
                self.target = Target::Nowhere;
            }
            Target::Start | Target::Nowhere => {}
        }
        Ok(())
    }

    fn target_of(&self, first: u8) -> Target {
        let channel = if self.protocol.base64 {
            first.wrapping_sub(b'0')
        } else {
            first
        };
        match channel {
            CLOSE_CHANNEL if self.protocol.half_close => Target::HalfClose,
            channel if self.incoming.contains_key(&channel) => Target::Channel(channel),
            _ => Target::Nowhere,
        }
    }

    fn decode(&mut self, text: &[u8], end: bool) -> Result<Bytes, base64::DecodeError> {
        self.undecoded.extend_from_slice(text);
        let ready = if end {
            self.undecoded.len()
        } else {
            self.undecoded.len() / 4 * 4
        };
        let decoded = STANDARD.decode(&self.undecoded[..ready])?;
        drop(self.undecoded.split_to(ready));
        Ok(decoded.into())
    }
}
