//! Claims for devices, their classes, and what drivers offer (upstream: `pkg/apis/resource/v1/defaults.go`,
//! `pkg/apis/resource/validation`). Expressions in selectors are not compiled.

use super::pod::validate::{invalid, node_selector};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain};
use crate::registry::json::{
    at, boolean, child, children, default_number, default_text, items, map, number, objects, text,
};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::Value;
use std::collections::BTreeSet;

/// Requests, constraints, configurations of a claim, and selectors of a request.
const LIST_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const DRIVER_BYTES_MAX: usize = 63;
const POOL_BYTES_MAX: usize = 253;
const DEVICES_MAX: usize = 128;

pub fn claim_defaults(claim: &mut Object) {
    let Some(devices) = child(claim, "spec").and_then(|spec| child(spec, "devices")) else {
        return;
    };
    for request in children(devices, "requests") {
        if let Some(exact) = child(request, "exactly") {
            amount_defaults(exact);
        }
        children(request, "firstAvailable").for_each(amount_defaults);
    }
}

pub fn template_defaults(template: &mut Object) {
    if let Some(claim) = child(template, "spec") {
        claim_defaults(claim);
    }
}

/// A taint says since when it is there.
pub fn slice_defaults(slice: &mut Object) {
    let Some(spec) = child(slice, "spec") else { return };
    for taint in children(spec, "devices").flat_map(|device| children(device, "taints")) {
        taint_defaults(taint);
    }
}

pub fn taint_defaults(taint: &mut Object) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    default_text(taint, "timeAdded", &now);
}

fn amount_defaults(request: &mut Object) {
    default_text(request, "allocationMode", "ExactCount");
    if text(request, &["allocationMode"]) == "ExactCount" {
        default_number(request, "count", 1);
    }
    for toleration in children(request, "tolerations") {
        default_text(toleration, "operator", "Equal");
    }
}

pub fn claim(claim: &Object) -> Vec<FieldError> {
    device_claim(map(claim, &["spec", "devices"]), "spec.devices")
}

pub fn template(template: &Object) -> Vec<FieldError> {
    device_claim(map(template, &["spec", "spec", "devices"]), "spec.spec.devices")
}

/// What is claimed stays what it is.
pub fn fixed_spec(claim: &Object, old: &Object) -> Vec<FieldError> {
    Vec::from_iter(immutable(claim.get("spec"), old.get("spec"), "spec"))
}

pub fn class(class: &Object) -> Vec<FieldError> {
    let mut errors = selectors(class, &["spec", "selectors"], "spec.selectors");
    errors.extend(bounded(class, &["spec", "config"], LIST_MAX, "spec.config"));
    errors
}

fn bounded(owner: &Object, list: &[&str], max: usize, path: &str) -> Option<FieldError> {
    let count = items(owner, list).len();
    (count > max).then(|| FieldError::too_many(path, count, max))
}

fn selectors(owner: &Object, list: &[&str], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(bounded(owner, list, LIST_MAX, path));
    for (index, selector) in objects(owner, list) {
        let path = format!("{path}[{index}].cel");
        if !selector.contains_key("cel") {
            errors.push(FieldError::required(path, ""));
        } else if text(selector, &["cel", "expression"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), ""));
        }
    }
    errors
}

fn device_claim(devices: Option<&Object>, path: &str) -> Vec<FieldError> {
    let Some(devices) = devices else { return Vec::new() };
    let mut errors = Vec::new();
    for list in ["requests", "constraints", "config"] {
        errors.extend(bounded(devices, &[list], LIST_MAX, &format!("{path}.{list}")));
    }
    let mut names = BTreeSet::new();
    for (index, request) in objects(devices, &["requests"]) {
        let path = format!("{path}.requests[{index}]");
        let name = text(request, &["name"]);
        errors.extend(request_name(name, &format!("{path}.name")));
        if !names.insert(name.to_owned()) {
            errors.push(FieldError::duplicate(path.as_str(), name));
        }
        errors.extend(one_request(request, &path));
        names.extend(objects(request, &["firstAvailable"]).map(|(_, sub)| format!("{name}/{}", text(sub, &["name"]))));
    }
    for list in ["constraints", "config"] {
        for (index, entry) in objects(devices, &[list]) {
            for (number, name) in items(entry, &["requests"]).iter().enumerate() {
                let name = name.as_str().unwrap_or_default();
                if !names.contains(name) {
                    let detail = "must be the name of a request in the claim or the name of a request and a subrequest \
                        separated by '/'";
                    let path = format!("{path}.{list}[{index}].requests[{number}]");
                    errors.push(FieldError::invalid(path, name, detail));
                }
            }
        }
    }
    errors
}

fn request_name(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    invalid(path, name, &dns1123_label(name, false))
}

/// Devices of one class, or a list of such requests of which the first that can be met counts.
fn one_request(request: &Object, path: &str) -> Vec<FieldError> {
    let detail = "exactly one of `exactly` or `firstAvailable` is required";
    let alternatives = items(request, &["firstAvailable"]);
    match (map(request, &["exactly"]), alternatives.is_empty()) {
        (None, true) => vec![FieldError::required(path, detail)],
        (Some(_), false) => {
            let detail = format!("{detail}, but multiple fields are set");
            vec![FieldError::invalid(path, Value::Null, &detail)]
        }
        (Some(exact), true) => amount(exact, &format!("{path}.exactly")),
        (None, false) => {
            let path = format!("{path}.firstAvailable");
            let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
            errors.extend(bounded(request, &["firstAvailable"], ALTERNATIVES_MAX, &path));
            for (index, sub) in objects(request, &["firstAvailable"]) {
                let path = format!("{path}[{index}]");
                let name = text(sub, &["name"]);
                errors.extend(request_name(name, &format!("{path}.name")));
                if !names.insert(name) {
                    errors.push(FieldError::duplicate(path.as_str(), name));
                }
                errors.extend(amount(sub, &path));
            }
            errors
        }
    }
}

fn amount(request: &Object, path: &str) -> Vec<FieldError> {
    let field = format!("{path}.deviceClassName");
    let mut errors = match text(request, &["deviceClassName"]) {
        "" => vec![FieldError::required(field, "")],
        name => invalid(&field, name, &dns1123_subdomain(name, false)),
    };
    errors.extend(selectors(request, &["selectors"], &format!("{path}.selectors")));
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
    errors
}

pub fn slice(slice: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(slice, &["spec"]).unwrap_or(&empty);
    let mut errors = match text(spec, &["driver"]) {
        "" => vec![FieldError::required("spec.driver", "")],
        driver => invalid("spec.driver", driver, &dns1123_subdomain(driver, false)),
    };
    if text(spec, &["driver"]).len() > DRIVER_BYTES_MAX {
        errors.push(FieldError::too_long("spec.driver", DRIVER_BYTES_MAX));
    }
    errors.extend(pool(spec));
    errors.extend(reach(spec));
    errors.extend(bounded(spec, &["devices"], DEVICES_MAX, "spec.devices"));
    let mut names = BTreeSet::new();
    for (index, device) in objects(spec, &["devices"]) {
        let path = format!("spec.devices[{index}]");
        let name = text(device, &["name"]);
        errors.extend(request_name(name, &format!("{path}.name")));
        if !names.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    errors
}

/// A pool's name is made of parts as names in DNS are, with slashes between them.
fn pool(spec: &Object) -> Vec<FieldError> {
    let (path, name) = ("spec.pool.name", text(spec, &["pool", "name"]));
    let mut errors = Vec::new();
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        if name.len() > POOL_BYTES_MAX {
            errors.push(FieldError::too_long(path, POOL_BYTES_MAX));
        }
        for part in name.split('/') {
            errors.extend(invalid(path, part, &dns1123_subdomain(part, false)));
        }
    }
    let count = number(spec, &["pool", "resourceSliceCount"]);
    if count <= 0 {
        let path = "spec.pool.resourceSliceCount";
        errors.push(FieldError::invalid(path, count, "must be greater than zero"));
    }
    let generation = number(spec, &["pool", "generation"]);
    if generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.push(FieldError::invalid("spec.pool.generation", generation, detail));
    }
    errors
}

/// Which nodes can use the devices: it is said in one way.
fn reach(spec: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut said = Vec::new();
    if let Some(name) = at(spec, &["nodeName"]).and_then(Value::as_str) {
        said.push("`nodeName`");
        if name.is_empty() {
            let detail = "must be either unset or set to a non-empty string";
            errors.push(FieldError::invalid("spec.nodeName", name, detail));
        } else {
            errors.extend(invalid("spec.nodeName", name, &dns1123_subdomain(name, false)));
        }
    }
    if let Some(selector) = map(spec, &["nodeSelector"]) {
        said.push("`nodeSelector`");
        errors.extend(node_selector(selector, "spec.nodeSelector"));
        if items(selector, &["nodeSelectorTerms"]).len() > 1 {
            let shown = items(selector, &["nodeSelectorTerms"]).to_vec();
            let detail = "must have exactly one node selector term";
            errors.push(FieldError::invalid(
                "spec.nodeSelector.nodeSelectorTerms",
                shown,
                detail,
            ));
        }
    }
    for field in ["allNodes", "perDeviceNodeSelection"] {
        if boolean(spec, &[field]) {
            said.push(if field == "allNodes" {
                "`allNodes`"
            } else {
                "`perDeviceNodeSelection`"
            });
        }
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match said.len() {
        0 => errors.push(FieldError::required("spec", detail)),
        1 => {}
        _ => {
            let detail = format!("{detail}, but multiple fields are set");
            errors.push(FieldError::invalid("spec", format!("{{{}}}", said.join(", ")), &detail));
        }
    }
    errors
}

pub fn slice_update(slice: &Object, old: &Object) -> Vec<FieldError> {
    [
        &["spec", "pool", "name"][..],
        &["spec", "driver"],
        &["spec", "nodeName"],
    ]
    .iter()
    .filter_map(|path| immutable(at(slice, path), at(old, path), &path.join(".")))
    .collect()
}
