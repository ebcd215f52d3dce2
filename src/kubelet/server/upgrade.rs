//! Handshakes: which protocol a client asks to change to, which of its subprotocols is taken, and the answer
//! (upstream: `httpstream.Handshake`, `wsstream.IsWebSocketRequest`).

use super::error::ServerError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, StatusCode};
use poem::{Body, OnUpgrade, Request, Response, Upgraded};
use sha1::{Digest as _, Sha1};
use std::future::Future;
use tokio_util::task::TaskTracker;

const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET_VERSION: &str = "sec-websocket-version";
const WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";
const STREAM_PROTOCOL_VERSION: &str = "x-stream-protocol-version";
const ACCEPTED_STREAM_PROTOCOL_VERSIONS: &str = "x-accepted-stream-protocol-versions";
const SPDY: &str = "SPDY/3.1";

/// What a client asks to change to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    WebSocket,
    Spdy,
}

/// A handshake that succeeded: the subprotocol, and the 101 to answer with.
struct Accepted {
    protocol: &'static str,
    response: Response,
}

/// A handshake that succeeds unless its caller refuses it.
pub struct Handshake {
    pub kind: Upgrade,
    pub protocol: &'static str,
    response: Response,
    upgraded: OnUpgrade,
}

impl Handshake {
    /// Reads a request, and takes the first of the client's subprotocols that is supported.
    pub fn of(request: &Request, websocket: &[&'static str], spdy: &[&'static str]) -> Result<Self, ServerError> {
        let kind = Upgrade::requested(request.headers())?;
        let Accepted { protocol, response } = match kind {
            Upgrade::WebSocket => accept_websocket(request.method(), request.headers(), websocket)?,
            Upgrade::Spdy => accept_spdy(request.headers(), spdy)?,
        };
        let upgraded = request
            .take_upgrade()
            .map_err(|_| ServerError::bad_request("the connection cannot be upgraded"))?;
        Ok(Self {
            kind,
            protocol,
            response,
            upgraded,
        })
    }

    /// The answer; once it is sent, the connection is served on a task.
    pub fn serve<F>(self, tasks: &TaskTracker, serve: impl FnOnce(Upgraded) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upgraded = self.upgraded;
        tasks.spawn(async move {
            match upgraded.await {
                Ok(connection) => serve(connection).await,
                Err(error) => tracing::debug!(%error, "a client left during its handshake"),
            }
        });
        self.response
    }
}

impl Upgrade {
    /// Reads the request's headers; anything else than the two upgrades is a 400.
    pub fn requested(headers: &HeaderMap) -> Result<Upgrade, ServerError> {
        let upgrades = tokens(headers, UPGRADE.as_str());
        if tokens(headers, CONNECTION.as_str()).any(|token| token.eq_ignore_ascii_case("upgrade")) {
            for upgrade in upgrades {
                if upgrade.eq_ignore_ascii_case("websocket") {
                    return Ok(Upgrade::WebSocket);
                }
                if upgrade.eq_ignore_ascii_case(SPDY) {
                    return Ok(Upgrade::Spdy);
                }
            }
        }
        Err(ServerError::bad_request("Upgrade request required"))
    }
}

/// Answers a WebSocket handshake. `supported` may hold "", for clients that name no subprotocol.
fn accept_websocket(method: &Method, headers: &HeaderMap, supported: &[&'static str]) -> Result<Accepted, ServerError> {
    if method != Method::GET {
        return Err(ServerError::bad_request("a WebSocket handshake must be a GET"));
    }
    if headers.get(WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let error = ServerError::new(StatusCode::UPGRADE_REQUIRED, "missing or bad WebSocket Version");
        return Err(error.with_header(WEBSOCKET_VERSION, "13".to_owned()));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16))
        .ok_or_else(|| ServerError::bad_request("missing or bad Sec-WebSocket-Key"))?;
    let offered: Vec<&str> = tokens(headers, WEBSOCKET_PROTOCOL).collect();
    let protocol = if offered.is_empty() {
        supported.iter().find(|protocol| protocol.is_empty())
    } else {
        offered.iter().find_map(|offer| {
            supported
                .iter()
                .find(|protocol| !protocol.is_empty() && *protocol == offer)
        })
    };
    let Some(protocol) = protocol else {
        let text = format!("requested protocol(s) are not supported: {offered:?}; supports {supported:?}");
        return Err(ServerError::new(StatusCode::FORBIDDEN, text));
    };
    let mut signature = Sha1::new();
    signature.update(key.as_bytes());
    signature.update(WEBSOCKET_GUID);
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, STANDARD.encode(signature.finalize()));
    if !protocol.is_empty() {
        response = response.header(WEBSOCKET_PROTOCOL, *protocol);
    }
    Ok(Accepted {
        protocol,
        response: response.body(Body::empty()),
    })
}

/// Answers a SPDY handshake.
fn accept_spdy(headers: &HeaderMap, supported: &[&'static str]) -> Result<Accepted, ServerError> {
    let offered: Vec<&str> = tokens(headers, STREAM_PROTOCOL_VERSION).collect();
    if offered.is_empty() {
        return Err(ServerError::bad_request(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in the request",
        ));
    }
    let protocol = offered
        .iter()
        .find_map(|offer| supported.iter().find(|protocol| *protocol == offer));
    let Some(protocol) = protocol else {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}"
        );
        let error = ServerError::new(StatusCode::FORBIDDEN, text);
        return Err(error.with_header(ACCEPTED_STREAM_PROTOCOL_VERSIONS, supported.join(", ")));
    };
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY)
        .header(STREAM_PROTOCOL_VERSION, *protocol)
        .body(Body::empty());
    Ok(Accepted { protocol, response })
}

/// The comma separated values of every header of that name.
fn tokens<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn upgrades_are_told_apart() {
        let websocket = headers(&[("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")]);
        assert_eq!(Upgrade::requested(&websocket).unwrap(), Upgrade::WebSocket);
        let spdy = headers(&[("upgrade", "SPDY/3.1"), ("connection", "Upgrade")]);
        assert_eq!(Upgrade::requested(&spdy).unwrap(), Upgrade::Spdy);
        for neither in [
            headers(&[("upgrade", "websocket")]),
            headers(&[("upgrade", "h2c"), ("connection", "upgrade")]),
        ] {
            let response = Upgrade::requested(&neither).unwrap_err().into_response();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn websocket_takes_the_first_protocol_of_the_client_that_it_supports() {
        let mut request = headers(&[
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v9, v4.channel.k8s.io,v5.channel.k8s.io"),
        ]);
        let supported = ["v5.channel.k8s.io", "v4.channel.k8s.io", ""];
        let accepted = accept_websocket(&Method::GET, &request, &supported).unwrap();
        assert_eq!(accepted.protocol, "v4.channel.k8s.io");
        // The example of RFC 6455.
        let signature = accepted.response.headers()["sec-websocket-accept"].clone();
        assert_eq!(signature, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        request.insert(WEBSOCKET_PROTOCOL, HeaderValue::from_static("v9"));
        let refused = accept_websocket(&Method::GET, &request, &supported).err().unwrap();
        assert_eq!(refused.into_response().status(), StatusCode::FORBIDDEN);
        request.remove(WEBSOCKET_PROTOCOL);
        let accepted = accept_websocket(&Method::GET, &request, &supported).unwrap();
        assert_eq!(accepted.protocol, "");
        assert!(!accepted.response.headers().contains_key(WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn spdy_names_what_it_accepts_when_it_refuses() {
        let request = headers(&[("x-stream-protocol-version", "v9.channel.k8s.io")]);
        let refused = accept_spdy(&request, &["v4.channel.k8s.io", "channel.k8s.io"])
            .err()
            .unwrap();
        let response = refused.into_response();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let accepted = &response.headers()["x-accepted-stream-protocol-versions"];
        assert_eq!(accepted, "v4.channel.k8s.io, channel.k8s.io");
    }
}
