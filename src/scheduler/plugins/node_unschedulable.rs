//! Cordoned nodes take no pods (upstream: `nodeunschedulable`).

use super::Plugin;
use super::taint_toleration::tolerates;
use crate::scheduler::cache::NodeInfo;
use crate::scheduler::plan::PodInfo;
use k8s_openapi::api::core::v1::Taint;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn filter(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> Vec<String> {
        let cordoned = node
            .node
            .as_ref()
            .and_then(|n| n.spec.as_ref())
            .and_then(|spec| spec.unschedulable)
            == Some(true);
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if cordoned && !tolerates(pod, &taint) {
            vec!["node(s) were unschedulable".into()]
        } else {
            Vec::new()
        }
    }
}
