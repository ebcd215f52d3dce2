//! Pods spread over the domains of a label (upstream: `podtopologyspread`).

mod filter;
mod score;

use crate::scheduler::configuration::args::{DefaultConstraint, TopologySpreadArgs};
use crate::scheduler::framework::{Cx, Event, EventKind, Plugin, PreFilter, Score};
use crate::scheduler::index::{Domains, NO_DOMAIN, Query};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::objects::Objects;
use crate::scheduler::pod_info::{PodInfo, Scope};
use crate::scheduler::selector::{Labels, Selector, labels_of};
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use std::sync::Arc;

const HOSTNAME: &str = "kubernetes.io/hostname";

pub struct TopologySpread {
    args: TopologySpreadArgs,
}

/// One constraint with the figures that it is about.
#[derive(Clone)]
struct Constraint {
    max_skew: i64,
    min_domains: usize,
    topology_key: String,
    selector: Selector,
    honor_affinity: bool,
    honor_taints: bool,
    domains: Arc<Domains>,
    /// Pods that the constraint counts, by slot.
    counts: Arc<Vec<u32>>,
}

impl Constraint {
    fn new(cx: Cx<'_>, pod: &PodInfo, from: &TopologySpreadConstraint, selector: Selector) -> Self {
        let honor = |policy: &Option<String>, default: bool| policy.as_deref().map_or(default, |p| p == "Honor");
        let query = Query {
            all: vec![(Scope::one(&pod.namespace), selector.clone())],
            terminating: false,
        };
        // A selector that asks for nothing counts nothing.
        let counts = if selector.is_empty() {
            Arc::default()
        } else {
            cx.cache.counts(&query)
        };
        Self {
            max_skew: i64::from(from.max_skew),
            min_domains: from.min_domains.map_or(1, |count| count.max(0) as usize),
            topology_key: from.topology_key.clone(),
            honor_affinity: honor(&from.node_affinity_policy, true),
            honor_taints: honor(&from.node_taints_policy, false),
            domains: cx.cache.domains(&from.topology_key),
            counts,
            selector,
        }
    }

    fn domain(&self, node: &NodeInfo) -> Option<usize> {
        let domain = self.domains.of(node.slot);
        (domain != NO_DOMAIN).then_some(domain as usize)
    }

    fn count(&self, node: &NodeInfo) -> i64 {
        self.counts.get(node.slot).copied().map_or(0, i64::from)
    }

    /// Whether what stands on the node counts.
    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let by_affinity = !self.honor_affinity
            || pod.required_node.asks_nothing()
            || node.node.as_ref().is_some_and(|node| pod.required_node.matches(node));
        by_affinity && (!self.honor_taints || super::taint_toleration::untolerated(pod, node.taints()).is_none())
    }
}

fn own_selector(pod: &PodInfo, from: &TopologySpreadConstraint) -> Selector {
    let selector = Selector::new(from.label_selector.as_ref());
    let keys = from.match_label_keys.iter().flatten();
    let labels: Labels = keys
        .filter_map(|key| Some((key.clone(), pod.labels().get(key)?.clone())))
        .collect();
    selector.and(Selector::of_labels(&labels))
}

/// The selector of whatever the pod belongs to: its services and its controller.
fn default_selector(objects: &Objects, pod: &PodInfo) -> Selector {
    let mut labels = Labels::new();
    for service in objects.services.in_namespace(&pod.namespace) {
        let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
            continue;
        };
        if !selector.is_empty() && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)) {
            labels.extend(selector.clone());
        }
    }
    let owners = pod.pod.metadata.owner_references.iter().flatten();
    let mut selector = Selector::of_labels(&labels);
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
        return selector;
    };
    let (namespace, name) = (pod.namespace.as_str(), owner.name.as_str());
    match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("v1", "ReplicationController") => {
            if let Some(controller) = objects.replication_controllers.get(namespace, name) {
                let own = controller.spec.as_ref().map(|spec| labels_of(&spec.selector));
                selector = selector.and(Selector::of_labels(own.unwrap_or(&Labels::new())));
            }
        }
        ("apps/v1", "ReplicaSet") => {
            if let Some(set) = objects.replica_sets.get(namespace, name) {
                selector = selector.and(Selector::new(Some(&set.spec.selector)));
            }
        }
        ("apps/v1", "StatefulSet") => {
            if let Some(set) = objects.stateful_sets.get(namespace, name) {
                selector = selector.and(Selector::new(Some(&set.spec.selector)));
            }
        }
        _ => {}
    }
    selector
}

impl TopologySpread {
    pub fn new(args: TopologySpreadArgs) -> Self {
        Self { args }
    }

    /// `action` is `DoNotSchedule` or `ScheduleAnyway`.
    fn constraints(&self, cx: Cx<'_>, pod: &PodInfo, action: &str) -> Vec<Constraint> {
        if let Some(own) = pod
            .spec()
            .topology_spread_constraints
            .as_deref()
            .filter(|own| !own.is_empty())
        {
            let own = own.iter().filter(|constraint| constraint.when_unsatisfiable == action);
            return own
                .map(|from| Constraint::new(cx, pod, from, own_selector(pod, from)))
                .collect();
        }
        let defaults = self.args.constraints();
        let wanted: Vec<&DefaultConstraint> = defaults.iter().filter(|c| c.when_unsatisfiable == action).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let selector = default_selector(cx.objects, pod);
        if selector.is_empty() {
            return Vec::new();
        }
        let made = wanted.into_iter().map(|default| {
            let from = TopologySpreadConstraint {
                max_skew: default.max_skew,
                topology_key: default.topology_key.clone(),
                ..TopologySpreadConstraint::default()
            };
            Constraint::new(cx, pod, &from, selector.clone())
        });
        made.collect()
    }

    /// Defaults of the system let nodes without a zone take part.
    fn requires_all_labels(&self, pod: &PodInfo) -> bool {
        let own = pod.spec().topology_spread_constraints.as_ref();
        own.is_some_and(|own| !own.is_empty()) || !self.args.is_system()
    }
}

impl Plugin for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        let constraints = self.constraints(cx, pod, "DoNotSchedule");
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::run(filter::Spread::new(cx, pod, constraints))
    }
    fn pre_score<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo, nodes: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let constraints = self.constraints(cx, pod, "ScheduleAnyway");
        if constraints.is_empty() {
            return None;
        }
        let all = self.requires_all_labels(pod);
        Some(Box::new(score::Evenness::new(cx, pod, constraints, nodes, all)))
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{NodeAdded, NodeChanged, NodeRemoved, PodAdded, PodChanged, PodRemoved};
        matches!(
            event,
            NodeAdded | NodeChanged | NodeRemoved | PodAdded | PodChanged | PodRemoved
        )
    }
    fn may_help(&self, cx: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        let constraints = self.constraints(cx, pod, "DoNotSchedule");
        let counted = |other: &PodInfo| {
            other.namespace == pod.namespace && constraints.iter().any(|c| c.selector.matches(other.labels()))
        };
        let has_all = |labels: &Labels| constraints.iter().all(|c| labels.contains_key(&c.topology_key));
        match event {
            Event::PodAdded(other) | Event::PodRemoved(other) => counted(other),
            Event::PodChanged { old, new } => {
                (old.labels() != new.labels() || old.is_terminating() != new.is_terminating())
                    && (counted(old) || counted(new))
            }
            Event::NodeAdded(node) => has_all(node.labels()),
            Event::NodeRemoved(node) => has_all(labels_of(&node.metadata.labels)),
            Event::NodeChanged { old, node, what } => {
                (what.labels || what.taints) && (has_all(labels_of(&old.metadata.labels)) || has_all(node.labels()))
            }
            _ => false,
        }
    }
}
