//! `/openapi/v2`, `/openapi/v3` and `/docs` over HTTP: encodings, hashes, caching
//! (upstream: `kube-openapi/pkg/handler` and `handler3`).

use super::docs;
use super::documents::{Document, OpenApiDocuments, OpenApiError};
use super::published::{Published, url};
use crate::apiserver::error::ApiError;
use flate2::read::GzDecoder;
use poem::http::{StatusCode, Uri, header};
use poem::{Request, Response};
use std::io::Read;

const JSON: &str = "application/json";
/// What the answer is called, and the two names by which it is asked for.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Serves everything below `/openapi` and `/docs`. The method has been looked at: it is GET or HEAD.
pub async fn serve(documents: &OpenApiDocuments, request: &Request) -> Result<Response, ApiError> {
    let path = request.uri().path().trim_end_matches('/');
    if path == "/openapi/v2" {
        let v2 = documents.v2().await?;
        // The hash is that of the JSON in either case: it names the state, not the bytes.
        return match negotiate(request, &[JSON, PROTOBUF, PROTOBUF_OLD])? {
            JSON => send(request, &v2.json, JSON, &v2.json.hash),
            _ => send(request, &v2.protobuf, PROTOBUF, &v2.json.hash),
        };
    }
    let published = documents.published().await?;
    if path == "/openapi/v3" {
        return send(request, &published.index, JSON, &published.index.hash);
    }
    if let Some(key) = path.strip_prefix("/openapi/v3/") {
        return group_version(&published, key, request).await;
    }
    match path.strip_prefix("/docs") {
        Some("") => Ok(docs::list(&published)),
        Some(key) => docs::page(&published, key.trim_start_matches('/')).ok_or_else(ApiError::unknown_path),
        None => Err(ApiError::unknown_path()),
    }
}

async fn group_version(published: &Published, key: &str, request: &Request) -> Result<Response, ApiError> {
    let current = published.hash(key).ok_or_else(ApiError::unknown_path)?;
    negotiate(request, &[JSON])?;
    let asked = query_hash(request.uri());
    if asked.is_some_and(|hash| hash != current) {
        let response = Response::builder().status(StatusCode::MOVED_PERMANENTLY);
        return Ok(response.header(header::LOCATION, url(key, current)).finish());
    }
    let document = &published.document(key).await?.ok_or_else(ApiError::unknown_path)?;
    if asked.is_none() {
        return send(request, document, JSON, &document.hash);
    }
    // The URL names the content: it may be kept for ever.
    let mut response = send(request, document, JSON, &document.hash)?;
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("public, immutable"),
    );
    let in_a_year = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(365 * 24);
    if let Ok(expires) = in_a_year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string().parse() {
        headers.insert(header::EXPIRES, expires);
    }
    Ok(response)
}

fn query_hash(uri: &Uri) -> Option<&str> {
    uri.query()?
        .split('&')
        .find_map(|pair| pair.strip_prefix("hash="))
        .filter(|hash| !hash.is_empty())
}

/// The first of the client's clauses that can be served, in the order of their weights; the first type for `*/*`.
fn negotiate(request: &Request, types: &[&'static str]) -> Result<&'static str, ApiError> {
    let accept = request.header(header::ACCEPT).unwrap_or_default();
    let accept = if accept.trim().is_empty() { "*/*" } else { accept };
    let mut clauses: Vec<(f32, &str)> = accept
        .split(',')
        .map(|clause| {
            let (name, parameters) = clause.split_once(';').unwrap_or((clause, ""));
            let weight = parameters
                .split(';')
                .find_map(|parameter| parameter.trim().strip_prefix("q=")?.parse().ok());
            (weight.unwrap_or(1.0), name.trim())
        })
        .filter(|(weight, _)| *weight > 0.0)
        .collect();
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    let wanted = clauses.iter().find_map(|(_, name)| match *name {
        "*/*" | "application/*" => types.first().copied(),
        name => types.iter().copied().find(|known| *known == name),
    });
    wanted.ok_or_else(|| ApiError::not_acceptable(types))
}

fn send(request: &Request, document: &Document, content_type: &'static str, hash: &str) -> Result<Response, ApiError> {
    let etag = format!("\"{hash}\"");
    let known = request.header(header::IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',')
            .any(|tag| tag.trim().trim_start_matches("W/") == etag || tag.trim() == "*")
    });
    let response = Response::builder()
        .header(header::ETAG, etag)
        .header(header::VARY, "Accept, Accept-Encoding");
    if known {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    let response = response.content_type(content_type);
    let compressed = request.header(header::ACCEPT_ENCODING).is_some_and(|encodings| {
        encodings
            .split(',')
            .any(|encoding| encoding.split(';').next().map(str::trim) == Some("gzip"))
    });
    if compressed {
        return Ok(response
            .header(header::CONTENT_ENCODING, "gzip")
            .body(document.gzip.clone()));
    }
    let mut body = Vec::new();
    GzDecoder::new(&*document.gzip)
        .read_to_end(&mut body)
        .map_err(OpenApiError::Compress)?;
    Ok(response.body(body))
}

impl From<OpenApiError> for ApiError {
    fn from(error: OpenApiError) -> Self {
        Self::internal(error)
    }
}
