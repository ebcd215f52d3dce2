//! ResourceQuota and LimitRange: defaults and rules (upstream: `ValidateResourceQuota` and `ValidateLimitRange` in
//! `pkg/apis/core/validation`, `SetDefaults_LimitRangeItem`).

use super::Stored;
use super::pod::validate::{container_resource_name, invalid, quantity_value, resource_name};
use crate::quantity::Quantity;
use crate::registry::columns::core as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::label_key;
use crate::registry::json::{child, child_or_new, children, is_set, items, map, objects, quantity, text};
use crate::registry::strategy::Object;
use crate::registry::validation::IMMUTABLE;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// What a quota may count by its short name.
const COUNTED: [&str; 20] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];
/// What a quota with a scope of pods may count.
const OF_PODS: [&str; 9] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.ephemeral-storage",
];
const CONFLICTING: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("NotTerminating", "Terminating")];
const LIMIT_TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];
/// Values above this are compared without their thousandths.
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

pub fn resource_quota() -> Stored {
    Stored::new(printers::RESOURCE_QUOTA)
        .returns_deleted()
        .defaults(|quota| {
            if let Some(hard) = child(quota, "spec").and_then(|spec| child(spec, "hard")) {
                super::pod::defaults::resource_list(hard);
            }
        })
        .rules(quota_rules)
        .update_rules(|new, old| {
            let scopes = |quota| {
                let names = items(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str);
                names.map(str::to_owned).collect::<BTreeSet<String>>()
            };
            if scopes(new) == scopes(old) {
                return Vec::new();
            }
            let shown = items(new, &["spec", "scopes"]).to_vec();
            vec![FieldError::invalid("spec.scopes", shown, IMMUTABLE)]
        })
        .status_rules(|quota, _| {
            let mut errors = amounts(quota, &["status", "hard"], "status.hard");
            errors.extend(amounts(quota, &["status", "used"], "status.used"));
            errors
        })
        .status(|| json!({}))
}

fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// Names and values of a list of counted resources.
fn amounts(quota: &Object, at: &[&str], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, value) in map(quota, at).into_iter().flatten() {
        let path = format!("{path}[{name}]");
        let problems = label_key(name);
        if !problems.is_empty() {
            errors.extend(invalid(&path, name, &problems));
        } else if !name.contains('/') && !is_counted(name) {
            errors.push(FieldError::invalid(
                path.as_str(),
                name.as_str(),
                "must be a standard resource for quota",
            ));
        }
        errors.extend(quantity_value(name, value, &path));
    }
    errors
}

fn quota_rules(quota: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(quota, &["spec"]).unwrap_or(&empty);
    let mut errors = amounts(spec, &["hard"], "spec.hard");
    errors.extend(scopes(spec));
    if let Some(selector) = map(spec, &["scopeSelector"]) {
        errors.extend(scope_selector(spec, selector));
    }
    errors
}

/// Whether a quota of this scope may count the resource; what is no short name is not asked.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        _ if !is_counted(resource) => true,
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => OF_PODS.contains(&resource) || resource.contains("hugepages-"),
    }
}

fn scopes(spec: &Object) -> Vec<FieldError> {
    let (scopes, path) = (items(spec, &["scopes"]), "spec.scopes");
    let mut errors = Vec::new();
    let complaint = |detail: &str| FieldError::invalid(path, scopes.to_vec(), detail);
    for scope in scopes {
        let scope = scope.as_str().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            errors.push(complaint("unsupported scope"));
        }
        let counted = map(spec, &["hard"]).into_iter().flatten();
        for _ in counted.filter(|(resource, _)| !fits(scope, resource)) {
            errors.push(complaint("unsupported scope applied to resource"));
        }
    }
    let has = |wanted: &str| scopes.iter().any(|scope| scope == wanted);
    for _ in CONFLICTING.iter().filter(|(one, other)| has(one) && has(other)) {
        errors.push(complaint("conflicting scopes"));
    }
    errors
}

fn scope_selector(spec: &Object, selector: &Object) -> Vec<FieldError> {
    let path = "spec.scopeSelector.matchExpressions";
    // The value is upstream's internal form of the selector, whose members are named as in Go.
    let internal = |(_, requirement): (usize, &Object)| {
        let field = |name: &str| requirement.get(name).cloned().unwrap_or_default();
        json!({"ScopeName": field("scopeName"), "Operator": field("operator"), "Values": field("values")})
    };
    let requirements: Vec<Value> = objects(selector, &["matchExpressions"]).map(internal).collect();
    let value = json!({"MatchExpressions": requirements});
    let complaint = |detail: &str| FieldError::invalid(path, value.clone(), detail);
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (_, requirement) in objects(selector, &["matchExpressions"]) {
        let (scope, operator) = (text(requirement, &["scopeName"]), text(requirement, &["operator"]));
        seen.insert(scope);
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(
                format!("{path}.scopeName"),
                scope,
                "unsupported scope",
            ));
        }
        let counted = map(spec, &["hard"]).into_iter().flatten();
        for _ in counted.filter(|(resource, _)| !fits(scope, resource)) {
            errors.push(complaint("unsupported scope applied to resource"));
        }
        let valued = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope) && !valued && operator != "Exists" {
            let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(format!("{path}.operator"), operator, detail));
        }
        let values = items(requirement, &["values"]);
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(format!("{path}.values"), values.to_vec(), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{path}.operator"), other, detail));
            }
        }
    }
    for _ in CONFLICTING
        .iter()
        .filter(|(one, other)| seen.contains(one) && seen.contains(other))
    {
        errors.push(complaint("conflicting scopes"));
    }
    errors
}

pub fn limit_range() -> Stored {
    Stored::default()
        .upsert()
        .defaults(default_limit_range)
        .rules(limit_range_rules)
}

fn default_limit_range(range: &mut Object) {
    let Some(spec) = child(range, "spec") else { return };
    for item in children(spec, "limits").filter(|item| text(item, &["type"]) == "Container") {
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let Some(amounts) = map(item, &[from]).filter(|amounts| !amounts.is_empty()).cloned() else {
                continue;
            };
            let target = child_or_new(item, to);
            for (name, amount) in amounts {
                target.entry(name).or_insert(amount);
            }
        }
    }
}

fn limit_range_rules(range: &Object) -> Vec<FieldError> {
    let (mut errors, mut types) = (Vec::new(), BTreeSet::new());
    for (index, item) in objects(range, &["spec", "limits"]) {
        let path = format!("spec.limits[{index}]");
        let kind = text(item, &["type"]);
        errors.extend(limit_type(kind, &format!("{path}.type")));
        if !types.insert(kind) {
            errors.push(FieldError::duplicate(format!("{path}.type"), kind));
        }
        errors.extend(limit_item(item, kind, &path));
    }
    errors
}

fn limit_type(kind: &str, path: &str) -> Vec<FieldError> {
    let errors = invalid(path, kind, &label_key(kind));
    if errors.is_empty() && !kind.contains('/') && !LIMIT_TYPES.contains(&kind) {
        let detail = "must be a standard limit type or fully qualified";
        return vec![FieldError::invalid(path, kind, detail)];
    }
    errors
}

fn limit_item(item: &Object, kind: &str, path: &str) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let Some(amounts) = map(item, &[list]) else { continue };
        if kind == "Pod" && list.starts_with("default") {
            if is_set(item, list) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{path}.{list}"), detail));
            }
            continue;
        }
        for name in amounts.keys() {
            let path = format!("{path}.{list}[{name}]");
            errors.extend(match kind {
                "Pod" | "Container" => container_resource_name(name, &path),
                _ => resource_name(name, &path),
            });
            names.insert(name.as_str());
        }
    }
    let storage = |list: &str| map(item, &[list]).is_some_and(|amounts| amounts.contains_key("storage"));
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(format!("{path}.limits"), detail));
    }
    for name in names {
        errors.extend(limit_amounts(item, kind, name, path));
    }
    errors
}

/// How the bounds and defaults of one resource stand to one another.
fn limit_amounts(item: &Object, kind: &str, name: &str, path: &str) -> Vec<FieldError> {
    let get = |list: &str| -> Option<Quantity> {
        let ignored = kind == "Pod" && list.starts_with("default");
        map(item, &[list]).filter(|_| !ignored)?.get(name).and_then(quantity)
    };
    let (min, max, ratio) = (get("min"), get("max"), get("maxLimitRequestRatio"));
    let (default, request) = (get("default"), get("defaultRequest"));
    let mut errors = Vec::new();
    // (the smaller, its name), (the larger, its name), and which list and value are blamed.
    let orders = [
        ((min, "min value"), (max, "max value"), ("min", min)),
        (
            (min, "min value"),
            (request, "default request value"),
            ("defaultRequest", request),
        ),
        (
            (request, "default request value"),
            (max, "max value"),
            ("defaultRequest", request),
        ),
        (
            (request, "default request value"),
            (default, "default limit value"),
            ("defaultRequest", request),
        ),
        ((min, "min value"), (default, "default value"), ("default", min)),
        ((default, "default value"), (max, "max value"), ("default", max)),
    ];
    for ((low, low_name), (high, high_name), (list, shown)) in orders {
        if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
            && low > high
        {
            let detail = format!("{low_name} {low} is greater than {high_name} {high}");
            errors.push(FieldError::invalid(
                format!("{path}.{list}[{name}]"),
                shown.to_string(),
                &detail,
            ));
        }
    }
    if let Some(ratio) = ratio {
        let path = format!("{path}.maxLimitRequestRatio[{name}]");
        if ratio.milli_value() < 1000 {
            let detail = format!("ratio {ratio} is less than 1");
            errors.push(FieldError::invalid(path.as_str(), ratio.to_string(), &detail));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let small = [ratio, min, max].iter().all(|amount| amount.value() < MILLI_VALUE_MAX);
            let size = |amount: Quantity| {
                if small {
                    amount.milli_value() as f64 / 1000.0
                } else {
                    amount.value() as f64
                }
            };
            let limit = size(max) / size(min);
            if size(ratio) > limit {
                let detail = format!("ratio {ratio} is greater than max/min = {limit:.6}");
                errors.push(FieldError::invalid(path, ratio.to_string(), &detail));
            }
        }
    }
    let overcommits = !name.contains('/') && !name.starts_with("hugepages-");
    if let (Some(default), Some(request)) = (default, request)
        && !overcommits
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errors.push(FieldError::invalid(
            format!("{path}.defaultRequest[{name}]"),
            request.to_string(),
            &detail,
        ));
    }
    errors
}
