//! Namespaces (upstream: `pkg/registry/core/namespace/strategy.go` and its storage).

use crate::registry::columns::core::NAMESPACE;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, label_key};
use crate::registry::json::{at, child_or_new, items, restore, text};
use crate::registry::strategy::{Column, Dependents, Object, Rejection, Strategy, Target, default_prepare_for_update};
use serde_json::{Value, json};

/// The finalizer of the controller that empties namespaces.
const FINALIZER: &str = "kubernetes";
/// The label that lets selectors name a namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// What the cluster cannot do without.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The strategy of namespaces.
pub struct NamespaceStrategy;

fn label_with_name(object: &mut Object) {
    let name = text(object, &["metadata", "name"]).to_owned();
    if !name.is_empty() {
        child_or_new(child_or_new(object, "metadata"), "labels").insert(NAME_LABEL.into(), json!(name));
    }
}

fn finalizer(name: &str) -> Vec<FieldError> {
    let path = "spec.finalizers";
    let mut errors: Vec<FieldError> = label_key(name)
        .iter()
        .map(|problem| FieldError::invalid(path, name, problem))
        .collect();
    if !name.contains('/') && ![FINALIZER, "orphan", "foregroundDeletion"].contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, detail));
    }
    errors
}

impl Strategy for NamespaceStrategy {
    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        dns1123_label(name, is_prefix)
    }

    fn default(&self, object: &mut Object) {
        label_with_name(object);
        let status = child_or_new(object, "status");
        if text(status, &["phase"]).is_empty() {
            status.insert("phase".into(), json!("Active"));
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        // Once more: a generated name was not there when defaults were set.
        label_with_name(object);
        object.insert("status".into(), json!({"phase": "Active"}));
        let spec = child_or_new(object, "spec");
        let finalizers = items(spec, &["finalizers"]);
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            let finalizers: Vec<Value> = finalizers.iter().cloned().chain([json!(FINALIZER)]).collect();
            spec.insert("finalizers".into(), json!(finalizers));
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let finalizers = items(object, &["spec", "finalizers"]).iter().filter_map(Value::as_str);
        finalizers.flat_map(finalizer).collect()
    }

    fn validate_update(&self, object: &Object, _old: &Object, target: Target) -> Vec<FieldError> {
        let phase = text(object, &["status", "phase"]);
        let is_deleted = at(object, &["metadata", "deletionTimestamp"]).is_some();
        let detail = match (target, is_deleted, phase) {
            (Target::Status, false, phase) if phase != "Active" => {
                "may only be 'Active' if `deletionTimestamp` is empty"
            }
            (Target::Status, true, phase) if phase != "Terminating" => {
                "may only be 'Terminating' if `deletionTimestamp` is not empty"
            }
            _ => return Vec::new(),
        };
        vec![FieldError::invalid("status.Phase", phase, detail)]
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        match target {
            Target::Main => {
                restore(object, old, "spec");
                restore(object, old, "status");
            }
            Target::Status => default_prepare_for_update(object, old, target),
            // Finalizing writes spec.finalizers, and the spec holds nothing else.
            Target::Subresource(_) => restore(object, old, "status"),
        }
    }

    fn check_delete(&self, object: &Object) -> Result<(), Rejection> {
        if IMMORTAL.contains(&text(object, &["metadata", "name"])) {
            return Err(Rejection::Forbidden("this namespace may not be deleted".to_owned()));
        }
        Ok(())
    }

    /// Its own controller takes its content away.
    fn dependents(&self) -> Dependents {
        Dependents::Ignored
    }

    fn is_held(&self, object: &Object) -> bool {
        !items(object, &["spec", "finalizers"]).is_empty()
    }

    fn mark_deleted(&self, object: &mut Object) {
        child_or_new(object, "status").insert("phase".into(), json!("Terminating"));
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("status.phase", text(object, &["status", "phase"]).to_owned())]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn selects_namespace(&self) -> bool {
        false
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        (NAMESPACE.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (NAMESPACE.cells)(object, now)
    }
}
