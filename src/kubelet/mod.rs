//! The node agent: makes the pods that are bound to this node real (upstream: `pkg/kubelet`).
//!
//! Decisions are pure functions over what is known ([`plan`], [`status`]); the thin shells around them do the
//! I/O ([`worker`], [`manager`]). Events drive everything: the watch of pods, the runtime's events, timers that
//! a plan asked for. Stopping krust leaves the containers alone: the next start adopts them.

mod admission;
mod back_off;
mod configuration;
mod container;
mod context;
mod dns;
mod downward;
pub mod eviction;
mod handlers;
mod hooks;
pub mod images;
mod lookup;
mod manager;
mod node;
pub mod node_shutdown;
mod objects;
mod plan;
mod pod;
mod pods;
mod probes;
mod record;
mod resize;
mod resources;
mod sandbox;
pub mod server;
mod state;
pub mod static_pods;
pub mod stats;
mod status;
mod volumes;
mod worker;

pub use lookup::{ContainerRef, LookupError, PodLookup};

use crate::runtime::Runtime;
use node_shutdown::NodeShutdown;
use pods::Pods;
use server::ServerParts;
use server::auth::ApiAccess;
use stats::Stats;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What a node agent is started with.
pub struct KubeletOptions {
    /// Name of the Node object; [`default_node_name`] where the user chose none.
    pub node_name: String,
    /// InternalIP of the node; None takes the address of the default route.
    pub node_ip: Option<IpAddr>,
    /// Acts as `system:node:<node_name>`.
    pub client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    /// Where the kubelet's HTTPS API listens; its port is the node's daemonEndpoints port.
    pub listen: SocketAddr,
    /// Pods' files live in `<data_dir>/pods/<uid>`.
    pub data_dir: PathBuf,
    /// Whether the engine can mount what krust writes below `data_dir`.
    pub files: FileSharing,
    /// As the server reports itself in `/version` (`v1.37.0+krust…`).
    pub version: String,
    /// Capacity `pods` of the node; upstream's default is 110.
    pub pods_max: u32,
    /// When pods are evicted for the node's sake.
    pub eviction: eviction::EvictionPolicy,
    /// How long pods have to end when the machine goes down; without any, they are left alone.
    pub shutdown_periods: Vec<node_shutdown::Period>,
    pub policy: PodPolicy,
    /// The servers of the cluster's DNS: `clusterDNS`.
    pub cluster_dns: Vec<String>,
    /// Pods that come from files of this node.
    pub static_pods: Option<static_pods::StaticPodOptions>,
}

/// What the administrator of a node decides about its pods (upstream: `KubeletConfiguration`).
#[derive(Clone, Debug, Default)]
pub struct PodPolicy {
    /// Containers that do not name a seccomp profile get the engine's own: `seccompDefault`.
    pub seccomp_default: bool,
    /// Names, or prefixes that end in `*`: `allowedUnsafeSysctls`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// `containerLogMaxSize` and `containerLogMaxFiles`.
    pub logs: crate::runtime::LogLimits,
    pub images: images::ImagePolicy,
}

/// Whether paths that krust writes are the same paths for the container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSharing {
    /// Both see the same file system.
    Shared,
    /// Paths are the same for both, but what krust mounts there only krust sees.
    SamePaths,
    /// krust runs in a container, and the runtime translates the paths of what it writes. Other paths of the engine's
    /// host can be mounted but not looked at; what needs that fails with this explanation.
    OwnFiles(String),
    /// krust runs in a container of its own; volumes that need files fail with this explanation.
    Unavailable(String),
}

#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error("the container runtime cannot be used: {0}")]
    Runtime(#[from] crate::runtime::RuntimeError),
    #[error("{operation} {subject}: {source}")]
    Api {
        operation: &'static str,
        subject: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("{operation} {path}: {source}")]
    Io {
        operation: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}

/// A node agent that is about to run: its lookup is there for the HTTPS API before the first pod is.
pub struct Kubelet {
    options: KubeletOptions,
    pods: Arc<Pods>,
    stats: Arc<Stats>,
    node_shutdown: Arc<NodeShutdown>,
}

impl Kubelet {
    pub fn new(options: KubeletOptions) -> Self {
        let pods = Arc::<Pods>::default();
        Self {
            stats: Stats::new(options.runtime.clone(), &options.data_dir),
            node_shutdown: NodeShutdown::new(options.shutdown_periods.clone(), pods.clone()),
            options,
            pods,
        }
    }

    /// The pods that it looks after.
    pub fn lookup(&self) -> Arc<dyn PodLookup> {
        self.pods.clone()
    }

    /// Ends the pods while the kubelet runs.
    pub fn node_shutdown(&self) -> Arc<NodeShutdown> {
        self.node_shutdown.clone()
    }

    /// What [`server::endpoint`] speaks for.
    pub fn server_parts(&self) -> ServerParts {
        ServerParts {
            node_name: self.options.node_name.clone(),
            lookup: self.pods.clone(),
            runtime: self.options.runtime.clone(),
            access: Arc::new(ApiAccess::new(self.options.client.clone())),
            stats: self.stats.clone(),
            configuration: configuration::describe(&self.options),
        }
    }

    /// Registers the node and runs its pods until `shutdown`; they keep running and are adopted by the next start.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), KubeletError> {
        manager::run(self.options, self.pods, self.stats, self.node_shutdown, shutdown).await
    }
}

/// A node agent without its HTTPS API.
pub async fn run(options: KubeletOptions, shutdown: CancellationToken) -> Result<(), KubeletError> {
    Kubelet::new(options).run(shutdown).await
}

/// The host's name in lower case, as upstream's kubelet calls its node.
pub fn default_node_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .map(|name| name.trim().to_lowercase())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
