//! Own HTTP connections to the engine, for what must not go through the client library: it has no upgraded
//! streams as they are (it guesses their framing from the first byte), whole seconds only in `since`, and no
//! sign of when a stream of events is open.

use super::super::{Result, RuntimeError};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the head of an answer. Streams then take as long as they take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// The most of an error's body that is read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
}

impl Address {
    /// Reads `DOCKER_HOST`'s forms. TLS and SSH are not among them.
    pub fn parse(endpoint: &str) -> Option<Address> {
        if let Some(path) = endpoint.strip_prefix("unix://") {
            return Some(Address::Unix(path.into())).filter(|_| !path.is_empty());
        }
        let host = endpoint
            .strip_prefix("tcp://")
            .or_else(|| endpoint.strip_prefix("http://"))?
            .trim_end_matches('/');
        match host.rsplit_once(':') {
            _ if host.is_empty() => None,
            Some((_, port)) if port.parse::<u16>().is_ok() => Some(Address::Tcp(host.to_string())),
            _ => Some(Address::Tcp(format!("{host}:2375"))),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes a connection for every request.
#[derive(Clone, Debug)]
pub struct RawClient {
    address: Address,
    endpoint: String,
    /// `/v1.41`
    prefix: String,
}

/// An answer whose connection closes when it is dropped.
pub struct Answer {
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl Answer {
    /// The next bytes; None at the end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl RawClient {
    pub fn new(address: Address, endpoint: &str, api_version: &str) -> Self {
        RawClient {
            address,
            endpoint: endpoint.to_string(),
            prefix: format!("/v{api_version}"),
        }
    }

    /// GET of a stream.
    pub async fn get(&self, operation: &'static str, what: &'static str, id: &str, path: &str) -> Result<Answer> {
        let request = self.request(Method::GET, path);
        let (response, connection) = self.send(operation, what, id, request, Bytes::new()).await?;
        Ok(Answer {
            body: response.into_body(),
            _connection: connection,
        })
    }

    /// POST that turns the connection into a byte stream both ways. What stands after the request without belonging
    /// to it would be taken for stdin, hence no body at all where none is due.
    pub async fn upgrade(
        &self,
        operation: &'static str,
        what: &'static str,
        id: &str,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<TokioIo<Upgraded>> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp");
        let (response, connection) = self.send(operation, what, id, request, body.into()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let message = format!("the engine answered {} instead of a stream", response.status());
            return Err(failed(operation, id, message));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| failed(operation, id, error.to_string()))?;
        // The connection's task has handed the stream over and ends by itself.
        connection.detach();
        Ok(TokioIo::new(upgraded))
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, "docker")
    }

    async fn send(
        &self,
        operation: &'static str,
        what: &'static str,
        id: &str,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
        let request = request
            .body(Full::new(body))
            .map_err(|error| failed(operation, id, error.to_string()))?;
        let unavailable = |message: String| RuntimeError::Unavailable {
            engine: "Docker",
            endpoint: self.endpoint.clone(),
            message,
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| unavailable("timed out".to_string()))?
            .map_err(|error| unavailable(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // What goes wrong is seen by the reader of the answer.
            let _ = connection.with_upgrades().await;
        }));
        let response = tokio::time::timeout(HEAD_TIMEOUT, sender.send_request(request))
            .await
            .map_err(|_| unavailable("timed out".to_string()))?
            .map_err(|error| unavailable(error.to_string()))?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            if status == StatusCode::NOT_FOUND {
                return Err(RuntimeError::NotFound {
                    what,
                    id: id.to_string(),
                });
            }
            return Err(failed(operation, id, error_message(response).await));
        }
        Ok((response, connection))
    }

    async fn connect(&self) -> std::io::Result<Pin<Box<dyn Stream>>> {
        Ok(match &self.address {
            Address::Unix(path) => Box::pin(UnixStream::connect(path).await?),
            Address::Tcp(host) => {
                let stream = TcpStream::connect(host).await?;
                stream.set_nodelay(true)?;
                Box::pin(stream)
            }
        })
    }
}

/// The engine's message, else its status.
async fn error_message(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ERROR_BYTES_MAX)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|body| body.get("message")?.as_str().map(str::to_string))
        .unwrap_or_else(|| format!("the engine answered {status}"))
}

fn failed(operation: &'static str, subject: &str, message: String) -> RuntimeError {
    RuntimeError::Failed {
        operation,
        subject: subject.to_string(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(
            Address::parse("unix:///var/run/docker.sock"),
            Some(Address::Unix("/var/run/docker.sock".into()))
        );
        assert_eq!(
            Address::parse("tcp://10.0.0.1:2375"),
            Some(Address::Tcp("10.0.0.1:2375".into()))
        );
        assert_eq!(
            Address::parse("http://engine/"),
            Some(Address::Tcp("engine:2375".into()))
        );
        for bad in [
            "",
            "unix://",
            "tcp://",
            "ssh://host",
            "https://host",
            "/var/run/docker.sock",
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
