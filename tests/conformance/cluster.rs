//! The server that all tests share, and clients of it.

use crate::resource::{Resource, Status};
use crate::support::krust::Krust;
use crate::support::kubectl::Kubectl;
use kube::Client;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    krust: Krust,
    client: Client,
    names: AtomicUsize,
}

/// An answer as it came.
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Cluster {
    /// A server without a node, and a client with the administrator's certificate.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One with further settings, for tests that need a server of their own.
    pub async fn start_with(environment: &'static [(&str, &str)]) -> Self {
        let start = || Krust::start_with(&["--runtime", "none"], environment);
        let krust = tokio::task::spawn_blocking(start).await.expect("the server starts");
        let kubeconfig = kube::config::Kubeconfig::read_from(krust.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .unwrap();
        Self(Arc::new(Shared {
            krust,
            client: Client::try_from(config).unwrap(),
            names: AtomicUsize::new(0),
        }))
    }

    pub fn client(&self) -> Client {
        self.0.client.clone()
    }

    /// A name that no other test has.
    pub fn unique(&self, base: &str) -> String {
        format!("{base}-{}", self.0.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A new namespace, complete with its service account.
    pub async fn namespace(&self, base: &str) -> String {
        let name = self.unique(base);
        self.core("namespaces", None)
            .create(&json!({"metadata": {"name": name}}))
            .await
            .unwrap();
        let accounts = self.core("serviceaccounts", Some(&name));
        eventually("the default service account", async || {
            accounts.get("default").await.ok()
        })
        .await;
        name
    }

    /// A resource of the core group.
    pub fn core(&self, plural: &str, namespace: Option<&str>) -> Resource {
        self.resource("v1", plural, namespace)
    }

    /// `api_version` as in objects: `v1`, `apps/v1`.
    pub fn resource(&self, api_version: &str, plural: &str, namespace: Option<&str>) -> Resource {
        Resource::new(self.client(), api_version, plural, namespace)
    }

    /// A request as it is, for what the library has no method for.
    pub async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::from(body.into())).unwrap();
        let response = self.0.client.send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.send("GET", uri, &[], "").await
    }

    /// Runs what blocks (kubectl) without holding up the others.
    pub async fn with_kubectl<T: Send + 'static>(&self, run: impl FnOnce(Kubectl) -> T + Send + 'static) -> T {
        let kubectl = self.0.krust.kubectl("1.37");
        match tokio::task::spawn_blocking(move || run(kubectl)).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    pub fn port(&self) -> u16 {
        self.0.krust.port
    }
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_every(Duration::from_millis(20), what, ask).await
}

/// Asks so often until there is an answer.
pub async fn eventually_every<T>(pause: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(pause).await;
    }
}

/// The failure of a call that must fail so.
#[track_caller]
pub fn refused(result: Result<Value, Status>, code: u16, reason: &str) -> Status {
    match result {
        Ok(object) => panic!("not refused: {object}"),
        Err(status) => {
            assert_eq!((status.code, status.reason.as_str()), (code, reason), "{status:?}");
            status
        }
    }
}
