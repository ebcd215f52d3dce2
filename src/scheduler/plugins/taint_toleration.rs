//! Taints that the pod does not tolerate keep it away (upstream: `tainttoleration`).

use crate::client::placement::tolerates;
use crate::scheduler::framework::{
    Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Score, Verdict, normalize_by_highest,
};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use k8s_openapi::api::core::v1::{Taint, Toleration};

pub struct TaintToleration;

#[derive(Clone)]
struct Hard<'a>(&'a PodInfo);

struct Soft<'a>(Vec<&'a Toleration>);

/// The first taint that keeps the pod away.
pub fn untolerated<'n>(pod: &PodInfo, taints: &'n [Taint]) -> Option<&'n Taint> {
    let mut hard = taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.find(|taint| !pod.tolerates(taint))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
    fn pre_filter<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        PreFilter::run(Hard(pod))
    }
    fn pre_score<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo, nodes: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        // Where no node has such a taint all are the same, and the highest score is theirs.
        let soft = |node: &&NodeInfo| node.taints().iter().any(|taint| taint.effect == "PreferNoSchedule");
        if !nodes.iter().any(soft) {
            return None;
        }
        let tolerations = pod.spec().tolerations.iter().flatten();
        let relevant = tolerations.filter(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")));
        Some(Box::new(Soft(relevant.collect())))
    }
    fn listens(&self, event: EventKind) -> bool {
        matches!(event, EventKind::NodeAdded | EventKind::NodeChanged)
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(node) => untolerated(pod, node.taints()).is_none(),
            Event::NodeChanged { node, what, .. } => what.taints && untolerated(pod, node.taints()).is_none(),
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Hard<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        match untolerated(self.0, node.taints()) {
            None => Ok(()),
            Some(_) => Err(Refusal::unresolvable("node(s) had untolerated taint(s)")),
        }
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Score for Soft<'_> {
    /// Taints that are not tolerated: fewer are better.
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !self.0.iter().any(|toleration| tolerates(toleration, taint)))
            .count() as i64
    }
    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, true);
    }
}
