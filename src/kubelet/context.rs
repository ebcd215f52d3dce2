//! What every pod's worker works with.

use crate::client::events::Recorder;
use crate::client::informer::Informer;
use crate::kubelet::PodPolicy;
use crate::kubelet::container::security::Seccomp;
use crate::kubelet::downward::NodeFigures;
use crate::kubelet::images::Images;
use crate::kubelet::pod;
use crate::kubelet::pods::Pods;
use crate::kubelet::volumes::Volumes;
use crate::runtime::{Features, Runtime, Sandbox};
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
    pub engine_starts: Semaphore,
    pub seccomp: Seccomp,
    pub policy: PodPolicy,
    /// What the engine could do when krust started.
    pub features: Features,
}

impl Context {
    /// Where the pod's probes and hooks go; empty without a sandbox.
    pub fn pod_ip(&self, pod: &Pod, sandbox: Option<&Sandbox>) -> String {
        let ips = match pod::host_network(pod) {
            true => Some(&self.host_ips),
            false => sandbox.map(|sandbox| &sandbox.ips),
        };
        ips.and_then(|ips| ips.first()).cloned().unwrap_or_default()
    }
}
