//! The composition root: builds the parts, starts and drains their tasks (upstream: `cmd/kube-apiserver/app` and
//! friends).
//!
//! The order of a start: take the data directory and the port, open database and certificates side by side, make
//! the system's namespaces, serve; then the engine, and the parts that are clients. The end is the same backwards:
//! clients first, then the server, then the database.

mod data_dir;
mod device_expressions;
mod extension_authentication;
mod front_proxies;
pub mod images;
mod kubeconfig;
mod machine;
mod namespaces;
mod network;
mod node;
mod policy_types;
mod priority_classes;
mod service_network;
mod signals;
mod storage_class;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::apiserver::admission::owner_references;
use crate::apiserver::authentication::discovery;
use crate::apiserver::authentication::jwt::{KeyError, SigningKey};
use crate::apiserver::authentication::service_accounts::{Reference, TokenAuthority};
use crate::apiserver::authentication::token_file::{TokenFile, TokenFileError};
use crate::apiserver::error::ApiError;
use crate::apiserver::filters::authentication::Authenticator;
use crate::apiserver::{ApiServer, ApiServerOptions};
use crate::config::Settings;
use crate::controllers::{Selection, UnknownController};
use crate::registry::Registry;
use crate::runtime::choose::{ChooseError, Chosen};
/// The programs beside containers that write their logs.
pub use crate::runtime::cri_log::writer as container_log;
use crate::scheduler::configuration::{Configuration, ConfigurationError};
use crate::storage::{Storage, StorageError};
use crate::telemetry::Tasks;
use crate::transport::InProcessIdentity;
use crate::transport::dial::KubeletClient;
use crate::transport::listen::{ListenError, listen};
use crate::transport::pki::{Pki, PkiError, ServerNames, write_private};
use crate::transport::serve::{PlainHttp, ServeOptions, serve};
use crate::{client, controllers, scheduler, storage};

use data_dir::{DataDir, DataDirError};
use front_proxies::FrontProxies;
pub use kubeconfig::{ADMIN_KUBECONFIG, CONTEXT};
pub use service_network::{Apart, run_apart as run_service_network};
use signals::Told;

/// The release of Kubernetes whose API this is.
pub const KUBERNETES_VERSION: &str = "v1.37.0";

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("setting {key:?}: {reason}")]
    Setting { key: &'static str, reason: String },
    #[error("setting \"scheduler.config\": {0}")]
    Scheduler(#[from] ConfigurationError),
    #[error(transparent)]
    Controllers(#[from] UnknownController),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("{0}. Choose another address with --listen")]
    Listen(#[from] ListenError),
    #[error("the kubelet's API: {0}")]
    KubeletListen(#[source] ListenError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    TokenKey(#[from] KeyError),
    #[error("setting \"server.token_auth_file\": {0}")]
    TokenFile(#[from] TokenFileError),
    #[error("the database: {0}")]
    Storage(#[from] StorageError),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot make the namespace {name}: {source}")]
    Namespace {
        name: &'static str,
        source: Box<kube::Error>,
    },
    #[error("cannot make the priority class {name}: {source}")]
    PriorityClass {
        name: &'static str,
        source: Box<kube::Error>,
    },
    #[error("cannot make the storage class {name}: {source}")]
    StorageClass {
        name: &'static str,
        source: Box<kube::Error>,
    },
    #[error("cannot make the ConfigMap extension-apiserver-authentication: {0}")]
    ExtensionAuthentication(#[source] Box<kube::Error>),
    #[error("cannot make {what}: {source}")]
    Network {
        what: &'static str,
        source: Box<kube::Error>,
    },
    #[error("cannot make the roles and bindings of the cluster: {0}")]
    Roles(#[source] ApiError),
    #[error(transparent)]
    Runtime(Box<ChooseError>),
    #[error("cannot use the kubeconfig: {0}")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot serve the cluster's DNS: {0}")]
    Dns(#[from] crate::network::dns::DnsError),
    #[error(transparent)]
    Images(#[from] crate::runtime::RuntimeError),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error("a step of the start broke off: {0}")]
    Start(#[from] tokio::task::JoinError),
    #[error("{task} ended, and the server with it")]
    TaskEnded { task: &'static str },
}

/// Runs a server until it is told to stop, or a part of it fails.
pub async fn run(settings: Settings) -> Result<(), AppError> {
    let begin = Instant::now();
    let signals = signals::Signals::listen().map_err(AppError::Signals)?;
    let scheduling = Configuration::load(&settings.scheduler.config)?;
    let selection = Selection::new(&settings.controllers.enabled)?;
    let core = Core::start(&settings).await?;
    tracing::info!(address = %core.address, millis = begin.elapsed().as_millis(), "serving the Kubernetes API");
    let mut parts = Parts::default();
    let result = run_parts(&settings, scheduling, selection, &core, &mut parts, signals).await;
    let limit = Duration::from_secs(settings.server.shutdown_timeout_seconds);
    parts.stop(limit).await;
    core.stop(limit).await;
    result
}

/// Starts what is a client of the API, and waits for the end.
async fn run_parts(
    settings: &Settings,
    scheduling: Configuration,
    selection: Selection,
    core: &Core,
    parts: &mut Parts,
    mut signals: signals::Signals,
) -> Result<(), AppError> {
    let chosen = tokio::select! {
        chosen = node::choose_runtime(settings, core) => chosen?,
        _ = signals.stop() => return Ok(()),
    };
    let stop = parts.stop.clone();
    if settings.scheduler.enabled {
        let client = core.client("system:kube-scheduler", &[]);
        let expressions = Arc::new(device_expressions::DeviceExpressions::default());
        let scheduling = scheduler::run(client, scheduling, expressions, stop.clone());
        parts.tasks.spawn("scheduler", scheduling);
    }
    let clients = controllers::Clients {
        shared: core.client("system:kube-controller-manager", &[]),
        own: {
            let api = core.api.clone();
            Box::new(move |controller| account_client(&api, controller))
        },
        volumes_directory: volumes_directory(settings, core.data_dir.path())?,
        type_check: policy_types::type_check(core.api.registry.clone()),
    };
    let tokens = controllers::Tokens {
        issue: {
            let api = core.api.clone();
            Box::new(move |namespace, account, uid, secret| {
                let account = Reference {
                    name: account.to_owned(),
                    uid: uid.to_owned(),
                };
                let issued = api.authenticator.tokens().issue_legacy(namespace, &account, secret);
                issued
                    .inspect_err(|error| tracing::error!(%error, secret, "a token could not be signed"))
                    .ok()
            })
        },
        authority: core.pki.authority_pem().to_owned(),
    };
    let controllers = controllers::run(clients, tokens, core.pki.clone(), selection, stop.clone());
    parts.tasks.spawn("controllers", controllers);
    let node_shutdown = match &chosen {
        Some(chosen) => Some(node::start(settings, core, chosen, parts).await?),
        None => None,
    };
    announce(core, chosen.as_ref());
    tokio::select! {
        told = signals.stop() => {
            if let Some(shutdown) = node_shutdown.filter(|shutdown| shutdown.is_configured())
                && (told == Told::PowerFails || machine::is_shutting_down().await)
            {
                tracing::info!("the machine shuts down: ending its pods");
                let mut end = std::pin::pin!(shutdown.run());
                tokio::select! {
                    () = &mut end => {}
                    // That of the init system, after somebody else's: pods still have their time.
                    _ = signals.stop() => {
                        tracing::info!("pods are ending; once more, and it is at once");
                        signals.exit_on_next();
                        end.await;
                        return Ok(());
                    }
                }
            }
            tracing::info!("stopping; once more, and it is at once");
            signals.exit_on_next();
            Ok(())
        }
        Some(end) = parts.tasks.next_end() => {
            tracing::error!(task = end.name, failure = ?end.failure, "a part of the server ended");
            Err(AppError::TaskEnded { task: end.name })
        }
    }
}

/// The tasks that are clients of the API.
#[derive(Default)]
struct Parts {
    tasks: Tasks,
    stop: CancellationToken,
}

impl Parts {
    async fn stop(&mut self, limit: Duration) {
        self.stop.cancel();
        self.tasks.drain(limit).await;
    }
}

/// Storage and API server, listening.
struct Core {
    data_dir: DataDir,
    /// Where the API listens.
    address: SocketAddr,
    pki: Arc<Pki>,
    storage: Arc<Storage>,
    api: Arc<ApiServer>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Core {
    async fn start(settings: &Settings) -> Result<Core, AppError> {
        let names = ServerNames::parse(&settings.server.tls_sans);
        let mut names = names.map_err(|error| AppError::Setting {
            key: "server.tls_sans",
            reason: error.to_string(),
        })?;
        names.ips.extend(network::first_addresses(settings)?);
        let proxies = FrontProxies::read(&settings.server.request_header)?;
        let data_dir = DataDir::take(&settings.data_dir())?;
        // Early, so that a taken port is found before anything is changed; clients wait in the backlog meanwhile.
        let listener = listen(settings.server.listen.0)?;
        let address = listener.local_addr();
        let address = address.map_err(|source| ListenError::Failed {
            address: settings.server.listen.0,
            source,
        })?;

        let registry = Registry::builtin();
        let pki_directory = data_dir.path().join("pki");
        let secrets = tokio::task::spawn_blocking(move || {
            let pki = Pki::load_or_create(&pki_directory, names)?;
            let key = SigningKey::load_or_create(&pki_directory, write_private)?;
            Ok::<_, AppError>((pki, key))
        });
        let storage = Storage::open(storage_options(settings, &data_dir), registry.clone()).await?;
        let (pki, key) = secrets.await??;
        let pki = Arc::new(pki);

        let kubelet_client = KubeletClient::new(pki.kubelet_client_config()?);
        let api = ApiServer::new(ApiServerOptions {
            kubelet_client: Some(kubelet_client),
            front_proxy: Some(pki.front_proxy_identity()),
            authenticator: authenticator(settings, address, key)?.with_front_proxies(proxies.headers.clone()),
            requests_max: settings.server.requests_max,
            service_ranges: network::service_ranges(settings)?,
            node_ports: network::node_ports(settings)?,
            admission_plugins: admission_plugins(settings)?,
            ..ApiServerOptions::new(storage.clone(), registry)
        });
        let mut core = Core {
            data_dir,
            address,
            pki,
            storage,
            api,
            tasks: Tasks::default(),
            stop: CancellationToken::new(),
        };
        core.api.begin_start();
        core.api.allocators.recover().await;
        let client = core.client("system:apiserver", &["system:masters"]);
        // Side by side, so that they share commits.
        tokio::try_join!(
            namespaces::create(&client),
            priority_classes::create(&client),
            storage_class::create(&client)
        )?;
        tokio::try_join!(
            network::create(&client, settings, &core.api, address),
            extension_authentication::create(&client, &core.pki, &proxies)
        )?;
        core.api.bootstrap().await.map_err(AppError::Roles)?;
        core.api.end_start();
        write_kubeconfig(&core.kubeconfig_path(), address, &core.pki)?;
        let options = ServeOptions {
            connections_max: settings.server.connections_max,
            drain_timeout: Duration::from_secs(settings.server.shutdown_timeout_seconds),
            ..ServeOptions::new("apiserver", PlainHttp::TrustedLoopback)
        };
        let served = serve(
            listener,
            core.pki.api_server_tls(&proxies.authorities)?,
            Arc::new(core.api.endpoint()),
            options,
            core.stop.clone(),
        );
        core.tasks.spawn("apiserver", served);
        let followed = core.api.clone().follow_definitions(core.stop.clone());
        core.tasks.spawn("custom resources", followed);
        let ttl = Duration::from_secs(settings.server.event_ttl_seconds);
        let expired = core.api.clone().expire_events(ttl, core.stop.clone());
        core.tasks.spawn("event expiry", expired);
        let client = core.client("system:apiserver", &["system:masters"]);
        let extensions = controllers::run_extensions(client, core.stop.clone());
        core.tasks.spawn("API extensions", extensions);
        let controlled = core.api.clone().control_flow(core.stop.clone());
        core.tasks.spawn("flow control", controlled);
        let aggregated = core.api.clone().aggregate(core.stop.clone());
        core.tasks.spawn("API aggregation", aggregated);
        let client = core.client("system:apiserver", &["system:masters"]);
        let kept = extension_authentication::keep(client, core.pki.clone(), proxies, core.stop.clone());
        core.tasks.spawn("extension authentication", kept);
        let client = core.client("system:apiserver", &["system:masters"]);
        let kept = network::keep(client, settings.clone(), core.api.clone(), address, core.stop.clone());
        core.tasks.spawn("service kubernetes", kept);
        core.keep_certificates_fresh();
        Ok(core)
    }

    /// A client in this process, under the identity of one of upstream's components.
    fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        client_as(&self.api, user, groups)
    }

    fn kubeconfig_path(&self) -> PathBuf {
        self.data_dir.path().join(ADMIN_KUBECONFIG)
    }

    fn keep_certificates_fresh(&mut self) {
        let (pki, path, address) = (self.pki.clone(), self.kubeconfig_path(), self.address);
        let rewrite = move |renewed: &[&str]| {
            if renewed.contains(&"admin")
                && let Err(error) = write_kubeconfig(&path, address, &pki)
            {
                tracing::error!(%error, "the administrator's kubeconfig holds the old certificate");
            }
        };
        self.tasks
            .spawn("certificates", self.pki.clone().keep_fresh(self.stop.clone(), rewrite));
    }

    async fn stop(mut self, limit: Duration) {
        self.api.begin_shutdown();
        self.stop.cancel();
        if let Some(kubelets) = &self.api.kubelet_client {
            kubelets.close().await;
        }
        self.api.aggregator.close().await;
        self.tasks.drain(limit + Duration::from_secs(1)).await;
        self.storage.close().await;
        tracing::info!("stopped");
    }
}

fn admission_plugins(settings: &Settings) -> Result<Vec<String>, AppError> {
    let asked = &settings.server.enable_admission_plugins;
    match asked.iter().find(|name| *name != owner_references::NAME) {
        None => Ok(asked.clone()),
        Some(unknown) => Err(AppError::Setting {
            key: "server.enable_admission_plugins",
            reason: format!("{unknown:?} is not allowed: it must be {}", owner_references::NAME),
        }),
    }
}

fn authenticator(settings: &Settings, address: SocketAddr, key: SigningKey) -> Result<Authenticator, AppError> {
    // Where pods find it, too, unless nobody but this machine does.
    let server = match network::advertised(settings, address.ip()).filter(|_| !address.ip().is_loopback()) {
        Some(ip) => format!("https://{}", SocketAddr::from((ip, address.port()))),
        None => kubeconfig::local_url(address),
    };
    let keys_url = format!("{server}{}", discovery::KEYS_PATH);
    let file = match settings.server.token_auth_file.as_path() {
        path if path.as_os_str().is_empty() => TokenFile::default(),
        path => TokenFile::read(path)?,
    };
    Ok(Authenticator::new(TokenAuthority::new(key, keys_url), file))
}

fn client_as(api: &Arc<ApiServer>, user: &str, groups: &[&str]) -> kube::Client {
    let identity = InProcessIdentity {
        user: user.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    client::in_process(api.endpoint(), identity, agent_of(user))
}

/// The name of the program that upstream runs under a user.
fn agent_of(user: &str) -> &'static str {
    match user {
        "system:kube-scheduler" => "kube-scheduler",
        "system:apiserver" => "kube-apiserver",
        "system:kube-proxy" => "kube-proxy",
        user if user.starts_with("system:node:") => "kubelet",
        _ => "kube-controller-manager",
    }
}

/// A client under the service account of a controller, as upstream's with `--use-service-account-credentials`.
fn account_client(api: &Arc<ApiServer>, controller: &str) -> kube::Client {
    let user = format!("system:serviceaccount:kube-system:{controller}");
    client_as(
        api,
        &user,
        &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
    )
}

/// Where the volumes of the built-in class are made.
fn volumes_directory(settings: &Settings, data_dir: &std::path::Path) -> Result<PathBuf, AppError> {
    let path = match settings.node.volumes_dir.as_path() {
        path if path.as_os_str().is_empty() => data_dir.join("volumes"),
        path => path.to_owned(),
    };
    std::path::absolute(&path).map_err(|source| AppError::Write { path, source })
}

fn storage_options(settings: &Settings, data_dir: &DataDir) -> storage::Options {
    let options = match settings.storage.url.as_str() {
        "" => storage::Options::sqlite(&data_dir.path().join("krust.db")),
        url => storage::Options::new(url),
    };
    storage::Options {
        history_age: Duration::from_secs(settings.storage.history_age_seconds),
        history_events_max: settings.storage.history_events_max,
        ..options
    }
}

fn write_kubeconfig(path: &std::path::Path, address: SocketAddr, pki: &Pki) -> Result<(), AppError> {
    let text = kubeconfig::kubeconfig(&kubeconfig::local_url(address), pki.authority_pem(), &pki.admin());
    write_private(path, text.as_bytes()).map_err(|source| AppError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Tells the user, on standard output, where things are and what to do next.
fn announce(core: &Core, chosen: Option<&Chosen>) {
    let runtime = match chosen {
        Some(chosen) => format!(
            "{} {} at {}",
            chosen.version.name, chosen.version.version, chosen.endpoint
        ),
        None => "none, so that pods are stored but do not run".to_owned(),
    };
    println!(
        "Krust {} serves Kubernetes {KUBERNETES_VERSION} on {} (listening on {})\nContainer runtime: {runtime}\n\nNext:\n  export KUBECONFIG={}\n  kubectl apply -f pod.yaml\n",
        env!("CARGO_PKG_VERSION"),
        kubeconfig::local_url(core.address),
        core.address,
        core.kubeconfig_path().display(),
    );
}
