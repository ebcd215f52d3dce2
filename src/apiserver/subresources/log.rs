//! `log` of a pod: the options are checked, and the kubelet's text is handed through as it comes, over WebSocket if the
//! client asks for that (upstream: `pkg/registry/core/pod/rest/log.go`,
//! `apiserver/pkg/registry/generic/rest/streamer.go`, `apimachinery/pkg/util/httpstream/wsstream`).

use super::connect::kubelet_url::KubeletUrl;
use super::connect::node;
use super::connect::target::PodTarget;
use super::connect::{refusal, stream};
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::watch::websocket;
use crate::apiserver::options::Query;
use crate::apiserver::request::RequestInfo;
use crate::registry::field::FieldError;
use crate::storage::Storage;
use crate::transport::dial::{KubeletClient, empty_body};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::Timestamp;
use poem::http::{StatusCode, header};
use poem::web::websocket::{CloseCode, Message, WebSocketStream};
use poem::{Body, IntoResponse, Request, Response};

/// What a WebSocket's messages are: bytes as they come, also where the client names no protocol, or base64.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// Answers a request for a log.
pub async fn handle(
    storage: &Storage,
    kubelets: &KubeletClient,
    info: &RequestInfo,
    query: &Query,
    request: &Request,
) -> Result<Response, ApiError> {
    // Taken before anything is sent; a client that asks in a wrong way is told so.
    let socket = match websocket::is_requested(request) {
        true => Some(websocket::accept(request).await?),
        false => None,
    };
    let pod = PodTarget::find(storage, &info.namespace, &info.name)?;
    let options = PodLogOptions::parse(query)?;
    options.validate(&pod.name)?;
    let container = pod.container(query.get("container").unwrap_or_default())?;
    let Some(node) = pod.node() else {
        return Ok(Response::builder().status(StatusCode::NO_CONTENT).body(Body::empty()));
    };
    let url = options.kubelet_url(&pod, container);
    let address = node::address(storage, node)?;
    let asked = poem::http::Request::get(url.as_str())
        .body(empty_body())
        .map_err(|error| ApiError::bad_request(format!("the request makes no valid URL: {error}")))?;
    let answer = kubelets
        .request(&address, asked)
        .await
        .map_err(|error| ApiError::unclassified(format!("Get \"https://{address}{}\": {error}", url.as_str())))?;
    if !answer.status().is_success() {
        return Err(refusal(answer, &pod.name).await);
    }
    if let Some(socket) = socket {
        let text = chosen(request) == BASE64;
        let serve = move |socket| send(socket, answer.into_body(), text);
        return Ok(socket.protocols([BINARY, BASE64]).on_upgrade(serve).into_response());
    }
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "text/plain")
        .body(stream(answer.into_body())))
}

/// The first of the client's protocols that is known here; empty if it names none.
fn chosen(request: &Request) -> &str {
    let names = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = names
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    names
        .map(str::trim)
        .find(|name| [BINARY, BASE64].contains(name))
        .unwrap_or_default()
}

/// One message for each piece, until the log or the client ends.
async fn send(socket: WebSocketStream, mut log: Incoming, text: bool) {
    let (mut sender, mut receiver) = socket.split();
    loop {
        let frame = tokio::select! {
            frame = log.frame() => frame,
            // What clients say is of no interest, only that they are there.
            message = receiver.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        let Some(Ok(frame)) = frame else {
            break;
        };
        let piece: Bytes = frame.into_data().unwrap_or_default();
        let message = match text {
            true => Message::Text(STANDARD.encode(&piece)),
            false => Message::Binary(piece.to_vec()),
        };
        if sender.send(message).await.is_err() {
            return;
        }
    }
    // A client that is gone already needs no farewell.
    let _ = sender
        .send(Message::Close(Some((CloseCode::Normal, String::new()))))
        .await;
}

/// The parameters, as far as the API checks them.
#[derive(Clone, Debug, Default)]
struct PodLogOptions {
    follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

impl PodLogOptions {
    /// 400 for what does not decode.
    fn parse(query: &Query) -> Result<PodLogOptions, ApiError> {
        let since_time = query
            .get("sinceTime")
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!("sinceTime: parsing time {text:?}: it is not an RFC 3339 time"))
                })
            })
            .transpose()?;
        Ok(PodLogOptions {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since_seconds: query.integer("sinceSeconds")?,
            since_time,
            tail_lines: query.integer("tailLines")?,
            limit_bytes: query.integer("limitBytes")?,
            stream: query.get("stream").map(str::to_owned),
        })
    }

    /// 422 for what is not allowed (upstream: `ValidatePodLogOptions`).
    fn validate(&self, pod: &str) -> Result<(), ApiError> {
        let mut errors = Vec::new();
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            errors.push(FieldError::invalid(
                "tailLines",
                lines,
                "must be greater than or equal to 0",
            ));
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.push(FieldError::invalid("limitBytes", bytes, "must be greater than 0"));
        }
        if self.since_seconds.is_some() && self.since_time.is_some() {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", detail));
        } else if let Some(seconds) = self.since_seconds.filter(|seconds| *seconds < 1) {
            errors.push(FieldError::invalid("sinceSeconds", seconds, "must be greater than 0"));
        }
        if self.stream.is_some() {
            errors.push(FieldError::forbidden("stream", "may not be specified"));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid("", "PodLogOptions", pod, &errors))
        }
    }

    fn kubelet_url(&self, pod: &PodTarget, container: &str) -> KubeletUrl {
        let mut url = KubeletUrl::new(&["containerLogs", &pod.namespace, &pod.name, container]);
        for (name, on) in [
            ("follow", self.follow),
            ("previous", self.previous),
            ("timestamps", self.timestamps),
        ] {
            if on {
                url.query(name, "true");
            }
        }
        for (name, number) in [
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
            ("limitBytes", self.limit_bytes),
        ] {
            if let Some(number) = number {
                url.query(name, &number.to_string());
            }
        }
        if let Some(time) = self.since_time {
            url.query("sinceTime", &time.to_string());
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(query: &str) -> ApiError {
        let options = PodLogOptions::parse(&Query::parse(query));
        options.and_then(|options| options.validate("p")).unwrap_err()
    }

    #[test]
    fn options_are_checked_as_upstream_does() {
        for (query, code) in [
            ("tailLines=x", 400),
            ("sinceTime=yesterday", 400),
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422),
            ("stream=Stdout", 422),
        ] {
            assert_eq!(refused(query).code().as_u16(), code, "{query}");
        }
    }

    #[test]
    fn options_are_handed_on() {
        let pod = serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p"}})).unwrap();
        let query = Query::parse("follow=true&tailLines=0&timestamps=1&sinceTime=2026-01-01T00:00:00.5%2B01:00");
        let options = PodLogOptions::parse(&query).unwrap();
        options.validate("p").unwrap();
        assert_eq!(
            options.kubelet_url(&PodTarget::new(pod), "c").as_str(),
            "/containerLogs/ns/p/c?follow=true&timestamps=true&tailLines=0&sinceTime=2025-12-31T23%3A00%3A00.5Z"
        );
    }
}
