//! Required terms: the pod's own, and the anti-affinity of pods that are there.

use super::{ByDomain, ByKey, at_key};
use crate::scheduler::framework::{Cx, Filter, Refusal, Verdict};
use crate::scheduler::index::CarriedKind;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::{AffinityTerm, PodInfo};

#[derive(Clone)]
pub struct Rules<'a> {
    cx: Cx<'a>,
    pod: &'a PodInfo,
    /// Pods that match all terms, by the domains of each term.
    near: Vec<ByDomain>,
    /// Pods that match the term, for each term.
    far: Vec<ByDomain>,
    /// Pods that do not want this pod near, by topology key.
    unwelcoming: ByKey,
}

impl<'a> Rules<'a> {
    /// None if there are no rules about this pod.
    pub fn new(cx: Cx<'a>, pod: &'a PodInfo) -> Option<Self> {
        let mut this = Self {
            cx,
            pod,
            near: Vec::new(),
            far: Vec::new(),
            unwelcoming: ByKey::new(),
        };
        let own_labels = cx.cache.namespace_labels(&pod.namespace);
        for (carried, by_slot) in cx.cache.carriers().iter() {
            if carried.kind == CarriedKind::RequiredAnti && carried.term.matches(pod, own_labels) {
                this.unwelcoming_at(
                    &carried.term.topology_key,
                    by_slot.iter().map(|(slot, n)| (*slot, i64::from(*n))),
                );
            }
        }
        for term in &pod.affinity.required {
            let mut near = ByDomain::new(cx, &term.topology_key);
            near.add_matching(cx, &pod.affinity.required, 1);
            this.near.push(near);
        }
        for term in &pod.anti_affinity.required {
            let mut far = ByDomain::new(cx, &term.topology_key);
            far.add_matching(cx, std::slice::from_ref(term), 1);
            this.far.push(far);
        }
        let concerns = !this.near.is_empty() || !this.far.is_empty() || !this.unwelcoming.is_empty();
        concerns.then_some(this)
    }

    fn unwelcoming_at(&mut self, key: &str, pods: impl Iterator<Item = (usize, i64)>) {
        let by_domain = at_key(&mut self.unwelcoming, self.cx, key);
        for (slot, count) in pods {
            by_domain.add(slot, count);
        }
    }

    fn matches(&self, term: &AffinityTerm, pod: &PodInfo) -> bool {
        term.matches(pod, self.cx.cache.namespace_labels(&pod.namespace))
    }

    fn matches_all(&self, pod: &PodInfo) -> bool {
        let terms = &self.pod.affinity.required;
        !terms.is_empty() && terms.iter().all(|term| self.matches(term, pod))
    }

    fn change(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        for term in &other.anti_affinity.required {
            if self.matches(term, self.pod) {
                at_key(&mut self.unwelcoming, self.cx, &term.topology_key).add(node.slot, by);
            }
        }
        if self.matches_all(other) {
            for near in &mut self.near {
                near.add(node.slot, by);
            }
        }
        for at in 0..self.far.len() {
            if self.matches(&self.pod.anti_affinity.required[at], other) {
                self.far[at].add(node.slot, by);
            }
        }
    }

    fn is_near(&self, node: &NodeInfo) -> bool {
        let mut found = true;
        for near in &self.near {
            match near.get(node.slot) {
                None => return false,
                Some(count) => found &= count > 0,
            }
        }
        // The first of a group that wants to be together may go anywhere.
        found || (self.near.iter().all(ByDomain::is_zero) && self.matches_all(self.pod))
    }
}

impl<'a> Filter<'a> for Rules<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let occupied = |by_domain: &ByDomain| by_domain.get(node.slot).is_some_and(|count| count > 0);
        if !self.near.is_empty() && !self.is_near(node) {
            return Err(Refusal::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if self.far.iter().any(occupied) {
            return Err(Refusal::unschedulable("node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwelcoming.values().any(occupied) {
            return Err(Refusal::unschedulable(
                "node(s) didn't satisfy existing pods anti-affinity rules",
            ));
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
