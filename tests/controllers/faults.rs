//! An endpoint that misbehaves, by the seed's dice.

use crate::history::{self, History};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use poem::endpoint::BoxEndpoint;
use poem::http::{Method, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt, Request, Response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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

/// A run of the program whose calls go through [`faulty`] endpoints. Clones are the same run.
#[derive(Clone)]
pub struct Process {
    number: usize,
    history: History,
    killed: CancellationToken,
    calls: TaskTracker,
}

impl Process {
    pub fn new(number: usize, history: History) -> Self {
        Self {
            number,
            history,
            killed: CancellationToken::new(),
            calls: TaskTracker::new(),
        }
    }

    /// Nothing goes out any more. What the API server was told before is done when this returns, as when a next process
    /// has had to wait for the lease of the one before.
    pub async fn kill(&self) {
        self.killed.cancel();
        self.calls.close();
        self.calls.wait().await;
        self.history.note("", &format!("process {} is dead", self.number));
    }
}

/// `endpoint` with faults, as `user` of `process` finds it.
pub fn faulty(
    endpoint: BoxEndpoint<'static, Response>,
    faults: Faults,
    dice: Dice,
    process: Process,
    user: &str,
) -> BoxEndpoint<'static, Response> {
    let who = format!("{}/{}", process.number, user.rsplit(':').next().unwrap_or_default());
    EndpointExt::boxed(Faulty {
        endpoint: Arc::new(endpoint),
        faults,
        dice,
        process,
        who,
    })
}

struct Faulty {
    endpoint: Arc<BoxEndpoint<'static, Response>>,
    faults: Faults,
    dice: Dice,
    process: Process,
    who: String,
}

impl Endpoint for Faulty {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (faults, dice, process) = (self.faults, &self.dice, &self.process);
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
        let call = process.calls.token();
        if process.killed.is_cancelled() {
            drop(call);
            return std::future::pending().await;
        }
        let (endpoint, history, who) = (self.endpoint.clone(), process.history.clone(), self.who.clone());
        let lost = writes && dice.falls(faults.lost_answers);
        // Whoever calls may be gone before the answer is there: it is done all the same.
        let answer = tokio::spawn(async move {
            let what = format!("{who} {} {}", request.method(), request.uri().path());
            let response = endpoint.get_response(request).await;
            let response = match writes {
                true => told(response, &what, lost, &history).await,
                false => response,
            };
            drop(call);
            response
        });
        let response = answer.await.map_err(poem::error::InternalServerError)?;
        if lost {
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

/// Notes the answer to a write.
async fn told(response: Response, what: &str, lost: bool, history: &History) -> Response {
    let (parts, body) = response.into_parts();
    let bytes = body.into_bytes().await.unwrap_or_default();
    let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let (name, digest) = match object["kind"] == "Status" {
        true => {
            let path = what
                .rsplit('/')
                .find(|part| !matches!(*part, "status" | "binding" | "scale" | "eviction"));
            (path.unwrap_or_default().to_owned(), object["message"].to_string())
        }
        false => history::digest(&object),
    };
    if !name.is_empty() {
        let lost = if lost { ", and the answer is lost" } else { "" };
        history.note(&name, &format!("{what} -> {}: {digest}{lost}", parts.status.as_u16()));
    }
    Response::from_parts(parts, Body::from_bytes(bytes))
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
