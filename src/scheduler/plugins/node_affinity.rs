//! nodeSelector and node affinity (upstream: `nodeaffinity`).

use super::Plugin;
use crate::scheduler::cache::NodeInfo;
use crate::scheduler::plan::PodInfo;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm};

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn filter(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> Vec<String> {
        let Some(node) = &node.node else { return Vec::new() };
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let selected = pod
            .spec
            .node_selector
            .iter()
            .flatten()
            .all(|(key, value)| label(key) == Some(value));
        let affinity = pod
            .spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let wanted =
            required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)));
        if selected && wanted {
            Vec::new()
        } else {
            vec!["node(s) didn't match Pod's node affinity/selector".into()]
        }
    }

    /// The share of the preferred terms' weights that the node meets.
    fn score(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> i64 {
        let Some(node) = &node.node else { return 0 };
        let affinity = pod
            .spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let (mut met, mut total) = (0, 0);
        for term in preferred.into_iter().flatten() {
            total += i64::from(term.weight);
            met += if matches(&term.preference, node) {
                i64::from(term.weight)
            } else {
                0
            };
        }
        if total == 0 { 0 } else { met * 100 / total }
    }
}

/// An empty term matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|e| meets(e, labels.and_then(|labels| labels.get(&e.key)).map(String::as_str)))
        && fields
            .iter()
            .all(|f| f.key == "metadata.name" && meets(f, node.metadata.name.as_deref()))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|v| v == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}
