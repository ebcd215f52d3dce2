//! WebSocket connections whose messages carry channels, or pieces of a byte stream (upstream:
//! `kubernetes/streaming/pkg/httpstream/wsstream`). Frames are decoded here rather than by poem, because a
//! session needs half-close, backpressure per channel, and messages larger than memory should hold.

mod channels;
mod frame;
mod tunnel;

pub use channels::{ChannelProtocol, Channels};
pub use frame::CloseCode;
pub use tunnel::tunnel;

use crate::kubelet::server::mux::Link;
use bytes::{Bytes, BytesMut};
use frame::{Decoder, Received, Sent, WebSocketError};
use tokio::io::AsyncRead;

/// A piece of a message.
struct Piece {
    text: bool,
    start: bool,
    end: bool,
    payload: Bytes,
}

/// The reading half of a connection: answers pings and the close, and hands out the rest.
struct Receiver<R> {
    io: R,
    link: Link<Sent>,
    buffer: BytesMut,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    fn new(io: R, link: Link<Sent>) -> Receiver<R> {
        Receiver {
            io,
            link,
            buffer: BytesMut::new(),
            decoder: Decoder::default(),
        }
    }

    /// The next piece; None when the peer has closed, failed, or sent what is no WebSocket.
    async fn next(&mut self) -> Option<Piece> {
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(Received::Data {
                    text,
                    start,
                    end,
                    payload,
                })) => {
                    return Some(Piece {
                        text,
                        start,
                        end,
                        payload,
                    });
                }
                Ok(Some(Received::Ping(payload))) => self.link.send_control(Sent::Pong(payload)).await.ok()?,
                Ok(Some(Received::Pong)) => {}
                Ok(Some(Received::Close)) => {
                    self.close(CloseCode::Normal).await;
                    return None;
                }
                Ok(None) => {
                    self.link.read(&mut self.io, &mut self.buffer).await?;
                }
                Err(error) => {
                    self.fail(&error).await;
                    return None;
                }
            }
        }
    }

    async fn fail(&mut self, error: &WebSocketError) {
        tracing::debug!(%error, "a WebSocket connection is given up");
        self.close(CloseCode::ProtocolError).await;
    }

    /// Says goodbye and reads on until the peer has closed as well.
    async fn close(&mut self, code: CloseCode) {
        if self.link.send(Sent::Close(code)).await.is_err() {
            return;
        }
        let link = self.link.clone();
        let rest = async {
            let mut rest = BytesMut::new();
            while self.link.read(&mut self.io, &mut rest).await.is_some() {
                rest.clear();
            }
            self.link.gone().cancel();
        };
        tokio::join!(link.close(), rest);
    }
}
