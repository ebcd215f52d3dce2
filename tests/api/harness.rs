//! A server on a database of its own, and requests to it.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use krust::apiserver::{ApiServer, ApiServerOptions};
use krust::registry::Registry;
use krust::storage::{Options, Storage};
use krust::transport::trust::Identity;
use krust::transport::{InProcessIdentity, Peer};
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderMap, Method, StatusCode};
use poem::{Endpoint, Request, Response};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// No answer and no watch event takes longer, on a machine that builds something else meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub api: Arc<ApiServer>,
    endpoint: BoxEndpoint<'static, Response>,
    _directory: TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.into_bytes()).await;
        Self {
            status: parts.status,
            headers: parts.headers,
            body: body.expect("the body does not end").unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{} is no JSON: {e}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.headers
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    /// The object, after checking the code.
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.status.as_u16(), code, "{}", self.text());
        self.json()
    }

    /// The Status, after checking code and reason, and that it is a complete Status.
    pub fn failure(&self, code: u16, reason: &str) -> Value {
        let status = self.expect(code);
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["apiVersion"], "v1");
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["code"], code);
        assert_eq!(status["reason"], reason, "{status}");
        assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()));
        status
    }
}

impl Server {
    /// A fresh server with the namespace `default`.
    pub async fn start() -> Self {
        Self::with_history(Options::memory().history_events_max).await
    }

    /// One that remembers only so many changes.
    pub async fn with_history(history_events_max: usize) -> Self {
        Self::with(history_events_max, &[]).await
    }

    /// One with admission plug-ins that are off by default.
    pub async fn with_admission(plugins: &[&str]) -> Self {
        Self::with(Options::memory().history_events_max, plugins).await
    }

    async fn with(history_events_max: usize, plugins: &[&str]) -> Self {
        Self::made(history_events_max, plugins, None).await
    }

    /// One that shows this to the servers of other API groups.
    pub async fn with_front_proxy(identity: Identity) -> Self {
        Self::made(Options::memory().history_events_max, &[], Some(identity)).await
    }

    async fn made(history_events_max: usize, plugins: &[&str], front_proxy: Option<Identity>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::builtin();
        let options = Options {
            history_events_max,
            ..Options::sqlite(&directory.path().join("krust.db"))
        };
        let storage = Storage::open(options, registry.clone()).await.unwrap();
        let api = ApiServer::new(ApiServerOptions {
            front_proxy,
            admission_plugins: plugins.iter().map(|name| (*name).to_owned()).collect(),
            ..ApiServerOptions::new(storage, registry)
        });
        let server = Self {
            endpoint: api.endpoint(),
            api,
            _directory: directory,
        };
        server
            .post("/api/v1/namespaces", json!({"metadata": {"name": "default"}}))
            .await
            .expect(201);
        // No controller makes it here, and pods need it.
        server
            .post(
                "/api/v1/namespaces/default/serviceaccounts",
                json!({"metadata": {"name": "default"}}),
            )
            .await
            .expect(201);
        server
    }

    /// A fresh server with the controllers of custom resources, which end with the test's runtime.
    pub async fn with_extensions() -> Self {
        let server = Self::start().await;
        server.run_extensions();
        server
    }

    pub fn run_extensions(&self) {
        let stop = CancellationToken::new();
        let identity = InProcessIdentity {
            user: "system:apiserver".into(),
            groups: vec!["system:masters".into()],
        };
        let client = krust::client::in_process(self.api.endpoint(), identity, "test");
        tokio::spawn(self.api.clone().follow_definitions(stop.clone()));
        tokio::spawn(krust::controllers::run_extensions(client, stop));
    }

    /// Asks again and again until `wanted` says yes.
    pub async fn until(&self, uri: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let begin = std::time::Instant::now();
        loop {
            let answer = self.get(uri).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{uri} is not as it should be: {}",
                answer.text()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the history begins at `revision` or later.
    pub async fn history_reaches(&self, revision: u64) {
        let reached = async {
            while self.api.storage.oldest_revision() < revision {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("history is not forgotten");
    }

    pub fn endpoint(&self) -> BoxEndpoint<'static, Response> {
        self.api.endpoint()
    }

    /// Sends a request as the administrator and returns the response with its body unread.
    pub async fn open(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<poem::Body>,
    ) -> Response {
        let mut builder = Request::builder()
            .method(method)
            .uri(uri.parse().unwrap())
            .extension(Peer::TrustedLoopback);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let answer = self.endpoint.get_response(builder.body(body));
        tokio::time::timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| panic!("{uri} hangs"))
    }

    /// Sends a request as somebody else.
    pub async fn send_as(
        &self,
        user: &str,
        groups: &[&str],
        method: Method,
        uri: &str,
        body: impl Into<poem::Body>,
    ) -> Answer {
        let identity = InProcessIdentity {
            user: user.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(uri.parse().unwrap())
            .header("content-type", content_type)
            .extension(identity)
            .body(body);
        let answer = tokio::time::timeout(PATIENCE, self.endpoint.get_response(request));
        Answer::read(answer.await.unwrap_or_else(|_| panic!("{uri} hangs"))).await
    }

    pub async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<poem::Body>,
    ) -> Answer {
        Answer::read(self.open(method, uri, headers, body).await).await
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[], ()).await
    }

    pub async fn get_as(&self, uri: &str, accept: &str) -> Answer {
        self.send(Method::GET, uri, &[("accept", accept)], ()).await
    }

    pub async fn post(&self, uri: &str, body: Value) -> Answer {
        self.send(
            Method::POST,
            uri,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub async fn put(&self, uri: &str, body: Value) -> Answer {
        self.send(
            Method::PUT,
            uri,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    /// `kind`: `json`, `merge` or `strategic-merge`.
    pub async fn patch(&self, uri: &str, kind: &str, body: Value) -> Answer {
        let content_type = format!("application/{kind}-patch+json");
        self.send(Method::PATCH, uri, &[("content-type", &content_type)], body.to_string())
            .await
    }

    pub async fn delete(&self, uri: &str) -> Answer {
        self.send(Method::DELETE, uri, &[], ()).await
    }

    pub async fn delete_with(&self, uri: &str, options: Value) -> Answer {
        self.send(
            Method::DELETE,
            uri,
            &[("content-type", "application/json")],
            options.to_string(),
        )
        .await
    }

    /// Creates a ConfigMap in `default`.
    pub async fn config_map(&self, name: &str, labels: Value) -> Value {
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}});
        self.post(CONFIG_MAPS, body).await.expect(201)
    }

    /// Opens a watch.
    pub async fn watch(&self, uri: &str, accept: &str) -> Events {
        let response = self.open(Method::GET, uri, &[("accept", accept)], ()).await;
        assert_eq!(response.status(), 200);
        Events {
            chunks: Box::pin(response.into_body().into_bytes_stream()),
            buffer: Vec::new(),
        }
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// A pod that validates.
pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "app", "image": "busybox"}]},
    })
}

/// A built-in object as it stands in a list, which tells kind and version once for all.
pub fn as_item(object: &Value) -> Value {
    let mut item = object.clone();
    for told in ["kind", "apiVersion"] {
        item.as_object_mut().unwrap().remove(told);
    }
    item
}

pub fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// The lines of a watch.
pub struct Events {
    chunks: Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; None when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(PATIENCE, self.chunks.next())
                .await
                .expect("no event in time");
            match chunk {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.unwrap()),
                None => {
                    assert!(self.buffer.is_empty(), "the last line is cut off");
                    return None;
                }
            }
        }
    }

    /// Type and object name of the next event.
    pub async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch ended");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }

    /// Nothing arrives for a moment.
    pub async fn expect_silence(&mut self) {
        let chunk = tokio::time::timeout(Duration::from_millis(100), self.chunks.next()).await;
        assert!(chunk.is_err() && self.buffer.is_empty(), "an event arrived: {chunk:?}");
    }
}
