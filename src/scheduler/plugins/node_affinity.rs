//! nodeSelector and node affinity (upstream: `nodeaffinity`).

use crate::scheduler::configuration::args::NodeAffinityArgs;
use crate::scheduler::framework::{
    Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Score, Verdict, normalize_by_highest,
};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::selector::NodeTerms;
use k8s_openapi::api::core::v1::{Node, PreferredSchedulingTerm};

/// With what the profile adds for all its pods.
#[derive(Default)]
pub struct NodeAffinity {
    required: Option<NodeTerms>,
    preferred: Vec<(i64, NodeTerms)>,
}

fn preferred(terms: Option<&Vec<PreferredSchedulingTerm>>) -> Vec<(i64, NodeTerms)> {
    let terms = terms.into_iter().flatten();
    terms
        .map(|term| (i64::from(term.weight), NodeTerms::one(&term.preference)))
        .collect()
}

impl NodeAffinity {
    pub fn new(args: &NodeAffinityArgs) -> Self {
        let added = args.added_affinity.as_ref();
        let required = added.and_then(|added| added.required_during_scheduling_ignored_during_execution.as_ref());
        let soft = added.and_then(|added| added.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            required: required.map(NodeTerms::new),
            preferred: preferred(soft),
        }
    }

    fn takes(&self, pod: &PodInfo, node: &Node) -> bool {
        self.required.as_ref().is_none_or(|terms| terms.matches(node)) && pod.required_node.matches(node)
    }
}

#[derive(Clone)]
struct Required<'a> {
    added: Option<&'a NodeTerms>,
    pod: &'a PodInfo,
}

struct Preferred<'a> {
    added: &'a [(i64, NodeTerms)],
    own: Vec<(i64, NodeTerms)>,
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
    fn pre_filter<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        if self.required.is_none() && pod.required_node.asks_nothing() {
            return PreFilter::Skip;
        }
        let names = pod.required_node.terms().and_then(NodeTerms::names);
        if names.as_ref().is_some_and(Vec::is_empty) {
            return PreFilter::Reject(Refusal::unresolvable("pod affinity terms conflict"));
        }
        PreFilter::Run {
            filter: Box::new(Required {
                added: self.required.as_ref(),
                pod,
            }),
            nodes: names.map(|names| names.into_iter().collect()),
        }
    }
    fn pre_score<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let affinity = pod
            .spec()
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let own = preferred(terms);
        if own.is_empty() && self.preferred.is_empty() {
            return None;
        }
        Some(Box::new(Preferred {
            added: &self.preferred,
            own,
        }))
    }
    fn listens(&self, event: EventKind) -> bool {
        matches!(event, EventKind::NodeAdded | EventKind::NodeChanged)
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(node) => node.node.as_ref().is_some_and(|node| self.takes(pod, node)),
            Event::NodeChanged { old, node, what } => {
                what.labels && node.node.as_ref().is_some_and(|node| self.takes(pod, node)) && !self.takes(pod, old)
            }
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Required<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let Some(node) = &node.node else { return Ok(()) };
        if self.added.is_some_and(|added| !added.matches(node)) {
            return Err(Refusal::unresolvable(
                "node(s) didn't match scheduler-enforced node affinity",
            ));
        }
        if !self.pod.required_node.matches(node) {
            return Err(Refusal::unresolvable(
                "node(s) didn't match Pod's node affinity/selector",
            ));
        }
        Ok(())
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let Some(node) = &node.node else { return 0 };
        let terms = self.added.iter().chain(&self.own);
        terms
            .filter(|(_, term)| term.matches(node))
            .map(|(weight, _)| weight)
            .sum()
    }
    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, false);
    }
}
