//! What a claim got, and who uses it (upstream: `ValidateResourceClaimStatusUpdate`).

use super::claim::{Requests, configuration, reference, references, requests_of};
use super::names::{binding_conditions, driver_name, label, opaque, pool_name, toleration, uid};
use super::{LIST_MAX, bounded, set};
use crate::registry::field::FieldError;
use crate::registry::json::{at, items, map, objects, text};
use crate::registry::network::canonical_interface;
use crate::registry::strategies::conditions;
use crate::registry::strategies::pod::validate::node_selector;
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::{Value, json};

const USERS_MAX: usize = 256;
const CONDITIONS_MAX: usize = 8;
const DATA_BYTES_MAX: usize = 10 * 1024;
const INTERFACE_BYTES_MAX: usize = 256;
const HARDWARE_BYTES_MAX: usize = 128;
const ADDRESSES_MAX: usize = 16;

pub fn status(claim: &Object, old: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let of = |claim| map(claim, &["status"]).unwrap_or(&empty);
    let (new, before) = (of(claim), of(old));
    let key = |user: &Object| text(user, &["uid"]).to_owned();
    let mut errors = set(new, &["reservedFor"], USERS_MAX, "status.reservedFor", &key, &user);
    let allocated: Vec<String> = objects(new, &["allocation", "devices", "results"])
        .map(|(_, result)| id(result))
        .collect();
    let rules = |device: &Object, path: &str| device_status(device, &allocated, path);
    errors.extend(set(new, &["devices"], usize::MAX, "status.devices", &id, &rules));
    let users = items(new, &["reservedFor"]);
    if !users.is_empty() {
        let path = "status.reservedFor";
        if map(new, &["allocation"]).is_none() {
            let detail = "may not be specified when `allocated` is not set";
            errors.push(FieldError::forbidden(path, detail));
        } else if at(claim, &["metadata", "deletionTimestamp"]).is_some()
            && users.iter().any(|user| !items(before, &["reservedFor"]).contains(user))
        {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(path, detail));
        }
    }
    match (map(new, &["allocation"]), before.get("allocation")) {
        (Some(_), Some(before)) => {
            errors.extend(immutable(new.get("allocation"), Some(before), "status.allocation"));
        }
        (Some(allocation), None) => {
            let known = requests_of(map(claim, &["spec", "devices"]));
            errors.extend(allocation_rules(allocation, &known));
        }
        (None, _) => {}
    }
    errors
}

fn user(user: &Object, path: &str) -> Vec<FieldError> {
    let missing = ["resource", "name", "uid"]
        .into_iter()
        .filter(|field| text(user, &[field]).is_empty());
    missing
        .map(|field| FieldError::required(format!("{path}.{field}"), ""))
        .collect()
}

/// Driver, pool, device, and the share of it.
fn id(result: &Object) -> String {
    let part = |field: &str| text(result, &[field]);
    let whole = format!("{}/{}/{}", part("driver"), part("pool"), part("device"));
    match part("shareID") {
        "" => whole,
        share => format!("{whole}/{share}"),
    }
}

fn allocation_rules(allocation: &Object, known: &Requests<'_>) -> Vec<FieldError> {
    let path = "status.allocation";
    let mut errors = Vec::new();
    let list = format!("{path}.devices.results");
    match bounded(allocation, &["devices", "results"], LIST_MAX, &list) {
        Some(error) => errors.push(error),
        None => {
            for (index, found) in objects(allocation, &["devices", "results"]) {
                errors.extend(result(found, known, &format!("{list}[{index}]")));
            }
        }
    }
    // Those of the class and those of the claim.
    let list = format!("{path}.devices.config");
    match bounded(allocation, &["devices", "config"], 2 * LIST_MAX, &list) {
        Some(error) => errors.push(error),
        None => {
            for (index, config) in objects(allocation, &["devices", "config"]) {
                let path = format!("{list}[{index}]");
                let sources = ["FromClaim", "FromClass"];
                match text(config, &["source"]) {
                    "" => errors.push(FieldError::required(format!("{path}.source"), "")),
                    source if sources.contains(&source) => {}
                    source => errors.push(FieldError::not_supported(format!("{path}.source"), source, &sources)),
                }
                errors.extend(references(config, known, &path));
                errors.extend(configuration(config, &path));
            }
        }
    }
    if let Some(selector) = map(allocation, &["nodeSelector"]) {
        errors.extend(node_selector(selector, &format!("{path}.nodeSelector")));
    }
    errors
}

fn result(result: &Object, known: &Requests<'_>, path: &str) -> Vec<FieldError> {
    let mut errors = reference(text(result, &["request"]), known, &format!("{path}.request"));
    errors.extend(place(result, path));
    errors.extend(binding_conditions(result, path));
    for (index, found) in objects(result, &["tolerations"]) {
        errors.extend(toleration(found, &format!("{path}.tolerations[{index}]")));
    }
    errors.extend(share(result, path));
    errors
}

/// Which device it is.
fn place(result: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = driver_name(text(result, &["driver"]), &format!("{path}.driver"));
    errors.extend(pool_name(text(result, &["pool"]), &format!("{path}.pool")));
    errors.extend(label(text(result, &["device"]), &format!("{path}.device")));
    errors
}

fn share(result: &Object, path: &str) -> Option<FieldError> {
    let share = at(result, &["shareID"]).and_then(Value::as_str)?;
    uid(share, &format!("{path}.shareID"))
}

/// What a driver says of a device that the claim has.
fn device_status(device: &Object, allocated: &[String], path: &str) -> Vec<FieldError> {
    let mut errors = place(device, path);
    errors.extend(share(device, path));
    if !allocated.contains(&id(device)) {
        let part = |field: &str| text(device, &[field]);
        let shown = json!({
            "Driver": part("driver"), "Pool": part("pool"), "Device": part("device"), "ShareID": part("shareID"),
        });
        let detail = "must be an allocated device in the claim";
        errors.push(FieldError::invalid(path, shown, detail));
    }
    let count = items(device, &["conditions"]).len();
    if count > CONDITIONS_MAX {
        errors.push(FieldError::too_many(
            format!("{path}.conditions"),
            count,
            CONDITIONS_MAX,
        ));
    }
    errors.extend(conditions::validate(device, path));
    if let Some(data) = device.get("data").filter(|data| !data.is_null()) {
        errors.extend(opaque(Some(data), DATA_BYTES_MAX, &format!("{path}.data")));
    }
    if let Some(network) = map(device, &["networkData"]) {
        errors.extend(network_rules(network, &format!("{path}.networkData")));
    }
    errors
}

fn network_rules(network: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, max) in [
        ("interfaceName", INTERFACE_BYTES_MAX),
        ("hardwareAddress", HARDWARE_BYTES_MAX),
    ] {
        if text(network, &[field]).len() > max {
            errors.push(FieldError::too_long(format!("{path}.{field}"), max));
        }
    }
    let path = format!("{path}.ips");
    if let Some(error) = bounded(network, &["ips"], ADDRESSES_MAX, &path) {
        errors.push(error);
        return errors;
    }
    let addresses: Vec<&str> = items(network, &["ips"]).iter().filter_map(Value::as_str).collect();
    for (index, address) in addresses.iter().enumerate() {
        errors.extend(canonical_interface(&format!("{path}[{index}]"), address));
    }
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), *address));
        }
    }
    errors
}
