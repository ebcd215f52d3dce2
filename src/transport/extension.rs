//! The API server as a client of the servers of other API groups: HTTPS with the certificate of the front proxy, by which
//! they know that the names of users in the headers are true (upstream: `kube-aggregator/pkg/apiserver/handler_proxy.go`,
//! its transport). One connection per request, as to kubelets: watches and sessions keep theirs anyway.

use super::dial::{Address, Connections, DialError, RequestBody, UpgradeAnswer, connect_as};
use super::trust::{self, Identity, TrustError};
use super::unverified;
use http::{Request, Response};
use hyper::body::Incoming;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why such a server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ExtensionError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("{0}")]
    Trust(#[from] TrustError),
}

/// The way to one of them.
#[derive(Clone)]
pub struct Destination {
    pub address: Address,
    /// The name that its certificate must have.
    pub name: String,
    pub tls: TlsConnector,
}

/// Owns the connections to all of them. Cloning is cheap.
#[derive(Clone)]
pub struct ExtensionClient {
    identity: Option<Identity>,
    /// For servers of whom only an answer is wanted.
    unverified: TlsConnector,
    connections: Connections,
}

impl ExtensionClient {
    pub fn new(identity: Option<Identity>) -> Self {
        Self {
            unverified: TlsConnector::from(Arc::new(unverified::config(identity.clone()))),
            identity,
            connections: Connections::default(),
        }
    }

    /// Whom to believe: `authorities` in PEM, or the machine's if that is empty.
    pub fn trusting(&self, authorities: &[u8]) -> Result<TlsConnector, TrustError> {
        let config = trust::config(authorities, self.identity.clone())?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Whoever answers.
    pub fn unverified(&self) -> TlsConnector {
        self.unverified.clone()
    }

    /// Sends a request and returns the head of the answer, with its body still streaming.
    pub async fn request(
        &self,
        to: &Destination,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, ExtensionError> {
        let io = self.connect(to).await?;
        Ok(self.connections.send(io, &to.address, request).await?)
    }

    /// Sends a request that changes the protocol of its connection.
    pub async fn upgrade(
        &self,
        to: &Destination,
        request: Request<RequestBody>,
    ) -> Result<UpgradeAnswer, ExtensionError> {
        let io = self.connect(to).await?;
        Ok(self.connections.upgrade(io, &to.address, request).await?)
    }

    async fn connect(&self, to: &Destination) -> Result<TlsStream<TcpStream>, ExtensionError> {
        let connected = connect_as(&to.tls, &to.name, &to.address).await;
        connected.map_err(|error| {
            let refused = match &error {
                DialError::Tls { source, .. } => trust::refusal(source, &to.name),
                _ => None,
            };
            refused.map_or(ExtensionError::Dial(error), ExtensionError::Trust)
        })
    }

    /// The connections of this client, which sessions that are handed through belong to.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Ends every connection, sessions that are handed through included, and waits for it.
    pub async fn close(&self) {
        self.connections.close().await;
    }
}
