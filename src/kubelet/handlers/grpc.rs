//! Probes by gRPC's own protocol for health (upstream: `pkg/probe/grpc`): one call of `grpc.health.v1.Health/Check`.

use super::{Outcome, authority, connect};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::GRPCAction;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

const METHOD: &str = "/grpc.health.v1.Health/Check";
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const OK: u32 = 0;
const DEADLINE_EXCEEDED: u32 = 4;
const UNIMPLEMENTED: u32 = 12;
/// The names of statuses, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const SERVING: u64 = 1;

/// SERVING is a success. `limit` is what a failure to connect is said to have taken: upstream's tries again until then.
pub async fn check(action: &GRPCAction, pod_ip: &str, agent: &str, limit: &str) -> Outcome {
    match ask(action, pod_ip, agent, limit).await {
        Ok(()) => Outcome::Success,
        Err(reason) => Outcome::Failure(reason),
    }
}

async fn ask(action: &GRPCAction, pod_ip: &str, agent: &str, limit: &str) -> Result<(), String> {
    let port = u16::try_from(action.port).map_err(|_| format!("invalid port {}", action.port))?;
    let stream = connect(pod_ip, port).await.map_err(|_| {
        let at = authority(pod_ip, port);
        format!("timeout: failed to connect service {at:?} within {limit}: context deadline exceeded")
    })?;
    let text = |error: hyper::Error| format!("error: health rpc probe failed: {error}");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(text)?;
    // Ends with this call, whatever becomes of it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let service = action.service.as_deref().unwrap_or_default();
    let request = hyper::Request::post(format!("http://{pod_ip}:{port}{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", agent)
        .body(Full::new(Bytes::from(frame(service))));
    let request = request.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    if !answer.status().is_success() {
        return Err(format!(
            "error: health rpc probe failed: HTTP status {}",
            answer.status()
        ));
    }
    // A call that fails at once says so in the head.
    let mut status = status_of(answer.headers());
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("error: health rpc probe failed: {error}"))?;
    status = status.or_else(|| status_of(body.trailers()?));
    match status {
        Some((OK, _)) => judge(&body.to_bytes()),
        Some((DEADLINE_EXCEEDED, _)) => Err(format!("timeout: health rpc did not complete within {limit}")),
        Some((code, message)) => Err(refusal(code, &message)),
        None => Err("error: health rpc probe failed: the answer has no status".to_owned()),
    }
}

/// A call's status and what it says.
fn status_of(headers: &http::HeaderMap) -> Option<(u32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok());
    let message = percent_decode_str(message.unwrap_or_default());
    Some((code, message.decode_utf8_lossy().into_owned()))
}

/// Why a call failed, in the words of Go's client.
fn refusal(code: u32, message: &str) -> String {
    if code == UNIMPLEMENTED {
        return format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        );
    }
    let name = usize::try_from(code).ok().and_then(|code| CODES.get(code));
    let name = name.map_or_else(|| format!("Code({code})"), |name| (*name).to_owned());
    format!("error: health rpc probe failed: rpc error: code = {name} desc = {message}")
}

/// An uncompressed message `HealthCheckRequest {service}` with its length before it.
fn frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(message);
    frame
}

fn judge(frame: &[u8]) -> Result<(), String> {
    let names = BTreeMap::from([
        (0, "UNKNOWN"),
        (1, "SERVING"),
        (2, "NOT_SERVING"),
        (3, "SERVICE_UNKNOWN"),
    ]);
    match serving_status(frame) {
        Some(SERVING) => Ok(()),
        Some(other) => {
            let name = names
                .get(&other)
                .map_or_else(|| other.to_string(), |name| (*name).to_owned());
            Err(format!("service unhealthy (responded with {name:?})"))
        }
        None => Err("error: health rpc probe failed: the answer cannot be read".to_owned()),
    }
}

/// Field 1 of `HealthCheckResponse`; zero is left out.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, value] if *value < 0x80 => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(status_of(&headers), None);
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-message", "unknown%20service".parse().unwrap());
        let (code, message) = status_of(&headers).unwrap();
        assert_eq!(
            refusal(code, &message),
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"
        );
        assert_eq!(
            refusal(12, "unknown service grpc.health.v1.Health"),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): \
             unknown service grpc.health.v1.Health"
        );
        assert_eq!(
            refusal(99, ""),
            "error: health rpc probe failed: rpc error: code = Code(99) desc = "
        );
    }

    #[test]
    fn messages() {
        assert_eq!(frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(frame("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = frame(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        for (message, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 9, 8, 1], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0], None),
        ] {
            assert_eq!(serving_status(message), status, "{message:?}");
        }
        assert!(judge(&[0, 0, 0, 0, 2, 8, 1]).is_ok());
        let refused = judge(&[0, 0, 0, 0, 2, 8, 2]).unwrap_err();
        assert_eq!(refused, "service unhealthy (responded with \"NOT_SERVING\")");
    }
}
