//! Whether a pod may be on a node: selectors, affinity and taints
//! (upstream: `component-helpers/scheduling/corev1`, `…/nodeaffinity`).

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration};

/// The nodes that `spec.nodeSelector` and the required node affinity leave.
pub fn is_selected(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let mut selector = spec.node_selector.iter().flatten();
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selector.all(|(key, value)| label(key) == Some(value))
        && affinity.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// A term without requirements matches nothing.
pub fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    let label = |key: &String| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|wanted| meets(wanted, label(&wanted.key)))
        && fields
            .iter()
            .all(|wanted| wanted.key == "metadata.name" && meets(wanted, node.metadata.name.as_deref()))
}

fn meets(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let is_listed = || value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match wanted.operator.as_str() {
        "In" => is_listed(),
        "NotIn" => !is_listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The first taint with one of these effects that no toleration covers.
pub fn untolerated<'a>(node: &'a Node, tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    taints
        .unwrap_or_default()
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether the taint is covered.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    covers(
        (
            &toleration.key,
            &toleration.operator,
            &toleration.value,
            &toleration.effect,
        ),
        (&taint.key, &taint.value, &taint.effect),
    )
}

/// The same of a device's taint.
pub fn tolerates_device(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    covers(
        (
            &toleration.key,
            &toleration.operator,
            &toleration.value,
            &toleration.effect,
        ),
        (&taint.key, &taint.value, &taint.effect),
    )
}

type Text<'a> = &'a Option<String>;

/// No key or no effect in a toleration means every one; a value is only compared under a key.
fn covers(
    (key, operator, wanted, effect): (Text<'_>, Text<'_>, Text<'_>, Text<'_>),
    (its_key, value, its_effect): (&str, Text<'_>, &str),
) -> bool {
    let any_or = |wanted: Text<'_>, found: &str| {
        let wanted = wanted.as_deref().unwrap_or_default();
        wanted.is_empty() || wanted == found
    };
    if !any_or(effect, its_effect) || !any_or(key, its_key) {
        return false;
    }
    let value = value.as_deref().unwrap_or_default();
    let wanted = wanted.as_deref().unwrap_or_default();
    let numbers = || Some((value.parse::<i64>().ok()?, wanted.parse::<i64>().ok()?));
    match operator.as_deref().unwrap_or_default() {
        "" | "Equal" => key.as_ref().is_some_and(|key| !key.is_empty()) && wanted == value,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(value, wanted)| value < wanted),
        "Gt" => numbers().is_some_and(|(value, wanted)| value > wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(labels: Value, taints: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints}}))
            .unwrap()
    }

    #[test]
    fn selectors_and_affinity() {
        let node = node(json!({"zone": "a", "size": "7"}), json!([]));
        let required = |terms: Value| {
            json!({"affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        let expression = |key: &str, operator: &str, values: Value| {
            required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
        };
        for (spec, expected) in [
            (json!({}), true),
            (json!({"nodeSelector": {"zone": "a"}}), true),
            (json!({"nodeSelector": {"zone": "b"}}), false),
            (expression("zone", "In", json!(["a", "b"])), true),
            (expression("zone", "NotIn", json!(["a"])), false),
            (expression("none", "NotIn", json!(["a"])), true),
            (expression("none", "Exists", json!([])), false),
            (expression("none", "DoesNotExist", json!([])), true),
            (expression("size", "Gt", json!(["6"])), true),
            (expression("size", "Lt", json!(["6"])), false),
            (expression("zone", "Gt", json!(["6"])), false),
            (required(json!([])), false),
            (required(json!([{}])), false),
            (
                required(json!([{}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])),
                true,
            ),
            (
                required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}])),
                false,
            ),
        ] {
            let mut whole = json!({"containers": []});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let spec: PodSpec = serde_json::from_value(whole.clone()).unwrap();
            assert_eq!(is_selected(&spec, &node), expected, "{whole}");
        }
    }

    #[test]
    fn tolerations_cover_taints() {
        let taint = json!({"key": "k", "value": "5", "effect": "NoSchedule"});
        let node = node(json!({}), json!([taint]));
        for (toleration, covers) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "value": "5"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "6"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "k", "operator": "Lt", "value": "6"}), true),
            (json!({"key": "k", "operator": "Gt", "value": "6"}), false),
        ] {
            let tolerations = [serde_json::from_value(toleration.clone()).unwrap()];
            let left = untolerated(&node, &tolerations, &["NoSchedule"]);
            assert_eq!(left.is_none(), covers, "{toleration}");
        }
        assert_eq!(untolerated(&node, &[], &["NoExecute"]), None);
    }
}
