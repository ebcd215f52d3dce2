//! Host ports must be free (upstream: `nodeports`).

use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::{HostPort, PodInfo};

pub struct NodePorts;

#[derive(Clone)]
struct Wanted<'a>(&'a [HostPort]);

fn meet(wanted: &[HostPort], used: &[HostPort]) -> bool {
    wanted.iter().any(|wanted| used.iter().any(|used| wanted.meets(used)))
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
    fn pre_filter<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        if pod.host_ports.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::run(Wanted(&pod.host_ports))
    }
    fn listens(&self, event: EventKind) -> bool {
        matches!(event, EventKind::NodeAdded | EventKind::PodRemoved)
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(node) => !meet(&pod.host_ports, &node.host_ports),
            Event::PodRemoved(gone) => meet(&pod.host_ports, &gone.host_ports),
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Wanted<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if meet(self.0, &node.host_ports) {
            return Err(Refusal::unschedulable(
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
