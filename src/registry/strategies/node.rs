//! Nodes (upstream: `pkg/registry/core/node/strategy.go`, `ValidateNode`).

use super::pod::validate::{quantity_value, taint_effect};
use crate::registry::columns::node::NODE;
use crate::registry::field::FieldError;
use crate::registry::formats::{label_key, label_value};
use crate::registry::json::{at, boolean, child, default_to, items, map, objects, text};
use crate::registry::network;
use crate::registry::strategy::{Column, Object, Strategy, Target};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The strategy of nodes.
pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn default(&self, object: &mut Object) {
        if let Some(spec) = child(object, "spec") {
            one_range_is_the_first(spec);
        }
        let Some(status) = child(object, "status") else { return };
        for list in ["capacity", "allocatable"] {
            if let Some(list) = child(status, list) {
                super::pod::defaults::resource_list(list);
            }
        }
        if let Some(capacity) = status.get("capacity").cloned() {
            default_to(status, "allocatable", capacity);
        }
    }

    /// A node registers with its status.
    fn prepare_for_create(&self, _object: &mut Object) {}

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = taints(object);
        errors.extend(pod_ranges(object));
        errors.extend(amounts(object));
        errors
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        let mut errors = match target {
            Target::Status => amounts(object),
            Target::Main | Target::Subresource(_) => Vec::new(),
        };
        if text(object, &["spec", "externalID"]) != text(old, &["spec", "externalID"]) {
            errors.push(FieldError::forbidden("spec.externalID", "may not be updated"));
        }
        for (field, detail) in [
            (
                "podCIDRs",
                "node updates may not change podCIDR except from \"\" to valid",
            ),
            (
                "providerID",
                "node updates may not change providerID except from \"\" to valid",
            ),
        ] {
            let path = ["spec", field];
            let before = at(old, &path).filter(|value| **value != "" && **value != json!([]));
            if before.is_some() && before != at(object, &path) {
                errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
            }
        }
        errors
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![(
            "spec.unschedulable",
            boolean(object, &["spec", "unschedulable"]).to_string(),
        )]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selects_namespace(&self) -> bool {
        false
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        (NODE.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (NODE.cells)(object, now)
    }
}

/// `podCIDR` is the first of `podCIDRs`; where the two differ, the one that stands alone is meant.
fn one_range_is_the_first(spec: &mut Object) {
    let single = text(spec, &["podCIDR"]).to_owned();
    let first = items(spec, &["podCIDRs"])
        .first()
        .and_then(Value::as_str)
        .map(str::to_owned);
    match first {
        Some(first) if single.is_empty() => {
            spec.insert("podCIDR".into(), json!(first));
        }
        first if !single.is_empty() && first.as_ref() != Some(&single) => {
            spec.insert("podCIDRs".into(), json!([single]));
        }
        _ => {}
    }
}

fn pod_ranges(node: &Object) -> Vec<FieldError> {
    let path = "spec.podCIDRs";
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    let ranges: Vec<&str> = items(node, &["spec", "podCIDRs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for (index, range) in ranges.iter().enumerate() {
        errors.extend(network::legacy_cidr(&format!("{path}[{index}]"), range, &[]));
    }
    if ranges.len() < 2 {
        return errors;
    }
    let families: BTreeSet<_> = ranges
        .iter()
        .filter_map(|range| network::Cidr::parse(range))
        .map(|range| range.family())
        .collect();
    if families.len() < 2 || ranges.len() > 2 {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, json!(ranges), detail));
    }
    for (index, range) in ranges.iter().enumerate() {
        if !seen.insert(range) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), *range));
        }
    }
    errors
}

/// At the path that upstream gives them, which is not where they are.
fn taints(node: &Object) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, taint) in objects(node, &["spec", "taints"]) {
        let path = format!("metadata.taints[{index}]");
        let part = |field: &str| text(taint, &[field]);
        let (key, value, effect) = (part("key"), part("value"), part("effect"));
        for problem in label_key(key) {
            errors.push(FieldError::invalid(format!("{path}.key"), key, &problem));
        }
        let problems = label_value(value);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.value"), value, &problems.join(";")));
        }
        match effect {
            "" => errors.push(FieldError::required(format!("{path}.effect"), "")),
            effect => errors.extend(taint_effect(effect, &format!("{path}.effect"))),
        }
        if !seen.insert((key, effect)) {
            let mut error = FieldError::duplicate(path, Value::Object(taint.clone()));
            error.body.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
    errors
}

/// Addresses and resources of the status.
fn amounts(node: &Object) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, address) in objects(node, &["status", "addresses"]) {
        if !seen.insert((text(address, &["type"]), text(address, &["address"]))) {
            let path = format!("status.addresses[{index}]");
            errors.push(FieldError::duplicate(path, Value::Object(address.clone())));
        }
    }
    for list in ["capacity", "allocatable"] {
        for (name, value) in map(node, &["status", list]).into_iter().flatten() {
            errors.extend(quantity_value(name, value, &format!("status.{list}[{name}]")));
        }
    }
    errors
}
