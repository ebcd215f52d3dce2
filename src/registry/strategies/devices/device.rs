//! One device of a slice (upstream: `validateDevice`).

use super::capacity::capacity;
use super::names::{binding_conditions, label, qualified, taint};
use super::slice::{counters, nodes};
use super::{bounded, set};
use crate::registry::field::FieldError;
use crate::registry::json::{boolean, map, objects, text};
use crate::registry::strategy::Object;
use regex::Regex;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A semantic version.
static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let (number, build) = (r"(0|[1-9]\d*)", "[0-9a-zA-Z-]+");
    let pre = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)";
    let regex = format!(r"^{number}\.{number}\.{number}(-{pre}(\.{pre})*)?(\+{build}(\.{build})*)?$");
    Regex::new(&regex).ok()
});

/// Attributes and capacities of a device together.
const MEMBERS_MAX: usize = 32;
/// Values of its attributes, where lists have several.
const VALUES_MAX: usize = 48;
const TAINTS_MAX: usize = 16;
const COUNTER_SETS_MAX: usize = 2;
const VALUE_BYTES_MAX: usize = 64;
/// How a name is shown that is longer than any right one.
const SHOWN_MAX: usize = 63 + 1 + 32;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];
const FIELDS: [&str; 8] = [
    "bool", "int", "string", "version", "bools", "ints", "strings", "versions",
];

pub fn device(device: &Object, per_device: bool, path: &str) -> Vec<FieldError> {
    let empty = Object::new();
    let members = |field: &str| map(device, &[field]).unwrap_or(&empty);
    let (attributes, capacities) = (members("attributes"), members("capacity"));
    let mut errors = label(text(device, &["name"]), &format!("{path}.name"));
    let count = attributes.len() + capacities.len();
    if count > MEMBERS_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {MEMBERS_MAX}");
        errors.push(FieldError::invalid(path, count, &detail));
    }
    let values: usize = attributes.values().map(values_of).sum();
    if values > VALUES_MAX {
        let detail = format!("the total number of attribute values must not exceed {VALUES_MAX}");
        errors.push(FieldError::invalid(path, values, &detail));
    }
    let field = format!("{path}.attributes");
    for (name, value) in attributes {
        errors.extend(qualified(name, &field));
        errors.extend(attribute(value, &format!("{field}[{}]", shown(name))));
    }
    let shared = boolean(device, &["allowMultipleAllocations"]);
    let field = format!("{path}.capacity");
    for (name, value) in capacities {
        errors.extend(qualified(name, &field));
        errors.extend(capacity(value, shared, &format!("{field}[{}]", shown(name))));
    }
    let field = format!("{path}.taints");
    match bounded(device, &["taints"], TAINTS_MAX, &field) {
        Some(error) => errors.push(error),
        None => {
            for (index, found) in objects(device, &["taints"]) {
                errors.extend(taint(found, &format!("{field}[{index}]")));
            }
        }
    }
    let list = ["consumesCounters"];
    let name = |part: &Object| text(part, &["counterSet"]).to_owned();
    errors.extend(set(
        device,
        &list,
        COUNTER_SETS_MAX,
        &format!("{path}.consumesCounters"),
        &name,
        &|part, path| counters(part, "counterSet", path),
    ));
    errors.extend(reach(device, per_device, path));
    errors.extend(binding_conditions(device, path));
    errors
}

/// Which nodes can use this device, where each device says so for itself.
fn reach(device: &Object, per_device: bool, path: &str) -> Vec<FieldError> {
    let fields = ["nodeName", "nodeSelector", "allNodes"];
    if !per_device {
        let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
            true in the ResourceSlice spec";
        let given = fields.iter().any(|field| device.contains_key(*field));
        return Vec::from_iter(given.then(|| FieldError::invalid(path, Value::Null, detail)));
    }
    let (said, mut errors) = nodes(device, &fields, "must not be empty", path);
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
        set to true in the ResourceSlice spec";
    match said.len() {
        0 => errors.push(FieldError::required(path, detail)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, format!("{{{}}}", said.join(", ")), detail)),
    }
    errors
}

fn shown(name: &str) -> String {
    if name.len() <= SHOWN_MAX || !name.is_ascii() {
        return name.to_owned();
    }
    let rest = SHOWN_MAX - 3;
    format!("{}...{}", &name[..rest.div_ceil(2)], &name[name.len() - rest / 2..])
}

fn values_of(attribute: &Value) -> usize {
    let lists = LISTS.iter().filter_map(|field| attribute.get(field)?.as_array());
    let listed: usize = lists.map(Vec::len).sum();
    listed.max(1)
}

/// One value, or one list of values.
fn attribute(attribute: &Value, path: &str) -> Vec<FieldError> {
    let given = FIELDS
        .iter()
        .filter(|field| attribute.get(field).is_some_and(|value| !value.is_null()));
    let mut errors = Vec::new();
    for field in given.clone() {
        let (path, value) = (format!("{path}.{field}"), &attribute[*field]);
        let version = field.starts_with("version");
        match value {
            Value::String(text) => errors.extend(text_value(text, version, &path)),
            Value::Array(values) if values.is_empty() => {
                errors.push(FieldError::invalid(path, json!([]), "must not be empty if specified"));
            }
            Value::Array(values) => {
                for (index, text) in values
                    .iter()
                    .enumerate()
                    .filter_map(|(n, value)| Some((n, value.as_str()?)))
                {
                    errors.extend(text_value(text, version, &format!("{path}[{index}]")));
                }
            }
            _ => {}
        }
    }
    let detail = "exactly one value must be specified";
    match given.count() {
        0 => errors.push(FieldError::invalid(path, "", detail)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, attribute.clone(), detail)),
    }
    errors
}

fn text_value(text: &str, version: bool, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let wrong = VERSION.as_ref().is_some_and(|regex| !regex.is_match(text));
    if version && wrong {
        let detail = "must be a string compatible with semver.org spec 2.0.0";
        errors.push(FieldError::invalid(path, text, detail));
    }
    if text.len() > VALUE_BYTES_MAX {
        errors.push(FieldError::too_long(path, VALUE_BYTES_MAX));
    }
    errors
}
