//! What servers and clients of this process share on the wire: PKI, the accept loop that tells TLS from plain
//! HTTP by the first byte, and dialling with upgrades (upstream: `apiserver/pkg/server`, `client-go/transport`).
//! A leaf: it knows neither Kubernetes' objects nor storage.

use std::sync::Arc;

pub mod dial;
pub mod extension;
pub mod go_json;
pub mod listen;
pub mod pki;
pub mod plain;
pub mod serve;
mod socket;
pub mod trust;
pub mod unverified;
pub mod webhook;

/// What the connection says about its peer; put into the extensions of every request by the accept loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TLS client certificate signed by our CA.
    Certificate(Arc<ClientCertificate>),
    /// A TLS client certificate signed by an authority of front proxies: whoever may sign users in may name others.
    FrontProxy(Arc<ClientCertificate>),
    /// A TLS client certificate that our CA did not sign, or that is outside its validity: never anonymous, always 401.
    UntrustedCertificate,
    /// Plain HTTP from loopback, from a process of root or of the server's own user.
    TrustedLoopback,
    /// Nobody in particular.
    Anonymous,
}

/// The parts of a verified client certificate that name its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Subject CN; may be empty, and then names nobody.
    pub common_name: String,
    /// Every subject O, in order.
    pub organizations: Vec<String>,
    /// Kubernetes' own attribute for a user's id, empty if it is not there.
    pub uid: String,
    /// SHA-256 of the certificate's DER, lower-case hex.
    pub sha256_hex: String,
}

/// A part of this process that calls the API without a socket, under upstream's identity.
/// Set by `app` on in-process clients; it can not come from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProcessIdentity {
    pub user: String,
    pub groups: Vec<String>,
}
