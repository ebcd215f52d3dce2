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
use tower::service_fn;

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
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(identity);
    parts
        .headers
        .entry(http::header::USER_AGENT)
        .or_insert(http::HeaderValue::from_static(agent));
    let parts = RequestParts::from((parts, Default::default(), Default::default(), Scheme::HTTP));
    let body = poem::Body::from_bytes_stream(body.into_data_stream().map_err(std::io::Error::other));
    endpoint
        .get_response(poem::Request::from_parts(parts, body))
        .await
        .into()
}
