//! Nodes and what stands on them, pods whose binding is under way included (upstream: `pkg/scheduler/backend/cache`).

use super::resources::Amounts;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A port on the node's own addresses: protocol, host address, port.
pub type HostPort = (String, String, i32);

/// A node and the sums over its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// None while only pods that name the node are known.
    pub node: Option<Arc<Node>>,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub pods_count: i64,
    pub host_ports: Vec<HostPort>,
}

struct Placed {
    node: String,
    requested: Amounts,
    host_ports: Vec<HostPort>,
    assumed: bool,
}

#[derive(Default)]
pub struct Cache {
    /// Ordered, so that decisions do not depend on hashing.
    nodes: BTreeMap<String, NodeInfo>,
    pods: HashMap<String, Placed>,
    /// Names or uids seen since a list began; None when no list is under way.
    listed_nodes: Option<HashSet<String>>,
    listed_pods: Option<HashSet<String>>,
}

impl Cache {
    /// The nodes that can take pods, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeInfo)> {
        self.nodes
            .iter()
            .filter(|(_, info)| info.node.is_some())
            .map(|(name, info)| (name.as_str(), info))
    }

    pub fn begin_node_list(&mut self) {
        self.listed_nodes = Some(HashSet::new());
    }
    /// Forgets the nodes that the list did not hold.
    pub fn end_node_list(&mut self) {
        let listed = self.listed_nodes.take().unwrap_or_default();
        for (name, info) in &mut self.nodes {
            if !listed.contains(name) {
                info.node = None;
            }
        }
    }
    /// True if something changed that a filter or a score reads.
    pub fn put_node(&mut self, node: Arc<Node>) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(listed) = &mut self.listed_nodes {
            listed.insert(name.clone());
        }
        let info = self.nodes.entry(name).or_default();
        let changed = info.node.as_ref().is_none_or(|old| differs(old, &node));
        info.allocatable = Amounts::allocatable(&node);
        info.node = Some(node);
        changed
    }
    pub fn remove_node(&mut self, node: &Node) {
        if let Some(info) = self.nodes.get_mut(node.metadata.name.as_deref().unwrap_or_default()) {
            info.node = None;
        }
    }

    pub fn begin_pod_list(&mut self) {
        self.listed_pods = Some(HashSet::new());
    }
    pub fn end_pod_list(&mut self) {
        let listed = self.listed_pods.take().unwrap_or_default();
        let gone: Vec<String> = self
            .pods
            .iter()
            .filter(|(uid, pod)| !pod.assumed && !listed.contains(*uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.take(&uid);
        }
    }
    /// Takes note of a pod that has a node. True if room was freed by it (it has ended).
    pub fn put_pod(&mut self, pod: Arc<Pod>) -> bool {
        let uid = uid(&pod);
        if let Some(listed) = &mut self.listed_pods {
            listed.insert(uid.clone());
        }
        if is_terminal(&pod) {
            return self.take(&uid);
        }
        let node = node_name(&pod).unwrap_or_default().to_owned();
        self.place(&pod, node, false);
        false
    }
    /// True if the pod stood on a node.
    pub fn remove_pod(&mut self, pod: &Pod) -> bool {
        self.take(&uid(pod))
    }

    /// Counts the pod as placed until the watch confirms it or [`Cache::forget`] is called.
    pub fn assume(&mut self, pod: Arc<Pod>, node: &str) {
        self.place(&pod, node.to_owned(), true);
    }
    pub fn is_assumed(&self, pod: &Pod) -> bool {
        self.pods.get(&uid(pod)).is_some_and(|placed| placed.assumed)
    }
    /// Takes an assumption back; a confirmed placement stays.
    pub fn forget(&mut self, pod: &Pod) {
        if self.is_assumed(pod) {
            self.take(&uid(pod));
        }
    }

    fn place(&mut self, pod: &Pod, node: String, assumed: bool) {
        let uid = uid(pod);
        self.take(&uid);
        let placed = Placed {
            requested: Amounts::requested_by(pod),
            host_ports: host_ports(pod),
            node,
            assumed,
        };
        let info = self.nodes.entry(placed.node.clone()).or_default();
        info.requested.add(&placed.requested);
        info.pods_count += 1;
        info.host_ports.extend(placed.host_ports.iter().cloned());
        self.pods.insert(uid, placed);
    }

    fn take(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else {
            return false;
        };
        let Some(info) = self.nodes.get_mut(&placed.node) else {
            return true;
        };
        info.requested.subtract(&placed.requested);
        info.pods_count -= 1;
        for port in &placed.host_ports {
            if let Some(at) = info.host_ports.iter().position(|other| other == port) {
                info.host_ports.swap_remove(at);
            }
        }
        if info.node.is_none() && info.pods_count == 0 {
            self.nodes.remove(&placed.node);
        }
        true
    }
}

/// Heartbeats and images change often and matter to no filter.
fn differs(old: &Node, new: &Node) -> bool {
    let status = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || status(old) != status(new)
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Succeeded and Failed pods take no room.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The host ports that the pod claims.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let address = port
                .host_ip
                .clone()
                .filter(|ip| !ip.is_empty())
                .unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((protocol, address, number))
        })
        .collect()
}
