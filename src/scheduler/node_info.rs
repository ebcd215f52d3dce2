//! A node and what stands on it (upstream: `framework.NodeInfo`).

use super::pod_info::{HostPort, PodInfo};
use super::resources::Amounts;
use super::selector::{Labels, labels_of};
use k8s_openapi::api::core::v1::{Node, Taint};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Where per-node figures of this node stand.
    pub slot: usize,
    pub name: String,
    /// None while only pods that name the node are known.
    pub node: Option<Arc<Node>>,
    pub allocatable: Amounts,
    /// Sums over the pods, assumed ones included.
    pub requested: Amounts,
    pub scored: Amounts,
    pub pods: Vec<Arc<PodInfo>>,
    pub host_ports: Vec<HostPort>,
    /// Bytes of the images that the node has, by every name.
    pub images: Arc<HashMap<String, i64>>,
}

impl NodeInfo {
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.node
            .as_ref()
            .map_or(&NONE, |node| labels_of(&node.metadata.labels))
    }

    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    pub fn declared_features(&self) -> &[String] {
        self.node.as_deref().map_or(&[], declared_features)
    }

    pub fn is_cordoned(&self) -> bool {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.unschedulable) == Some(true)
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = Amounts::allocatable(&node);
        let images = |node: &Node| node.status.as_ref().and_then(|status| status.images.clone());
        let listed = images(&node);
        if self.node.as_ref().is_none_or(|old| images(old) != listed) {
            let mut sizes = HashMap::new();
            for image in listed.into_iter().flatten() {
                for name in image.names.into_iter().flatten() {
                    sizes.insert(name, image.size_bytes.unwrap_or(0));
                }
            }
            self.images = Arc::new(sizes);
        }
        self.node = Some(node);
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests.real);
        self.scored.add(&pod.requests.scored);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod);
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests.real);
        self.scored.subtract(&pod.requests.scored);
        for port in &pod.host_ports {
            if let Some(at) = self.host_ports.iter().position(|other| other == port) {
                self.host_ports.swap_remove(at);
            }
        }
        Some(pod)
    }

    /// Region and zone, by which the order of nodes takes turns.
    pub fn zone(&self) -> (String, String) {
        let labels = self.labels();
        let first = |names: [&str; 2]| {
            names
                .iter()
                .find_map(|name| labels.get(*name))
                .cloned()
                .unwrap_or_default()
        };
        (
            first([
                "topology.kubernetes.io/region",
                "failure-domain.beta.kubernetes.io/region",
            ]),
            first(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
        )
    }
}

fn declared_features(node: &Node) -> &[String] {
    let status = node.status.as_ref();
    status
        .and_then(|status| status.declared_features.as_deref())
        .unwrap_or_default()
}

/// What of a node has changed that a plug-in reads. Heartbeats change nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub allocatable: bool,
    pub labels: bool,
    /// Taints, or being cordoned.
    pub taints: bool,
    /// What the node declares.
    pub features: bool,
}

impl NodeChange {
    pub fn between(old: &Node, new: &Node) -> Self {
        let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
        let spec = |node: &Node| {
            let spec = node.spec.as_ref();
            (
                spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
                spec.and_then(|spec| spec.unschedulable) == Some(true),
            )
        };
        Self {
            allocatable: allocatable(old) != allocatable(new),
            labels: old.metadata.labels != new.metadata.labels,
            taints: spec(old) != spec(new),
            features: declared_features(old) != declared_features(new),
        }
    }

    pub fn any(self) -> bool {
        self.allocatable || self.labels || self.taints || self.features
    }
}
