//! What a claim asks for (upstream: `ValidateResourceClaim`).

use super::names::{driver_name, fully_qualified, label, opaque, toleration};
use super::{LIST_MAX, bounded, selector, set};
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::{at, items, map, number, objects, text};
use crate::registry::strategies::pod::validate::invalid;
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const ALTERNATIVES_MAX: usize = 8;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;

/// The requests of a claim, with the alternatives of each.
pub type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

pub fn claim(claim: &Object) -> Vec<FieldError> {
    devices(map(claim, &["spec", "devices"]), "spec.devices")
}

pub fn requests_of(devices: Option<&Object>) -> Requests<'_> {
    let Some(devices) = devices else { return Requests::new() };
    let requests = objects(devices, &["requests"]);
    requests
        .map(|(_, request)| {
            let alternatives = objects(request, &["firstAvailable"]);
            let names = alternatives.map(|(_, alternative)| text(alternative, &["name"]));
            (text(request, &["name"]), names.collect())
        })
        .collect()
}

/// `spec.devices` at `path`.
pub fn devices(devices: Option<&Object>, path: &str) -> Vec<FieldError> {
    let Some(devices) = devices else { return Vec::new() };
    let known = requests_of(Some(devices));
    let name = |request: &Object| text(request, &["name"]).to_owned();
    let mut errors = set(
        devices,
        &["requests"],
        LIST_MAX,
        &format!("{path}.requests"),
        &name,
        &request,
    );
    let at = |list: &str| format!("{path}.{list}");
    match bounded(devices, &["constraints"], LIST_MAX, &at("constraints")) {
        Some(error) => errors.push(error),
        None => {
            for (index, constraint) in objects(devices, &["constraints"]) {
                let path = format!("{path}.constraints[{index}]");
                errors.extend(references(constraint, &known, &path));
                errors.extend(attribute(constraint, &path));
            }
        }
    }
    match bounded(devices, &["config"], LIST_MAX, &at("config")) {
        Some(error) => errors.push(error),
        None => {
            for (index, config) in objects(devices, &["config"]) {
                let path = format!("{path}.config[{index}]");
                errors.extend(references(config, &known, &path));
                errors.extend(configuration(config, &path));
            }
        }
    }
    errors
}

/// Devices of one class, or a list of such requests of which the first that can be met counts.
fn request(request: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = label(text(request, &["name"]), &format!("{path}.name"));
    let detail = "exactly one of `exactly` or `firstAvailable` is required";
    let alternatives = items(request, &["firstAvailable"]);
    match (map(request, &["exactly"]), alternatives.is_empty()) {
        (None, true) => errors.push(FieldError::required(path, detail)),
        (Some(_), false) => {
            let detail = format!("{detail}, but multiple fields are set");
            errors.push(FieldError::invalid(path, Value::Null, &detail));
        }
        (Some(exact), true) => errors.extend(amount(exact, &format!("{path}.exactly"))),
        (None, false) => {
            let name = |request: &Object| text(request, &["name"]).to_owned();
            let rules = |request: &Object, path: &str| {
                let mut errors = label(text(request, &["name"]), &format!("{path}.name"));
                errors.extend(amount(request, path));
                errors
            };
            errors.extend(set(
                request,
                &["firstAvailable"],
                ALTERNATIVES_MAX,
                &format!("{path}.firstAvailable"),
                &name,
                &rules,
            ));
        }
    }
    errors
}

fn amount(request: &Object, path: &str) -> Vec<FieldError> {
    let field = format!("{path}.deviceClassName");
    let mut errors = match text(request, &["deviceClassName"]) {
        "" => vec![FieldError::required(field, "")],
        name => invalid(&field, name, &dns1123_subdomain(name, false)),
    };
    errors.extend(selector::list(request, &["selectors"], &format!("{path}.selectors")));
    let (count, field) = (number(request, &["count"]), format!("{path}.count"));
    match text(request, &["allocationMode"]) {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(field, count, detail));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(field, count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            let path = format!("{path}.allocationMode");
            errors.push(FieldError::not_supported(path, other, &["All", "ExactCount"]));
        }
    }
    for (index, found) in objects(request, &["tolerations"]) {
        errors.extend(toleration(found, &format!("{path}.tolerations[{index}]")));
    }
    errors
}

/// The `requests` that a constraint or a configuration is for.
pub fn references(owner: &Object, known: &Requests<'_>, path: &str) -> Vec<FieldError> {
    let path = format!("{path}.requests");
    if let Some(error) = bounded(owner, &["requests"], LIST_MAX, &path) {
        return vec![error];
    }
    let names: Vec<&str> = items(owner, &["requests"]).iter().filter_map(Value::as_str).collect();
    let mut errors = Vec::new();
    for (index, name) in names.iter().enumerate() {
        errors.extend(reference(name, known, &format!("{path}[{index}]")));
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), *name));
        }
    }
    errors
}

/// A request, or one of its alternatives.
pub fn reference(name: &str, known: &Requests<'_>, path: &str) -> Vec<FieldError> {
    let detail =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    let wrong = || FieldError::invalid(path, name, detail);
    if parts.len() > 2 {
        return vec![wrong()];
    }
    let mut errors: Vec<FieldError> = parts.iter().flat_map(|part| label(part, path)).collect();
    let found = known
        .get(parts[0])
        .is_some_and(|alternatives| parts.get(1).is_none_or(|part| alternatives.contains(part)));
    if !found {
        errors.push(wrong());
    }
    errors
}

/// In which attribute the devices are all alike, or all different.
fn attribute(constraint: &Object, path: &str) -> Vec<FieldError> {
    for field in ["matchAttribute", "distinctAttribute"] {
        if let Some(name) = at(constraint, &[field]).and_then(Value::as_str) {
            return fully_qualified(name, &format!("{path}.{field}"));
        }
    }
    let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
    vec![FieldError::required(path, detail)]
}

/// What is said to a driver.
pub fn configuration(config: &Object, path: &str) -> Vec<FieldError> {
    let path = format!("{path}.opaque");
    let Some(found) = map(config, &["opaque"]) else {
        return vec![FieldError::required(path, "")];
    };
    let mut errors = driver_name(text(found, &["driver"]), &format!("{path}.driver"));
    errors.extend(opaque(
        found.get("parameters"),
        PARAMETERS_BYTES_MAX,
        &format!("{path}.parameters"),
    ));
    errors
}
