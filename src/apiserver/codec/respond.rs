//! Finished JSON to an HTTP answer: YAML, indentation, compression
//! (upstream: `responsewriters/writers.go`).

use super::accept::{Format, Negotiated, Shape};
use super::{protobuf, yaml};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::Query;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use poem::http::{HeaderMap, HeaderValue, StatusCode, header};
use poem::{Body, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::Write;

/// Answers above this size are compressed if the client asks for it.
const GZIP_BYTES_MIN: usize = 128 * 1024;

/// People at a terminal or in a browser get indented JSON.
const PRETTY_USER_AGENTS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Whether JSON is to be indented.
pub fn wants_pretty(query: &Query, headers: &HeaderMap, negotiated: &Negotiated) -> bool {
    match query.get("pretty") {
        Some(_) => query.flag("pretty"),
        None => {
            let agent = headers
                .get(header::USER_AGENT)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("");
            negotiated.pretty || PRETTY_USER_AGENTS.iter().any(|prefix| agent.starts_with(prefix))
        }
    }
}

/// Answers with `json` (compact) in the negotiated form.
pub async fn respond(
    query: &Query,
    headers: &HeaderMap,
    negotiated: &Negotiated,
    status: StatusCode,
    json: Bytes,
) -> Result<Response, ApiError> {
    let (format, bytes) = written(query, headers, negotiated, json)?;
    finish(headers, status, format, bytes).await
}

/// Answers with bytes that are in their final form.
pub async fn finish(
    headers: &HeaderMap,
    status: StatusCode,
    format: Format,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let builder = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    if is_compressed(headers, bytes.len()) {
        // Compressing megabytes takes milliseconds: not on a thread that serves others.
        let packed = tokio::task::spawn_blocking(move || gzip(&bytes))
            .await
            .map_err(ApiError::internal)?;
        return Ok(builder
            .header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
            .header(header::VARY, HeaderValue::from_static("Accept-Encoding"))
            .body(packed.map_err(ApiError::internal)?));
    }
    Ok(builder.body(Body::from_bytes(bytes)))
}

/// JSON in the negotiated form, and which form that is: what has no protobuf form stays JSON.
fn written(
    query: &Query,
    headers: &HeaderMap,
    negotiated: &Negotiated,
    json: Bytes,
) -> Result<(Format, Bytes), ApiError> {
    Ok(match negotiated.format {
        Format::Json if wants_pretty(query, headers, negotiated) => (Format::Json, indent(&json)?),
        Format::Json => (Format::Json, json),
        Format::Yaml => (Format::Yaml, to_yaml(&json)?),
        Format::Protobuf => {
            let object: Map<String, Value> = serde_json::from_slice(&json).map_err(ApiError::internal)?;
            match protobuf::encode_body(&object).map_err(ApiError::internal)? {
                Some(body) => (Format::Protobuf, body.into()),
                None => (Format::Json, json),
            }
        }
    })
}

/// The answer to a request that failed: in the form that the client accepts, or else in JSON.
pub fn failure(ctx: &Context, error: &ApiError) -> Response {
    let mut response = error.to_response();
    if error.is_plain_text() {
        return response;
    }
    let Ok(negotiated) = ctx.negotiate(Shape::Plain) else {
        return response;
    };
    let json = Bytes::from(error.status().to_string());
    match written(&ctx.query, &ctx.headers, &negotiated, json) {
        Ok((format, bytes)) if format != Format::Json || wants_pretty(&ctx.query, &ctx.headers, &negotiated) => {
            let content_type = HeaderValue::from_static(format.media_type());
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response.set_body(bytes);
            response
        }
        _ => response,
    }
}

/// Answers with a value built for this request.
pub async fn respond_value(
    query: &Query,
    headers: &HeaderMap,
    negotiated: &Negotiated,
    status: StatusCode,
    value: &impl Serialize,
) -> Result<Response, ApiError> {
    let json = serde_json::to_vec(value).map_err(ApiError::internal)?;
    respond(query, headers, negotiated, status, json.into()).await
}

/// Whether an answer of this size is compressed.
pub fn is_compressed(request: &HeaderMap, bytes: usize) -> bool {
    bytes > GZIP_BYTES_MIN && accepts_gzip(request)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|clause| {
            clause
                .split(';')
                .next()
                .is_some_and(|name| name.trim().eq_ignore_ascii_case("gzip"))
        })
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn indent(json: &[u8]) -> Result<Bytes, ApiError> {
    let value: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    serde_json::to_vec_pretty(&value)
        .map(Bytes::from)
        .map_err(ApiError::internal)
}

fn to_yaml(json: &[u8]) -> Result<Bytes, ApiError> {
    let value: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    Ok(yaml::encode(&value).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[tokio::test]
    async fn large_answers_are_compressed_on_request() {
        let json = Bytes::from(format!("\"{}\"", "x".repeat(GZIP_BYTES_MIN)));
        let asked = headers(header::ACCEPT_ENCODING, "br, gzip");
        let query = Query::default();
        let response = respond(&query, &asked, &Negotiated::JSON, StatusCode::OK, json.clone())
            .await
            .unwrap();
        assert_eq!(response.header("content-encoding"), Some("gzip"));
        assert!(response.into_body().into_bytes().await.unwrap().len() < 2000);
        let response = respond(&query, &HeaderMap::new(), &Negotiated::JSON, StatusCode::OK, json)
            .await
            .unwrap();
        assert_eq!(response.header("content-encoding"), None);
    }

    #[tokio::test]
    async fn curl_gets_indentation_unless_it_says_no() {
        let curl = headers(header::USER_AGENT, "curl/8");
        let body = Bytes::from_static(b"{\"a\":1}");
        for (query, expected) in [("", "{\n  \"a\": 1\n}"), ("pretty=0", "{\"a\":1}")] {
            let query = Query::parse(query);
            let response = respond(&query, &curl, &Negotiated::JSON, StatusCode::OK, body.clone())
                .await
                .unwrap();
            assert_eq!(response.into_body().into_string().await.unwrap(), expected);
        }
    }
}
