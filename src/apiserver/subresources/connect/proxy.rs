//! `/proxy` of pods, services and nodes: the request goes to what the object stands for, and its answer comes back
//! (upstream: `apimachinery/pkg/util/proxy/{upgradeaware,transport}.go`). Links in HTML are not rewritten;
//! redirects are.

use super::backend::{self, Backend};
use super::{is_upgrade, relay};
use crate::apiserver::error::ApiError;
use crate::apiserver::request::RequestInfo;
use crate::storage::Storage;
use crate::transport::dial::{Address, Connections, DialError, KubeletClient, RequestBody, UpgradeAnswer, empty_body};
use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use poem::{Body, Request, Response};

/// What belongs to one connection, and the credentials that are for us alone. `Connection` and `Upgrade` pass in
/// handshakes.
const DROPPED_HEADERS: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::HOST,
    header::CONNECTION,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// Answers a request below `/proxy`.
pub async fn handle(
    storage: &Storage,
    kubelets: &KubeletClient,
    info: &RequestInfo,
    request: &mut Request,
) -> Result<Response, ApiError> {
    let (prefix, rest) = split(request.uri().path());
    if rest.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(redirect(&with_query(&format!("{prefix}/"), request.uri())));
    }
    let prefix = prefix.to_owned();
    let backend = backend::find(storage, &info.resource, &info.namespace, &info.name)?;
    let path = if rest.is_empty() { "/" } else { rest };
    let (forwarded, is_upgrade) = forward(request, with_query(path, request.uri()))?;
    let unreachable =
        |error: DialError| ApiError::service_unavailable(format!("error trying to reach service: {error}"));
    if !is_upgrade {
        let answer = match &backend {
            Backend::Plain(address) => kubelets.request_plain(address, forwarded).await,
            Backend::Unverified(address) => kubelets.request_unverified(address, forwarded).await,
            Backend::Kubelet(address) => kubelets.request(address, forwarded).await,
        };
        let mut response = relay(answer.map_err(unreachable)?);
        let (Backend::Plain(address) | Backend::Unverified(address) | Backend::Kubelet(address)) = &backend;
        rewrite_location(response.headers_mut(), &prefix, address);
        return Ok(response);
    }
    let answer = match &backend {
        Backend::Plain(address) => kubelets.upgrade_plain(address, forwarded).await,
        Backend::Unverified(address) => kubelets.upgrade_unverified(address, forwarded).await,
        Backend::Kubelet(address) => kubelets.upgrade(address, forwarded).await,
    };
    switch(request, answer.map_err(unreachable)?, kubelets.connections())
}

/// The request as it goes on to another server, with its body; true: it asks for another protocol, and has none.
pub(in crate::apiserver) fn forward(
    request: &mut Request,
    target: String,
) -> Result<(poem::http::Request<RequestBody>, bool), ApiError> {
    let forwarded = poem::http::Request::builder()
        .method(request.method().clone())
        .uri(target);
    let mut headers = forwarded_headers(request.headers(), request.uri());
    let is_upgrade = is_upgrade(request.headers());
    if is_upgrade {
        for name in [header::CONNECTION, header::UPGRADE] {
            for value in request.headers().get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }
    let body: RequestBody = if is_upgrade {
        empty_body()
    } else {
        request.take_body().into()
    };
    let mut forwarded = forwarded
        .body(body)
        .map_err(|error| ApiError::bad_request(format!("the request makes no valid URL: {error}")))?;
    *forwarded.headers_mut() = headers;
    Ok((forwarded, is_upgrade))
}

/// What the other server made of a request for another protocol: the client's connection is joined to one of `ours`.
pub(in crate::apiserver) fn switch(
    request: &Request,
    answer: UpgradeAnswer,
    ours: &Connections,
) -> Result<Response, ApiError> {
    match answer {
        UpgradeAnswer::Refused(answer) => Ok(relay(answer)),
        UpgradeAnswer::Switched { headers, io } => {
            let upgraded = request
                .take_upgrade()
                .map_err(|_| ApiError::bad_request("the connection cannot be upgraded"))?;
            ours.pipe(upgraded, io);
            let mut response = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .body(Body::empty());
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}

/// The path up to and with `/proxy`, and what follows, both as they came. A pod may be called `proxy`, so it is the
/// position that counts: the seventh segment below a namespace, the fifth elsewhere.
fn split(path: &str) -> (&str, &str) {
    let segments = if path.starts_with("/api/v1/namespaces/") { 7 } else { 5 };
    let end = path.match_indices('/').nth(segments).map(|(position, _)| position);
    path.split_at(end.unwrap_or(path.len()))
}

fn with_query(path: &str, uri: &Uri) -> String {
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Relative links of a page need the slash.
fn redirect(location: &str) -> Response {
    Response::builder()
        .status(StatusCode::MOVED_PERMANENTLY)
        .header(header::LOCATION, location)
        .body(Body::empty())
}

fn forwarded_headers(from: &HeaderMap, uri: &Uri) -> HeaderMap {
    let mut headers = from.clone();
    for name in DROPPED_HEADERS {
        headers.remove(name);
    }
    let forwarded = [
        ("x-forwarded-uri", HeaderValue::from_str(uri.path()).ok()),
        ("x-forwarded-host", from.get(header::HOST).cloned()),
        ("x-forwarded-proto", Some(HeaderValue::from_static("https"))),
    ];
    for (name, value) in forwarded {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// A redirect to the backend itself becomes one to its place below the prefix.
pub(in crate::apiserver) fn rewrite_location(headers: &mut HeaderMap, prefix: &str, address: &Address) {
    let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let path = match location.parse::<Uri>() {
        Ok(uri) => match uri.authority() {
            Some(authority) if authority.as_str() != address.to_string() => return,
            _ => uri.path_and_query().map(|path| path.as_str().to_owned()),
        },
        Err(_) => return,
    };
    let rewritten = path
        .filter(|path| path.starts_with('/'))
        .and_then(|path| HeaderValue::from_str(&format!("{prefix}{path}")).ok());
    if let Some(rewritten) = rewritten {
        headers.insert(header::LOCATION, rewritten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_split_by_position() {
        let pod = "/api/v1/namespaces/ns/pods/proxy/proxy";
        assert_eq!(split(pod), (pod, ""));
        assert_eq!(split(&format!("{pod}/a%2Fb/proxy/")), (pod, "/a%2Fb/proxy/"));
        assert_eq!(
            split("/api/v1/nodes/n/proxy/logs/"),
            ("/api/v1/nodes/n/proxy", "/logs/")
        );
    }

    #[test]
    fn redirects_of_the_backend_stay_below_the_prefix() {
        let backend = Address {
            host: "10.0.0.1".to_owned(),
            port: 80,
        };
        for (location, expected) in [
            ("/login?x=1", "/prefix/login?x=1"),
            ("http://10.0.0.1:80/login", "/prefix/login"),
            ("https://example.org/login", "https://example.org/login"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(location));
            rewrite_location(&mut headers, "/prefix", &backend);
            assert_eq!(headers[header::LOCATION], expected);
        }
    }

    #[test]
    fn credentials_stay_here_and_the_origin_is_told() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers.insert(header::HOST, HeaderValue::from_static("api:6443"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let forwarded = forwarded_headers(&headers, &Uri::from_static("/api/v1/nodes/n/proxy/x"));
        assert!(!forwarded.contains_key(header::AUTHORIZATION));
        assert_eq!(forwarded[header::ACCEPT], "*/*");
        assert_eq!(forwarded["x-forwarded-host"], "api:6443");
        assert_eq!(forwarded["x-forwarded-uri"], "/api/v1/nodes/n/proxy/x");
    }
}
