//! An endpoint that misbehaves, by the seed's dice.

use futures_util::StreamExt;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use poem::endpoint::BoxEndpoint;
use poem::http::{Method, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt, Request, Response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// In hundredths of calls.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Answered with 500, and not done.
    pub refused: u32,
    /// Changes that are answered with 409, and not done.
    pub conflicts: u32,
    /// Done, but answered with 504.
    pub lost_answers: u32,
    /// Watches that end at some event; all others do so later.
    pub broken_watches: u32,
}

#[derive(Clone)]
pub struct Dice {
    random: Arc<Mutex<StdRng>>,
    /// How often something went wrong, so that a test can tell that it did.
    pub injected: Arc<AtomicUsize>,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            injected: Arc::default(),
        }
    }

    pub fn below(&self, end: usize) -> usize {
        self.random.lock().random_range(0..end.max(1))
    }

    fn falls(&self, of_hundred: u32) -> bool {
        let falls = self.random.lock().random_ratio(of_hundred.min(100), 100);
        if falls {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        falls
    }
}

/// `endpoint` with faults.
pub fn faulty(endpoint: BoxEndpoint<'static, Response>, faults: Faults, dice: Dice) -> BoxEndpoint<'static, Response> {
    EndpointExt::boxed(Faulty { endpoint, faults, dice })
}

struct Faulty {
    endpoint: BoxEndpoint<'static, Response>,
    faults: Faults,
    dice: Dice,
}

impl Endpoint for Faulty {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (faults, dice) = (self.faults, &self.dice);
        let writes = request.method() != Method::GET;
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        // Calls overtake one another.
        tokio::time::sleep(Duration::from_millis(dice.below(8) as u64)).await;
        if dice.falls(faults.refused) {
            return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
        }
        // A creation that is answered with 409 means that the name is taken, which must be true.
        let changes = matches!(*request.method(), Method::PUT | Method::PATCH);
        if changes && dice.falls(faults.conflicts) {
            return Ok(failure(StatusCode::CONFLICT, "Conflict"));
        }
        let response = self.endpoint.get_response(request).await;
        if writes && dice.falls(faults.lost_answers) {
            return Ok(failure(StatusCode::GATEWAY_TIMEOUT, "Timeout"));
        }
        if watches && response.status().is_success() {
            let events = if dice.falls(faults.broken_watches) {
                dice.below(4)
            } else {
                20 + dice.below(60)
            };
            let (parts, body) = response.into_parts();
            let body = http_body_util::BodyStream::new(hyper_body(body)).take(events);
            let bytes = body.filter_map(async |frame| match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(std::io::Error::other(error))),
            });
            return Ok(Response::from_parts(parts, Body::from_bytes_stream(bytes)));
        }
        Ok(response)
    }
}

fn hyper_body(body: Body) -> http_body_util::combinators::BoxBody<bytes::Bytes, std::io::Error> {
    let body: http_body_util::combinators::BoxBody<bytes::Bytes, std::io::Error> = body.into();
    body.boxed()
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "injected by the test", "reason": reason, "code": code.as_u16()});
    Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json")
        .body(status.to_string())
}
