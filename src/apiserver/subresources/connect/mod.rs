//! `exec`, `attach` and `portforward` of pods: the request is translated into the kubelet's form and its
//! connection handed through, whichever of SPDY and WebSocket it changes to
//! (upstream: `pkg/registry/core/pod/rest/subresources.go`, `apimachinery/pkg/util/proxy/upgradeaware.go`).

mod backend;
pub(super) mod kubelet_url;
pub(in crate::apiserver) mod node;
pub mod proxy;
pub(super) mod target;

use crate::apiserver::error::ApiError;
use crate::apiserver::options::Query;
use crate::apiserver::request::RequestInfo;
use crate::storage::Storage;
use crate::transport::dial::{KubeletClient, UpgradeAnswer, empty_body};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use kubelet_url::KubeletUrl;
use poem::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use poem::{Body, Request, Response};
use std::io;
use target::{PODS, PodTarget};

/// What of a handshake the kubelet must see. Credentials stay here.
const HANDSHAKE_HEADERS: [HeaderName; 8] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-stream-protocol-version"),
    header::ORIGIN,
    header::USER_AGENT,
];

/// How much of a kubelet's error text is read.
const ERROR_BYTES_MAX: usize = 50 * 1024;

/// A bearer token that a browser put where it could.
const TOKEN_PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Answers a request for one of the three subresources.
pub async fn handle(
    storage: &Storage,
    kubelets: &KubeletClient,
    info: &RequestInfo,
    query: &Query,
    request: &Request,
) -> Result<Response, ApiError> {
    let pod = PodTarget::find(storage, &info.namespace, &info.name)?;
    let url = match info.subresource.as_str() {
        "exec" | "attach" => session_url(&info.subresource, &pod, query)?,
        _ => port_forward_url(&pod, query),
    };
    let node = pod.require_node()?;
    if !is_upgrade(request.headers()) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let address = node::address(storage, node)?;
    let mut forwarded = poem::http::Request::builder()
        .method(request.method().clone())
        .uri(url.as_str())
        .body(empty_body())
        .map_err(|error| ApiError::bad_request(format!("the request makes no valid URL: {error}")))?;
    *forwarded.headers_mut() = handshake_headers(request.headers());
    let answer = kubelets
        .upgrade(&address, forwarded)
        .await
        .map_err(|error| ApiError::unclassified(format!("error dialing backend: {error}")))?;
    match answer {
        // A text that says which protocols the kubelet has is for the client to act on.
        UpgradeAnswer::Refused(answer) if is_negotiation(answer.status()) => Ok(relay(answer)),
        // Clients take other texts for YAML and may find a Status without a message in them.
        UpgradeAnswer::Refused(answer) => Err(refusal(answer, &pod.name).await),
        UpgradeAnswer::Switched { headers, io } => {
            let upgraded = request
                .take_upgrade()
                .map_err(|_| ApiError::bad_request("Upgrade request required"))?;
            kubelets.connections().pipe(upgraded, io);
            let mut response = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .body(Body::empty());
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}

/// Exec and attach. The kubelet names the streams otherwise than the API does.
fn session_url(subresource: &str, pod: &PodTarget, query: &Query) -> Result<KubeletUrl, ApiError> {
    let container = pod.container(query.get("container").unwrap_or_default())?;
    let mut url = KubeletUrl::new(&[subresource, &pod.namespace, &pod.name, container]);
    for (ours, theirs) in [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ] {
        if query.flag(ours) {
            url.query(theirs, "1");
        }
    }
    if subresource == "exec" {
        for word in query.all("command") {
            url.query("command", word);
        }
    }
    Ok(url)
}

fn port_forward_url(pod: &PodTarget, query: &Query) -> KubeletUrl {
    let mut url = KubeletUrl::new(&["portForward", &pod.namespace, &pod.name]);
    for ports in query.all("ports") {
        url.query("port", ports);
    }
    url
}

fn is_negotiation(status: StatusCode) -> bool {
    matches!(status, StatusCode::FORBIDDEN | StatusCode::UPGRADE_REQUIRED)
}

/// The kubelet's text about a pod as an error of the API
/// (upstream: `apiserver/pkg/registry/generic/rest/response_checker.go`).
pub(super) async fn refusal(answer: poem::http::Response<Incoming>, pod: &str) -> ApiError {
    let status = answer.status();
    let text = match Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned(),
        Err(error) => return ApiError::unclassified(format!("reading the kubelet's answer: {error}")),
    };
    match status {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::not_found(PODS, pod).with_message(text),
        StatusCode::SERVICE_UNAVAILABLE => ApiError::service_unavailable(text),
        // 401 and 403 are between us and the kubelet: no fault of the client's.
        status => ApiError::internal(format!("the kubelet answered {status}: {text}")),
    }
}

/// A backend's answer as ours, its body still streaming.
pub(in crate::apiserver) fn relay(answer: poem::http::Response<Incoming>) -> Response {
    let (mut head, body) = answer.into_parts();
    // Of that connection, not of ours.
    for hop_by_hop in [header::CONNECTION, header::TRANSFER_ENCODING] {
        head.headers.remove(hop_by_hop);
    }
    let mut response = Response::builder().status(head.status).body(stream(body));
    *response.headers_mut() = head.headers;
    response
}

pub(super) fn stream(body: Incoming) -> Body {
    Body::from_bytes_stream(body.into_data_stream().map_err(io::Error::other))
}

pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

fn handshake_headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in HANDSHAKE_HEADERS {
        for value in from.get_all(&name) {
            if name != header::SEC_WEBSOCKET_PROTOCOL {
                headers.append(name.clone(), value.clone());
            } else if let Some(value) = without_token(value) {
                headers.append(name.clone(), value);
            }
        }
    }
    headers
}

fn without_token(protocols: &HeaderValue) -> Option<HeaderValue> {
    let protocols = protocols.to_str().ok()?;
    let kept: Vec<&str> = protocols
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL_PREFIX))
        .collect();
    HeaderValue::from_str(&kept.join(", "))
        .ok()
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn pod() -> PodTarget {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "p"},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
        }))
        .unwrap();
        PodTarget::new(pod)
    }

    #[test]
    fn streams_are_renamed_for_the_kubelet() {
        let query = Query::parse("command=sh&command=-c&command=echo%20%26&stdin=true&stdout=1&stderr=false&tty=true");
        let url = session_url("exec", &pod(), &query).unwrap();
        assert_eq!(
            url.as_str(),
            "/exec/ns/p/c?input=1&output=1&tty=1&command=sh&command=-c&command=echo+%26"
        );
        let url = session_url("attach", &pod(), &Query::parse("stdout=true&command=ls")).unwrap();
        assert_eq!(url.as_str(), "/attach/ns/p/c?output=1");
        assert!(session_url("exec", &pod(), &Query::parse("container=other")).is_err());
    }

    #[test]
    fn ports_are_handed_on() {
        let url = port_forward_url(&pod(), &Query::parse("ports=80,81&ports=82"));
        assert_eq!(url.as_str(), "/portForward/ns/p?port=80%2C81&port=82");
    }

    #[test]
    fn credentials_are_not_handed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io"),
        );
        let handed_on = handshake_headers(&headers);
        assert_eq!(handed_on.len(), 2);
        assert_eq!(handed_on[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
    }
}
