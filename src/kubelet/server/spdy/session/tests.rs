//! The session against a client written by hand.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
}

fn start() -> (Client, Session) {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let idle_max = Duration::from_secs(60);
    let session = Session::start(far, idle_max, &CancellationToken::new(), &TaskTracker::new());
    let client = Client {
        io: near,
        encoder: Encoder::default(),
        decoder: Decoder::default(),
        buffer: BytesMut::new(),
    };
    (client, session)
}

impl Client {
    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, stream: u32) {
        let headers = [("streamType".to_owned(), "data".to_owned())].into_iter().collect();
        self.send(Frame::SynStream {
            stream,
            fin: false,
            headers,
        })
        .await;
    }

    /// None at the end of the connection.
    async fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

#[tokio::test]
async fn streams_carry_data_and_their_ends_both_ways() {
    let (mut client, mut session) = start();
    client.open(1).await;
    let mut stream = session.accept().await.unwrap();
    assert_eq!(stream.headers.get("streamtype"), Some("data"));
    stream.accept().await.unwrap();
    assert!(matches!(
        client.receive().await,
        Some(Frame::SynReply { stream: 1, .. })
    ));
    let payload = Bytes::from_static(b"ping");
    client
        .send(Frame::Data {
            stream: 1,
            fin: true,
            payload: payload.clone(),
        })
        .await;
    assert_eq!(stream.incoming.recv().await, Some(payload.clone()));
    assert_eq!(stream.incoming.recv().await, None);
    stream.outgoing.send(payload.clone()).await.unwrap();
    stream.outgoing.finish().await.unwrap();
    let data = |payload, fin| {
        Some(Frame::Data {
            stream: 1,
            fin,
            payload,
        })
    };
    assert_eq!(client.receive().await, data(payload, false));
    assert_eq!(client.receive().await, data(Bytes::new(), true));
    let closing = tokio::spawn(session.close());
    assert_eq!(client.receive().await, None);
    drop(client);
    closing.await.unwrap();
}

#[tokio::test]
async fn a_dropped_stream_is_reset_and_a_reset_is_told() {
    let (mut client, mut session) = start();
    client.open(1).await;
    drop(session.accept().await.unwrap());
    let cancel = Frame::RstStream {
        stream: 1,
        status: ResetReason::Cancel as u32,
    };
    assert_eq!(client.receive().await, Some(cancel));
    client.open(3).await;
    let mut stream = session.accept().await.unwrap();
    client.send(Frame::RstStream { stream: 3, status: 5 }).await;
    stream.reset.cancelled().await;
    assert_eq!(stream.incoming.recv().await, None);
    assert!(stream.outgoing.finish().await.is_ok());
}

#[tokio::test]
async fn pings_are_echoed_and_what_is_consumed_is_given_back() {
    let (mut client, mut session) = start();
    client.send(Frame::Ping { id: 7 }).await;
    assert_eq!(client.receive().await, Some(Frame::Ping { id: 7 }));
    client.open(1).await;
    let _stream = session.accept().await.unwrap();
    let payload = Bytes::from(vec![0; WINDOW_UPDATE_BYTES_MIN as usize]);
    client
        .send(Frame::Data {
            stream: 1,
            fin: false,
            payload,
        })
        .await;
    for expected in [1, 0] {
        let update = Frame::WindowUpdate {
            stream: expected,
            delta: WINDOW_UPDATE_BYTES_MIN,
        };
        assert_eq!(client.receive().await, Some(update));
    }
}

#[tokio::test]
async fn an_announced_window_is_kept() {
    let (mut client, mut session) = start();
    client
        .send(Frame::Settings {
            initial_window: Some(10),
        })
        .await;
    client.open(1).await;
    let mut stream = session.accept().await.unwrap();
    let sending = tokio::spawn(async move {
        stream
            .outgoing
            .send(Bytes::from_static(b"0123456789abcdef"))
            .await
            .unwrap();
        stream
    });
    let piece = |payload: &'static [u8]| {
        Some(Frame::Data {
            stream: 1,
            fin: false,
            payload: Bytes::from_static(payload),
        })
    };
    assert_eq!(client.receive().await, piece(b"0123456789"));
    assert!(!sending.is_finished());
    client.send(Frame::WindowUpdate { stream: 1, delta: 10 }).await;
    assert_eq!(client.receive().await, piece(b"abcdef"));
    sending.await.unwrap();
}

#[tokio::test]
async fn streams_out_of_order_end_the_connection() {
    for id in [2, 0, 3] {
        let (mut client, mut session) = start();
        client.open(3).await;
        let _stream = session.accept().await.unwrap();
        client.open(id).await;
        session.gone().cancelled().await;
        assert!(session.accept().await.is_none());
    }
}

#[tokio::test]
async fn data_of_a_stream_that_never_was_is_refused() {
    let (mut client, _session) = start();
    let payload = Bytes::from_static(b"x");
    client
        .send(Frame::Data {
            stream: 9,
            fin: false,
            payload,
        })
        .await;
    let invalid = Frame::RstStream {
        stream: 9,
        status: ResetReason::InvalidStream as u32,
    };
    assert_eq!(client.receive().await, Some(invalid));
}
