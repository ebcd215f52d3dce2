//! Requests must fit into what is left, and the emptier node is better (upstream: `noderesources`, Fit with
//! the LeastAllocated strategy over cpu and memory).

use super::Plugin;
use crate::scheduler::cache::NodeInfo;
use crate::scheduler::plan::PodInfo;

pub struct NodeResources;

impl Plugin for NodeResources {
    fn filter(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> Vec<String> {
        let mut reasons = Vec::new();
        if node.pods_count + 1 > node.allocatable.get("pods") {
            reasons.push("Too many pods".to_owned());
        }
        for (name, amount) in pod.requested.iter() {
            if amount > node.allocatable.get(name) - node.requested.get(name) {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        reasons
    }

    fn score(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> i64 {
        let free_share = |name: &str| {
            let total = node.allocatable.get(name);
            let free = total - node.requested.get(name) - pod.requested.get(name);
            if total == 0 || free < 0 {
                0
            } else {
                (i128::from(free) * 100 / i128::from(total)) as i64
            }
        };
        (free_share("cpu") + free_share("memory")) / 2
    }
}
