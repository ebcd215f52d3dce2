//! What a driver offers on which nodes (upstream: `ValidateResourceSlice`).

use super::device::device;
use super::names::{driver_name, label, pool_name};
use super::set;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::{at, boolean, is_set, items, map, number, objects, text};
use crate::registry::strategies::pod::validate::{invalid, node_selector};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::Value;

const DEVICES_MAX: usize = 128;
/// Of devices with taints, with parts of counters, or with lists as attributes.
const ADVANCED_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const WAYS: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

pub fn slice(slice: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(slice, &["spec"]).unwrap_or(&empty);
    let mut errors = driver_name(text(spec, &["driver"]), "spec.driver");
    errors.extend(pool(spec));
    errors.extend(reach(spec));
    if spec.contains_key("sharedCounters") && spec.contains_key("devices") {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid("spec", "", detail));
    }
    let advanced = objects(spec, &["devices"]).any(|(_, device)| {
        let lists = |attribute: &Value| {
            ["bools", "ints", "strings", "versions"]
                .iter()
                .any(|field| attribute.get(field).is_some())
        };
        is_set(device, "taints")
            || is_set(device, "consumesCounters")
            || map(device, &["attributes"]).is_some_and(|attributes| attributes.values().any(lists))
    });
    let max = if advanced { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    let per_device = boolean(spec, &["perDeviceNodeSelection"]);
    let name = |item: &Object| text(item, &["name"]).to_owned();
    let rules = |item: &Object, path: &str| device(item, per_device, path);
    errors.extend(set(spec, &["devices"], max, "spec.devices", &name, &rules));
    let path = "spec.sharedCounters";
    errors.extend(set(
        spec,
        &["sharedCounters"],
        COUNTER_SETS_MAX,
        path,
        &name,
        &|set, path| counters(set, "name", path),
    ));
    errors
}

/// Counters of a set, or those of a set that a device takes its part of.
pub fn counters(owner: &Object, name: &str, path: &str) -> Vec<FieldError> {
    let field = format!("{path}.{name}");
    let mut errors = match text(owner, &[name]) {
        "" => vec![FieldError::required(field, "")],
        found => label(found, &field),
    };
    let path = format!("{path}.counters");
    match map(owner, &["counters"]).filter(|counters| !counters.is_empty()) {
        None => errors.push(FieldError::required(path, "")),
        Some(counters) if counters.len() > COUNTERS_MAX => {
            errors.push(FieldError::too_many(path, counters.len(), COUNTERS_MAX));
        }
        Some(counters) => errors.extend(counters.keys().flat_map(|counter| label(counter, &path))),
    }
    errors
}

fn pool(spec: &Object) -> Vec<FieldError> {
    let mut errors = pool_name(text(spec, &["pool", "name"]), "spec.pool.name");
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

/// What of `fields` is said of `owner` for the nodes, in upstream's quotes, and what is wrong with it.
pub fn nodes(owner: &Object, fields: &[&str], empty: &str, path: &str) -> (Vec<String>, Vec<FieldError>) {
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    for field in fields {
        let Some(value) = at(owner, &[field]).filter(|value| !value.is_null()) else {
            continue;
        };
        let path = format!("{path}.{field}");
        match value {
            Value::String(name) if name.is_empty() => {
                errors.push(FieldError::invalid(path, name.as_str(), empty));
                continue;
            }
            Value::String(name) => errors.extend(invalid(&path, name, &dns1123_subdomain(name, false))),
            Value::Object(selector) => errors.extend(node_selector(selector, &path)),
            Value::Bool(false) => {
                errors.push(FieldError::invalid(path, false, "must be either unset or set to true"));
                continue;
            }
            _ => {}
        }
        said.push(format!("`{field}`"));
    }
    (said, errors)
}

/// Which nodes can use the devices: it is said in one way.
fn reach(spec: &Object) -> Vec<FieldError> {
    let empty = "must be either unset or set to a non-empty string";
    let (said, mut errors) = nodes(spec, &WAYS, empty, "spec");
    let terms = items(spec, &["nodeSelector", "nodeSelectorTerms"]);
    if map(spec, &["nodeSelector"]).is_some() && terms.len() != 1 {
        let path = "spec.nodeSelector.nodeSelectorTerms";
        let detail = "must have exactly one node selector term";
        errors.push(FieldError::invalid(path, terms.to_vec(), detail));
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
