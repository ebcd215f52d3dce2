//! Constraints that must be kept: no domain may have too many more pods than the one with the fewest.

use super::Constraint;
use crate::scheduler::framework::{Cx, Filter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;

#[derive(Clone)]
pub struct Spread<'a> {
    pod: &'a PodInfo,
    constraints: Vec<Counted>,
}

#[derive(Clone)]
struct Counted {
    rule: Constraint,
    counts_itself: bool,
    /// Pods by domain; None where no node takes part.
    by_domain: Vec<Option<i64>>,
    present: usize,
    fewest: i64,
}

impl Counted {
    fn weigh(&mut self) {
        let present = self.by_domain.iter().flatten();
        self.present = present.clone().count();
        // With fewer domains than asked for there is always an empty one to come.
        self.fewest = if self.present < self.rule.min_domains {
            0
        } else {
            present.copied().min().unwrap_or(0)
        };
    }
}

impl<'a> Spread<'a> {
    pub fn new(cx: Cx<'_>, pod: &'a PodInfo, rules: Vec<Constraint>) -> Self {
        let counted = |rule: Constraint| Counted {
            counts_itself: rule.selector.matches(pod.labels()),
            by_domain: vec![None; rule.domains.len()],
            present: 0,
            fewest: 0,
            rule,
        };
        let mut this = Self {
            pod,
            constraints: rules.into_iter().map(counted).collect(),
        };
        for node in cx.cache.nodes() {
            if !this.has_all_labels(node) {
                continue;
            }
            for counted in &mut this.constraints {
                if let Some(domain) = counted.rule.domain(node)
                    && counted.rule.includes(pod, node)
                {
                    *counted.by_domain[domain].get_or_insert(0) += counted.rule.count(node);
                }
            }
        }
        for counted in &mut this.constraints {
            counted.weigh();
        }
        this
    }

    fn has_all_labels(&self, node: &NodeInfo) -> bool {
        self.constraints
            .iter()
            .all(|counted| counted.rule.domain(node).is_some())
    }

    fn change(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        if other.namespace != self.pod.namespace || other.is_terminating() || !self.has_all_labels(node) {
            return;
        }
        for counted in &mut self.constraints {
            if let Some(domain) = counted.rule.domain(node)
                && counted.rule.selector.matches(other.labels())
                && counted.rule.includes(self.pod, node)
            {
                *counted.by_domain[domain].get_or_insert(0) += by;
                counted.weigh();
            }
        }
    }
}

impl<'a> Filter<'a> for Spread<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        for counted in &self.constraints {
            let Some(domain) = counted.rule.domain(node) else {
                return Err(Refusal::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let there = counted.by_domain.get(domain).copied().flatten().unwrap_or(0);
            let skew = there + i64::from(counted.counts_itself) - counted.fewest;
            if skew > counted.rule.max_skew {
                return Err(Refusal::unschedulable(
                    "node(s) didn't match pod topology spread constraints",
                ));
            }
        }
        Ok(())
    }
    fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.change(pod, node, 1);
    }
    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.change(pod, node, -1);
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
