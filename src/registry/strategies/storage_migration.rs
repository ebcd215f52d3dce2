//! StorageVersionMigrations (upstream: `pkg/registry/storagemigration`, `pkg/apis/storagemigration/validation`).

use super::stored::{Printer, Stored};
use crate::registry::columns::column;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_subdomain};
use crate::registry::json::{objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::json;

pub fn strategy() -> Stored {
    Stored::new(PRINTER)
        .generation()
        .rules(validate)
        .update_rules(|new, old| Vec::from_iter(immutable(new.get("spec"), old.get("spec"), "spec")))
        .status(|| json!({}))
}

const PRINTER: Printer = Printer {
    columns: || {
        vec![
            column("Name", "string"),
            column("Resource", "string"),
            column("Status", "string"),
        ]
    },
    cells: |migration, _now| {
        let resource = |field: &str| text(migration, &["spec", "resource", field]);
        let dot = if resource("group").is_empty() { "" } else { "." };
        vec![
            json!(text(migration, &["metadata", "name"])),
            json!(format!("{}{dot}{}", resource("resource"), resource("group"))),
            json!(status(migration)),
        ]
    },
};

/// The condition that holds, the last stage first.
fn status(migration: &Object) -> &'static str {
    let holds = |kind: &str| {
        objects(migration, &["status", "conditions"])
            .any(|(_, condition)| text(condition, &["type"]) == kind && text(condition, &["status"]) == "True")
    };
    ["Succeeded", "Failed", "Running"]
        .into_iter()
        .find(|kind| holds(kind))
        .unwrap_or("Pending")
}

fn validate(migration: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (group, resource) = (
        text(migration, &["spec", "resource", "group"]),
        text(migration, &["spec", "resource", "resource"]),
    );
    if !group.is_empty() {
        for problem in dns1123_subdomain(group, false) {
            errors.push(FieldError::invalid("spec.resource.group", group, &problem));
        }
    }
    if resource.is_empty() {
        errors.push(FieldError::required("spec.resource.resource", "resource is required"));
    } else {
        for problem in dns1035_label(resource, false) {
            errors.push(FieldError::invalid("spec.resource.resource", resource, &problem));
        }
    }
    errors
}
