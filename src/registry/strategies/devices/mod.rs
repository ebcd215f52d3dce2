//! Claims for devices, their classes, and what drivers offer (upstream: `pkg/apis/resource/v1/defaults.go`,
//! `pkg/apis/resource/validation`).
//!
//! - `claim.rs`: what a claim asks for. `status.rs`: what it got.
//! - `slice.rs`: pools and their nodes. `device.rs`: one device in it, `capacity.rs`: shares of it.
//! - `disabled.rs`: fields that are off by default.
//! - `names.rs`: names of attributes, drivers and pools, taints. `selector.rs`: expressions that choose devices.

mod capacity;
mod claim;
mod device;
mod disabled;
mod names;
mod selector;
mod slice;
mod status;

pub use claim::claim;
pub use disabled::{drop_from_claim, drop_from_slice, drop_from_template};
pub use names::{driver_name, pool_name, taint};
pub use slice::{slice, slice_update};
pub use status::status;

use super::pod::validate::claim_metadata;
use crate::registry::field::FieldError;
use crate::registry::formats::label_key;
use crate::registry::json::{at, child, children, default_number, default_text, items, map, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use crate::usage::is_native;
use serde_json::Value;
use std::collections::BTreeSet;

/// Requests, constraints, configurations of a claim, and selectors of a request.
const LIST_MAX: usize = 32;

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

pub fn template(template: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let metadata = map(template, &["spec", "metadata"]).unwrap_or(&empty);
    let mut errors = claim_metadata(metadata, "spec.metadata");
    let devices = map(template, &["spec", "spec", "devices"]);
    errors.extend(claim::devices(devices, "spec.spec.devices"));
    errors
}

/// What is claimed stays what it is.
pub fn fixed_spec(claim: &Object, old: &Object) -> Vec<FieldError> {
    Vec::from_iter(immutable(claim.get("spec"), old.get("spec"), "spec"))
}

pub fn class(class: &Object) -> Vec<FieldError> {
    let mut errors = selector::list(class, &["spec", "selectors"], "spec.selectors");
    let path = "spec.config";
    match bounded(class, &["spec", "config"], LIST_MAX, path) {
        Some(error) => errors.push(error),
        None => {
            for (index, config) in objects(class, &["spec", "config"]) {
                errors.extend(claim::configuration(config, &format!("{path}[{index}]")));
            }
        }
    }
    if let Some(name) = at(class, &["spec", "extendedResourceName"]).and_then(Value::as_str) {
        let asked = format!("requests.{name}");
        if is_native(name) || name.starts_with("requests.") || !label_key(&asked).is_empty() {
            let detail = "must be a valid extended resource name";
            errors.push(FieldError::invalid("spec.extendedResourceName", name, detail));
        }
    }
    errors
}

/// A list with too many items, in which nothing else is looked at.
fn bounded(owner: &Object, list: &[&str], max: usize, path: &str) -> Option<FieldError> {
    let count = items(owner, list).len();
    (count > max).then(|| FieldError::too_many(path, count, max))
}

/// The rules of each object of a list, and that no two have one key.
fn set(
    owner: &Object,
    list: &[&str],
    max: usize,
    path: &str,
    key: &dyn Fn(&Object) -> String,
    rules: &dyn Fn(&Object, &str) -> Vec<FieldError>,
) -> Vec<FieldError> {
    if let Some(error) = bounded(owner, list, max, path) {
        return vec![error];
    }
    let mut errors = Vec::new();
    for (index, item) in objects(owner, list) {
        errors.extend(rules(item, &format!("{path}[{index}]")));
    }
    let mut keys = BTreeSet::new();
    for (index, item) in objects(owner, list) {
        let key = key(item);
        if keys.contains(&key) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), key));
        } else {
            keys.insert(key);
        }
    }
    errors
}
