//! What webhooks and admission policies match: rules with operations, match conditions
//! (upstream: `pkg/apis/admissionregistration/validation/validation.go`).

use super::pod::validate::{label_selector, one_of};
use crate::registry::field::FieldError;
use crate::registry::formats::{label_key, path_segment};
use crate::registry::json::{items, map, objects, text};
use crate::registry::policy::Conditions;
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::BTreeSet;

const CONDITIONS_MAX: usize = 64;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// A rule of a webhook, or of a policy without its resource names.
pub fn hooks_rule(rule: &Object, path: &str) -> Vec<FieldError> {
    let operations = items(rule, &["operations"]);
    let mut errors = required_list(operations, &format!("{path}.operations"), "operations");
    for (index, operation) in operations.iter().enumerate() {
        if !operation
            .as_str()
            .is_some_and(|operation| OPERATIONS.contains(&operation))
        {
            let path = format!("{path}.operations[{index}]");
            errors.push(FieldError::not_supported(path, operation.clone(), &OPERATIONS));
        }
    }
    errors.extend(required_list(
        items(rule, &["apiGroups"]),
        &format!("{path}.apiGroups"),
        "API groups",
    ));
    let versions = items(rule, &["apiVersions"]);
    errors.extend(required_list(versions, &format!("{path}.apiVersions"), "API versions"));
    errors.extend(no_empty(versions, &format!("{path}.apiVersions")));
    errors.extend(resources(items(rule, &["resources"]), &format!("{path}.resources")));
    if rule.contains_key("scope") {
        errors.extend(one_of(rule, "scope", &["*", "Cluster", "Namespaced"], path));
    }
    errors
}

/// Something is there, and a star stands alone.
fn required_list(list: &[Value], path: &str, what: &str) -> Vec<FieldError> {
    if list.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    if list.len() > 1 && list.iter().any(|item| item == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        return vec![FieldError::invalid(path, list.to_vec(), &detail)];
    }
    Vec::new()
}

fn no_empty(list: &[Value], path: &str) -> Vec<FieldError> {
    let empty = list.iter().enumerate().filter(|(_, item)| *item == "");
    empty
        .map(|(index, _)| FieldError::required(format!("{path}[{index}]"), ""))
        .collect()
}

fn resources(list: &[Value], path: &str) -> Vec<FieldError> {
    if list.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    // `x/*` covers the subresources of x, `*/x` this subresource of everything.
    let (mut all_below, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let (mut star, mut whole_resource) = (false, false);
    for (index, entry) in list.iter().enumerate() {
        let entry = entry.as_str().unwrap_or_default();
        let path = format!("{path}[{index}]");
        if entry.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        star |= entry == "*";
        let Some((resource, subresource)) = entry.split_once('/') else {
            whole_resource |= entry != "*";
            continue;
        };
        if all_below.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {entry}");
            errors.push(FieldError::invalid(path.as_str(), entry, &detail));
        }
        if everywhere.contains(subresource) {
            let detail = format!("if '*/{subresource}' is present, must not specify {entry}");
            errors.push(FieldError::invalid(path, entry, &detail));
        }
        if subresource == "*" {
            all_below.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(subresource);
        }
    }
    if list.len() > 1 && list.iter().any(|entry| entry == "*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
    if star && whole_resource {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
    errors
}

/// `matchConditions` of `owner`, which are compiled already.
pub fn match_conditions(owner: &Object, path: &str, compiled: &Conditions) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let count = items(owner, &["matchConditions"]).len();
    if count > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, count, CONDITIONS_MAX));
    }
    let mut names = BTreeSet::new();
    for (index, condition) in objects(owner, &["matchConditions"]) {
        let path = format!("{path}[{index}]");
        if text(condition, &["expression"]).trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), ""));
        }
        errors.extend(compiled.0.get(index).and_then(|(_, expression)| expression.problem()));
        let (name, name_path) = (text(condition, &["name"]), format!("{path}.name"));
        if name.is_empty() {
            errors.push(FieldError::required(name_path, ""));
            continue;
        }
        for problem in label_key(name) {
            errors.push(FieldError::invalid(name_path.as_str(), name, &problem));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(name_path, name));
        }
    }
    errors
}

/// `matchConstraints` of a policy, or `matchResources` of a binding.
pub fn match_resources(resources: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(resources, &["matchPolicy"]) {
        "" => errors.push(FieldError::required(format!("{path}.matchPolicy"), "")),
        _ => errors.extend(one_of(resources, "matchPolicy", &["Equivalent", "Exact"], path)),
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        match map(resources, &[selector]) {
            None => errors.push(FieldError::required(format!("{path}.{selector}"), "")),
            Some(selected) => errors.extend(label_selector(selected, &format!("{path}.{selector}"))),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in objects(resources, &[list]) {
            let path = format!("{path}.{list}[{index}]");
            errors.extend(resource_names(
                items(rule, &["resourceNames"]),
                &format!("{path}.resourceNames"),
            ));
            errors.extend(hooks_rule(rule, &path));
        }
    }
    errors
}

fn resource_names(names: &[Value], path: &str) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, name) in names.iter().enumerate() {
        let (name, path) = (name.as_str().unwrap_or_default(), format!("{path}[{index}]"));
        for problem in path_segment(name, false) {
            errors.push(FieldError::invalid(path.as_str(), name, &problem));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    errors
}
