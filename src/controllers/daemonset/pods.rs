//! The pods of a DaemonSet and the nodes that they are for (upstream: `daemon/util/daemonset_util.go`).

use super::eligibility;
use crate::controllers::history::REVISION_LABEL;
use crate::controllers::pods;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use kube::ResourceExt;

/// The deprecated number of a template; pods that carry it count as up to date.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
const NAME_FIELD: &str = "metadata.name";

fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.annotations().get(GENERATION_ANNOTATION)?.parse().ok()
}

/// The pod of `set` for a node: affinity to the node's name leads the scheduler there.
pub fn for_node(set: &DaemonSet, hash: &str, node: &str) -> Pod {
    let mut pod = pods::from_template(set, &set.spec.template);
    let labels = pod.labels_mut();
    labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = template_generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_string());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(eligibility::tolerations(spec));
    let this_node = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NAME_FIELD.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    // What else was required the node meets: it was chosen by it.
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![this_node],
    });
    pod
}

/// The node that a pod is on or meant for.
pub fn target_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let by_name = fields
        .into_iter()
        .find(|field| field.key == NAME_FIELD && field.operator == "In")?;
    match by_name.values.as_deref() {
        Some([node]) => Some(node),
        _ => None,
    }
}

pub fn is_assigned(pod: &Pod) -> bool {
    pods::node_name(pod).is_some()
}

/// It was made from the set's template.
pub fn is_up_to_date(set: &DaemonSet, hash: &str, pod: &Pod) -> bool {
    let has = |label: &str, wanted: &str| pod.labels().get(label).is_some_and(|value| value == wanted);
    has(REVISION_LABEL, hash)
        || template_generation(set).is_some_and(|generation| has(GENERATION_LABEL, &generation.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_bound_to_its_node() {
        let mut set: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "a", "uid": "u"},
            "spec": {"selector": {}, "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [], "affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution":
                        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]},
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}],
                }}},
            }},
        }))
        .unwrap();
        let pod = for_node(&set, "hash", "n1");
        assert_eq!(target_node(&pod), Some("n1"));
        assert_eq!(pod.labels()[REVISION_LABEL], "hash");
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("d-"));
        let affinity = serde_json::to_value(pod.spec.as_ref().unwrap().affinity.as_ref().unwrap()).unwrap();
        assert_eq!(
            affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"],
            json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]})
        );
        assert!(affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"].is_array());
        assert!(is_up_to_date(&set, "hash", &pod) && !is_up_to_date(&set, "other", &pod));
        assert!(!is_assigned(&pod));

        set.annotations_mut()
            .insert(GENERATION_ANNOTATION.to_owned(), "3".to_owned());
        let pod = for_node(&set, "hash", "n1");
        assert!(is_up_to_date(&set, "other", &pod));
        let mut assigned = pod.clone();
        assigned.spec.as_mut().unwrap().node_name = Some("n2".to_owned());
        assert_eq!(target_node(&assigned), Some("n2"));
        assert_eq!(target_node(&Pod::default()), None);
    }
}
