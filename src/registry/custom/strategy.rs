//! The strategy of custom resources: what a schema says instead of code
//! (upstream: `apiextensions-apiserver/pkg/registry/customresource/{strategy,status_strategy,validator}.go`).

use super::{CustomKind, columns, scale};
use crate::registry::field::FieldError;
use crate::registry::formats::label_key;
use crate::registry::json::{items, restore};
use crate::registry::projection::Parts;
use crate::registry::strategy::{Column, Object, Strategy, Target};
use serde_json::Value;
use std::sync::Arc;

/// Finalizers that are no names of a domain.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

pub struct CustomStrategy {
    kind: Arc<CustomKind>,
    namespaced: bool,
}

impl CustomStrategy {
    pub fn new(kind: Arc<CustomKind>, namespaced: bool) -> Self {
        Self { kind, namespaced }
    }

    fn validate(&self, object: &Object, old: Option<&Object>, target: Target) -> Vec<FieldError> {
        let mut errors = self.kind.schema().structural().validate(object, old);
        if let Some(paths) = &self.kind.scale {
            errors.extend(scale::validate(object, paths, target == Target::Main));
        }
        errors
    }
}

impl Strategy for CustomStrategy {
    fn has_generation(&self) -> bool {
        true
    }

    fn status_is_intent(&self) -> bool {
        !self.kind.has_status
    }

    fn default(&self, object: &mut Object) {
        self.kind.schema().structural().default(object);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        if self.kind.has_status {
            object.shift_remove("status");
        }
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        match target {
            Target::Main if self.kind.has_status => match old.get("status") {
                Some(status) => {
                    object.insert("status".into(), status.clone());
                }
                None => {
                    object.shift_remove("status");
                }
            },
            Target::Main | Target::Subresource(_) => {}
            // Metadata is not the status's, either, but for who set what.
            Target::Status => {
                let status = object.shift_remove("status");
                let metadata = object.remove("metadata");
                *object = old.clone();
                if let (Some(Value::Object(old)), Some(Value::Object(new))) = (object.get_mut("metadata"), metadata) {
                    restore(old, &new, "managedFields");
                    restore(old, &new, "resourceVersion");
                }
                match status {
                    Some(status) => object.insert("status".into(), status),
                    None => object.shift_remove("status"),
                };
            }
        }
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        self.validate(object, None, Target::Main)
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        self.validate(object, Some(old), target)
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let path = &["metadata", "finalizers"];
        let known = old.map_or(&[][..], |old| items(old, path));
        let mut added: Vec<&str> = items(object, path)
            .iter()
            .filter(|finalizer| !known.contains(finalizer))
            .filter_map(Value::as_str)
            .collect();
        added.sort_unstable();
        added.into_iter().flat_map(finalizer_warnings).collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let fields = self.kind.selectable.iter();
        fields.map(|field| (field.name, field.value(object))).collect()
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        self.kind.selectable_names
    }

    fn selects_namespace(&self) -> bool {
        self.namespaced
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        columns::columns(&self.kind.columns)
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        columns::cells(&self.kind.columns, object, now)
    }

    /// Columns may show anything.
    fn cells_read(&self) -> Parts {
        Parts::All
    }
}

fn finalizer_warnings(name: &str) -> Vec<String> {
    let warning = |text: &str| format!("metadata.finalizers: {name:?}: {text}");
    let mut warnings: Vec<String> = label_key(name).iter().map(|problem| warning(problem)).collect();
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let path = if name.contains('.') {
            " including a path (/)"
        } else {
            ""
        };
        warnings.push(warning(&format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        )));
    }
    warnings
}
