//! DeviceTaintRules (upstream: `pkg/registry/resource/devicetaintrule`, `pkg/apis/resource/validation`).

use super::stored::{Printer, Stored};
use crate::registry::columns::{age, column, name_column, since};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_subdomain, label_key, label_value};
use crate::registry::json::{child, map, text};
use crate::registry::strategy::Object;
use serde_json::json;

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const POOL_BYTES_MAX: usize = 253;

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
    let selector = map(rule, &["spec", "deviceSelector"]).unwrap_or(&empty);
    let invalid = |path: &str, value: &str, problems: Vec<String>| {
        let error = |problem: &String| FieldError::invalid(path, value, problem);
        problems.iter().map(error).collect::<Vec<_>>()
    };
    if let driver @ 1.. = text(selector, &["driver"]).len() {
        let path = "spec.deviceSelector.driver";
        if driver > 63 {
            errors.push(FieldError::too_long(path, 63));
        }
        let driver = text(selector, &["driver"]);
        errors.extend(invalid(path, driver, dns1123_subdomain(&driver.to_lowercase(), false)));
    }
    let pool = text(selector, &["pool"]);
    if pool.len() > POOL_BYTES_MAX {
        errors.push(FieldError::too_long("spec.deviceSelector.pool", POOL_BYTES_MAX));
    }
    if !pool.is_empty() {
        for part in pool.split('/') {
            errors.extend(invalid(
                "spec.deviceSelector.pool",
                part,
                dns1123_subdomain(part, false),
            ));
        }
    }
    let taint = map(rule, &["spec", "taint"]).unwrap_or(&empty);
    match text(taint, &["key"]) {
        "" => errors.push(FieldError::required("spec.taint.key", "")),
        key => errors.extend(invalid("spec.taint.key", key, label_key(key))),
    }
    let value = text(taint, &["value"]);
    errors.extend(invalid("spec.taint.value", value, label_value(value)));
    match text(taint, &["effect"]) {
        "" => errors.push(FieldError::required("spec.taint.effect", "")),
        effect if EFFECTS.contains(&effect) => {}
        effect => errors.push(FieldError::not_supported("spec.taint.effect", effect, &EFFECTS)),
    }
    errors
}
