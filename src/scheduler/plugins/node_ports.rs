//! Host ports must be free (upstream: `nodeports`).

use super::Plugin;
use crate::scheduler::cache::{HostPort, NodeInfo};
use crate::scheduler::plan::PodInfo;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn filter(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> Vec<String> {
        let taken = |wanted: &HostPort| node.host_ports.iter().any(|used| conflict(wanted, used));
        if pod.host_ports.iter().any(taken) {
            vec!["node(s) didn't have free ports for the requested pod ports".into()]
        } else {
            Vec::new()
        }
    }
}

/// Same protocol and port, and addresses that meet: 0.0.0.0 meets all.
fn conflict(a: &HostPort, b: &HostPort) -> bool {
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || a.1 == "0.0.0.0" || b.1 == "0.0.0.0")
}
