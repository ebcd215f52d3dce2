//! A server that tests share, and clients of it.

use crate::nodes::Backend;
use crate::resource::{Resource, Status};
use crate::support::krust::Krust;
use crate::support::kubectl::Kubectl;
use kube::Client;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a test knows of its server.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    /// Those that this test made.
    namespaces: Arc<Mutex<Vec<String>>>,
}

struct Shared {
    krust: Krust,
    backend: Option<Backend>,
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
        Self::of(krust, None).await
    }

    /// A server with a node on an engine.
    pub async fn start_on(backend: Backend) -> Self {
        let started = tokio::task::spawn_blocking(move || backend.start()).await;
        let cluster = Self::of(started.expect("the server starts"), Some(backend)).await;
        let nodes = cluster.core("nodes", None);
        eventually("a node is ready", async || {
            let list = nodes.list(&ListParams::default()).await.unwrap();
            (crate::pods::condition(&list["items"][0], "Ready") == "True").then_some(())
        })
        .await;
        cluster
    }

    async fn of(krust: Krust, backend: Option<Backend>) -> Self {
        let kubeconfig = kube::config::Kubeconfig::read_from(krust.kubeconfig()).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .unwrap();
        // Tests want the server's answer, and not what came of asking again.
        config.default_retry = false;
        Self {
            shared: Arc::new(Shared {
                krust,
                backend,
                client: Client::try_from(config).unwrap(),
                names: AtomicUsize::new(0),
            }),
            namespaces: Arc::default(),
        }
    }

    /// The same server for one more test.
    pub fn for_a_test(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            namespaces: Arc::default(),
        }
    }

    /// What runs the pods; None on a server without a node.
    pub fn backend(&self) -> Option<Backend> {
        self.shared.backend
    }

    /// Ends what runs in the test's namespaces, without waiting for it.
    pub async fn tidy_up(&self) {
        if self.backend().is_none() {
            return;
        }
        let namespaces = std::mem::take(&mut *self.namespaces.lock().unwrap());
        for namespace in namespaces {
            // The test may have done so.
            let _ = self.core("namespaces", None).delete(&namespace).await;
            let pods = self.core("pods", Some(&namespace));
            let _ = pods.delete_all(&DeleteParams::default().grace_period(1)).await;
        }
    }

    /// Waits until the engine has nothing of this server any more; else says what.
    pub async fn engine_is_empty(&self) -> Result<(), String> {
        let Some(backend) = self.backend() else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE * 3;
        loop {
            let shared = self.shared.clone();
            let left = tokio::task::spawn_blocking(move || backend.containers_of(&shared.krust));
            let left = left.await.expect("the engine answers");
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{} containers are left: {left:?}", left.len()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub fn client(&self) -> Client {
        self.shared.client.clone()
    }

    /// A name that no other test has.
    pub fn unique(&self, base: &str) -> String {
        format!("{base}-{}", self.shared.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A new namespace, complete with its service account.
    pub async fn namespace(&self, base: &str) -> String {
        let name = self.unique(base);
        self.core("namespaces", None)
            .create(&json!({"metadata": {"name": name}}))
            .await
            .unwrap();
        self.namespaces.lock().unwrap().push(name.clone());
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
        let response = self.shared.client.send(request).await.unwrap();
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
        let kubectl = self.shared.krust.kubectl("1.37");
        match tokio::task::spawn_blocking(move || run(kubectl)).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The name of the node that runs pods; tests may have others that only exist as objects.
    #[allow(dead_code)]
    pub async fn node(&self) -> String {
        let nodes = self.core("nodes", None).labelled("").await;
        let runs = |node: &&Value| {
            node["status"]["nodeInfo"]["kubeletVersion"]
                .as_str()
                .is_some_and(|v| !v.is_empty())
        };
        crate::resource::name(nodes.iter().find(runs).expect("a node")).to_owned()
    }

    pub fn port(&self) -> u16 {
        self.shared.krust.port
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
