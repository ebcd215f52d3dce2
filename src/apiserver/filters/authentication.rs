//! Who makes a request (upstream: `apiserver/pkg/authentication`, `pkg/kubeapiserver/authenticator`).
//!
//! In order: a part of this process, a client certificate of our authority, a trusted process on this machine, a
//! bearer token, nobody. Whoever shows something that does not hold gets a 401, and is never taken for nobody.

use poem::Request;
use poem::http::header::{self, HeaderMap};

use crate::apiserver::authorization::PRIVILEGED_GROUP;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::User;
use crate::transport::{ClientCertificate, InProcessIdentity, Peer};

pub const ANONYMOUS: &str = "system:anonymous";
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// Whom the administrator's certificate names, and whom a trusted process on this machine is taken for.
pub const ADMINISTRATOR: &str = "kubernetes-admin";

/// Tokens of browsers' WebSockets, which can set no headers, come as a subprotocol.
const WEBSOCKET_BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Tells who makes a request.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {}

impl Authenticator {
    pub fn new() -> Authenticator {
        Authenticator {}
    }

    pub fn authenticate(&self, request: &Request) -> Result<User, ApiError> {
        if let Some(identity) = request.extensions().get::<InProcessIdentity>() {
            return Ok(authenticated(identity.user.clone(), identity.groups.clone()));
        }
        match request.extensions().get::<Peer>() {
            // Go's servers do not take a certificate without a name for an identity either.
            Some(Peer::Certificate(certificate)) if !certificate.common_name.is_empty() => Ok(owner(certificate)),
            Some(Peer::TrustedLoopback) => Ok(authenticated(
                ADMINISTRATOR.to_owned(),
                vec![PRIVILEGED_GROUP.to_owned()],
            )),
            Some(Peer::Certificate(_) | Peer::UntrustedCertificate) => Err(ApiError::unauthorized()),
            // No authority for tokens exists yet, so that none holds.
            Some(Peer::Anonymous) | None if has_token(request.headers()) => Err(ApiError::unauthorized()),
            Some(Peer::Anonymous) | None => Ok(anonymous()),
        }
    }
}

fn owner(certificate: &ClientCertificate) -> User {
    let mut user = authenticated(certificate.common_name.clone(), certificate.organizations.clone());
    user.extra.insert(
        CREDENTIAL_ID.to_owned(),
        vec![format!("X509SHA256={}", certificate.sha256_hex)],
    );
    user
}

fn authenticated(name: String, mut groups: Vec<String>) -> User {
    if !groups.iter().any(|group| group == AUTHENTICATED_GROUP) {
        groups.push(AUTHENTICATED_GROUP.to_owned());
    }
    User {
        name,
        groups,
        ..User::default()
    }
}

fn anonymous() -> User {
    User {
        name: ANONYMOUS.to_owned(),
        groups: vec![UNAUTHENTICATED_GROUP.to_owned()],
        ..User::default()
    }
}

fn has_token(headers: &HeaderMap) -> bool {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().any(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"bearer")
    });
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered = |value: &str| {
        value
            .split(',')
            .any(|protocol| protocol.trim().starts_with(WEBSOCKET_BEARER_PREFIX))
    };
    bearer || protocols.iter().any(|value| value.to_str().is_ok_and(offered))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use poem::http::StatusCode;

    use super::*;

    fn authenticate(peer: Option<Peer>, headers: &[(&str, &str)]) -> Result<User, ApiError> {
        let mut builder = Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let mut request = builder.finish();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        Authenticator::new().authenticate(&request)
    }

    fn certificate(common_name: &str) -> Peer {
        Peer::Certificate(Arc::new(ClientCertificate {
            common_name: common_name.to_owned(),
            organizations: vec!["system:masters".to_owned(), "dev".to_owned()],
            sha256_hex: "ab".to_owned(),
        }))
    }

    #[test]
    fn a_certificate_names_user_and_groups() {
        let user = authenticate(Some(certificate("jane")), &[]).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.join(",").as_str()),
            ("jane", "system:masters,dev,system:authenticated")
        );
        assert_eq!(user.extra[CREDENTIAL_ID], ["X509SHA256=ab"]);
        assert!(
            authenticate(Some(certificate("jane")), &[("authorization", "Bearer x")]).is_ok(),
            "tried first"
        );
        assert_eq!(
            authenticate(Some(certificate("")), &[]).unwrap_err().code(),
            StatusCode::UNAUTHORIZED
        );
    }

    #[test]
    fn what_does_not_hold_is_a_401_and_not_nobody() {
        assert_eq!(
            authenticate(Some(Peer::UntrustedCertificate), &[]).unwrap_err().code(),
            StatusCode::UNAUTHORIZED
        );
        for header in [
            ("authorization", "Bearer abc"),
            ("authorization", "bearer abc"),
            (
                "sec-websocket-protocol",
                "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj",
            ),
        ] {
            assert_eq!(
                authenticate(Some(Peer::Anonymous), &[header]).unwrap_err().code(),
                StatusCode::UNAUTHORIZED,
                "{header:?}"
            );
        }
    }

    #[test]
    fn nobody_is_anonymous_and_a_trusted_process_the_administrator() {
        for peer in [None, Some(Peer::Anonymous)] {
            let user = authenticate(peer, &[]).unwrap();
            assert_eq!(
                (user.name.as_str(), user.groups.join(",").as_str()),
                (ANONYMOUS, UNAUTHENTICATED_GROUP)
            );
        }
        // As upstream, basic authentication is no authentication.
        assert_eq!(
            authenticate(Some(Peer::Anonymous), &[("authorization", "Basic eDp5")])
                .unwrap()
                .name,
            ANONYMOUS
        );
        let user = authenticate(Some(Peer::TrustedLoopback), &[]).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups[0].as_str()),
            (ADMINISTRATOR, PRIVILEGED_GROUP)
        );
    }

    #[test]
    fn parts_of_the_process_come_under_their_own_name() {
        let mut request = Request::default();
        request.extensions_mut().insert(InProcessIdentity {
            user: "system:node:n1".to_owned(),
            groups: vec!["system:nodes".to_owned()],
        });
        let user = Authenticator::new().authenticate(&request).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.join(",").as_str()),
            ("system:node:n1", "system:nodes,system:authenticated")
        );
    }
}
