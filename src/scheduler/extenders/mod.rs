//! Servers outside that have a say about pods: they filter nodes, score them, choose victims and bind (upstream:
//! `pkg/scheduler/extender.go`, and who calls it in `schedule_one.go` and `framework/preemption`).
//!
//! A cycle waits for them, as upstream's: what has happened meanwhile is taken in afterwards. Without extenders there is
//! nothing to wait for.
//!
//! - [`network`]: how they are reached; [`wire`]: what is said; [`victims`]: who has to go.

pub mod network;
mod victims;
mod wire;

use super::diagnosis::Diagnosis;
use super::framework::{Cx, Refusal, SCORE_MAX};
use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use k8s_openapi::api::core::v1::Container;
use std::collections::HashMap;
use std::sync::Arc;

/// In place of a plug-in's name where an extender has refused a node. What would change its mind is not known: any event
/// may.
pub const EXTENDER: &str = "Extender";

/// The best score that an extender gives.
const EXTENDER_SCORE_MAX: i64 = 10;

/// One extender, as it is configured.
#[derive(Debug)]
pub struct Extender {
    /// The prefix of its URLs, by which it is told from others.
    pub url: String,
    pub filter: Option<network::Call>,
    pub prioritize: Option<network::Call>,
    pub preempt: Option<network::Call>,
    pub bind: Option<network::Call>,
    pub weight: i64,
    /// It knows the nodes: names will do.
    pub node_cache_capable: bool,
    /// Only pods that ask for one of these concern it; empty: all do.
    pub managed_resources: Vec<String>,
    /// Pods are placed without it if it fails.
    pub ignorable: bool,
}

impl Extender {
    fn concerns(&self, pod: &PodInfo) -> bool {
        let manages = |container: &Container| {
            container.resources.as_ref().is_some_and(|resources| {
                let lists = [&resources.requests, &resources.limits];
                let mut names = lists.into_iter().flatten().flat_map(|list| list.keys());
                names.any(|name| self.managed_resources.contains(name))
            })
        };
        let spec = pod.spec();
        let init = spec.init_containers.iter().flatten();
        self.managed_resources.is_empty() || spec.containers.iter().chain(init).any(manages)
    }
}

/// Makes the calls at once and waits for all answers: over the network, but for tests.
pub trait Caller: Send + Sync {
    fn call(&self, calls: Vec<(&network::Call, Vec<u8>)>) -> Vec<wire::Answer>;
}

/// All of them, those that can be done without at the end.
#[derive(Default)]
pub struct Extenders {
    list: Vec<Arc<Extender>>,
    /// There is one if there are extenders.
    caller: Option<Box<dyn Caller>>,
}

impl Extenders {
    pub fn new(list: Vec<Arc<Extender>>, caller: impl Caller + 'static) -> Self {
        let caller: Box<dyn Caller> = Box::new(caller);
        Self {
            caller: (!list.is_empty()).then_some(caller),
            list,
        }
    }

    /// Whether it makes a difference which of the nodes that can take a pod are found.
    pub fn choose_nodes(&self) -> bool {
        let chooses = |extender: &Arc<Extender>| extender.filter.is_some() || extender.prioritize.is_some();
        self.list.iter().any(chooses)
    }

    fn that_concern<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = &'a Arc<Extender>> {
        self.list.iter().filter(|extender| extender.concerns(pod))
    }

    fn ask(&self, call: &network::Call, body: Vec<u8>) -> wire::Answer {
        let answers = self.caller.as_ref().map(|caller| caller.call(vec![(call, body)]));
        let answer = answers.and_then(|mut answers| answers.pop());
        answer.unwrap_or_else(|| Err("there is no answer".to_owned()))
    }

    /// Those of the nodes that the extenders let the pod have, one extender after the other.
    pub fn filter<'a>(
        &self,
        cx: Cx<'a>,
        pod: &PodInfo,
        mut nodes: Vec<&'a NodeInfo>,
        diagnosis: &mut Diagnosis,
    ) -> Result<Vec<&'a NodeInfo>, String> {
        if self.list.is_empty() {
            return Ok(nodes);
        }
        let before = nodes.len();
        for extender in self.that_concern(pod) {
            let Some(call) = &extender.filter else { continue };
            if nodes.is_empty() {
                break;
            }
            let body = wire::args(pod, &nodes, extender.node_cache_capable);
            let filtered = self
                .ask(call, body)
                .and_then(|answer| wire::filtered(&answer, extender.node_cache_capable))
                .and_then(|filtered| Ok((left(extender, &nodes, &filtered.nodes)?, filtered)));
            match filtered {
                Ok((left, filtered)) => {
                    nodes = left;
                    let refused = filtered.failed.into_iter();
                    let refused = refused.map(|(name, why)| (name, Refusal::unschedulable(why)));
                    // Where an extender says both, taking pods away does not help.
                    let hopeless = filtered.unresolvable.into_iter();
                    let hopeless = hopeless.map(|(name, why)| (name, Refusal::unresolvable(why)));
                    for (name, refusal) in refused.chain(hopeless) {
                        if let Some(node) = cx.cache.node(&name) {
                            diagnosis.refusals.insert(node.slot, refusal);
                        }
                    }
                }
                Err(error) if extender.ignorable => ignored(extender, &error),
                Err(error) => return Err(error),
            }
        }
        if nodes.len() != before {
            diagnosis.plugins.insert(EXTENDER);
        }
        Ok(nodes)
    }

    /// Adds what the extenders think of the nodes to their scores. Who does not answer has no opinion.
    pub fn prioritize(&self, pod: &PodInfo, nodes: &[&NodeInfo], totals: &mut [i64]) {
        let Some(caller) = &self.caller else { return };
        let asked = self.that_concern(pod);
        let asked: Vec<_> = asked
            .filter_map(|extender| Some((extender, extender.prioritize.as_ref()?)))
            .collect();
        let body = |extender: &Extender| wire::args(pod, nodes, extender.node_cache_capable);
        let calls: Vec<_> = asked.iter().map(|(extender, call)| (*call, body(extender))).collect();
        if calls.is_empty() {
            return;
        }
        for ((extender, _), answer) in asked.iter().zip(caller.call(calls)) {
            let scores = match answer.and_then(|answer| wire::scores(&answer)) {
                Ok(scores) => scores,
                Err(error) => {
                    tracing::debug!(extender = extender.url, %error, "an extender gave no scores");
                    continue;
                }
            };
            let factor = extender.weight.saturating_mul(SCORE_MAX / EXTENDER_SCORE_MAX);
            let mut by_name: HashMap<String, i64> = HashMap::new();
            for (name, score) in scores {
                let sum = by_name.entry(name).or_default();
                *sum = sum.saturating_add(score.saturating_mul(factor));
            }
            for (node, total) in nodes.iter().zip(totals.iter_mut()) {
                *total = total.saturating_add(by_name.get(&node.name).copied().unwrap_or(0));
            }
        }
    }

    /// Lets the first extender bind that does such things; None if there is none.
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Option<Result<(), String>> {
        for extender in self.that_concern(pod) {
            let Some(call) = &extender.bind else { continue };
            let answer = network::post(call, wire::binding(pod, node)).await;
            match answer.and_then(|answer| wire::bound(&answer)) {
                Err(error) if extender.ignorable => ignored(extender, &error),
                result => return Some(result),
            }
        }
        None
    }
}

fn ignored(extender: &Extender, error: &str) {
    tracing::info!(
        extender = extender.url,
        error,
        "an extender failed that can be done without"
    );
}

/// The nodes by the names that an extender has left. It may not come up with others.
fn left<'a>(extender: &Extender, nodes: &[&'a NodeInfo], names: &[String]) -> Result<Vec<&'a NodeInfo>, String> {
    let by_name: HashMap<&str, &NodeInfo> = nodes.iter().map(|node| (node.name.as_str(), *node)).collect();
    let found = names.iter().map(|name| {
        by_name.get(name.as_str()).copied().ok_or_else(|| {
            format!(
                "extender {:?} claims a filtered node {name:?} which is not found in the input node list",
                extender.url
            )
        })
    });
    found.collect()
}
