//! A request on its way to the server of its group, under its user's name, which that server believes because of the
//! certificate that comes with it (upstream: `kube-aggregator/pkg/apiserver/handler_proxy.go`,
//! `client-go/transport.SetAuthProxyHeaders`).

use super::services::ApiService;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::User;
use crate::apiserver::subresources::connect::{proxy, relay};
use poem::http::header::InvalidHeaderValue;
use poem::http::{HeaderMap, HeaderName, HeaderValue};
use poem::{Request, Response};

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA_PREFIX: &str = "x-remote-extra-";
/// What a client says of users is between it and this server.
const DROPPED_PREFIXES: [&str; 2] = ["x-remote-", "impersonate-"];

const UNAVAILABLE: &str = "service unavailable";

/// Passes a request on. It has been authorized.
pub async fn serve(ctx: &Context, service: &ApiService, request: &mut Request) -> Result<Response, ApiError> {
    let aggregator = &ctx.server.aggregator;
    let unavailable = || ApiError::no_service(UNAVAILABLE);
    let remote = service.remote.as_ref().filter(|_| service.available);
    let remote = remote.ok_or_else(unavailable)?;
    // What cannot be read of the authorities is the fault of nobody who asks.
    remote.tls(&aggregator.client).map_err(ApiError::internal)?;
    let to = aggregator.destination(remote).map_err(|why| {
        tracing::debug!(why, name = %service.name, "a request has nowhere to go");
        unavailable()
    })?;
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let (mut forwarded, is_upgrade) = proxy::forward(request, target)?;
    name_user(forwarded.headers_mut(), &ctx.user).map_err(ApiError::internal)?;
    let unreachable = |error| ApiError::no_service(format!("error trying to reach service: {error}"));
    if is_upgrade {
        let answer = aggregator.client.upgrade(&to, forwarded).await.map_err(unreachable)?;
        return proxy::switch(request, answer, aggregator.client.connections());
    }
    let answer = aggregator.client.request(&to, forwarded).await;
    let mut response = relay(answer.map_err(unreachable)?);
    proxy::rewrite_location(response.headers_mut(), "", &to.address);
    Ok(response)
}

/// Says who asks, and forgets what the headers said of that.
pub fn name_user(headers: &mut HeaderMap, user: &User) -> Result<(), InvalidHeaderValue> {
    let foreign: Vec<HeaderName> = headers
        .keys()
        .filter(|name| DROPPED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)))
        .cloned()
        .collect();
    for name in foreign {
        headers.remove(name);
    }
    headers.insert(USER, HeaderValue::from_bytes(user.name.as_bytes())?);
    if !user.uid.is_empty() {
        headers.insert(UID, HeaderValue::from_bytes(user.uid.as_bytes())?);
    }
    for group in &user.groups {
        headers.append(GROUP, HeaderValue::from_bytes(group.as_bytes())?);
    }
    for (key, values) in &user.extra {
        let Ok(name) = format!("{EXTRA_PREFIX}{}", escaped(key)).parse::<HeaderName>() else {
            continue;
        };
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes())?);
        }
    }
    Ok(())
}

/// What may not stand in a header's name as it is, and the sign that says so.
fn escaped(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_user_is_named_and_nobody_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("impersonate-user", "jane"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let user = User {
            name: "jane".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["dev".to_owned(), "ops".to_owned()],
            extra: BTreeMap::from([(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec!["X509SHA256=ab".to_owned()],
            )]),
        };
        name_user(&mut headers, &user).unwrap();
        let all = |name: &str| -> Vec<&str> {
            let values = headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-uid"), ["7"]);
        assert_eq!(all("x-remote-group"), ["dev", "ops"]);
        assert_eq!(
            all("x-remote-extra-authentication.kubernetes.io%2fcredential-id"),
            ["X509SHA256=ab"]
        );
        assert_eq!(all("accept"), ["*/*"]);
        assert_eq!(headers.keys().count(), 5);
    }

    #[test]
    fn keys_are_escaped_as_names_of_headers() {
        assert_eq!(escaped("scopes"), "scopes");
        assert_eq!(escaped("example.com/a b%"), "example.com%2Fa%20b%25");
        let user = User {
            name: "a\nb".to_owned(),
            ..User::default()
        };
        assert!(name_user(&mut HeaderMap::new(), &user).is_err());
    }
}
