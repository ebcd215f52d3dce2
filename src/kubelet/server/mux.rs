//! What the multiplexing transports (SPDY, WebSocket channels) have in common: a writer task in front of the
//! connection, delivery into bounded queues, idle time and the orderly end.
//!
//! A connection is two tasks. The reader never waits for the peer to read: answers to the peer's own frames go
//! through a queue of their own, before data.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Largest piece of data that is read, queued and written as one.
pub const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Pieces queued towards the peer, and towards each reader of a stream.
pub const QUEUE_PIECES_MAX: usize = 8;
const CONTROL_FRAMES_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// While a reader of a stream does not take its data, the connection is not read, and only a write can tell
/// that the peer is gone. The first write to a peer that is gone makes its host say so, the second fails.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// How long the peer may take to close after everything has been said.
const LINGER: Duration = Duration::from_secs(5);

/// The bytes of one stream from the peer; ends when the peer half-closes the stream or is gone.
pub type Incoming = mpsc::Receiver<Bytes>;

/// One stream to the peer.
#[async_trait]
pub trait Outgoing: Send {
    /// Queues a piece of at most [`PIECE_BYTES_MAX`]; waits while the queue is full. Errors when the peer is gone.
    async fn send(&mut self, data: Bytes) -> io::Result<()>;
    /// Tells the peer that no more follows. What was sent before arrives.
    async fn finish(&mut self) -> io::Result<()>;
}

/// Makes room for the next read. Pieces handed out keep the old memory, so room is made in large steps.
pub fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < PIECE_BYTES_MAX / 8 {
        buffer.reserve(PIECE_BYTES_MAX);
    }
}

enum Outbound<F> {
    Frame(F),
    Shutdown,
}

/// The handle of a connection that its streams and tasks share.
pub struct Link<F> {
    data: mpsc::Sender<Outbound<F>>,
    control: mpsc::Sender<F>,
    gone: CancellationToken,
    activity: Activity,
    probe_interval: Duration,
}

impl<F> Clone for Link<F> {
    fn clone(&self) -> Link<F> {
        Link {
            data: self.data.clone(),
            control: self.control.clone(),
            gone: self.gone.clone(),
            activity: self.activity.clone(),
            probe_interval: self.probe_interval,
        }
    }
}

/// The ends of a link's queues, for [`write_frames`].
pub struct Queues<F> {
    data: mpsc::Receiver<Outbound<F>>,
    control: mpsc::Receiver<F>,
}

/// When something last went over the connection, and for how long nothing may.
#[derive(Clone)]
struct Activity {
    last: Arc<Mutex<Instant>>,
    idle_max: Duration,
}

impl Activity {
    fn touch(&self) {
        *self.last.lock() = Instant::now();
    }

    fn deadline(&self) -> Instant {
        *self.last.lock() + self.idle_max
    }
}

fn gone_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the client is gone")
}

impl<F: Send + 'static> Link<F> {
    /// `gone` is cancelled when the connection ends, and cancelling it ends the connection.
    pub fn new(gone: CancellationToken, idle_max: Duration) -> (Link<F>, Queues<F>) {
        let (data, data_queue) = mpsc::channel(QUEUE_PIECES_MAX);
        let (control, control_queue) = mpsc::channel(CONTROL_FRAMES_MAX);
        let activity = Activity {
            last: Arc::new(Mutex::new(Instant::now())),
            idle_max,
        };
        let link = Link {
            data,
            control,
            gone,
            activity,
            probe_interval: PROBE_INTERVAL,
        };
        let queues = Queues {
            data: data_queue,
            control: control_queue,
        };
        (link, queues)
    }

    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Queues a data frame, in order.
    pub async fn send(&self, frame: F) -> io::Result<()> {
        self.queue(Outbound::Frame(frame)).await
    }

    async fn queue(&self, item: Outbound<F>) -> io::Result<()> {
        tokio::select! {
            sent = self.data.send(item) => sent.map_err(|_| gone_error()),
            () = self.gone.cancelled() => Err(gone_error()),
        }
    }

    /// Queues a frame that may overtake data.
    pub async fn send_control(&self, frame: F) -> io::Result<()> {
        tokio::select! {
            sent = self.control.send(frame) => sent.map_err(|_| gone_error()),
            () = self.gone.cancelled() => Err(gone_error()),
        }
    }

    /// Queues a frame that may overtake data, if there is room; for use where nothing can wait.
    pub fn try_send_control(&self, frame: F) {
        // Full: the peer does not read what it caused; closed: it is gone.
        let _ = self.control.try_send(frame);
    }

    /// Ends the connection in order: everything queued is written and the write side shut down, then the peer
    /// has some time to close its own. (A close with unread bytes would reset the connection, and the peer
    /// could lose the last frames.)
    pub async fn close(&self) {
        if self.queue(Outbound::Shutdown).await.is_ok() {
            let _closed_or_late = tokio::time::timeout(LINGER, self.gone.cancelled()).await;
        }
        self.gone.cancel();
    }

    /// Reads some bytes into `buffer`. None at the peer's end, on errors, after the idle time, and when the
    /// connection is given up.
    pub async fn read<R: AsyncRead + Unpin>(&self, io: &mut R, buffer: &mut BytesMut) -> Option<usize> {
        make_room(buffer);
        loop {
            let idle_until = self.activity.deadline();
            tokio::select! {
                read = io.read_buf(buffer) => {
                    self.activity.touch();
                    return read.ok().filter(|bytes| *bytes > 0);
                }
                () = tokio::time::sleep_until(idle_until) => {
                    // Writes count as well, and they may have happened meanwhile.
                    if self.activity.deadline() <= Instant::now() {
                        return None;
                    }
                }
                () = self.gone.cancelled() => return None,
            }
        }
    }

    /// Hands a piece to the reader of a stream, waiting while its queue is full. `probe` is a frame that any
    /// peer answers or ignores. False when the stream has no reader any more.
    pub async fn deliver(&self, to: &mpsc::Sender<Bytes>, piece: Bytes, probe: impl Fn() -> F) -> bool {
        loop {
            tokio::select! {
                permit = to.reserve() => {
                    return match permit {
                        Ok(permit) => {
                            permit.send(piece);
                            true
                        }
                        Err(_) => false,
                    };
                }
                () = tokio::time::sleep(self.probe_interval) => self.try_send_control(probe()),
                () = self.gone.cancelled() => return false,
            }
        }
    }
}

/// The writer task of a connection: encodes and writes what is queued, many frames per write. Ends after
/// [`Link::close`], on errors, and when the connection is given up.
pub async fn write_frames<F, W, E>(link: Link<F>, mut queues: Queues<F>, mut io: W, mut encode: E)
where
    F: Send + 'static,
    W: AsyncWrite + Unpin,
    E: FnMut(F, &mut BytesMut) -> bool,
{
    let mut batch = BytesMut::new();
    let mut more = true;
    while more {
        let mut next = tokio::select! {
            biased;
            Some(frame) = queues.control.recv() => Some(Outbound::Frame(frame)),
            item = queues.data.recv() => item,
            () = link.gone.cancelled() => None,
        };
        loop {
            match next {
                Some(Outbound::Frame(frame)) => more &= encode(frame, &mut batch),
                Some(Outbound::Shutdown) => more = false,
                None => break,
            }
            if !more || batch.len() >= BATCH_BYTES_MAX {
                break;
            }
            next = match queues.control.try_recv() {
                Ok(frame) => Some(Outbound::Frame(frame)),
                Err(_) => queues.data.try_recv().ok(),
            };
        }
        more &= !batch.is_empty();
        let written = async {
            io.write_all(&batch).await?;
            io.flush().await
        };
        tokio::select! {
            result = written => if result.is_err() {
                link.gone.cancel();
                return;
            },
            () = link.gone.cancelled() => return,
        }
        link.activity.touch();
        batch.clear();
        // One large frame must not keep its memory for hours of an idle shell.
        if batch.capacity() > 2 * BATCH_BYTES_MAX {
            batch = BytesMut::new();
        }
    }
    let shut_down = tokio::time::timeout(LINGER, io.shutdown()).await;
    if !matches!(shut_down, Ok(Ok(()))) {
        link.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(frame: &'static [u8], output: &mut BytesMut) -> bool {
        output.extend_from_slice(frame);
        true
    }

    #[tokio::test]
    async fn an_idle_connection_is_given_up() {
        let idle_max = Duration::from_millis(50);
        let (link, _queues) = Link::<&[u8]>::new(CancellationToken::new(), idle_max);
        let (_peer, mut io) = tokio::io::duplex(64);
        let started = Instant::now();
        assert_eq!(link.read(&mut io, &mut BytesMut::new()).await, None);
        assert!(started.elapsed() >= idle_max);
    }

    #[tokio::test]
    async fn close_writes_what_is_queued_and_waits_for_the_peer() {
        let (link, queues) = Link::new(CancellationToken::new(), Duration::from_secs(60));
        let (mut peer, io) = tokio::io::duplex(64);
        let (mut read_half, write_half) = tokio::io::split(io);
        tokio::spawn(write_frames(link.clone(), queues, write_half, encode));
        let reader = link.clone();
        tokio::spawn(async move {
            while reader.read(&mut read_half, &mut BytesMut::new()).await.is_some() {}
            reader.gone().cancel();
        });
        link.send(b"one ").await.unwrap();
        link.send(b"two").await.unwrap();
        let closing = tokio::spawn(async move { link.close().await });
        let mut received = String::new();
        peer.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "one two");
        assert!(!closing.is_finished());
        drop(peer);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_vanishes_while_nobody_reads_its_data_is_noticed() {
        let (mut link, queues) = Link::new(CancellationToken::new(), Duration::from_secs(3600));
        link.probe_interval = Duration::from_millis(20);
        let (peer, io) = tokio::io::duplex(64);
        let (_read_half, write_half) = tokio::io::split(io);
        tokio::spawn(write_frames(link.clone(), queues, write_half, encode));
        let (to, _reader) = mpsc::channel(1);
        assert!(link.deliver(&to, Bytes::from_static(b"taken"), || b"ping").await);
        drop(peer);
        assert!(!link.deliver(&to, Bytes::from_static(b"stuck"), || b"ping").await);
    }
}
