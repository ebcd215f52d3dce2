//! DeviceTaintRules (upstream: `pkg/registry/resource/devicetaintrule`, `pkg/apis/resource/validation`).

use super::conditions;
use super::devices::{driver_name, pool_name, taint};
use super::pod::validate::invalid;
use super::stored::{Printer, Stored};
use crate::registry::columns::{age, column, name_column, since};
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_label;
use crate::registry::json::{at, child, items, map, text};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const CONDITIONS_MAX: usize = 8;

pub fn strategy() -> Stored {
    Stored::new(PRINTER)
        .generation()
        .returns_deleted()
        .defaults(|rule| {
            if let Some(taint) = child(rule, "spec").and_then(|spec| child(spec, "taint")) {
                super::devices::taint_defaults(taint);
            }
        })
        .rules(validate)
        .status_rules(|rule, _| validate_status(rule))
        .status(|| json!({}))
}

const PRINTER: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Key", "string"),
            column("Value", "string"),
            column("Effect", "string"),
            column("TimeAdded", "string"),
            column("Age", "string"),
        ]
    },
    cells: |rule, now| {
        let taint = |field: &str| text(rule, &["spec", "taint", field]);
        let added = match taint("timeAdded") {
            "" => String::new(),
            time => since(time, now),
        };
        vec![
            json!(text(rule, &["metadata", "name"])),
            json!(taint("key")),
            json!(taint("value")),
            json!(taint("effect")),
            json!(added),
            json!(age(rule, now)),
        ]
    },
};

fn validate(rule: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = Object::new();
    let path = "spec.deviceSelector";
    if let Some(selector) = map(rule, &["spec", "deviceSelector"]) {
        let part = |field: &str| at(selector, &[field]).and_then(Value::as_str);
        errors.extend(part("driver").map_or_else(Vec::new, |name| driver_name(name, &format!("{path}.driver"))));
        errors.extend(part("pool").map_or_else(Vec::new, |name| pool_name(name, &format!("{path}.pool"))));
        if let Some(device) = part("device") {
            errors.extend(invalid(
                &format!("{path}.device"),
                device,
                &dns1123_label(device, false),
            ));
        }
    }
    let found = map(rule, &["spec", "taint"]).unwrap_or(&empty);
    errors.extend(taint(found, "spec.taint"));
    errors
}

fn validate_status(rule: &Object) -> Vec<FieldError> {
    let Some(status) = map(rule, &["status"]) else {
        return Vec::new();
    };
    let mut errors = conditions::validate(status, "status");
    let count = items(status, &["conditions"]).len();
    if count > CONDITIONS_MAX {
        errors.push(FieldError::too_many("status.conditions", count, CONDITIONS_MAX));
    }
    errors
}
