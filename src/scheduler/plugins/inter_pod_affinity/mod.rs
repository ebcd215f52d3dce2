//! Pods that want to be near others or far from them, in both directions (upstream: `interpodaffinity`).

mod filter;
mod score;

use crate::scheduler::configuration::args::InterPodAffinityArgs;
use crate::scheduler::framework::{Cx, Event, EventKind, Plugin, PreFilter, Score};
use crate::scheduler::index::{Domains, NO_DOMAIN, Query};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::{AffinityTerm, PodInfo};
use std::collections::HashMap;
use std::sync::Arc;

pub struct InterPodAffinity {
    args: InterPodAffinityArgs,
}

impl InterPodAffinity {
    pub fn new(args: InterPodAffinityArgs) -> Self {
        Self { args }
    }
}

/// A figure for each domain of a topology key.
#[derive(Clone)]
struct ByDomain {
    domains: Arc<Domains>,
    figures: Vec<i64>,
}

impl ByDomain {
    fn new(cx: Cx<'_>, key: &str) -> Self {
        let domains = cx.cache.domains(key);
        Self {
            figures: vec![0; domains.len()],
            domains,
        }
    }

    fn add(&mut self, slot: usize, by: i64) {
        if let Some(figure) = self.figures.get_mut(self.domains.of(slot) as usize) {
            *figure += by;
        }
    }

    /// None where the node lacks the label.
    fn get(&self, slot: usize) -> Option<i64> {
        let domain = self.domains.of(slot);
        (domain != NO_DOMAIN).then(|| self.figures.get(domain as usize).copied().unwrap_or(0))
    }

    /// Adds `weight` for each pod that matches, at its node's domain.
    fn add_matching(&mut self, cx: Cx<'_>, terms: &[AffinityTerm], weight: i64) {
        let all = terms.iter().map(|term| (term.scope.clone(), term.selector.clone()));
        let query = Query {
            all: all.collect(),
            terminating: true,
        };
        for (slot, count) in cx
            .cache
            .counts(&query)
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            self.add(slot, i64::from(*count) * weight);
        }
    }

    fn is_zero(&self) -> bool {
        self.figures.iter().all(|figure| *figure == 0)
    }
}

type ByKey = HashMap<String, ByDomain>;

fn at_key<'k>(by_key: &'k mut ByKey, cx: Cx<'_>, key: &str) -> &'k mut ByDomain {
    by_key.entry(key.to_owned()).or_insert_with(|| ByDomain::new(cx, key))
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        filter::Rules::new(cx, pod).map_or(PreFilter::Skip, PreFilter::run)
    }
    fn pre_score<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let score = score::Nearness::new(cx, pod, &self.args)?;
        Some(Box::new(score))
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{NodeAdded, NodeChanged, PodAdded, PodChanged, PodRemoved};
        matches!(event, NodeAdded | NodeChanged | PodAdded | PodChanged | PodRemoved)
    }
    fn may_help(&self, cx: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        let matches =
            |term: &AffinityTerm, other: &PodInfo| term.matches(other, cx.cache.namespace_labels(&other.namespace));
        let wanted = |other: &PodInfo| {
            let terms = &pod.affinity.required;
            !terms.is_empty() && terms.iter().all(|term| matches(term, other))
        };
        let shunned = |other: &PodInfo| {
            pod.anti_affinity.required.iter().any(|term| matches(term, other))
                || other.anti_affinity.required.iter().any(|term| matches(term, pod))
        };
        match event {
            Event::PodAdded(other) => wanted(other),
            Event::PodRemoved(other) => shunned(other),
            Event::PodChanged { old, new } => {
                old.labels() != new.labels() && ((wanted(new) && !wanted(old)) || (shunned(old) && !shunned(new)))
            }
            Event::NodeAdded(_) => true,
            Event::NodeChanged { what, .. } => what.labels,
            _ => false,
        }
    }
}
