//! Constraints that should be kept: domains with fewer pods are better.

use super::{Constraint, HOSTNAME};
use crate::scheduler::framework::{Cx, SCORE_MAX, Score};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;

pub struct Evenness {
    constraints: Vec<Weighed>,
    /// In the order of the nodes that are scored: lacks a label, so that it is not compared.
    ignored: Vec<bool>,
}

struct Weighed {
    rule: Constraint,
    /// Pods by domain; empty where each node is a domain.
    by_domain: Vec<i64>,
    /// Many small domains count as much as few large ones.
    weight: f64,
}

impl Evenness {
    pub fn new(cx: Cx<'_>, pod: &PodInfo, rules: Vec<Constraint>, nodes: &[&NodeInfo], all_labels: bool) -> Self {
        let lacks = |node: &NodeInfo| all_labels && rules.iter().any(|rule| rule.domain(node).is_none());
        let ignored: Vec<bool> = nodes.iter().map(|node| lacks(node)).collect();
        let compared = ignored.iter().filter(|ignored| !**ignored).count();
        let weighed = |rule: &Constraint| {
            let mut by_domain = Vec::new();
            let mut size = compared;
            if rule.topology_key != HOSTNAME {
                // Nodes without the label are one more domain in the weight only.
                let mut seen = vec![false; rule.domains.len() + 1];
                for (node, ignored) in nodes.iter().zip(&ignored) {
                    if !ignored {
                        seen[rule.domain(node).unwrap_or(rule.domains.len())] = true;
                    }
                }
                size = seen.iter().filter(|seen| **seen).count();
                by_domain = vec![0; rule.domains.len()];
                for node in cx.cache.nodes() {
                    if let Some(domain) = rule.domain(node)
                        && !lacks(node)
                        && rule.includes(pod, node)
                    {
                        by_domain[domain] += rule.count(node);
                    }
                }
            }
            Weighed {
                rule: rule.clone(),
                by_domain,
                weight: ((size + 2) as f64).ln(),
            }
        };
        Self {
            constraints: rules.iter().map(weighed).collect(),
            ignored,
        }
    }
}

impl Score for Evenness {
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut score = 0.0;
        for Weighed {
            rule,
            by_domain,
            weight,
        } in &self.constraints
        {
            let Some(domain) = rule.domain(node) else { continue };
            let count = if by_domain.is_empty() {
                rule.count(node)
            } else {
                by_domain[domain]
            };
            score += count as f64 * weight + (rule.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let compared = || self.ignored.iter().zip(scores.iter()).filter(|(ignored, _)| !**ignored);
        let highest = compared().map(|(_, score)| *score).max().unwrap_or(0);
        let lowest = compared().map(|(_, score)| *score).min().unwrap_or(0);
        for (ignored, score) in self.ignored.iter().zip(scores.iter_mut()) {
            *score = match (ignored, highest) {
                (true, _) => 0,
                (false, 0) => SCORE_MAX,
                (false, _) => SCORE_MAX * (highest + lowest - *score) / highest,
            };
        }
    }
}
