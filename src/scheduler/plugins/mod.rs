//! Filters and scores, in the order in which they are asked (upstream: `pkg/scheduler/framework/plugins`).

mod node_affinity;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod taint_toleration;

use super::cache::NodeInfo;
use super::plan::PodInfo;

/// One rule about a pod and a node.
pub trait Plugin: Sync {
    /// Why the node can not take the pod, in upstream's words; empty if it can.
    fn filter(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> Vec<String>;
    /// 0 to 100, higher is better.
    fn score(&self, _pod: &PodInfo<'_>, _node: &NodeInfo) -> i64 {
        0
    }
}

/// Every plug-in, in upstream's order of filters.
pub fn all() -> &'static [&'static dyn Plugin] {
    &[
        &node_unschedulable::NodeUnschedulable,
        &taint_toleration::TaintToleration,
        &node_affinity::NodeAffinity,
        &node_ports::NodePorts,
        &node_resources::NodeResources,
    ]
}
