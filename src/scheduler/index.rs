//! Figures by node that are kept up as pods come and go, so that no cycle walks all pods: domains of topology keys,
//! counts of pods that selectors match, terms of affinity that placed pods carry. Upstream counts pods anew in each cycle,
//! on 16 threads.

use super::node_info::NodeInfo;
use super::pod_info::{AffinityTerm, PodInfo, Scope};
use super::selector::{Labels, Selector};
use std::collections::HashMap;
use std::sync::Arc;

/// The node has no such label.
pub const NO_DOMAIN: u32 = u32::MAX;

/// Queries that are kept up at once; the one that was asked for longest ago goes.
const QUERIES_MAX: usize = 128;

/// The values of one label over the nodes, numbered.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    numbers: HashMap<String, u32>,
    /// By slot.
    of_node: Vec<u32>,
}

impl Domains {
    /// The number of the node's value, or [`NO_DOMAIN`].
    pub fn of(&self, slot: usize) -> u32 {
        self.of_node.get(slot).copied().unwrap_or(NO_DOMAIN)
    }

    /// One more than the highest number.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    fn set(&mut self, slot: usize, value: Option<&String>) {
        if self.of_node.len() <= slot {
            self.of_node.resize(slot + 1, NO_DOMAIN);
        }
        self.of_node[slot] = match value {
            None => NO_DOMAIN,
            Some(value) => match self.numbers.get(value) {
                Some(number) => *number,
                None => {
                    let number = self.numbers.len() as u32;
                    self.numbers.insert(value.clone(), number);
                    number
                }
            },
        };
    }
}

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// All of these at once.
    pub all: Vec<(Scope, Selector)>,
    /// Pods that are going away count, too.
    pub terminating: bool,
}

impl Query {
    fn counts(&self, pod: &PodInfo, namespace: &Labels) -> bool {
        let meets = |(scope, selector): &(Scope, Selector)| {
            scope.holds(&pod.namespace, namespace) && selector.matches(pod.labels())
        };
        (self.terminating || !pod.is_terminating()) && self.all.iter().all(meets)
    }
}

#[derive(Clone, Debug)]
struct Counted {
    by_node: Arc<Vec<u32>>,
    asked: u64,
}

/// A term of affinity that placed pods carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Carried {
    pub kind: CarriedKind,
    pub term: AffinityTerm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CarriedKind {
    Required,
    RequiredAnti,
    /// With its weight.
    Preferred(i64),
    PreferredAnti(i64),
}

#[derive(Debug, Default)]
pub struct Index {
    domains: HashMap<String, Arc<Domains>>,
    queries: HashMap<Query, Counted>,
    asked: u64,
}

/// The terms that placed pods carry: pods with the term, by slot.
#[derive(Debug, Default)]
pub struct Carriers(HashMap<Carried, HashMap<usize, u32>>);

impl Carriers {
    pub fn add(&mut self, pod: &PodInfo, slot: usize) {
        for term in terms(pod) {
            *self.0.entry(term).or_default().entry(slot).or_default() += 1;
        }
    }

    pub fn remove(&mut self, pod: &PodInfo, slot: usize) {
        for term in terms(pod) {
            let Some(by_slot) = self.0.get_mut(&term) else { continue };
            if let Some(count) = by_slot.get_mut(&slot) {
                *count -= 1;
                if *count == 0 {
                    by_slot.remove(&slot);
                }
            }
            if by_slot.is_empty() {
                self.0.remove(&term);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Carried, &HashMap<usize, u32>)> {
        self.0.iter()
    }
}

fn terms(pod: &PodInfo) -> Vec<Carried> {
    let required = |terms: &[AffinityTerm], kind: CarriedKind| -> Vec<Carried> {
        let carried = terms.iter().map(|term| Carried {
            kind,
            term: term.clone(),
        });
        carried.collect()
    };
    let preferred = |terms: &[(i64, AffinityTerm)], kind: fn(i64) -> CarriedKind| -> Vec<Carried> {
        let carried = terms.iter().map(|(weight, term)| Carried {
            kind: kind(*weight),
            term: term.clone(),
        });
        carried.collect()
    };
    let mut all = required(&pod.affinity.required, CarriedKind::Required);
    all.extend(required(&pod.anti_affinity.required, CarriedKind::RequiredAnti));
    all.extend(preferred(&pod.affinity.preferred, CarriedKind::Preferred));
    all.extend(preferred(&pod.anti_affinity.preferred, CarriedKind::PreferredAnti));
    all
}

impl Index {
    /// `namespace` are the labels of the pod's namespace.
    pub fn add(&mut self, pod: &PodInfo, slot: usize, namespace: &Labels) {
        for (query, counted) in &mut self.queries {
            if query.counts(pod, namespace) {
                let by_node = Arc::make_mut(&mut counted.by_node);
                if by_node.len() <= slot {
                    by_node.resize(slot + 1, 0);
                }
                by_node[slot] += 1;
            }
        }
    }

    pub fn remove(&mut self, pod: &PodInfo, slot: usize, namespace: &Labels) {
        for (query, counted) in &mut self.queries {
            if query.counts(pod, namespace)
                && let Some(count) = Arc::make_mut(&mut counted.by_node).get_mut(slot)
            {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// The labels of a node have changed, or it is gone.
    pub fn set_labels(&mut self, slot: usize, labels: Option<&Labels>) {
        self.domains.retain(|key, domains| {
            let domains = Arc::make_mut(domains);
            domains.set(slot, labels.and_then(|labels| labels.get(key)));
            // Values that no node has any more pile up: begin anew.
            domains.numbers.len() <= 2 * domains.of_node.len() + 64
        });
    }

    /// Another namespace has other labels now: what was counted by them is counted anew when it is asked for.
    pub fn namespace_changed(&mut self) {
        self.queries
            .retain(|query, _| !query.all.iter().any(|(scope, _)| scope.is_by_labels()));
    }

    pub fn domains(&mut self, key: &str, nodes: &[NodeInfo]) -> Arc<Domains> {
        if let Some(domains) = self.domains.get(key) {
            return domains.clone();
        }
        let mut domains = Domains::default();
        for node in nodes {
            domains.set(node.slot, node.labels().get(key));
        }
        let domains = Arc::new(domains);
        self.domains.insert(key.to_owned(), domains.clone());
        domains
    }

    /// How many pods match, by slot; slots beyond the end have none.
    pub fn counts<'n>(
        &mut self,
        query: &Query,
        nodes: &[NodeInfo],
        namespace: impl Fn(&str) -> &'n Labels,
    ) -> Arc<Vec<u32>> {
        self.asked += 1;
        if let Some(counted) = self.queries.get_mut(query) {
            counted.asked = self.asked;
            return counted.by_node.clone();
        }
        let matching = |node: &NodeInfo| {
            let pods = node.pods.iter();
            pods.filter(|pod| query.counts(pod, namespace(&pod.namespace))).count() as u32
        };
        let by_node: Arc<Vec<u32>> = Arc::new(nodes.iter().map(matching).collect());
        if self.queries.len() >= QUERIES_MAX
            && let Some(oldest) = self.queries.iter().min_by_key(|(_, counted)| counted.asked)
        {
            let oldest = oldest.0.clone();
            self.queries.remove(&oldest);
        }
        let counted = Counted {
            by_node: by_node.clone(),
            asked: self.asked,
        };
        self.queries.insert(query.clone(), counted);
        by_node
    }
}
