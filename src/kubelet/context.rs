//! What every pod's worker works with.

use crate::client::events::Recorder;
use crate::client::informer::Informer;
use crate::kubelet::PodPolicy;
use crate::kubelet::container::security::Seccomp;
use crate::kubelet::dns;
use crate::kubelet::downward::NodeFigures;
use crate::kubelet::images::Images;
use crate::kubelet::node_shutdown::NodeShutdown;
use crate::kubelet::pod;
use crate::kubelet::pods::Pods;
use crate::kubelet::sandbox::{self, SandboxError};
use crate::kubelet::volumes::Volumes;
use crate::runtime::{Features, Runtime, Sandbox, SandboxConfig};
use k8s_openapi::api::core::v1::{Pod, Service};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Sandboxes and containers that are created and started at the same time: engines do not get faster beyond.
pub const ENGINE_STARTS_MAX: usize = 24;

pub struct Context {
    pub client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    pub recorder: Recorder,
    pub images: Images,
    pub volumes: Volumes,
    pub pods: Arc<Pods>,
    pub services: Informer<Service>,
    pub node_name: String,
    pub host_ips: Vec<String>,
    /// Scheme of container ids.
    pub runtime_name: String,
    pub node_memory_bytes: u64,
    pub figures: NodeFigures,
    pub pods_max: u32,
    pub node_shutdown: Arc<NodeShutdown>,
    pub engine_starts: Semaphore,
    pub seccomp: Seccomp,
    pub policy: PodPolicy,
    pub cluster_dns: Vec<String>,
    /// What the engine could do when krust started.
    pub features: Features,
}

impl Context {
    /// What the runtime is told of the pod; `handler` is the runtime of its class.
    pub fn sandbox_config(&self, pod: &Pod, attempt: u32, handler: &str) -> Result<SandboxConfig, SandboxError> {
        let dns = dns::of(pod, &self.cluster_dns, dns::of_node);
        sandbox::config(pod, attempt, &self.node_name, handler, dns, &self.features)
    }

    /// Where the pod's probes and hooks go; empty without a sandbox.
    pub fn pod_ip(&self, pod: &Pod, sandbox: Option<&Sandbox>) -> String {
        let ips = match pod::host_network(pod) {
            true => Some(&self.host_ips),
            false => sandbox.map(|sandbox| &sandbox.ips),
        };
        ips.and_then(|ips| ips.first()).cloned().unwrap_or_default()
    }
}
