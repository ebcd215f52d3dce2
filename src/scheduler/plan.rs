//! The decision where a pod goes: filter, then score (upstream: `schedule_one.go`). Pure.

use super::diagnosis::Diagnosis;
use super::extenders::Extenders;
use super::framework::{Code, Cx, Filter, PreFilter, Refusal};
use super::node_info::NodeInfo;
use super::nominations::Nominations;
use super::pod_info::PodInfo;
use super::profile::Profile;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One attempt for one pod.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub cx: Cx<'a>,
    pub profile: &'a Profile,
    pub pod: &'a PodInfo,
    pub nominations: &'a Nominations,
    pub extenders: &'a Extenders,
}

/// The profile's filters, made ready for the pod.
pub struct Filters<'a>(Vec<(&'static str, Box<dyn Filter<'a> + 'a>)>);

impl Clone for Filters<'_> {
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|(name, filter)| (*name, filter.boxed())).collect())
    }
}

pub enum Choice<'a> {
    Node(String),
    /// Nothing fits. The filters are missing if a rule has refused all nodes at once.
    Nothing(Diagnosis, Option<Filters<'a>>),
    /// Something went wrong that has nothing to do with nodes.
    Error(String),
}

impl<'a> Filters<'a> {
    pub fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        for (_, filter) in &mut self.0 {
            filter.add_pod(pod, node);
        }
    }
    pub fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        for (_, filter) in &mut self.0 {
            filter.remove_pod(pod, node);
        }
    }

    fn run(&self, node: &NodeInfo) -> Result<(), (&'static str, Refusal)> {
        for (name, filter) in &self.0 {
            filter.filter(node).map_err(|refusal| (*name, refusal))?;
        }
        Ok(())
    }

    /// The pod must fit with those for which room is being made there, and without them, too: they may never come.
    pub fn fits(&self, attempt: &Attempt<'_>, node: &NodeInfo) -> Result<(), (&'static str, Refusal)> {
        let pod = attempt.pod;
        let counts = |other: &&Arc<PodInfo>| other.priority >= pod.priority && other.uid != pod.uid;
        let nominated = attempt.nominations.on(&node.name);
        if nominated.iter().any(|other| counts(&other)) {
            let (mut filters, mut node) = (self.clone(), node.clone());
            for other in nominated.iter().filter(counts) {
                node.add(other.clone());
                filters.add_pod(other, &node);
            }
            filters.run(&node)?;
        }
        self.run(node)
    }
}

/// Where the search for nodes begins, and how ties are broken.
pub struct Search {
    pub start: usize,
    pub random: StdRng,
}

impl<'a> Attempt<'a> {
    pub fn choose(self, search: &mut Search) -> Choice<'a> {
        let cache = self.cx.cache;
        let mut diagnosis = Diagnosis {
            nodes_count: cache.order().len(),
            ..Diagnosis::default()
        };
        let mut filters = Filters(Vec::new());
        let mut allowed: Option<BTreeSet<String>> = None;
        let mut limited_by: BTreeSet<&'static str> = BTreeSet::new();
        for plugin in &self.profile.filters {
            match plugin.pre_filter(self.cx, self.pod) {
                PreFilter::Skip => {}
                PreFilter::Reject(refusal) => {
                    let message = refusal.message();
                    if refusal.code == Code::Error {
                        return Choice::Error(format!("running PreFilter plugin {:?}: {message}", plugin.name()));
                    }
                    diagnosis.plugins.insert(plugin.name());
                    diagnosis.before = Some(message);
                    diagnosis.others = Some(refusal);
                    return Choice::Nothing(diagnosis, None);
                }
                PreFilter::Run { filter, nodes } => {
                    filters.0.push((plugin.name(), filter));
                    if let Some(nodes) = nodes {
                        limited_by.insert(plugin.name());
                        allowed = Some(match allowed {
                            Some(before) => before.intersection(&nodes).cloned().collect(),
                            None => nodes,
                        });
                    }
                }
            }
        }
        let mut feasible: Vec<&NodeInfo> = Vec::new();
        // Room was made on a node: it is tried before all others.
        if let Some(node) = self.nominated_node().and_then(|name| cache.node(name))
            && filters.fits(&self, node).is_ok()
        {
            match self.extenders.filter(self.cx, self.pod, vec![node], &mut diagnosis) {
                Ok(left) => feasible = left,
                Err(error) => {
                    tracing::warn!(pod = %self.pod.key(), %error, "an extender failed for the nominated node")
                }
            }
        }
        if feasible.is_empty() {
            let order: Vec<usize> = match &allowed {
                None => Vec::new(),
                Some(names) => names
                    .iter()
                    .filter_map(|name| cache.node(name))
                    .map(|node| node.slot)
                    .collect(),
            };
            if allowed.is_some() {
                let names: Vec<&str> = limited_by.iter().copied().collect();
                let reason = format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" "));
                diagnosis.others = Some(Refusal::unresolvable(reason));
                diagnosis.plugins.extend(&limited_by);
            }
            let order = if allowed.is_some() { &order } else { cache.order() };
            match self.find(&filters, order, &mut diagnosis, search.start) {
                Ok(found) => feasible = found,
                Err(error) => return Choice::Error(error),
            }
            let all = cache.order().len().max(1);
            search.start = (search.start + feasible.len() + diagnosis.refusals.len()) % all;
            match self.extenders.filter(self.cx, self.pod, feasible, &mut diagnosis) {
                Ok(left) => feasible = left,
                Err(error) => return Choice::Error(error),
            }
        }
        match feasible.as_slice() {
            [] => Choice::Nothing(diagnosis, Some(filters)),
            [only] => Choice::Node(only.name.clone()),
            _ => Choice::Node(self.best(&feasible, search).name.clone()),
        }
    }

    fn nominated_node(&self) -> Option<&'a str> {
        let decided = self.nominations.node_of(&self.pod.uid);
        decided.or_else(|| self.pod.nominated_node())
    }

    /// Nodes that can take the pod, as many as are enough.
    fn find(
        &self,
        filters: &Filters<'_>,
        order: &[usize],
        diagnosis: &mut Diagnosis,
        start: usize,
    ) -> Result<Vec<&'a NodeInfo>, String> {
        let enough = self.profile.nodes_to_find(order.len(), self.extenders.choose_nodes());
        let mut feasible = Vec::with_capacity(enough);
        for at in 0..order.len() {
            let node = self.cx.cache.node_at(order[(start + at) % order.len()]);
            match filters.fits(self, node) {
                Ok(()) => {
                    feasible.push(node);
                    if feasible.len() >= enough {
                        break;
                    }
                }
                Err((name, refusal)) if refusal.code == Code::Error => {
                    return Err(format!("running {name:?} filter plugin: {}", refusal.message()));
                }
                Err((name, refusal)) => {
                    diagnosis.plugins.insert(name);
                    diagnosis.refusals.insert(node.slot, refusal);
                }
            }
        }
        Ok(feasible)
    }

    /// The node with the highest score, any of them if there are several.
    fn best(&self, nodes: &[&'a NodeInfo], search: &mut Search) -> &'a NodeInfo {
        let totals = self.scores(nodes);
        let highest = totals.iter().copied().max().unwrap_or(0);
        let ties = totals.iter().filter(|total| **total == highest).count();
        let which = if ties > 1 {
            search.random.random_range(0..ties)
        } else {
            0
        };
        let mut best = nodes.iter().zip(&totals).filter(|(_, total)| **total == highest);
        best.nth(which).map_or(nodes[0], |(node, _)| node)
    }

    pub fn scores(&self, nodes: &[&'a NodeInfo]) -> Vec<i64> {
        let mut totals = vec![0i64; nodes.len()];
        let mut scores = vec![0i64; nodes.len()];
        for (plugin, weight) in &self.profile.scorers {
            let Some(scorer) = plugin.pre_score(self.cx, self.pod, nodes) else {
                continue;
            };
            for (score, node) in scores.iter_mut().zip(nodes) {
                *score = scorer.score(node);
            }
            scorer.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += weight * score;
            }
        }
        self.extenders.prioritize(self.pod, nodes, &mut totals);
        totals
    }
}
