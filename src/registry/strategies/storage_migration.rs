//! StorageVersionMigrations (upstream: `pkg/registry/storagemigration`, `pkg/apis/storagemigration/validation`).

use super::conditions;
use super::stored::{Printer, Stored};
use crate::registry::columns::column;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_subdomain};
use crate::registry::json::{items, map, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::{IMMUTABLE, immutable};
use serde_json::json;

pub fn strategy() -> Stored {
    Stored::new(PRINTER)
        .generation()
        .rules(validate)
        .update_rules(|new, old| Vec::from_iter(immutable(new.get("spec"), old.get("spec"), "spec")))
        .status_rules(validate_status)
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
    ["Succeeded", "Failed", "Running"]
        .into_iter()
        .find(|kind| holds(migration, kind))
        .unwrap_or("Pending")
}

fn holds(migration: &Object, kind: &str) -> bool {
    objects(migration, &["status", "conditions"])
        .any(|(_, condition)| text(condition, &["type"]) == kind && text(condition, &["status"]) == "True")
}

fn validate(migration: &Object) -> Vec<FieldError> {
    let part = |field: &str| {
        (
            format!("spec.resource.{field}"),
            text(migration, &["spec", "resource", field]),
        )
    };
    let mut errors = Vec::new();
    let mut refuse = |path: String, value: &str, problems: Vec<String>| {
        if !problems.is_empty() {
            errors.push(FieldError::invalid(path, value, &problems.join(",")));
        }
    };
    let ((resource_path, resource), (group_path, group)) = (part("resource"), part("group"));
    if !resource.is_empty() {
        refuse(resource_path.clone(), resource, dns1035_label(resource, false));
    }
    if !group.is_empty() {
        refuse(group_path, group, dns1123_subdomain(group, false));
    }
    if resource.is_empty() {
        errors.insert(0, FieldError::required(resource_path, "resource is required to be set"));
    }
    errors
}

fn validate_status(migration: &Object, old: &Object) -> Vec<FieldError> {
    let path = "status.resourceVersion";
    let version = |migration| text(migration, &["status", "resourceVersion"]);
    let (now, before) = (version(migration), version(old));
    let mut errors = Vec::new();
    let well_formed = now.bytes().all(|byte| byte.is_ascii_digit()) && !now.starts_with('0');
    if !well_formed {
        let detail = format!("resource version is not well formed: {now}");
        errors.push(FieldError::invalid(path, now, &detail));
    }
    if let Some(status) = map(migration, &["status"]) {
        errors.extend(conditions::validate(status, "status"));
    }
    if !before.is_empty() && now != before {
        errors.push(FieldError::invalid(path, now, IMMUTABLE));
    }
    let both = holds(migration, "Succeeded") && holds(migration, "Failed");
    let taken_back = |kind: &str| holds(old, kind) && !holds(migration, kind);
    for (wrong, detail) in [
        (
            both,
            "Both success and failed conditions cannot be true at the same time",
        ),
        (
            taken_back("Succeeded"),
            "Success condition cannot be set to false once it is true",
        ),
        (
            taken_back("Failed"),
            "Failed condition cannot be set to false once it is true",
        ),
    ] {
        if wrong {
            let shown = items(migration, &["status", "conditions"]).to_vec();
            errors.push(FieldError::invalid("status.conditions", shown, detail));
        }
    }
    errors
}
