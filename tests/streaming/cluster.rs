//! One pod `default/p` with the containers `c` and `d` on one node: the kubelet's server and as much of an API
//! server as kubectl needs to find the pod, each on a port of its own.

use crate::local_runtime::LocalRuntime;
use crate::support::kubectl::Kubectl;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use krust::apiserver::error::ApiError;
use krust::apiserver::options::Query;
use krust::apiserver::request::RequestInfo;
use krust::apiserver::subresources::{connect, log};
use krust::kubelet::server::auth::{Access, User, Wish};
use krust::kubelet::server::{ServerOptions, ServerParts};
use krust::kubelet::stats::Stats;
use krust::kubelet::{ContainerRef, LookupError, PodLookup};
use krust::registry::Registry;
use krust::runtime::fake::{Behaviour, FakeRuntime, Script};
use krust::runtime::{ContainerConfig, ContainerState, Runtime, SandboxConfig};
use krust::storage::{Draft, Index, Key, Operation, Options, Storage};
use krust::transport::dial::KubeletClient;
use krust::transport::pki::{Pki, ServerNames};
use krust::transport::serve::{PlainHttp, ServeOptions, serve};
use poem::{Endpoint, Request, Response};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub struct Cluster {
    pub api_port: u16,
    pub kubelet_port: u16,
    pub pki: Arc<Pki>,
    pub runtime: Arc<LocalRuntime>,
    pub container_id: String,
    /// The tasks of the kubelet's sessions: none when all have ended.
    pub sessions: TaskTracker,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// This machine's address towards others; no packet is sent to find it. Loopback is not proxied to.
fn machine_ip() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("a route to other machines");
    socket.local_addr().unwrap().ip().to_string()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "11111111-2222-3333-4444-555555555555"},
        "spec": {
            "nodeName": "n",
            "containers": [
                {"name": "c", "image": "i", "stdin": true, "ports": [{"name": "http", "containerPort": 80}]},
                {"name": "d", "image": "i"},
            ],
        },
        "status": {"phase": "Running", "podIP": machine_ip()},
    })
}

fn node(kubelet_port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        },
    })
}

struct Lookup {
    pod: Arc<k8s_openapi::api::core::v1::Pod>,
    container_id: String,
}

impl PodLookup for Lookup {
    fn pod(&self, namespace: &str, name: &str, _uid: Option<&str>) -> Option<Arc<k8s_openapi::api::core::v1::Pod>> {
        ((namespace, name) == ("default", "p")).then(|| self.pod.clone())
    }

    fn pods(&self) -> Vec<Arc<k8s_openapi::api::core::v1::Pod>> {
        vec![self.pod.clone()]
    }

    /// `c` runs in its first run; `d` has not started.
    fn container(&self, _: &str, pod: &str, container: &str, previous: bool) -> Result<ContainerRef, LookupError> {
        let (container, pod) = (container.to_owned(), pod.to_owned());
        if previous {
            return Err(LookupError::NoPrevious { container, pod });
        }
        match container.as_str() {
            "c" => Ok(ContainerRef {
                id: self.container_id.clone(),
                name: container,
                attempt: 0,
                state: ContainerState::Running,
                tty: false,
            }),
            _ => Err(LookupError::Waiting {
                container,
                pod,
                reason: "ContainerCreating".to_owned(),
            }),
        }
    }

    fn sandbox(&self, _: &str, _: &str) -> Option<String> {
        Some("sandbox".to_owned())
    }
}

/// Knows one token each of a user who may read statistics, of one who may read pods, and of one who may nothing.
struct FewMay;

#[async_trait::async_trait]
impl Access for FewMay {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, String> {
        match token {
            "broken" => Err("no answer".to_owned()),
            "statistics" | "pods" | "nothing" => Ok(Some(User {
                name: token.to_owned(),
                ..User::default()
            })),
            _ => Ok(None),
        }
    }

    async fn allows(&self, user: &User, wish: &Wish) -> Result<bool, String> {
        assert_eq!(wish.node, "n");
        let allowed = [("statistics", "get", "stats"), ("pods", "get", "pods")];
        Ok(allowed.contains(&(user.name.as_str(), wish.verb, wish.subresource)))
    }
}

/// Discovery, the pod, and the subresources under test.
struct Api {
    storage: Arc<Storage>,
    kubelets: KubeletClient,
}

impl Api {
    async fn answer(&self, request: &mut Request) -> Result<Response, ApiError> {
        let json = |value: Value| {
            Ok(Response::builder()
                .content_type("application/json")
                .body(value.to_string()))
        };
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let info = RequestInfo::resolve(request.method(), request.uri(), &query);
        match info.subresource.as_str() {
            "exec" | "attach" | "portforward" => {
                return connect::handle(&self.storage, &self.kubelets, &info, &query, request).await;
            }
            "proxy" => return connect::proxy::handle(&self.storage, &self.kubelets, &info, request).await,
            "log" => return log::handle(&self.storage, &self.kubelets, &info, &query, request).await,
            _ => {}
        }
        match info.path.as_str() {
            "/version" => json(json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0"})),
            "/api" => json(json!({"kind": "APIVersions", "versions": ["v1"]})),
            "/apis" => json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
            "/api/v1" => json(json!({
                "kind": "APIResourceList",
                "groupVersion": "v1",
                "resources": [{
                    "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                    "verbs": ["get", "list"], "shortNames": ["po"],
                }],
            })),
            _ => match self.storage.get(&info.resource, &info.namespace, &info.name) {
                Some(entry) => Ok(Response::builder()
                    .content_type("application/json")
                    .body(entry.bytes.clone())),
                None => Err(ApiError::unknown_path()),
            },
        }
    }
}

impl Endpoint for Api {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        Ok(self
            .answer(&mut request)
            .await
            .unwrap_or_else(|error| error.to_response()))
    }
}

async fn create(storage: &Storage, resource: &str, namespace: &str, name: &str, object: Value) {
    let Value::Object(object) = object else {
        panic!("{object} is no object");
    };
    let draft = Draft::new(&object, Index::default());
    let key = Key::new(resource, namespace, name);
    storage
        .write(Operation::Create { key, draft })
        .await
        .expect("the object is stored");
}

impl Cluster {
    pub async fn start() -> Cluster {
        // Another test of this process may have installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let names = ServerNames::parse(&["127.0.0.1"]).unwrap();
        let pki = Arc::new(Pki::load_or_create(&dir.path().join("pki"), names).unwrap());
        let shutdown = CancellationToken::new();
        let sessions = TaskTracker::new();

        let fake = FakeRuntime::new();
        let container_id = running_container(&fake).await;
        let runtime = Arc::new(LocalRuntime { fake });
        let lookup = Lookup {
            pod: Arc::new(serde_json::from_value(pod()).unwrap()),
            container_id: container_id.clone(),
        };
        let kubelet = krust::kubelet::server::endpoint(
            ServerParts {
                node_name: "n".to_owned(),
                lookup: Arc::new(lookup),
                runtime: runtime.clone(),
                access: Arc::new(FewMay),
                stats: Stats::new(runtime.clone(), dir.path()),
                configuration: json!({"kind": "KubeletConfiguration"}),
            },
            ServerOptions::default(),
            shutdown.clone(),
            sessions.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubelet_port = listener.local_addr().unwrap().port();
        let options = ServeOptions::new("kubelet", PlainHttp::Refuse);
        let tls = pki.kubelet_tls().unwrap();
        tokio::spawn(serve(listener, tls, Arc::new(kubelet), options, shutdown.clone()));

        let storage = Storage::open(Options::memory(), Registry::builtin()).await.unwrap();
        create(&storage, "pods", "default", "p", pod()).await;
        let mut unbound = pod();
        unbound["metadata"]["name"] = json!("unbound");
        unbound["spec"]["nodeName"] = json!("");
        create(&storage, "pods", "default", "unbound", unbound).await;
        create(&storage, "nodes", "", "n", node(kubelet_port)).await;
        let kubelets = KubeletClient::new(pki.kubelet_client_config().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_port = listener.local_addr().unwrap().port();
        let options = ServeOptions::new("apiserver", PlainHttp::Refuse);
        let tls = pki.api_server_tls("").unwrap();
        tokio::spawn(serve(
            listener,
            tls,
            Arc::new(Api { storage, kubelets }),
            options,
            shutdown.clone(),
        ));

        let cluster = Cluster {
            api_port,
            kubelet_port,
            pki,
            runtime,
            container_id,
            sessions,
            dir,
            shutdown,
        };
        cluster.write_kubeconfig();
        cluster
    }

    pub fn kubectl(&self, version: &str) -> Kubectl {
        Kubectl::new(
            version,
            self.kubeconfig(),
            self.dir.path().join(format!("cache-{version}")),
        )
    }

    /// A directory of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    fn write_kubeconfig(&self) {
        let admin = self.pki.admin();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "k",
            "contexts": [{"name": "k", "context": {"cluster": "k", "user": "k"}}],
            "clusters": [{"name": "k", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.api_port),
                "certificate-authority-data": STANDARD.encode(self.pki.authority_pem()),
            }}],
            "users": [{"name": "k", "user": {
                "client-certificate-data": STANDARD.encode(&admin.certificate),
                "client-key-data": STANDARD.encode(&admin.key),
            }}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).unwrap();
    }

    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Waits for the sessions to end on the kubelet's side.
    pub async fn sessions_end(&self) {
        self.sessions.close();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), self.sessions.wait()).await;
        assert!(ended.is_ok(), "{} tasks of sessions are left", self.sessions.len());
    }
}

/// A container that runs until it is told to end.
async fn running_container(fake: &FakeRuntime) -> String {
    fake.add_image("i");
    let behaviour = Behaviour {
        script: Some(Script::forever()),
        ..Behaviour::default()
    };
    fake.set_behaviour("i", behaviour);
    let sandbox = SandboxConfig::default();
    let sandbox_id = fake.run_pod_sandbox(&sandbox).await.unwrap();
    let config = ContainerConfig {
        name: "c".to_owned(),
        image: "i".to_owned(),
        ..ContainerConfig::default()
    };
    let id = fake.create_container(&sandbox_id, &config, &sandbox).await.unwrap();
    fake.start_container(&id).await.unwrap();
    id
}
