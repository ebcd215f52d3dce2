//! A pod goes only to nodes that declare what it needs (upstream: `nodedeclaredfeatures`).

use crate::declared_features::{missing, needed_to_run};
use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;

pub struct NodeDeclaredFeatures;

#[derive(Clone)]
struct Needed(Vec<&'static str>);

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }
    fn pre_filter<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        let needed = pod.pod.spec.as_ref().map(needed_to_run).unwrap_or_default();
        match needed.is_empty() {
            true => PreFilter::Skip,
            false => PreFilter::run(Needed(needed)),
        }
    }
    fn listens(&self, event: EventKind) -> bool {
        matches!(event, EventKind::NodeAdded | EventKind::NodeChanged)
    }
    fn may_help(&self, _: Cx<'_>, _: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::NodeChanged { what, .. } => what.features,
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Needed {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if missing(&self.0, node.declared_features()).is_empty() {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) didn't match Pod's required features"))
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
