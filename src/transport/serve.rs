//! The accept loop: TLS and plain HTTP on one port, told apart by the first byte, in front of a poem endpoint
//! (upstream: `apiserver/pkg/server/secure_serving.go`). Our own instead of `poem::Server`, for the peer's
//! certificate, the timeouts, TCP_NODELAY and the first-byte switch.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::uri::Scheme;
use http::{StatusCode, header};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Body, Endpoint, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Peer;
use super::pki::ServerTls;
use super::plain;
use super::socket::prepare;

/// The first byte of a TLS record of type handshake (RFC 8446, 5.1). No HTTP request starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What to do with a peer that speaks plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Tell it to use TLS.
    Refuse,
    /// Serve processes of root and of our own user on this machine, as [`Peer::TrustedLoopback`]; see [`plain`].
    TrustedLoopback,
}

/// Limits of an accept loop.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// For logs: which of our servers this is.
    pub name: &'static str,
    pub plain_http: PlainHttp,
    /// Further connections wait in the kernel's backlog.
    pub connections_max: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// For the head of a request; also how long an idle HTTP/1.1 connection is kept.
    pub header_timeout: Duration,
    /// How long requests may take to end after shutdown began. What is left is cut.
    pub drain_timeout: Duration,
}

impl ServeOptions {
    pub fn new(name: &'static str, plain_http: PlainHttp) -> ServeOptions {
        ServeOptions {
            name,
            plain_http,
            connections_max: 20_000,
            handshake_timeout: Duration::from_secs(10),
            // Go's clients keep idle connections for 90 s; closing earlier than they do makes races.
            header_timeout: Duration::from_secs(100),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves `endpoint` on `listener` until `shutdown`, then drains: no new connections, HTTP/2 GOAWAY, requests under
/// way end within `drain_timeout`. Every request carries a [`Peer`] in its extensions.
pub async fn serve<E>(
    listener: TcpListener,
    tls: ServerTls,
    endpoint: Arc<E>,
    options: ServeOptions,
    shutdown: CancellationToken,
) where
    E: Endpoint + 'static,
{
    let server = Arc::new(Server {
        tls,
        endpoint,
        http: http_builder(&options),
        options,
        shutdown,
        cut: CancellationToken::new(),
    });
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(server.options.connections_max));
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = server.shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let server = server.clone();
                connections.spawn(async move {
                    let cut = server.cut.clone();
                    tokio::select! {
                        () = server.connection(stream, peer) => {}
                        () = cut.cancelled() => {}
                    }
                    drop(slot);
                });
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::error!(server = server.options.name, %error, "cannot accept connections, trying again");
                // Out of file descriptors or memory: only time helps.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(server.options.drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(
            server = server.options.name,
            connections = connections.len(),
            "cutting connections that did not drain"
        );
        server.cut.cancel();
        connections.wait().await;
    }
}

/// An error of the connection that was to be accepted, not of the listener.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn http_builder(options: &ServeOptions) -> auto::Builder<TokioExecutor> {
    const MIB: u32 = 1024 * 1024;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        // Upstream's default is 250 (`--http2-max-streams-per-connection`); one client watches many kinds.
        .max_concurrent_streams(1000)
        .initial_stream_window_size(MIB)
        .initial_connection_window_size(4 * MIB)
        .max_frame_size(64 * 1024)
        .max_send_buf_size(MIB as usize)
        .max_header_list_size(64 * 1024)
        // A peer that vanished without a word would hold its watches for ever.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Server<E> {
    tls: ServerTls,
    endpoint: Arc<E>,
    http: auto::Builder<TokioExecutor>,
    options: ServeOptions,
    shutdown: CancellationToken,
    /// Ends connections that did not drain in time.
    cut: CancellationToken,
}

/// What all requests of a connection have in common.
#[derive(Clone)]
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    scheme: Scheme,
    peer: Peer,
    refusal: Option<plain::Refusal>,
}

impl<E: Endpoint + 'static> Server<E> {
    async fn connection(&self, stream: TcpStream, remote: SocketAddr) {
        if let Err(error) = self.try_connection(stream, remote).await {
            // Everyday events: scanners, clients that give up, certificates that the client does not trust.
            tracing::debug!(server = self.options.name, peer = %remote, %error, "connection ended");
        }
    }

    async fn try_connection(&self, stream: TcpStream, remote: SocketAddr) -> io::Result<()> {
        let local = stream.local_addr()?;
        prepare(&stream)?;
        let first = tokio::select! {
            first = timeout(self.options.handshake_timeout, first_byte(&stream)) => first??,
            // Whoever has said nothing yet has nothing to lose.
            () = self.shutdown.cancelled() => return Ok(()),
        };
        match first {
            None => Ok(()),
            Some(TLS_HANDSHAKE) => {
                let acceptor = TlsAcceptor::from(self.tls.config());
                let stream = timeout(self.options.handshake_timeout, acceptor.accept(stream)).await??;
                let (_, session) = stream.get_ref();
                let peer = self.tls.peer(session.peer_certificates());
                let http2 = session.alpn_protocol() == Some(b"h2");
                let builder = if http2 {
                    self.http.clone().http2_only()
                } else {
                    self.http.clone().http1_only()
                };
                let connection = Connection {
                    local,
                    remote,
                    scheme: Scheme::HTTPS,
                    peer,
                    refusal: None,
                };
                self.requests(builder, stream, connection).await
            }
            Some(_) => {
                let refusal = match self.options.plain_http {
                    PlainHttp::Refuse => Some(plain::Refusal::NotLoopback),
                    PlainHttp::TrustedLoopback => plain::admit_connection(remote, local).err(),
                };
                let (peer, builder) = match refusal {
                    None => (Peer::TrustedLoopback, self.http.clone()),
                    Some(_) => (Peer::Anonymous, self.http.clone().http1_only()),
                };
                let connection = Connection {
                    local,
                    remote,
                    scheme: Scheme::HTTP,
                    peer,
                    refusal,
                };
                self.requests(builder, stream, connection).await
            }
        }
    }

    /// Serves the requests of one connection until the client, an error or the shutdown ends it.
    async fn requests<S>(
        &self,
        builder: auto::Builder<TokioExecutor>,
        stream: S,
        connection: Connection,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::new(connection);
        let service = hyper::service::service_fn(|request| {
            let endpoint = self.endpoint.clone();
            let connection = connection.clone();
            async move {
                let response = AssertUnwindSafe(respond(endpoint, connection, request))
                    .catch_unwind()
                    .await;
                let response = response.unwrap_or_else(|_| {
                    let body = "This request made the server panic; its log says where.\n";
                    Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body(body)
                });
                Ok::<_, Infallible>(hyper::Response::<BoxBody<Bytes, io::Error>>::from(response))
            }
        });
        let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut draining = false;
        loop {
            tokio::select! {
                ended = served.as_mut() => return ended.map_err(io::Error::other),
                () = self.shutdown.cancelled(), if !draining => {
                    draining = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Answers one request.
async fn respond<E: Endpoint + 'static>(
    endpoint: Arc<E>,
    connection: Arc<Connection>,
    mut request: http::Request<Incoming>,
) -> Response {
    if connection.scheme == Scheme::HTTP {
        let refusal = match &connection.refusal {
            Some(refusal) => Some(refusal.clone()),
            None => plain::admit_request(request.uri(), request.headers()).err(),
        };
        if let Some(refusal) = refusal {
            return refuse(&refusal);
        }
    }
    request.extensions_mut().insert(connection.peer.clone());
    let local = LocalAddr(poem::Addr::SocketAddr(connection.local));
    let remote = RemoteAddr(poem::Addr::SocketAddr(connection.remote));
    endpoint
        .get_response((request, local, remote, connection.scheme.clone()).into())
        .await
}

/// 403 in plain text: clients of Kubernetes show the text of a 403, and not that of a 400.
fn refuse(refusal: &plain::Refusal) -> Response {
    Response::builder()
        .status(StatusCode::FORBIDDEN)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Body::from(format!("{refusal}\n")))
}

/// Looks at the first byte without taking it; `None` when the peer closed without a word.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok((count == 1).then_some(first[0]))
}

#[cfg(test)]
mod tests;
