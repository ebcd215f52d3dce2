//! Calling a webhook: one request with a JSON body, answered whole within its time (upstream:
//! `apiserver/pkg/util/webhook/client.go`, and the client of `pkg/scheduler/extender.go`).

use super::dial::{Address, DialError, connect_tcp};
use super::trust::{self, TrustError};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where a webhook is, and how it proves who it is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where to connect to.
    pub address: Address,
    /// The name that its certificate must have: a DNS name or an IP address.
    pub name: String,
    /// What stands in the `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    pub security: Security,
    /// Who asks.
    pub agent: &'static str,
}

#[derive(Clone, Debug)]
pub enum Security {
    /// No TLS.
    Plain,
    /// Who vouches for it, in PEM; empty for those whom this machine believes.
    Authorities(Arc<[u8]>),
    /// As it was made ready once for many calls.
    Tls(Arc<ClientConfig>),
}

/// Why there is no answer, in Go's words.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("{0}")]
    Trust(#[from] TrustError),
    #[error("{0}")]
    Http(String),
    #[error("context deadline exceeded")]
    Timeout,
}

/// Posts `body` and waits for the whole answer.
pub async fn post(endpoint: &Endpoint, body: Vec<u8>, timeout: Duration) -> Result<(StatusCode, Bytes), CallError> {
    tokio::time::timeout(timeout, exchange(endpoint, body))
        .await
        .unwrap_or(Err(CallError::Timeout))
}

async fn exchange(endpoint: &Endpoint, body: Vec<u8>) -> Result<(StatusCode, Bytes), CallError> {
    let config = match &endpoint.security {
        Security::Plain => return talk(connect_tcp(&endpoint.address).await?, endpoint, body).await,
        Security::Authorities(authorities) => Arc::new(trust::config(authorities, None)?),
        Security::Tls(config) => config.clone(),
    };
    let address = endpoint.address.to_string();
    let name = ServerName::try_from(endpoint.name.clone())
        .map_err(|_| CallError::Dial(DialError::ServerName(endpoint.name.clone())))?;
    let tcp = connect_tcp(&endpoint.address).await?;
    let io = TlsConnector::from(config).connect(name, tcp).await.map_err(|source| {
        match trust::refusal(&source, &endpoint.name) {
            Some(why) => CallError::Trust(why),
            None => CallError::Dial(DialError::Tls { address, source }),
        }
    })?;
    talk(io, endpoint, body).await
}

async fn talk<Io>(io: Io, endpoint: &Endpoint, body: Vec<u8>) -> Result<(StatusCode, Bytes), CallError>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let http = |error: &dyn std::fmt::Display| CallError::Http(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| http(&error))?;
    let request = Request::post(&endpoint.path)
        .header(header::HOST, &endpoint.host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, endpoint.agent)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| http(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| http(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| CallError::Http(error.to_string()))?;
        Ok((head.status, body.to_bytes()))
    };
    // The connection lives as long as the exchange.
    let mut answered = std::pin::pin!(answered);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut answered => answer,
        end = &mut connection => match end {
            Err(error) => Err(http(&error)),
            Ok(()) => answered.await,
        },
    }
}
