//! A pod that names its node goes nowhere else (upstream: `nodename`). The scheduler only sees such pods when they have
//! one already, so this matters to those who ask by the configuration.

use crate::client::pods::node_name;
use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;

pub struct NodeName;

#[derive(Clone)]
struct Named<'a>(&'a str);

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
    fn pre_filter<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        node_name(&pod.pod).map_or(PreFilter::Skip, |name| PreFilter::run(Named(name)))
    }
    fn listens(&self, event: EventKind) -> bool {
        event == EventKind::NodeAdded
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        matches!(event, Event::NodeAdded(node) if node_name(&pod.pod).is_none_or(|name| name == node.name))
    }
}

impl<'a> Filter<'a> for Named<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if self.0 == node.name {
            Ok(())
        } else {
            Err(Refusal::unresolvable("node(s) didn't match the requested node name"))
        }
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
