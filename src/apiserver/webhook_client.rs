//! Calls to webhooks: where one is, the exchange of a review, and what an answer that is none means
//! (upstream: `apiserver/pkg/util/webhook/client.go`, `client-go/rest/request.go`).

use super::service_endpoints;
use crate::registry::client_config::{ClientConfig, Target};
use crate::registry::schema::syntax_error;
use crate::registry::strategy::Object;
use crate::storage::Storage;
use crate::transport::dial::Address;
use crate::transport::webhook::{Endpoint, Security, post};
use http::Uri;
use serde_json::Value;
use std::time::Duration;

const AGENT: &str = "kube-apiserver-admission";

/// Sends a review and reads the answer, which the webhook is told to give in time. Err is upstream's text.
pub async fn exchange(
    storage: &Storage,
    client: &ClientConfig,
    timeout: Duration,
    review: &Value,
) -> Result<Object, String> {
    let (url, endpoint) = endpoint(storage, client, timeout);
    let failed = |why: &dyn std::fmt::Display| format!("Post {url:?}: {why}");
    let endpoint = endpoint.map_err(|why| failed(&why))?;
    let (status, body) = post(&endpoint, review.to_string().into_bytes(), timeout)
        .await
        .map_err(|error| failed(&error))?;
    if !status.is_success() {
        return Err(failure(status.as_u16(), &body));
    }
    serde_json::from_slice(&body)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {}", syntax_error(&error)))
}

/// The URL as messages show it, and the way there.
fn endpoint(storage: &Storage, client: &ClientConfig, timeout: Duration) -> (String, Result<Endpoint, String>) {
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    let query = format!("timeout={seconds}s");
    match &client.target {
        Target::Url(url) => (format!("{url}?{query}"), by_url(client, url, &query)),
        Target::Service {
            namespace,
            name,
            port,
            path,
        } => {
            let host = format!("{name}.{namespace}.svc");
            let path = format!("/{}?{query}", path.trim_start_matches('/'));
            let shown = format!("https://{host}:{port}{path}");
            let address = service_endpoints::resolve(storage, namespace, name, *port);
            let endpoint = address.map(|address| Endpoint {
                address,
                host: format!("{host}:{port}"),
                name: host,
                path,
                security: Security::Authorities(client.authorities.clone()),
                agent: AGENT,
            });
            (shown, endpoint)
        }
    }
}

fn by_url(client: &ClientConfig, url: &str, query: &str) -> Result<Endpoint, String> {
    let uri: Uri = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("parse {url:?}: there is no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let path = match uri.path() {
        "" => "/",
        path => path,
    };
    Ok(Endpoint {
        address: Address {
            host: host.clone(),
            port: uri.port_u16().unwrap_or(443),
        },
        name: host,
        host: uri.authority().map(ToString::to_string).unwrap_or_default(),
        path: format!("{path}?{query}"),
        security: Security::Authorities(client.authorities.clone()),
        agent: AGENT,
    })
}

/// What client-go says of an answer that is no success.
fn failure(code: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let status: Option<Object> = serde_json::from_slice(body).ok();
    if let Some(message) = status
        .as_ref()
        .filter(|status| status.get("kind").and_then(Value::as_str) == Some("Status"))
        .and_then(|status| status.get("message"))
        .and_then(Value::as_str)
    {
        return message.to_owned();
    }
    match code {
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 if !text.is_empty() => text.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned()
        }
        500.. => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_none_are_told_as_by_client_go() {
        let table = [
            (404, "", "the server could not find the requested resource"),
            (
                500,
                "oops\n",
                "an error on the server (\"oops\") has prevented the request from succeeding",
            ),
            (
                302,
                "",
                "the server responded with the status code 302 but did not return more information",
            ),
            (418, r#"{"kind":"Status","message":"a teapot"}"#, "a teapot"),
        ];
        for (code, body, expected) in table {
            assert_eq!(failure(code, body.as_bytes()), expected);
        }
    }
}
