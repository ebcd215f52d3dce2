//! Selectors of affinities and spread constraints get the values of the pod's own labels
//! (upstream: `mutatePodAffinity`, `mutateTopologySpreadConstraints` in `pkg/registry/core/pod/strategy.go`).

use crate::registry::json::{child, children, map};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Adds an expression for each of `matchLabelKeys` and `mismatchLabelKeys` that the pod has a label of.
pub fn merge(pod: &mut Object) {
    let Some(labels) = map(pod, &["metadata", "labels"]).cloned() else {
        return;
    };
    let Some(spec) = child(pod, "spec") else { return };
    for constraint in children(spec, "topologySpreadConstraints") {
        extend(constraint, &labels);
    }
    let Some(affinity) = child(spec, "affinity") else {
        return;
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = child(affinity, kind) else { continue };
        for term in children(terms, REQUIRED) {
            extend(term, &labels);
        }
        for term in children(terms, PREFERRED) {
            if let Some(term) = child(term, "podAffinityTerm") {
                extend(term, &labels);
            }
        }
    }
}

fn extend(term: &mut Object, labels: &Object) {
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        for key in keys.iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) = child(term, "labelSelector").filter(|_| !added.is_empty()) else {
        return;
    };
    let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
    if let Value::Array(expressions) = expressions {
        expressions.extend(added);
    }
}
