//! Dialling a kubelet: HTTPS with the API server's client certificate, plain requests whose response body
//! streams, and upgraded requests that end in a raw byte stream (upstream: `pkg/kubelet/client`, and
//! `apimachinery/pkg/util/proxy/dial.go`).
//!
//! One connection per request: what goes to a kubelet is a log, a session or a forwarded port, which keep their
//! connection for as long as they live, so that a pool would save nothing.

use super::unverified;
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A body of a request on its way to the kubelet; `poem::Body` converts into it.
pub type RequestBody = BoxBody<Bytes, io::Error>;

/// Upstream's default dial timeout of the kubelet client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Buffer of each direction of a session that is handed through.
const PIPE_BYTES: usize = 32 * 1024;

/// Why a kubelet did not answer. The texts are Go's, because users know how to read them.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dial tcp {address}: connect: {}", plain(source))]
    Connect { address: String, source: io::Error },
    #[error("dial tcp {address}: i/o timeout")]
    ConnectTimeout { address: String },
    #[error("invalid server name {0:?}")]
    ServerName(String),
    #[error("tls: {source}")]
    Tls { address: String, source: io::Error },
    #[error("net/http: TLS handshake timeout")]
    TlsTimeout { address: String },
    #[error("{source}")]
    Http { address: String, source: hyper::Error },
}

/// `connection refused` rather than `Connection refused (os error 111)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_lowercase()
}

/// Where a server listens: a DNS name or an IP address (IPv6 without brackets), and the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The answer to an upgrade request.
pub enum UpgradeAnswer {
    /// 101: its headers, and the connection.
    Switched { headers: HeaderMap, io: TokioIo<Upgraded> },
    /// Any other answer, to be relayed as it is.
    Refused(Response<Incoming>),
}

/// The API server's way to kubelets, and the owner of the connections to them. Cloning is cheap.
#[derive(Clone)]
pub struct KubeletClient {
    tls: TlsConnector,
    /// For backends whose certificates are nobody's to vouch for.
    unverified: TlsConnector,
    connections: Connections,
}

/// The tasks that drive connections, and what ends them.
#[derive(Clone, Default)]
pub struct Connections {
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Connections {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

impl KubeletClient {
    /// `config` carries the client certificate and the CA to verify kubelets against (`transport::pki`).
    /// ALPN is set to HTTP/1.1, the only version with upgrades.
    pub fn new(config: Arc<rustls::ClientConfig>) -> KubeletClient {
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        KubeletClient {
            tls: TlsConnector::from(Arc::new(config)),
            unverified: TlsConnector::from(Arc::new(unverified::config(None))),
            connections: Connections::default(),
        }
    }

    /// Ends every connection, sessions that are handed through included, and waits for it.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    /// Sends a request over TLS and returns the head of the answer with its body still streaming. Dropping the
    /// answer closes the connection. `Host` is set from `address`.
    pub async fn request(
        &self,
        address: &Address,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, DialError> {
        let io = connect(&self.tls, address).await?;
        self.connections.send(io, address, request).await
    }

    /// Sends an upgrade request; the caller sets its `Upgrade` and `Connection` headers.
    pub async fn upgrade(&self, address: &Address, request: Request<RequestBody>) -> Result<UpgradeAnswer, DialError> {
        let io = connect(&self.tls, address).await?;
        self.connections.upgrade(io, address, request).await
    }

    /// The same without TLS, for pods and services (`/proxy`).
    pub async fn request_plain(
        &self,
        address: &Address,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, DialError> {
        let io = connect_tcp(address).await?;
        self.connections.send(io, address, request).await
    }

    /// The same without TLS, for pods and services (`/proxy`).
    pub async fn upgrade_plain(
        &self,
        address: &Address,
        request: Request<RequestBody>,
    ) -> Result<UpgradeAnswer, DialError> {
        let io = connect_tcp(address).await?;
        self.connections.upgrade(io, address, request).await
    }

    /// The same over TLS with whoever answers, for pods and services (`/proxy`).
    pub async fn request_unverified(
        &self,
        address: &Address,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, DialError> {
        let io = connect(&self.unverified, address).await?;
        self.connections.send(io, address, request).await
    }

    /// The same over TLS with whoever answers, for pods and services (`/proxy`).
    pub async fn upgrade_unverified(
        &self,
        address: &Address,
        request: Request<RequestBody>,
    ) -> Result<UpgradeAnswer, DialError> {
        let io = connect(&self.unverified, address).await?;
        self.connections.upgrade(io, address, request).await
    }

    /// The connections of this client, which sessions that are handed through belong to.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }
}

async fn connect(
    tls: &TlsConnector,
    address: &Address,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
    connect_as(tls, &address.host, address).await
}

/// Connects to a server whose certificate has another name than it was found by.
pub(super) async fn connect_as(
    tls: &TlsConnector,
    name: &str,
    address: &Address,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| DialError::ServerName(name.to_owned()))?;
    let tcp = connect_tcp(address).await?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.connect(name, tcp)).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(source)) => Err(DialError::Tls {
            address: address.to_string(),
            source,
        }),
        Err(_) => Err(DialError::TlsTimeout {
            address: address.to_string(),
        }),
    }
}

pub(super) async fn connect_tcp(address: &Address) -> Result<TcpStream, DialError> {
    let connecting = TcpStream::connect((address.host.as_str(), address.port));
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => {
            return Err(DialError::Connect {
                address: address.to_string(),
                source,
            });
        }
        Err(_) => {
            return Err(DialError::ConnectTimeout {
                address: address.to_string(),
            });
        }
    };
    super::socket::prepare(&stream).map_err(|source| DialError::Connect {
        address: address.to_string(),
        source,
    })?;
    Ok(stream)
}

impl Connections {
    pub(super) async fn close(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Hands bytes through between a client that is about to be upgraded and a connection of ours, on a task of
    /// theirs. An end on one side is passed on to the other as a half-close; an error ends both.
    pub fn pipe<C, Io, E>(&self, client: C, backend: TokioIo<Upgraded>)
    where
        C: Future<Output = Result<Io, E>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Send + 'static,
        E: fmt::Display + Send,
    {
        self.spawn(async move {
            let mut backend = backend;
            match client.await {
                Ok(client) => {
                    let mut client = pin!(client);
                    let copied = copy_bidirectional_with_sizes(&mut client, &mut backend, PIPE_BYTES, PIPE_BYTES).await;
                    if let Err(error) = copied {
                        tracing::debug!(%error, "a session was broken off");
                    }
                }
                Err(error) => tracing::debug!(%error, "a client left during its handshake"),
            }
        });
    }

    pub(super) async fn send<Io>(
        &self,
        io: Io,
        address: &Address,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, DialError>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |source| DialError::Http {
            address: address.to_string(),
            source,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(failed)?;
        // Ends with the exchange: when the response body is read or dropped, or the upgraded IO is taken out.
        self.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a backend was broken off");
            }
        });
        if let Ok(host) = http::HeaderValue::from_str(&address.to_string()) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        sender.send_request(request).await.map_err(failed)
    }

    pub(super) async fn upgrade<Io>(
        &self,
        io: Io,
        address: &Address,
        request: Request<RequestBody>,
    ) -> Result<UpgradeAnswer, DialError>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut response = self.send(io, address, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(UpgradeAnswer::Refused(response));
        }
        let upgraded = hyper::upgrade::on(&mut response)
            .await
            .map_err(|source| DialError::Http {
                address: address.to_string(),
                source,
            })?;
        Ok(UpgradeAnswer::Switched {
            headers: std::mem::take(response.headers_mut()),
            io: TokioIo::new(upgraded),
        })
    }
}

/// An empty request body.
pub fn empty_body() -> RequestBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed()
}
