//! A SPDY connection and its streams, opened by the peer.

use super::SpdyError;
use super::flow::{ConnectionWindow, StreamWindow};
use super::frame::{Decoder, Encoder, Frame, ResetReason};
use super::headers::Headers;
use crate::kubelet::server::mux::{self, Incoming, Link, Outgoing, QUEUE_PIECES_MAX};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Open streams of one connection; two per forwarded connection.
const STREAMS_MAX: usize = 2048;
/// Streams that are open but not yet taken by [`Session::accept`].
const ACCEPT_QUEUE_MAX: usize = 64;
/// The peer's window is given back in steps of a quarter of its initial size.
const WINDOW_UPDATE_BYTES_MIN: u32 = 16 * 1024;
/// A ping of ours, told apart from the peer's by its even number.
const PROBE_PING: u32 = 2;

/// The server's side of a connection. Dropping it ends the connection at once.
pub struct Session {
    streams: mpsc::Receiver<Stream>,
    link: Link<Frame>,
    _ends: DropGuard,
}

/// A stream that the peer opened; it waits for [`Stream::accept`] or [`Stream::refuse`].
pub struct Stream {
    pub id: u32,
    pub headers: Headers,
    pub incoming: Incoming,
    pub outgoing: StreamWriter,
    /// Cancelled when the peer resets the stream, and when it is gone.
    pub reset: CancellationToken,
}

impl Stream {
    /// Answers the opening.
    pub async fn accept(&self) -> io::Result<()> {
        let reply = Frame::SynReply {
            stream: self.id,
            fin: false,
            headers: Headers::default(),
        };
        self.outgoing.link.send_control(reply).await
    }

    /// Resets the stream.
    pub fn refuse(self, reason: ResetReason) {
        self.outgoing.abort(reason);
    }
}

/// The way to the peer on one stream. Dropping it before [`Outgoing::finish`] resets the stream.
pub struct StreamWriter {
    id: u32,
    link: Link<Frame>,
    table: Table,
    window: Arc<StreamWindow>,
    reset: CancellationToken,
    finished: bool,
}

#[async_trait]
impl Outgoing for StreamWriter {
    async fn send(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let length = tokio::select! {
                length = self.window.take(data.len()) => length,
                () = self.reset.cancelled() => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the stream was reset"));
                }
            };
            let piece = Frame::Data {
                stream: self.id,
                fin: false,
                payload: data.split_to(length),
            };
            self.link.send(piece).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        if self.finished {
            return Ok(());
        }
        self.finished = true;
        self.table.local_end(self.id);
        let end = Frame::Data {
            stream: self.id,
            fin: true,
            payload: Bytes::new(),
        };
        self.link.send(end).await
    }
}

impl StreamWriter {
    fn abort(mut self, reason: ResetReason) {
        self.reset_stream(reason);
    }

    fn reset_stream(&mut self, reason: ResetReason) {
        if !self.finished {
            self.finished = true;
            self.table.remove(self.id);
            self.link.try_send_control(Frame::RstStream {
                stream: self.id,
                status: reason as u32,
            });
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.reset_stream(ResetReason::Cancel);
    }
}

/// The open streams, shared by the reader task and the writers.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<HashMap<u32, Entry>>>);

struct Entry {
    /// None once the peer has half-closed.
    incoming: Option<mpsc::Sender<Bytes>>,
    local_ended: bool,
    /// Bytes taken from the peer since the last update of the stream's window.
    received: u32,
    window: Arc<StreamWindow>,
    reset: CancellationToken,
}

impl Table {
    fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn insert(&self, id: u32, entry: Entry) {
        self.0.lock().insert(id, entry);
    }

    fn remove(&self, id: u32) -> Option<Entry> {
        self.0.lock().remove(&id)
    }

    fn incoming(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        self.0.lock().get(&id)?.incoming.clone()
    }

    fn window(&self, id: u32) -> Option<Arc<StreamWindow>> {
        Some(self.0.lock().get(&id)?.window.clone())
    }

    /// Counts bytes taken; when there are enough of them, how many to give back to the peer's window.
    fn received(&self, id: u32, length: u32) -> Option<u32> {
        let mut table = self.0.lock();
        let entry = table.get_mut(&id)?;
        entry.received += length;
        (entry.received >= WINDOW_UPDATE_BYTES_MIN).then(|| std::mem::take(&mut entry.received))
    }

    fn local_end(&self, id: u32) {
        self.end(id, |entry| entry.local_ended = true);
    }

    fn peer_end(&self, id: u32) {
        self.end(id, |entry| entry.incoming = None);
    }

    fn end(&self, id: u32, change: impl FnOnce(&mut Entry)) {
        let mut table = self.0.lock();
        if let Some(entry) = table.get_mut(&id) {
            change(entry);
            if entry.local_ended && entry.incoming.is_none() {
                table.remove(&id);
            }
        }
    }
}

impl Session {
    /// Speaks SPDY over an upgraded connection. The two tasks of the connection are spawned on `tasks`; they
    /// end with the session, with the peer, after `idle_max` without traffic, and with `shutdown`.
    pub fn start<Io>(io: Io, idle_max: Duration, shutdown: &CancellationToken, tasks: &TaskTracker) -> Session
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        let gone = shutdown.child_token();
        let (link, queues) = Link::new(gone.clone(), idle_max);
        let (read_half, write_half) = tokio::io::split(io);
        let mut encoder = Encoder::default();
        tasks.spawn(mux::write_frames(
            link.clone(),
            queues,
            write_half,
            move |frame, output| encoder.encode(&frame, output).is_ok(),
        ));
        let (opened, streams) = mpsc::channel(ACCEPT_QUEUE_MAX);
        let reader = Reader {
            link: link.clone(),
            table: Table::default(),
            window: Arc::default(),
            opened,
            last_opened: 0,
            received: 0,
        };
        tasks.spawn(reader.run(read_half));
        Session {
            streams,
            link,
            _ends: gone.drop_guard(),
        }
    }

    /// The next stream that the peer opens; None when it is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Cancelled when the connection ends.
    pub fn gone(&self) -> CancellationToken {
        self.link.gone().clone()
    }

    /// Ends the connection in order; the streams should have been finished.
    pub async fn close(self) {
        self.link.close().await;
    }
}

struct Reader {
    link: Link<Frame>,
    table: Table,
    window: Arc<ConnectionWindow>,
    opened: mpsc::Sender<Stream>,
    last_opened: u32,
    /// Bytes taken from the peer since the last update of the connection's window.
    received: u32,
}

impl Reader {
    async fn run<R: AsyncRead + Unpin>(mut self, mut io: R) {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        'connection: while self.link.read(&mut io, &mut buffer).await.is_some() {
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if let Err(error) = self.handle(frame).await {
                            tracing::debug!(%error, "a SPDY connection is given up");
                            break 'connection;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a SPDY connection is given up");
                        break 'connection;
                    }
                }
            }
        }
        self.link.gone().cancel();
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { stream, fin, headers } => self.open(stream, fin, headers).await?,
            Frame::Data { stream, fin, payload } => self.data(stream, fin, payload).await,
            Frame::Headers { stream, fin } => {
                if fin {
                    self.table.peer_end(stream);
                }
            }
            Frame::RstStream { stream, .. } => {
                if let Some(entry) = self.table.remove(stream) {
                    entry.reset.cancel();
                }
            }
            Frame::Ping { id } => {
                if id % 2 == 1 {
                    self.reply(Frame::Ping { id }).await;
                }
            }
            Frame::Settings { initial_window } => {
                if let Some(bytes) = initial_window {
                    self.window.announce(bytes);
                }
            }
            Frame::WindowUpdate { stream: 0, delta } => self.window.give_back(delta),
            Frame::WindowUpdate { stream, delta } => {
                if let Some(window) = self.table.window(stream) {
                    window.give_back(delta);
                }
            }
            // The peer closes the connection itself when its streams have ended; replies are to streams of
            // ours, and there are none.
            Frame::GoAway { .. } | Frame::SynReply { .. } => {}
        }
        Ok(())
    }

    /// A failure means that the connection is gone, which the next read will find.
    async fn reply(&self, frame: Frame) {
        let _gone = self.link.send_control(frame).await;
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Result<(), SpdyError> {
        if id.is_multiple_of(2) || id <= self.last_opened {
            return Err(SpdyError::StreamOrder(id));
        }
        self.last_opened = id;
        if self.table.len() >= STREAMS_MAX {
            let refused = Frame::RstStream {
                stream: id,
                status: ResetReason::RefusedStream as u32,
            };
            self.reply(refused).await;
            return Ok(());
        }
        let (sender, incoming) = mpsc::channel(QUEUE_PIECES_MAX);
        let window = Arc::new(StreamWindow::new(self.window.clone()));
        let reset = self.link.gone().child_token();
        self.table.insert(
            id,
            Entry {
                incoming: (!fin).then_some(sender),
                local_ended: false,
                received: 0,
                window: window.clone(),
                reset: reset.clone(),
            },
        );
        let outgoing = StreamWriter {
            id,
            link: self.link.clone(),
            table: self.table.clone(),
            window,
            reset: reset.clone(),
            finished: false,
        };
        let stream = Stream {
            id,
            headers,
            incoming,
            outgoing,
            reset,
        };
        // When nobody accepts streams (any more), the dropped stream resets itself.
        let _not_taken = self.opened.try_send(stream);
        Ok(())
    }

    async fn data(&mut self, id: u32, fin: bool, payload: Bytes) {
        if id == 0 || id > self.last_opened {
            let invalid = Frame::RstStream {
                stream: id,
                status: ResetReason::InvalidStream as u32,
            };
            return self.reply(invalid).await;
        }
        let length = payload.len() as u32;
        if length > 0 {
            // Data of a stream that has ended on this side is read and dropped.
            if let Some(incoming) = self.table.incoming(id) {
                let probe = || Frame::Ping { id: PROBE_PING };
                self.link.deliver(&incoming, payload, probe).await;
                if let Some(delta) = self.table.received(id, length) {
                    self.reply(Frame::WindowUpdate { stream: id, delta }).await;
                }
            }
            self.received += length;
            if self.received >= WINDOW_UPDATE_BYTES_MIN {
                let delta = std::mem::take(&mut self.received);
                self.reply(Frame::WindowUpdate { stream: 0, delta }).await;
            }
        }
        if fin {
            self.table.peer_end(id);
        }
    }
}

#[cfg(test)]
mod tests;
