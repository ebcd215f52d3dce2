//! Who may call the kubelet: the holder of a client certificate of the group `system:masters`, which the API
//! server's kubelet-client certificate is in. Anonymous callers are refused (upstream: `pkg/kubelet/server/auth.go`;
//! bearer tokens and SubjectAccessReview are not there yet).

use super::error::ServerError;
use super::route::{subresources, verb};
use crate::transport::Peer;
use http::StatusCode;
use poem::Request;

const MASTERS: &str = "system:masters";

/// Allows the request or says why not.
pub fn authorize(request: &Request) -> Result<(), ServerError> {
    let certificate = match request.extensions().get::<Peer>() {
        Some(Peer::Certificate(certificate)) => certificate,
        // Plain HTTP is not served here, and a peer on loopback is no reason for trust.
        Some(Peer::UntrustedCertificate | Peer::TrustedLoopback | Peer::Anonymous) | None => {
            return Err(ServerError::new(StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
    };
    if certificate.organizations.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    let user = &certificate.common_name;
    let text = format!(
        "Forbidden (user={user}, verb={}, resource=nodes, subresource(s)=[{}])",
        verb(request.method()),
        subresources(request.uri().path()).join(" ")
    );
    Err(ServerError::new(StatusCode::FORBIDDEN, text))
}
