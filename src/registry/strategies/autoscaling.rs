//! HorizontalPodAutoscalers (upstream: `pkg/apis/autoscaling/v2/defaults.go`, `pkg/apis/autoscaling/validation`).

use super::pod::validate::{container_resource_name, invalid, supported};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, path_segment};
use crate::registry::json::{
    at, child, child_or_new, default_to, integer, is_set, items, map, objects, quantity, text,
};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const STABILIZATION_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
/// Types of metrics and the fields that describe them.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub fn defaults(autoscaler: &mut Object) {
    let spec = child_or_new(autoscaler, "spec");
    default_to(spec, "minReplicas", 1);
    if !is_set(spec, "metrics") {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".into(), json!([metric]));
    }
    let Some(behavior) = child(spec, "behavior") else {
        return;
    };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (name, rules) in [
        (
            "scaleUp",
            json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]}),
        ),
        ("scaleDown", json!({"selectPolicy": "Max", "policies": [percent]})),
    ] {
        let given = map(behavior, &[name]).cloned().unwrap_or_default();
        let mut merged = rules.as_object().cloned().unwrap_or_default();
        merged.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
        behavior.insert(name.into(), Value::Object(merged));
    }
}

pub fn validate(autoscaler: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(autoscaler, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let (minimum, maximum) = bounds(spec);
    if minimum.is_some_and(|minimum| maximum < minimum) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", maximum, detail));
    }
    let target = map(spec, &["scaleTargetRef"]).unwrap_or(&empty);
    errors.extend(reference(target, "spec.scaleTargetRef"));
    for (index, metric) in objects(spec, &["metrics"]) {
        errors.extend(metric_spec(metric, &format!("spec.metrics[{index}]")));
    }
    let wakes = objects(spec, &["metrics"]).any(|(_, metric)| matches!(text(metric, &["type"]), "Object" | "External"));
    if minimum == Some(0) && !wakes {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden("spec.metrics", detail));
    }
    for name in ["scaleUp", "scaleDown"] {
        if let Some(rules) = map(spec, &["behavior", name]) {
            errors.extend(scaling_rules(rules, &format!("spec.behavior.{name}")));
        }
    }
    errors
}

fn bounds(spec: &Object) -> (Option<i64>, i64) {
    let maximum = integer(spec, &["maxReplicas"]).unwrap_or(0);
    (integer(spec, &["minReplicas"]), maximum)
}

/// The bounds by themselves, as upstream's type has them.
pub fn declared(autoscaler: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = |autoscaler| map(autoscaler, &["spec"]).unwrap_or(&empty);
    let (minimum, maximum) = bounds(spec(autoscaler));
    let before = old.map(|old| bounds(spec(old)));
    let mut errors = Vec::new();
    if let Some(minimum) = minimum.filter(|minimum| *minimum < 0 && before.is_none_or(|(old, _)| old != Some(*minimum)))
    {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.minReplicas", minimum, detail));
    }
    let (path, changed) = ("spec.maxReplicas", before.is_none_or(|(_, old)| old != maximum));
    if changed && maximum == 0 {
        errors.push(FieldError::required(path, ""));
    } else if changed && maximum < 0 {
        errors.push(FieldError::invalid(path, maximum, "must be greater than or equal to 1"));
    }
    errors
}

/// The target must be of some group, as only ReplicationControllers of the group without a name can be scaled. A target
/// of the same kind as before stays.
pub fn target_group(autoscaler: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let target = |autoscaler, field| text(autoscaler, &["spec", "scaleTargetRef", field]);
    let version = target(autoscaler, "apiVersion");
    let kept = |old| {
        ["apiVersion", "kind"]
            .iter()
            .all(|field| target(old, field) == target(autoscaler, field))
    };
    let grouped = version.split_once('/').is_some_and(|(group, _)| !group.is_empty());
    if old.is_some_and(kept)
        || grouped
        || target(autoscaler, "kind") == "ReplicationController"
        || version.matches('/').count() > 1
    {
        return Vec::new();
    }
    let detail = "apiVersion must specify API group";
    vec![FieldError::invalid("spec.scaleTargetRef.apiVersion", version, detail)]
}

/// An object of some kind in the same namespace.
fn reference(target: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["kind", "name"] {
        let (path, value) = (format!("{path}.{field}"), text(target, &[field]));
        if value.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else {
            errors.extend(invalid(&path, value, &path_segment(value, false)));
        }
    }
    let version = text(target, &["apiVersion"]);
    if version.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(format!("{path}.apiVersion"), version, &detail));
    }
    errors
}

fn metric_spec(metric: &Object, path: &str) -> Vec<FieldError> {
    let kind = text(metric, &["type"]);
    let mut errors = Vec::new();
    if kind.is_empty() {
        errors.push(FieldError::required(
            format!("{path}.type"),
            "must specify a metric source type",
        ));
    }
    let kinds: Vec<&str> = SOURCES.iter().map(|(kind, _)| *kind).collect();
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(format!("{path}.type"), kind, &kinds));
    }
    let expected = SOURCES
        .iter()
        .find(|(known, _)| *known == kind)
        .map(|(_, field)| *field);
    let present: Vec<&str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| metric.contains_key(*field))
        .collect();
    // Only the first that is there is looked into, in upstream's order.
    let order = ["object", "external", "pods", "resource", "containerResource"];
    let first = order.iter().find_map(|field| Some((field, map(metric, &[field])?)));
    if let Some((field, source)) = first {
        errors.extend(source_errors(field, source, &format!("{path}.{field}")));
    }
    if let Some(field) = expected.filter(|field| !present.contains(field)) {
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(format!("{path}.{field}"), detail));
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            let detail = "must populate the given metric source only";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
        }
    }
    errors
}

fn source_errors(kind: &str, source: &Object, path: &str) -> Vec<FieldError> {
    let empty = Object::new();
    let target = map(source, &["target"]).unwrap_or(&empty);
    let at_target = |field: &str| format!("{path}.target.{field}");
    let has = |field: &str| target.contains_key(field);
    let mut errors = Vec::new();
    if kind == "object" {
        let described = map(source, &["describedObject"]).unwrap_or(&empty);
        errors.extend(reference(described, &format!("{path}.describedObject")));
    }
    if kind.ends_with("esource") {
        match text(source, &["name"]) {
            "" => errors.push(FieldError::required(
                format!("{path}.name"),
                "must specify a resource name",
            )),
            name if kind == "containerResource" => {
                errors.extend(container_resource_name(name, &format!("{path}.name")));
            }
            _ => {}
        }
        match text(source, &["container"]) {
            _ if kind == "resource" => {}
            "" => errors.push(FieldError::required(
                format!("{path}.container"),
                "must specify a container",
            )),
            name => errors.extend(invalid(&format!("{path}.container"), name, &dns1123_label(name, false))),
        }
    } else {
        let path = format!("{path}.metric.name");
        match text(source, &["metric", "name"]) {
            "" => errors.push(FieldError::required(path, "must specify a metric name")),
            name => errors.extend(invalid(&path, name, &path_segment(name, false))),
        }
    }
    errors.extend(target_errors(target, &format!("{path}.target")));
    match kind {
        "object" | "external" => {
            if !has("value") && !has("averageValue") {
                let detail = match kind {
                    "object" => "must set either a target value or averageValue",
                    _ => "must set either a target value for metric or a per-pod target",
                };
                errors.push(FieldError::required(at_target("averageValue"), detail));
            }
            if kind == "external" && has("value") && has("averageValue") {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.push(FieldError::forbidden(at_target("value"), detail));
            }
        }
        "pods" => {
            if !has("averageValue") {
                let detail = "must specify a positive target averageValue";
                errors.push(FieldError::required(at_target("averageValue"), detail));
            }
        }
        _ => {
            if !has("averageUtilization") && !has("averageValue") {
                let detail = "must set either a target raw value or a target utilization";
                errors.push(FieldError::required(at_target("averageUtilization"), detail));
            }
            if has("averageUtilization") && has("averageValue") {
                let detail = "may not set both a target raw value and a target utilization";
                errors.push(FieldError::forbidden(at_target("averageValue"), detail));
            }
        }
    }
    errors
}

fn target_errors(target: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (field, kind) = (format!("{path}.type"), text(target, &["type"]));
    if kind.is_empty() {
        errors.push(FieldError::required(
            field.as_str(),
            "must specify a metric target type",
        ));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(field, kind, detail));
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field).and_then(quantity);
        if let Some(amount) = amount.filter(|amount| amount.is_zero() || amount.is_negative()) {
            errors.push(FieldError::invalid(
                format!("{path}.{field}"),
                amount.to_string(),
                "must be positive",
            ));
        }
    }
    if let Some(share) = integer(target, &["averageUtilization"]).filter(|share| *share < 1) {
        let field = format!("{path}.averageUtilization");
        errors.push(FieldError::invalid(field, share, "must be greater than 0"));
    }
    errors
}

fn scaling_rules(rules: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(seconds) = integer(rules, &["stabilizationWindowSeconds"]) {
        let field = format!("{path}.stabilizationWindowSeconds");
        if seconds < 0 {
            errors.push(FieldError::invalid(
                field,
                seconds,
                "must be greater than or equal to zero",
            ));
        } else if seconds > STABILIZATION_SECONDS_MAX {
            let detail = format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}");
            errors.push(FieldError::invalid(field, seconds, &detail));
        }
    }
    errors.extend(supported(rules, "selectPolicy", &["Disabled", "Max", "Min"], path));
    if items(rules, &["policies"]).is_empty() {
        errors.push(FieldError::required(
            format!("{path}.policies"),
            "must specify at least one Policy",
        ));
    }
    for (index, policy) in objects(rules, &["policies"]) {
        let path = format!("{path}.policies[{index}]");
        let (kind, kinds) = (text(policy, &["type"]), ["Percent", "Pods"]);
        if !kinds.contains(&kind) {
            errors.push(FieldError::not_supported(format!("{path}.type"), kind, &kinds));
        }
        for (field, max) in [("value", i64::MAX), ("periodSeconds", PERIOD_SECONDS_MAX)] {
            let value = integer(policy, &[field]).unwrap_or(0);
            let field = format!("{path}.{field}");
            if value <= 0 {
                errors.push(FieldError::invalid(field, value, "must be greater than zero"));
            } else if value > max {
                let detail = format!("must be less than or equal to {max}");
                errors.push(FieldError::invalid(field, value, &detail));
            }
        }
    }
    let tolerance = at(rules, &["tolerance"]).and_then(quantity);
    if let Some(tolerance) = tolerance.filter(|amount| amount.is_negative()) {
        let (path, shown) = (format!("{path}.tolerance"), tolerance.to_string());
        errors.push(FieldError::invalid(path, shown, "must be greater than or equal to 0"));
    }
    errors
}
