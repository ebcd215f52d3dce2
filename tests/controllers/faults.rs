//! An endpoint that misbehaves, by the seed's dice.

use crate::history::{self, History};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use kube::Client;
use parking_lot::Mutex;
use poem::endpoint::BoxEndpoint;
use poem::http::{Method, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt, Request, Response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// In hundredths of calls.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Answered with 500, and not done.
    pub refused: u32,
    /// Changes of one version that come too late, since somebody else was faster.
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
    /// Nothing goes wrong from then on.
    quiet: Arc<Mutex<Option<Instant>>>,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            injected: Arc::default(),
            quiet: Arc::default(),
        }
    }

    /// Lets things go wrong for another while: who has failed for some time tries again as late.
    pub fn misbehave_for(&self, time: Duration) {
        *self.quiet.lock() = Some(Instant::now() + time);
    }

    pub fn below(&self, end: usize) -> usize {
        self.random.lock().random_range(0..end.max(1))
    }

    fn falls(&self, of_hundred: u32) -> bool {
        if self.quiet.lock().is_some_and(|quiet| quiet < Instant::now()) {
            return false;
        }
        let falls = self.random.lock().random_ratio(of_hundred.min(100), 100);
        if falls {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        falls
    }
}

/// How many pods were made without an answer, by their app. Whoever made them does not know of them, and may make as
/// many more before it sees them: upstream, too.
#[derive(Clone, Default)]
pub struct Lost(Arc<Mutex<BTreeMap<String, usize>>>);

impl Lost {
    pub fn of(&self, app: &str) -> usize {
        self.0.lock().get(app).copied().unwrap_or(0)
    }

    /// Counts the pod that `request` makes, which is handed back.
    async fn count(&self, request: Request) -> Request {
        let (parts, body) = request.into_parts();
        let bytes = body.into_bytes().await.unwrap_or_default();
        let pod: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let app = pod["metadata"]["labels"]["app"].as_str().unwrap_or_default();
        *self.0.lock().entry(app.to_owned()).or_default() += 1;
        Request::from_parts(parts, Body::from_bytes(bytes))
    }
}

/// A run of the program whose calls go through [`faulty`] endpoints. Clones are the same run.
#[derive(Clone)]
pub struct Process {
    number: usize,
    history: History,
    lost: Lost,
    /// Whom nothing happens to.
    somebody: Client,
    touches: Arc<AtomicUsize>,
    killed: CancellationToken,
    calls: TaskTracker,
}

impl Process {
    pub fn new(number: usize, history: History, lost: Lost, somebody: Client) -> Self {
        Self {
            number,
            history,
            lost,
            somebody,
            touches: Arc::default(),
            killed: CancellationToken::new(),
            calls: TaskTracker::new(),
        }
    }

    /// Somebody else writes to the object whose path begins so, without meaning. False if it is not there.
    async fn touch(&self, path: &str) -> bool {
        let subresources = ["/status", "/finalize", "/scale", "/approval"];
        let path = subresources
            .iter()
            .find_map(|subresource| path.strip_suffix(subresource))
            .unwrap_or(path);
        let number = self.touches.fetch_add(1, Ordering::Relaxed).to_string();
        let patch = json!({"metadata": {"annotations": {"test/touched": number}}});
        let request = http::Request::patch(path)
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.to_string().into_bytes());
        match request {
            Ok(request) => self.somebody.request_text(request).await.is_ok(),
            Err(_) => false,
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
        let (request, names_version) = names_version(request).await;
        if names_version && dice.falls(faults.conflicts) && process.touch(request.uri().path()).await {
            return Ok(failure(StatusCode::CONFLICT, "Conflict"));
        }
        let call = process.calls.token();
        if process.killed.is_cancelled() {
            drop(call);
            return std::future::pending().await;
        }
        let (endpoint, history, who) = (self.endpoint.clone(), process.history.clone(), self.who.clone());
        let lost = writes && dice.falls(faults.lost_answers);
        let makes_pod = *request.method() == Method::POST && request.uri().path().ends_with("/pods");
        let request = match lost && makes_pod {
            true => process.lost.count(request).await,
            false => request,
        };
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

/// Whether the request changes one version of an object. Only then a conflict says that there is a newer one; otherwise
/// it says that the name is taken, or that the object is another one by now, which must be true.
async fn names_version(request: Request) -> (Request, bool) {
    match *request.method() {
        Method::PUT => (request, true),
        Method::PATCH => {
            let (parts, body) = request.into_parts();
            let bytes = body.into_bytes().await.unwrap_or_default();
            let names = String::from_utf8_lossy(&bytes).contains("\"resourceVersion\"");
            (Request::from_parts(parts, Body::from_bytes(bytes)), names)
        }
        _ => (request, false),
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
