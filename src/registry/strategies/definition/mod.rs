//! CustomResourceDefinitions (upstream: `apiextensions-apiserver/pkg/registry/customresourcedefinition`,
//! `pkg/apis/apiextensions/v1/defaults.go`).
//!
//! - [`validate`]: the object, its names, its status; [`versions`]: what stands in each version;
//!   [`conversion`]: who converts between versions; [`approval`]: groups of the Kubernetes community.
//!
//! Conditions and accepted names are set by the controller of definitions; what is served follows from them.

mod approval;
mod conversion;
#[cfg(test)]
mod tests;
mod validate;
mod versions;

use crate::registry::columns::extension::DEFINITION;
use crate::registry::field::FieldError;
use crate::registry::json::{child_or_new, children, default_text, default_to, items, objects, text};
use crate::registry::strategy::{Column, Dependents, Object, Strategy, Target, default_prepare_for_update};
use serde_json::{Value, json};

/// Held until all instances of a deleted definition are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub struct DefinitionStrategy;

impl Strategy for DefinitionStrategy {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Object) {
        let spec = child_or_new(object, "spec");
        let names = child_or_new(spec, "names");
        let kind = text(names, &["kind"]).to_owned();
        if !kind.is_empty() {
            default_text(names, "singular", &kind.to_lowercase());
            default_text(names, "listKind", &format!("{kind}List"));
        }
        let conversion = child_or_new(spec, "conversion");
        if conversion.is_empty() {
            conversion.insert("strategy".into(), json!("None"));
        }
        if let Some(service) = conversion
            .get_mut("webhook")
            .and_then(|webhook| webhook.get_mut("clientConfig")?.get_mut("service")?.as_object_mut())
        {
            default_to(service, "port", 443);
        }
        for version in children(spec, "versions") {
            // No `omitempty`: what is not said is false.
            default_to(version, "served", false);
            default_to(version, "storage", false);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.insert("status".into(), json!({}));
        add_stored_version(object);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
        if target == Target::Main {
            add_stored_version(object);
        }
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        validate::definition(object, None)
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        match target {
            Target::Main => validate::definition(object, Some(old)),
            Target::Status | Target::Subresource(_) => validate::status(object),
        }
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let unchanged = old.is_some_and(|old| old.get("spec") == object.get("spec"));
        if unchanged {
            return Vec::new();
        }
        let known = old.map(versions::warnings).unwrap_or_default();
        let mut warnings = versions::warnings(object);
        warnings.retain(|warning| !known.contains(warning));
        warnings
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    /// Its own controller takes its content away.
    fn dependents(&self) -> Dependents {
        Dependents::Ignored
    }

    /// A first deletion only marks: the instances go first.
    fn is_held(&self, object: &Object) -> bool {
        text(object, &["metadata", "deletionTimestamp"]).is_empty()
    }

    fn mark_deleted(&self, object: &mut Object) {
        let metadata = child_or_new(object, "metadata");
        metadata.remove("deletionGracePeriodSeconds");
        // Upstream does not count this change.
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".into(), json!(generation - 1));
        }
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER)
        {
            finalizers.push(json!(CLEANUP_FINALIZER));
        }
        let now = text(object, &["metadata", "deletionTimestamp"]).to_owned();
        let condition = json!({
            "type": "Terminating", "status": "True", "lastTransitionTime": now, "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        });
        let status = child_or_new(object, "status");
        let conditions = status.entry("conditions").or_insert_with(|| json!([]));
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != "Terminating");
            conditions.push(condition);
        }
    }

    fn columns(&self) -> Vec<Column> {
        (DEFINITION.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (DEFINITION.cells)(object, now)
    }
}

/// The storage version is one that objects may be stored in from now on.
fn add_stored_version(object: &mut Object) {
    let storage = objects(object, &["spec", "versions"])
        .find(|(_, version)| version.get("storage") == Some(&Value::Bool(true)))
        .map(|(_, version)| text(version, &["name"]).to_owned());
    let Some(storage) = storage else { return };
    if items(object, &["status", "storedVersions"])
        .iter()
        .any(|version| *version == storage)
    {
        return;
    }
    let status = child_or_new(object, "status");
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(stored) = stored.as_array_mut() {
        stored.push(json!(storage));
    }
}

/// Whether a condition of the status is True.
fn has_condition(object: &Object, kind: &str) -> bool {
    objects(object, &["status", "conditions"])
        .any(|(_, condition)| text(condition, &["type"]) == kind && text(condition, &["status"]) == "True")
}
