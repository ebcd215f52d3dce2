//! Calling a webhook: one HTTPS request with a JSON body, answered whole within its time
//! (upstream: `apiserver/pkg/util/webhook/client.go`).

use super::dial::{Address, DialError, connect_tcp};
use super::trust::{self, TrustError};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
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
    /// Who vouches for it, in PEM; empty for those whom this machine believes.
    pub authorities: Arc<[u8]>,
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
    let address = endpoint.address.to_string();
    let name = ServerName::try_from(endpoint.name.clone())
        .map_err(|_| CallError::Dial(DialError::ServerName(endpoint.name.clone())))?;
    let tls = TlsConnector::from(Arc::new(trust::config(&endpoint.authorities, None)?));
    let tcp = connect_tcp(&endpoint.address).await?;
    let io = tls
        .connect(name, tcp)
        .await
        .map_err(|source| match trust::refusal(&source, &endpoint.name) {
            Some(why) => CallError::Trust(why),
            None => CallError::Dial(DialError::Tls { address, source }),
        })?;
    let http = |error: &dyn std::fmt::Display| CallError::Http(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| http(&error))?;
    let request = Request::post(&endpoint.path)
        .header(header::HOST, &endpoint.host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
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
