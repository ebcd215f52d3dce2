//! Affinities and topology spread (upstream: `validateAffinity`, `validateTopologySpreadConstraints`).

use super::{invalid, supported};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key, label_value};
use crate::registry::json::{items, map, number, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::labels;
use serde_json::Value;
use std::collections::BTreeSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(affinity: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(node) = map(affinity, &["nodeAffinity"]) {
        let path = format!("{path}.nodeAffinity");
        if let Some(selector) = map(node, &[REQUIRED]) {
            errors.extend(node_selector(selector, &format!("{path}.{REQUIRED}")));
        }
        for (index, term) in objects(node, &[PREFERRED]) {
            let path = format!("{path}.{PREFERRED}[{index}]");
            errors.extend(weight(term, &path));
            if let Some(preference) = map(term, &["preference"]) {
                errors.extend(node_selector_term(preference, false, &format!("{path}.preference")));
            }
        }
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = map(affinity, &[field]) else { continue };
        let path = format!("{path}.{field}");
        for (index, term) in objects(pods, &[REQUIRED]) {
            errors.extend(pod_term(term, &format!("{path}.{REQUIRED}[{index}]")));
        }
        for (index, term) in objects(pods, &[PREFERRED]) {
            let path = format!("{path}.{PREFERRED}[{index}]");
            errors.extend(weight(term, &path));
            let empty = Object::new();
            let inner = map(term, &["podAffinityTerm"]).unwrap_or(&empty);
            errors.extend(pod_term(inner, &format!("{path}.podAffinityTerm")));
        }
    }
    errors
}

fn weight(term: &Object, path: &str) -> Option<FieldError> {
    let weight = number(term, &["weight"]);
    let wrong = !(1..=100).contains(&weight);
    wrong.then(|| FieldError::invalid(format!("{path}.weight"), weight, "must be in the range 1-100"))
}

/// A node selector, as in affinities and persistent volumes.
pub fn node_selector(selector: &Object, path: &str) -> Vec<FieldError> {
    let path = format!("{path}.nodeSelectorTerms");
    if items(selector, &["nodeSelectorTerms"]).is_empty() {
        return vec![FieldError::required(path, "must have at least one node selector term")];
    }
    let terms = objects(selector, &["nodeSelectorTerms"]);
    terms
        .flat_map(|(index, term)| node_selector_term(term, true, &format!("{path}[{index}]")))
        .collect()
}

pub fn node_selector_term(term: &Object, check_values: bool, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, requirement) in objects(term, &["matchExpressions"]) {
        errors.extend(expression(
            requirement,
            check_values,
            &format!("{path}.matchExpressions[{index}]"),
        ));
    }
    for (index, requirement) in objects(term, &["matchFields"]) {
        errors.extend(field(requirement, &format!("{path}.matchFields[{index}]")));
    }
    errors
}

fn expression(requirement: &Object, check_values: bool, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let values = items(requirement, &["values"]);
    let at = |field: &str| format!("{path}.{field}");
    match text(requirement, &["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(at("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(at("values"), detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(at("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(
            at("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = text(requirement, &["key"]);
    errors.extend(invalid(&at("key"), key, &label_key(key)));
    if check_values {
        errors.extend(label_values(values, &at("values")));
    }
    errors
}

fn label_values(values: &[Value], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        errors.extend(invalid(&format!("{path}[{index}]"), value, &label_value(value)));
    }
    errors
}

fn field(requirement: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let values = items(requirement, &["values"]);
    match text(requirement, &["operator"]) {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
        }
        other => {
            let detail = "not a valid selector operator";
            errors.push(FieldError::invalid(format!("{path}.operator"), other, detail));
        }
    }
    match text(requirement, &["key"]) {
        "metadata.name" => {
            for (index, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                errors.extend(invalid(
                    &format!("{path}.values[{index}]"),
                    value,
                    &dns1123_subdomain(value, false),
                ));
            }
        }
        key => errors.push(FieldError::invalid(
            format!("{path}.key"),
            key,
            "not a valid field selector key",
        )),
    }
    errors
}

fn pod_term(term: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = map(term, &[name]) {
            errors.extend(label_selector(selector, &format!("{path}.{name}")));
        }
    }
    for name in items(term, &["namespaces"]) {
        let name = name.as_str().unwrap_or_default();
        errors.extend(invalid(&format!("{path}.namespace"), name, &dns1123_label(name, false)));
    }
    errors.extend(label_keys(term, path));
    let (key, field) = (text(term, &["topologyKey"]), format!("{path}.topologyKey"));
    if key.is_empty() {
        errors.push(FieldError::required(field.as_str(), "can not be empty"));
    }
    errors.extend(invalid(&field, key, &label_key(key)));
    errors
}

/// Keys whose values are taken from the pod's own labels.
fn label_keys(term: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let selector = map(term, &["labelSelector"]);
    let keys = |field: &str| -> Vec<&str> { items(term, &[field]).iter().filter_map(Value::as_str).collect() };
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = format!("{path}.{field}");
        if !keys(field).is_empty() && selector.is_none() {
            let detail = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(path, detail));
            continue;
        }
        for (index, key) in keys(field).iter().enumerate() {
            errors.extend(invalid(&format!("{path}[{index}]"), key, &label_key(key)));
        }
    }
    let (matching, differing) = (keys("matchLabelKeys"), keys("mismatchLabelKeys"));
    // The first expression with such a key is the one that was made of it; a second one contradicts it.
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    if let Some(selector) = selector {
        seen.extend(
            map(selector, &["matchLabels"])
                .into_iter()
                .flat_map(Object::keys)
                .map(String::as_str),
        );
        for (_, requirement) in objects(selector, &["matchExpressions"]) {
            let key = text(requirement, &["key"]);
            if let Some(index) = matching
                .iter()
                .rposition(|other| *other == key)
                .filter(|_| seen.contains(key))
            {
                let detail = "exists in both matchLabelKeys and labelSelector";
                errors.push(FieldError::invalid(format!("{path}[{index}]"), key, detail));
            }
            seen.insert(key);
        }
    }
    for (index, key) in matching.iter().enumerate().filter(|(_, key)| differing.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(
            format!("{path}.matchLabelKeys[{index}]"),
            *key,
            detail,
        ));
    }
    errors
}

/// A label selector as it stands in objects.
pub fn label_selector(selector: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(matched) = map(selector, &["matchLabels"]) {
        errors.extend(labels(matched, &format!("{path}.matchLabels")));
    }
    for (index, requirement) in objects(selector, &["matchExpressions"]) {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = items(requirement, &["values"]);
        match text(requirement, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{path}.operator"), other, detail));
            }
        }
        let key = text(requirement, &["key"]);
        errors.extend(invalid(&format!("{path}.key"), key, &label_key(key)));
        errors.extend(label_values(values, &format!("{path}.values")));
    }
    errors
}

/// `topologySpreadConstraints` at `path`.
pub fn topology_spread(spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let constraints: Vec<(usize, &Object)> = objects(spec, &["topologySpreadConstraints"]).collect();
    let pair = |constraint| {
        (
            text(constraint, &["topologyKey"]),
            text(constraint, &["whenUnsatisfiable"]),
        )
    };
    for (position, (index, constraint)) in constraints.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let at = |field: &str| format!("{path}.{field}");
        let skew = number(constraint, &["maxSkew"]);
        if skew <= 0 {
            errors.push(FieldError::invalid(at("maxSkew"), skew, "must be greater than zero"));
        }
        let (key, when) = pair(constraint);
        if key.is_empty() {
            errors.push(FieldError::required(at("topologyKey"), "can not be empty"));
        }
        let policies = ["DoNotSchedule", "ScheduleAnyway"];
        if !policies.contains(&when) {
            errors.push(FieldError::not_supported(at("whenUnsatisfiable"), when, &policies));
        }
        if constraints[position + 1..]
            .iter()
            .any(|(_, later)| pair(later) == (key, when))
        {
            errors.push(FieldError::duplicate(
                format!("{path}.{{topologyKey, whenUnsatisfiable}}"),
                format!("{{{key}, {when}}}"),
            ));
        }
        if let Some(domains) = constraint.get("minDomains").and_then(Value::as_i64) {
            if domains <= 0 {
                errors.push(FieldError::invalid(
                    at("minDomains"),
                    domains,
                    "must be greater than zero",
                ));
            }
            if when != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.push(FieldError::invalid(at("minDomains"), domains, &detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.extend(supported(constraint, field, &["Honor", "Ignore"], &path));
        }
        errors.extend(label_keys(constraint, &path));
        if let Some(selector) = map(constraint, &["labelSelector"]) {
            errors.extend(label_selector(selector, &at("labelSelector")));
        }
    }
    errors
}
