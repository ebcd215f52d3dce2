//! Who makes a request (upstream: `apiserver/pkg/authentication`, `pkg/kubeapiserver/authenticator`).
//!
//! In order: a part of this process, whom a front proxy has signed in, a client certificate of our authority, a bearer token, a trusted process on this
//! machine, nobody. Whoever shows something that does not hold gets a 401, and is never taken for nobody.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem::Request;
use poem::http::header::{self, HeaderMap, HeaderValue};

use crate::apiserver::authentication::TokenUser;
use crate::apiserver::authentication::request_header::RequestHeaders;
use crate::apiserver::authentication::service_accounts::TokenAuthority;
use crate::apiserver::authentication::token_file::TokenFile;
use crate::apiserver::authorization::PRIVILEGED_GROUP;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::User;
use crate::storage::Storage;
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
pub struct Authenticator {
    tokens: TokenAuthority,
    file: TokenFile,
    front_proxies: RequestHeaders,
}

impl Authenticator {
    pub fn new(tokens: TokenAuthority, file: TokenFile) -> Authenticator {
        Authenticator {
            tokens,
            file,
            front_proxies: RequestHeaders::default(),
        }
    }

    /// Believes these front proxies, and what they say in these headers.
    pub fn with_front_proxies(self, front_proxies: RequestHeaders) -> Authenticator {
        Authenticator { front_proxies, ..self }
    }

    pub fn tokens(&self) -> &TokenAuthority {
        &self.tokens
    }

    /// The user; what signs a user in is taken out of the request's headers, so that it is handed on to nobody.
    pub fn authenticate(&self, storage: &Storage, request: &mut Request) -> Result<User, ApiError> {
        let user = self.user(storage, request)?;
        self.front_proxies.take_out(request.headers_mut());
        Ok(user)
    }

    fn user(&self, storage: &Storage, request: &mut Request) -> Result<User, ApiError> {
        if let Some(identity) = request.extensions().get::<InProcessIdentity>() {
            return Ok(authenticated(User {
                name: identity.user.clone(),
                groups: identity.groups.clone(),
                ..User::default()
            }));
        }
        // A proxy that names nobody, or that nobody knows, is as anybody with a certificate that does not hold.
        if let Some(Peer::FrontProxy(proxy)) = request.extensions().get::<Peer>()
            && self.front_proxies.allows(&proxy.common_name)
            && let Some(user) = self.front_proxies.user(request.headers())
        {
            return Ok(authenticated(user));
        }
        // Go's servers do not take a certificate without a name for an identity either.
        if let Some(Peer::Certificate(certificate)) = request.extensions().get::<Peer>()
            && !certificate.common_name.is_empty()
        {
            return Ok(owner(certificate));
        }
        if let Some(token) = token(request.headers()).map_err(unauthorized)? {
            let found = self.authenticate_token(storage, &token.text, self.tokens.audiences());
            let user = found.map_err(unauthorized)?.user;
            token.take_out(request.headers_mut());
            return Ok(authenticated(user));
        }
        match request.extensions().get::<Peer>() {
            Some(Peer::TrustedLoopback) => Ok(authenticated(User {
                name: ADMINISTRATOR.to_owned(),
                groups: vec![PRIVILEGED_GROUP.to_owned()],
                ..User::default()
            })),
            Some(Peer::Certificate(_) | Peer::FrontProxy(_) | Peer::UntrustedCertificate) => {
                Err(ApiError::unauthorized())
            }
            Some(Peer::Anonymous) | None => Ok(anonymous()),
        }
    }

    /// Whose token it is; the error is upstream's text, for reviews.
    pub fn authenticate_token(
        &self,
        storage: &Storage,
        token: &str,
        audiences: &[String],
    ) -> Result<TokenUser, String> {
        if let Some(user) = self.file.user(token) {
            return Ok(TokenUser {
                user: user.clone(),
                audiences: Vec::new(),
            });
        }
        let now = jiff::Timestamp::now().as_second();
        match self.tokens.authenticate(storage, token, audiences, now) {
            Some(Ok(found)) => Ok(found),
            Some(Err(why)) => Err(format!("[invalid bearer token, {why}]")),
            None => Err("invalid bearer token".to_owned()),
        }
    }
}

fn unauthorized(why: String) -> ApiError {
    // The client is told nothing, as upstream.
    tracing::debug!(why, "a request could not be authenticated");
    ApiError::unauthorized()
}

fn owner(certificate: &ClientCertificate) -> User {
    let mut user = authenticated(User {
        name: certificate.common_name.clone(),
        groups: certificate.organizations.clone(),
        uid: certificate.uid.clone(),
        ..User::default()
    });
    user.extra.insert(
        CREDENTIAL_ID.to_owned(),
        vec![format!("X509SHA256={}", certificate.sha256_hex)],
    );
    user
}

/// The user as a member of everybody who is somebody.
pub fn authenticated(mut user: User) -> User {
    if user.name != ANONYMOUS && !user.groups.iter().any(|group| group == AUTHENTICATED_GROUP) {
        user.groups.push(AUTHENTICATED_GROUP.to_owned());
    }
    user
}

fn anonymous() -> User {
    User {
        name: ANONYMOUS.to_owned(),
        groups: vec![UNAUTHENTICATED_GROUP.to_owned()],
        ..User::default()
    }
}

/// A token as a request shows it.
struct ShownToken {
    text: String,
    /// The subprotocols that are left without it; None if it came in the usual header.
    protocols: Option<String>,
}

impl ShownToken {
    fn take_out(self, headers: &mut HeaderMap) {
        match self.protocols {
            None => {
                headers.remove(header::AUTHORIZATION);
            }
            Some(protocols) => {
                if let Ok(value) = HeaderValue::try_from(protocols) {
                    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
                }
            }
        }
    }
}

fn token(headers: &HeaderMap) -> Result<Option<ShownToken>, String> {
    let shown = headers.get(header::AUTHORIZATION);
    if let Some(value) = shown.and_then(|value| value.to_str().ok()) {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let text = rest.trim();
            // Upstream takes a scheme without a token for no authentication at all.
            return Ok((!text.is_empty()).then(|| ShownToken {
                text: text.to_owned(),
                protocols: None,
            }));
        }
    }
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let protocols = protocols.iter().filter_map(|value| value.to_str().ok());
    let (tokens, others): (Vec<&str>, Vec<&str>) = protocols
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .partition(|protocol| protocol.starts_with(WEBSOCKET_BEARER_PREFIX));
    let [token] = tokens.as_slice() else {
        return if tokens.is_empty() {
            Ok(None)
        } else {
            Err("multiple base64.bearer.authorization tokens specified".to_owned())
        };
    };
    if others.is_empty() {
        return Err("missing additional subprotocol".to_owned());
    }
    let decoded = URL_SAFE_NO_PAD.decode(token.trim_start_matches(WEBSOCKET_BEARER_PREFIX));
    let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.filter(|text| !text.is_empty());
    Ok(Some(ShownToken {
        text: text.ok_or("invalid base64.bearer.authorization token encoding")?,
        protocols: Some(others.join(",")),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use poem::http::StatusCode;

    use super::*;
    use crate::apiserver::authentication::jwt::SigningKey;
    use crate::registry::Registry;
    use crate::storage::Options;

    async fn authenticate(peer: Option<Peer>, headers: &[(&str, &str)]) -> Result<(User, HeaderMap), ApiError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.csv");
        std::fs::write(&path, "secret,joe,7,\"dev,ops\"\n").unwrap();
        let tokens = TokenAuthority::new(SigningKey::generate().unwrap(), String::new());
        let authenticator = Authenticator::new(tokens, TokenFile::read(&path).unwrap());
        let storage = Storage::open(Options::memory(), Registry::builtin()).await.unwrap();
        let mut builder = Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let mut request = builder.finish();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let user = authenticator.authenticate(&storage, &mut request)?;
        Ok((user, request.headers().clone()))
    }

    fn certificate(common_name: &str) -> Peer {
        Peer::Certificate(Arc::new(ClientCertificate {
            common_name: common_name.to_owned(),
            organizations: vec!["system:masters".to_owned(), "dev".to_owned()],
            uid: "7".to_owned(),
            sha256_hex: "ab".to_owned(),
        }))
    }

    async fn code(peer: Peer, headers: &[(&str, &str)]) -> StatusCode {
        authenticate(Some(peer), headers).await.unwrap_err().code()
    }

    #[tokio::test]
    async fn a_certificate_names_user_and_groups() {
        let (user, _) = authenticate(Some(certificate("jane")), &[]).await.unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.join(",").as_str()),
            ("jane", "system:masters,dev,system:authenticated")
        );
        assert_eq!(
            (user.uid.as_str(), &user.extra[CREDENTIAL_ID][0]),
            ("7", &"X509SHA256=ab".to_owned())
        );
        let both = authenticate(Some(certificate("jane")), &[("authorization", "Bearer x")]).await;
        assert!(both.is_ok(), "tried first");
        assert_eq!(code(certificate(""), &[]).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn only_a_front_proxy_that_is_known_names_users_in_headers() {
        let proxy = |name: &str| match certificate(name) {
            Peer::Certificate(certificate) => Peer::FrontProxy(certificate),
            other => other,
        };
        let shown = [
            ("X-Remote-User", "joe"),
            ("X-Remote-Group", "system:masters"),
            ("X-Remote-Extra-Team", "a"),
        ];
        let (user, headers) = authenticate(Some(proxy("front-proxy-client")), &shown).await.unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("joe", ""));
        assert_eq!(user.groups, [PRIVILEGED_GROUP, AUTHENTICATED_GROUP]);
        assert_eq!(user.extra["team"], ["a"]);
        assert!(headers.is_empty(), "handed on to nobody");
        assert_eq!(code(proxy("other"), &shown).await, StatusCode::UNAUTHORIZED);
        assert_eq!(code(proxy("front-proxy-client"), &[]).await, StatusCode::UNAUTHORIZED);
        assert_eq!(code(Peer::UntrustedCertificate, &shown).await, StatusCode::UNAUTHORIZED);
        // Whoever shows no proxy's certificate is who they are.
        let (user, headers) = authenticate(Some(certificate("front-proxy-client")), &shown)
            .await
            .unwrap();
        assert_eq!((user.name.as_str(), headers.is_empty()), ("front-proxy-client", true));
        let (user, _) = authenticate(Some(Peer::Anonymous), &shown).await.unwrap();
        assert_eq!(user.name, ANONYMOUS);
        let token = [shown[0], ("authorization", "Bearer secret")];
        let (user, _) = authenticate(Some(proxy("other")), &token).await.unwrap();
        assert_eq!(user.name, "joe", "a token that holds is looked at, too");
        assert_eq!(user.uid, "7");
    }

    #[tokio::test]
    async fn what_does_not_hold_is_a_401_and_not_nobody() {
        assert_eq!(code(Peer::UntrustedCertificate, &[]).await, StatusCode::UNAUTHORIZED);
        let protocol = "sec-websocket-protocol";
        for header in [
            ("authorization", "Bearer abc"),
            ("authorization", "bearer abc"),
            (
                protocol,
                "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj",
            ),
            // c2VjcmV0 is the token that holds.
            (protocol, "base64url.bearer.authorization.k8s.io.c2VjcmV0"),
            (
                protocol,
                "a, base64url.bearer.authorization.k8s.io.c2VjcmV0, base64url.bearer.authorization.k8s.io.c2VjcmV0",
            ),
            (protocol, "a, base64url.bearer.authorization.k8s.io.%%"),
        ] {
            for peer in [Peer::Anonymous, Peer::TrustedLoopback, Peer::UntrustedCertificate] {
                assert_eq!(code(peer, &[header]).await, StatusCode::UNAUTHORIZED, "{header:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_token_that_holds_names_its_owner_and_is_handed_on_to_nobody() {
        for peer in [Peer::Anonymous, Peer::TrustedLoopback, Peer::UntrustedCertificate] {
            let (user, headers) = authenticate(Some(peer), &[("authorization", "Bearer secret")])
                .await
                .unwrap();
            assert_eq!((user.name.as_str(), user.uid.as_str()), ("joe", "7"));
            assert_eq!(user.groups, ["dev", "ops", AUTHENTICATED_GROUP]);
            assert!(!headers.contains_key("authorization"));
        }
        let offered = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0,v4.channel.k8s.io";
        let shown = [("sec-websocket-protocol", offered)];
        let (user, headers) = authenticate(Some(Peer::Anonymous), &shown).await.unwrap();
        assert_eq!(user.name, "joe");
        assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io,v4.channel.k8s.io");
    }

    #[tokio::test]
    async fn nobody_is_anonymous_and_a_trusted_process_the_administrator() {
        for peer in [None, Some(Peer::Anonymous)] {
            let (user, _) = authenticate(peer, &[]).await.unwrap();
            assert_eq!(
                (user.name.as_str(), user.groups.join(",").as_str()),
                (ANONYMOUS, UNAUTHENTICATED_GROUP)
            );
        }
        // As upstream, basic authentication is no authentication.
        let (user, _) = authenticate(Some(Peer::Anonymous), &[("authorization", "Basic eDp5")])
            .await
            .unwrap();
        assert_eq!(user.name, ANONYMOUS);
        let (user, _) = authenticate(Some(Peer::TrustedLoopback), &[]).await.unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups[0].as_str()),
            (ADMINISTRATOR, PRIVILEGED_GROUP)
        );
    }
}
