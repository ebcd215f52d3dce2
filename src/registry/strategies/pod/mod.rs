//! Pods (upstream: `pkg/registry/core/pod/strategy.go`).

mod aggregate;
pub mod defaults;
mod label_keys;
mod qos;
mod resize;
mod status;
#[cfg(test)]
mod tests;
mod update;
pub mod validate;
mod warnings;

pub use aggregate::total_requests;
pub use qos::class as qos_class;

use crate::registry::columns::pod as printer;
use crate::registry::field::FieldError;
use crate::registry::json::{boolean, child, child_or_new, default_text, integer, is_set, objects, restore, text};
use crate::registry::projection::Parts;
use crate::registry::strategy::{Column, Deletion, Object, Strategy, Target, default_prepare_for_update};
use serde_json::{Value, json};

/// The strategy of pods.
pub struct PodStrategy;

const SELECTABLE: [&str; 10] = [
    "spec.nodeName",
    "spec.host",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

impl Strategy for PodStrategy {
    /// Resizing and debugging change the spec by subresources of their own.
    fn counts_generation(&self, target: Target) -> bool {
        target.is_main() || matches!(target, Target::Subresource("resize" | "ephemeralcontainers"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Object) {
        defaults::pod(object);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        let empty = Object::new();
        let spec = object.get("spec").and_then(Value::as_object).unwrap_or(&empty);
        let mut status = json!({"phase": "Pending", "qosClass": qos_class(spec)});
        if is_set(spec, "schedulingGates") {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        object.insert("status".into(), status);
        label_keys::merge(object);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        match target {
            Target::Main => default_prepare_for_update(object, old, target),
            Target::Status => {
                default_prepare_for_update(object, old, target);
                let old_class = text(old, &["status", "qosClass"]).to_owned();
                default_text(child_or_new(object, "status"), "qosClass", &old_class);
                status::complete(object);
                if let Some(metadata) = child(object, "metadata") {
                    let empty = Object::new();
                    let old_metadata = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
                    restore(metadata, old_metadata, "ownerReferences");
                }
            }
            Target::Subresource(name) => update::keep_only(object, old, name),
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        validate::pod(object)
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        validate::pod_create(object)
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        match target {
            Target::Main => update::validate(object, old),
            Target::Status => status::validate(object, old),
            Target::Subresource("ephemeralcontainers") => {
                let mut errors = validate::pod(object);
                errors.extend(update::validate_ephemeral_containers(object, old));
                errors
            }
            Target::Subresource("resize") => {
                let mut errors = validate::pod(object);
                errors.extend(resize::validate(object, old));
                errors
            }
            Target::Subresource(_) => Vec::new(),
        }
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        warnings::pod(object, old)
    }

    fn deletion(&self, object: &Object, requested: Option<i64>) -> Deletion {
        let grace = requested
            .or_else(|| integer(object, &["spec", "terminationGracePeriodSeconds"]))
            .unwrap_or(0);
        let unscheduled = text(object, &["spec", "nodeName"]).is_empty();
        let finished = matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed");
        match grace {
            _ if unscheduled || finished => Deletion::Immediate,
            0 => Deletion::Immediate,
            ..0 => Deletion::Graceful { grace_seconds: 1 },
            grace_seconds => Deletion::Graceful { grace_seconds },
        }
    }

    fn deletes_gracefully(&self) -> bool {
        true
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let field = |path: &[&str]| text(object, path).to_owned();
        let first_ip = objects(object, &["status", "podIPs"])
            .next()
            .map_or("", |(_, ip)| text(ip, &["ip"]));
        let pod_ip = match text(object, &["status", "podIP"]) {
            "" => first_ip,
            ip => ip,
        };
        vec![
            ("spec.nodeName", field(&["spec", "nodeName"])),
            ("spec.restartPolicy", field(&["spec", "restartPolicy"])),
            ("spec.schedulerName", field(&["spec", "schedulerName"])),
            ("spec.serviceAccountName", field(&["spec", "serviceAccountName"])),
            (
                "spec.hostNetwork",
                boolean(object, &["spec", "hostNetwork"]).to_string(),
            ),
            ("status.phase", field(&["status", "phase"])),
            ("status.podIP", pod_ip.to_owned()),
            ("status.nominatedNodeName", field(&["status", "nominatedNodeName"])),
        ]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &SELECTABLE
    }

    fn field_alias<'a>(&self, field: &'a str) -> &'a str {
        if field == "spec.host" { "spec.nodeName" } else { field }
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        printer::columns()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        printer::cells(object, now)
    }

    fn cells_read(&self) -> Parts {
        printer::READ
    }

    fn row_conditions(&self, object: &Object) -> Option<Value> {
        printer::row_conditions(object)
    }
}
