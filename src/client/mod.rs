//! Builds `kube::Client`s for the parts of this process (upstream: client-go). They call the API server's endpoint
//! directly, without a socket, under an identity of their own; everything else is as over the network.
//!
//! What clients share stands here, too:
//! - [`informer`]: one watch and one indexed cache per kind; [`copies`]: what several caches hold exists once and is
//!   decoded once; [`lean`]: decoded without managed fields.
//! - [`work_queue`]: keys that wait to be worked on.
//! - [`events`]: what people are told.
//! - [`claims`]: claims of pods, and the built-in provisioner of volumes.
//! - [`pods`]: what everybody reads of a pod.
//! - [`endpoint_slices`]: whose a slice is.
//! - [`placement`]: whether a pod may be on a node.
//! - [`discovery`]: which resources there are.

pub mod claims;
mod copies;
pub mod discovery;
pub mod endpoint_slices;
pub mod events;
pub mod informer;
mod key;
pub mod lean;
pub mod placement;
pub mod pods;
pub mod work_queue;

pub use key::ObjectKey;

use futures_util::TryStreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::api::Preconditions;
use kube::client::Body;
use poem::endpoint::BoxEndpoint;
use poem::http::uri::Scheme;
use poem::{Endpoint, RequestParts};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tower::service_fn;

/// How often a request is sent that the server has no room for (upstream: `maxRetries` of client-go).
const ATTEMPTS_MAX: usize = 11;

/// For a deletion of the object with this uid, and of no other that has taken its name since (409).
pub fn only(uid: Option<String>) -> Preconditions {
    Preconditions {
        uid,
        resource_version: None,
    }
}

/// A client of `endpoint`. `identity` goes into the extensions of every request, where authentication finds it;
/// `agent` is the program's name as others see it, also where it comes to own fields.
///
/// Requests that upgrade (exec, attach, port-forward) cannot pass this way: there is no connection to take over.
pub fn in_process<I>(endpoint: BoxEndpoint<'static, poem::Response>, identity: I, agent: &'static str) -> kube::Client
where
    I: Clone + Send + Sync + 'static,
{
    let endpoint: Arc<BoxEndpoint<'static, poem::Response>> = Arc::new(endpoint);
    let service = service_fn(move |request: Request<Body>| {
        let (endpoint, identity) = (endpoint.clone(), identity.clone());
        async move { Ok::<_, Infallible>(call(&endpoint, identity, agent, request).await) }
    });
    kube::Client::new(service, "default")
}

async fn call<I>(
    endpoint: &BoxEndpoint<'static, poem::Response>,
    identity: I,
    agent: &'static str,
    request: Request<Body>,
) -> Response<http_body_util::combinators::BoxBody<bytes::Bytes, std::io::Error>>
where
    I: Clone + Send + Sync + 'static,
{
    let (mut parts, mut body) = request.into_parts();
    parts.extensions.insert(identity);
    parts
        .headers
        .entry(http::header::USER_AGENT)
        .or_insert(http::HeaderValue::from_static(agent));
    for _ in 1..ATTEMPTS_MAX {
        // A stream can not be sent twice.
        let Some(again) = body.try_clone() else { break };
        let response = send(endpoint, parts.clone(), std::mem::replace(&mut body, again)).await;
        let Some(wait) = retry_after(&response) else {
            return response.into();
        };
        tokio::time::sleep(wait).await;
    }
    send(endpoint, parts, body).await.into()
}

async fn send(
    endpoint: &BoxEndpoint<'static, poem::Response>,
    parts: http::request::Parts,
    body: Body,
) -> poem::Response {
    let parts = RequestParts::from((parts, Default::default(), Default::default(), Scheme::HTTP));
    let body = poem::Body::from_bytes_stream(body.into_data_stream().map_err(std::io::Error::other));
    endpoint.get_response(poem::Request::from_parts(parts, body)).await
}

/// When a request that was refused for want of room is to be sent again, as client-go's clients do.
fn retry_after(response: &poem::Response) -> Option<Duration> {
    if response.status() != http::StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = response.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use poem::endpoint::{EndpointExt, make};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Refuses so often.
    async fn asked(refusals: usize) -> (http::StatusCode, usize) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let endpoint = make(move |mut request: poem::Request| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert_eq!(request.take_body().into_string().await.unwrap(), "{}");
                let refused = poem::Response::builder().header("Retry-After", "0");
                match number < refusals {
                    true => refused.status(http::StatusCode::TOO_MANY_REQUESTS).finish(),
                    false => poem::Response::builder().finish(),
                }
            }
        });
        let request = Request::builder().body(Body::from(b"{}".to_vec())).unwrap();
        let response = call(&endpoint.boxed(), (), "test", request).await;
        (response.status(), count.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn who_is_told_to_come_back_comes_back() {
        assert_eq!(asked(0).await, (http::StatusCode::OK, 1));
        assert_eq!(asked(2).await, (http::StatusCode::OK, 3));
        assert_eq!(asked(100).await, (http::StatusCode::TOO_MANY_REQUESTS, ATTEMPTS_MAX));
    }
}
