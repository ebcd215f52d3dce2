//! Requests must fit into what is left; nodes are scored by how full they would be (upstream: `noderesources`, Fit and
//! BalancedAllocation).

use crate::scheduler::configuration::args::{
    BalancedAllocationArgs, FitArgs, ResourceWeight, ScoringStrategy, ShapePoint,
};
use crate::scheduler::devices::extended;
use crate::scheduler::framework::{
    Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, SCORE_MAX, Score, Verdict,
};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::resources::Amounts;
use std::borrow::Cow;

pub struct Fit {
    args: FitArgs,
}

impl Fit {
    pub fn new(args: FitArgs) -> Self {
        Self { args }
    }

    /// Upstream's extended resources: with a domain that is not Kubernetes' own.
    fn ignores(&self, name: &str) -> bool {
        if !is_extended(name) {
            return false;
        }
        let group = name.split('/').next().unwrap_or_default();
        self.args.ignored_resources.iter().any(|ignored| ignored == name)
            || self.args.ignored_resource_groups.iter().any(|ignored| ignored == group)
    }

    /// Whether an empty node of that size would do.
    fn could_fit(&self, cx: Cx<'_>, pod: &PodInfo, allocatable: &Amounts) -> bool {
        let backed = extended::backed(cx.objects, pod);
        allocatable.pods > 0
            && pod.requests.real.names().all(|(name, amount)| {
                let has = allocatable.get(name);
                amount <= has || self.ignores(name) || (has == 0 && backed.contains_key(name))
            })
    }
}

pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

#[derive(Clone)]
struct Fits<'a> {
    fit: &'a Fit,
    wanted: &'a Amounts,
    /// Those resources that devices stand for where the node has none.
    backed: extended::Backed,
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        PreFilter::run(Fits {
            fit: self,
            wanted: &pod.requests.real,
            backed: extended::backed(cx.objects, pod),
        })
    }
    fn pre_score<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let strategy = &self.args.scoring_strategy;
        let scored = Shares {
            pod,
            resources: strategy.resources(),
            real: false,
        };
        Some(Box::new(ByStrategy { strategy, scored }))
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{DeviceClass, NodeAdded, NodeChanged, PodChanged, PodRemoved};
        matches!(event, DeviceClass | NodeAdded | NodeChanged | PodChanged | PodRemoved)
    }
    fn may_help(&self, cx: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        let wanted = &pod.requests.real;
        match event {
            Event::DeviceClass => wanted.others().any(|(name, _)| extended::may_be_backed(name)),
            Event::NodeAdded(node) => self.could_fit(cx, pod, &node.allocatable),
            Event::NodeChanged { old, node, what } => {
                let before = Amounts::allocatable(old);
                what.allocatable
                    && self.could_fit(cx, pod, &node.allocatable)
                    && (node.allocatable.pods > before.pods
                        || wanted
                            .names()
                            .any(|(name, _)| node.allocatable.get(name) > before.get(name)))
            }
            // A place is free, whatever it asked for.
            Event::PodRemoved(_) => true,
            Event::PodChanged { old, new } => {
                let (before, after) = (&old.requests.real, &new.requests.real);
                wanted.names().any(|(name, _)| after.get(name) < before.get(name))
            }
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Fits<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let lacks = |wanted: i64, allocatable: i64, requested: i64| wanted > 0 && wanted > allocatable - requested;
        let (wanted, has, used) = (self.wanted, &node.allocatable, &node.requested);
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let mut hopeless = false;
        if node.pods.len() as i64 + 1 > has.pods {
            reasons.push("Too many pods".into());
        }
        let basic = [
            (wanted.cpu, has.cpu, used.cpu, "Insufficient cpu"),
            (wanted.memory, has.memory, used.memory, "Insufficient memory"),
            (
                wanted.ephemeral_storage,
                has.ephemeral_storage,
                used.ephemeral_storage,
                "Insufficient ephemeral-storage",
            ),
        ];
        for (wanted, has, used, reason) in basic {
            if lacks(wanted, has, used) {
                reasons.push(reason.into());
                hopeless |= wanted > has;
            }
        }
        for (name, wanted) in wanted.others() {
            let has = has.get(name);
            if has == 0 && self.backed.contains_key(name) {
                continue;
            }
            if lacks(wanted, has, used.get(name)) && !self.fit.ignores(name) {
                reasons.push(format!("Insufficient {name}").into());
                hopeless |= wanted > has;
            }
        }
        match (reasons.is_empty(), hopeless) {
            (true, _) => Ok(()),
            // Taking pods away makes no node larger.
            (false, true) => Err(Refusal {
                reasons,
                ..Refusal::unresolvable("")
            }),
            (false, false) => Err(Refusal {
                reasons,
                ..Refusal::unschedulable("")
            }),
        }
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

/// What would be in use of each resource that is scored, and what the node has.
struct Shares<'a> {
    pod: &'a PodInfo,
    resources: &'a [ResourceWeight],
    /// Real requests count, not those that are assumed for containers without any.
    real: bool,
}

impl Shares<'_> {
    /// Weight, in use, allocatable; what the node has none of is left out.
    fn each(&self, node: &NodeInfo, mut call: impl FnMut(i64, i64, i64)) {
        for resource in self.resources {
            let name = resource.name.as_str();
            let own = if self.real {
                &self.pod.requests.real
            } else {
                &self.pod.requests.scored
            };
            let (wanted, allocatable) = (own.get(name), node.allocatable.get(name));
            // Nodes are not preferred for having what the pod does not want.
            let is_basic = matches!(name, "cpu" | "memory" | "ephemeral-storage");
            if allocatable == 0 || (!is_basic && wanted == 0) {
                continue;
            }
            let used = if self.real { &node.requested } else { &node.scored };
            call(resource.weight, used.get(name).saturating_add(wanted), allocatable);
        }
    }
}

struct ByStrategy<'a> {
    strategy: &'a ScoringStrategy,
    scored: Shares<'a>,
}

fn share(part: i64, whole: i64) -> i64 {
    (i128::from(part) * i128::from(SCORE_MAX) / i128::from(whole)) as i64
}

impl Score for ByStrategy<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        self.scored.each(node, |weight, used, whole| {
            let score = match self.strategy {
                ScoringStrategy::LeastAllocated { .. } if used > whole => 0,
                ScoringStrategy::LeastAllocated { .. } => share(whole - used, whole),
                ScoringStrategy::MostAllocated { .. } => share(used.min(whole), whole),
                ScoringStrategy::RequestedToCapacityRatio { shape, .. } => {
                    let utilization = if used > whole { 100 } else { share(used, whole) };
                    let score = along(shape, utilization);
                    if score == 0 {
                        return;
                    }
                    score
                }
            };
            sum += score * weight;
            weights += weight;
        });
        match (self.strategy, weights) {
            (_, 0) => 0,
            (ScoringStrategy::RequestedToCapacityRatio { .. }, _) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// The broken line through the points, whose scores go up to 10.
fn along(shape: &[ShapePoint], utilization: i64) -> i64 {
    let score = |point: &ShapePoint| i64::from(point.score) * (SCORE_MAX / 10);
    for (at, point) in shape.iter().enumerate() {
        let x = i64::from(point.utilization);
        if utilization <= x {
            if at == 0 {
                return score(point);
            }
            let before = &shape[at - 1];
            let x0 = i64::from(before.utilization);
            return score(before) + (score(point) - score(before)) * (utilization - x0) / (x - x0);
        }
    }
    shape.last().map_or(0, score)
}

/// Nodes whose resources would be used alike are better.
pub struct BalancedAllocation {
    args: BalancedAllocationArgs,
}

impl BalancedAllocation {
    pub fn new(args: BalancedAllocationArgs) -> Self {
        Self { args }
    }
}

struct Balance<'a>(Shares<'a>);

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
    fn pre_score<'a>(&'a self, _: Cx<'a>, pod: &'a PodInfo, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let resources = &self.args.resources;
        // A pod that asks for nothing would always make the same node more balanced than the others.
        if resources.iter().all(|r| pod.requests.real.get(&r.name) == 0) {
            return None;
        }
        Some(Box::new(Balance(Shares {
            pod,
            resources,
            real: true,
        })))
    }
    fn listens(&self, _: EventKind) -> bool {
        false
    }
    fn may_help(&self, _: Cx<'_>, _: &PodInfo, _: &Event<'_>) -> bool {
        false
    }
}

impl Score for Balance<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
        self.0.each(node, |_, used, whole| {
            let fraction = (used as f64 / whole as f64).min(1.0);
            count += 1.0;
            sum += fraction;
            squares += fraction * fraction;
        });
        if count == 0.0 {
            return SCORE_MAX;
        }
        let mean = sum / count;
        let deviation = (squares / count - mean * mean).max(0.0).sqrt();
        ((1.0 - deviation) * SCORE_MAX as f64 + 1e-9) as i64
    }
}
