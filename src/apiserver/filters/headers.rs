//! Headers of every answer (upstream: `filters/cachecontrol.go`, `filters/audit_init.go`).

use poem::Response;
use poem::http::{HeaderMap, HeaderName, HeaderValue, header};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const AUDIT_ID_BYTES_MAX: usize = 64;

/// The client's own audit id if it sent a usable one, else a fresh one.
pub fn audit_id(request: &HeaderMap) -> HeaderValue {
    match request.get(AUDIT_ID) {
        Some(id) if !id.is_empty() && id.len() <= AUDIT_ID_BYTES_MAX => id.clone(),
        _ => fresh_id(),
    }
}

fn fresh_id() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    // A UUID is hexadecimal digits and hyphens, which every header may carry.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or(HeaderValue::from_static("none"))
}

/// Adds what the handler has not set.
pub fn write(response: &mut Response, audit_id: HeaderValue) {
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    headers.insert(AUDIT_ID, audit_id);
}
