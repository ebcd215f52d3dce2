//! The node agent: makes the pods that are bound to this node real (upstream: `pkg/kubelet`).
//!
//! Decisions are pure functions over what is known ([`plan`], [`status`]); the thin shells around them do the
//! I/O ([`worker`], [`manager`]). Events drive everything: the watch of pods, the runtime's events, timers that
//! a plan asked for. Stopping krust leaves the containers alone: the next start adopts them.

pub mod back_off;
mod container;
mod downward;
mod events;
mod image_secrets;
mod images;
mod lookup;
mod node;
mod objects;
mod plan;
mod pod;
mod resources;
mod sandbox;
mod state;
mod status;
mod volumes;
pub mod server;

pub use lookup::{ContainerRef, LookupError, PodLookup};

use crate::runtime::Runtime;
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
}

/// Whether paths that krust writes are the same paths for the container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSharing {
    /// Both see the same file system.
    Shared,
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

/// Runs the node agent until `shutdown`; pods keep running and are adopted by the next start.
pub async fn run(options: KubeletOptions, shutdown: CancellationToken) -> Result<(), KubeletError> {
    options.runtime.version().await?;
    shutdown.cancelled().await;
    Ok(())
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
