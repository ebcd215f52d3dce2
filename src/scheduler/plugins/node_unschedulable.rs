//! Cordoned nodes take no pods (upstream: `nodeunschedulable`).

use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use k8s_openapi::api::core::v1::Taint;

pub struct NodeUnschedulable;

#[derive(Clone)]
struct Cordon {
    tolerated: bool,
}

fn tolerated(pod: &PodInfo) -> bool {
    pod.tolerates(&Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    })
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
    fn pre_filter<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        PreFilter::run(Cordon {
            tolerated: tolerated(pod),
        })
    }
    fn listens(&self, event: EventKind) -> bool {
        matches!(event, EventKind::NodeAdded | EventKind::NodeChanged)
    }
    fn may_help(&self, _: Cx<'_>, _: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(node) => !node.is_cordoned(),
            Event::NodeChanged { node, what, .. } => what.taints && !node.is_cordoned(),
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Cordon {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if node.is_cordoned() && !self.tolerated {
            return Err(Refusal::unresolvable("node(s) were unschedulable"));
        }
        Ok(())
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
