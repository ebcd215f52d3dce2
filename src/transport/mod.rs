//! What servers and clients of this process share on the wire: PKI, the accept loop that tells TLS from plain
//! HTTP by the first byte, and dialling with upgrades (upstream: `apiserver/pkg/server`, `client-go/transport`).
//! A leaf: it knows neither Kubernetes' objects nor storage.

pub mod dial;

/// What the connection says about its peer; put into the extensions of every request by the accept loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TLS client certificate signed by our CA: subject CN and every O.
    Certificate {
        common_name: String,
        organizations: Vec<String>,
        sha256_hex: String,
    },
    /// Plain HTTP from loopback, from a process of root or of the server's own user.
    TrustedLoopback,
    /// Nobody in particular.
    Anonymous,
}

/// A part of this process that calls the API without a socket, under upstream's identity.
/// Set by `app` on in-process clients; it can not come from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProcessIdentity {
    pub user: &'static str,
    pub groups: Vec<String>,
}
