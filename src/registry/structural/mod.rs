//! Structural schemas of custom resources: what prunes, defaults and validates their objects
//! (upstream: `apiextensions-apiserver/pkg/apiserver/schema` and `…/validation`).
//!
//! A schema is compiled once into a compact tree ([`node`]); everything walks that tree. [`check`] says what is wrong
//! with a schema itself. Rules are expressions of [`super::cel`], compiled when they are first run ([`evaluate`]).

pub mod check;
mod compile;
mod correlate;
mod data;
mod default;
mod definition;
mod embedded;
mod evaluate;
mod failure;
mod field_path;
mod list_type;
mod node;
mod numbers;
mod prune;
mod rules;
#[cfg(test)]
mod tests;
mod validate;

pub use check::{check, check_with_status};

use super::cel;
use super::field::{ErrorType, FieldError};
use super::schema::{Definition, ListType};
use super::strategy::Object;
use node::Node;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

/// Why a schema cannot be compiled; a schema that passed [`check`] can.
#[derive(Debug, thiserror::Error)]
pub enum StructuralError {
    #[error("OpenAPIV3Schema must be an object")]
    NotAnObject,
    #[error("OpenAPIV3Schema '{0}' is not supported")]
    Unsupported(&'static str),
    #[error("OpenAPIV3Schema 'items' must be a schema, but is an array")]
    ItemsArray,
    #[error("OpenAPIV3Schema 'type' must not be {0:?}")]
    Type(String),
    #[error("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined")]
    PreserveFalse,
}

/// A compiled schema of one version of a custom resource.
#[derive(Debug)]
pub struct Structural {
    root: Node,
    has_defaults: bool,
    has_embedded: bool,
    has_unique_lists: bool,
    /// The data as rules see it; made when rules are first run.
    data: OnceLock<Option<Arc<cel::Decl>>>,
}

impl Structural {
    /// Compiles `openAPIV3Schema`.
    pub fn compile(openapi_v3_schema: &Value) -> Result<Arc<Self>, StructuralError> {
        let root = compile::node(openapi_v3_schema, &mut compile::Texts::default())?;
        let unique = |node: &Node| matches!(node.list_type, Some(ListType::Set | ListType::Map));
        Ok(Arc::new(Self {
            has_defaults: root.any(&|node| node.default.is_some()),
            has_embedded: root.any(&|node| node.embedded),
            has_unique_lists: root.any(&unique),
            data: OnceLock::new(),
            root,
        }))
    }

    /// Drops what the schema does not know: unknown members, unknown metadata, nulls that may not be.
    /// The paths of the members dropped, as field validation names them.
    pub fn prune(&self, object: &mut Object) -> Vec<String> {
        let mut dropped = prune::metadata(object, &self.root);
        dropped.extend(prune::unknown(object, &self.root));
        prune::nulls_of(object, &self.root);
        dropped
    }

    /// Sets what is absent, or null without being nullable, to its default. Doing it twice changes nothing.
    pub fn default(&self, object: &mut Object) {
        if self.has_defaults {
            default::object(object, &self.root);
        }
    }

    /// What is wrong with an object that was pruned and defaulted. With `old`, what did not change may stay wrong.
    pub fn validate(&self, new: &Object, old: Option<&Object>) -> Vec<FieldError> {
        // The walk is over values; an object is wrapped without its contents being copied more than once.
        let value = Value::Object(new.clone());
        let before = old.map(|old| Value::Object(old.clone()));
        let correlated = before.as_ref().map(|value| correlate::Old {
            value,
            node: &self.root,
        });
        let mut errors = self.violations(&value, correlated);
        if self.has_embedded {
            errors.extend(embedded::validate(new, &self.root, ""));
        }
        if self.has_unique_lists && old.is_none_or(|old| list_type::validate(old, &self.root, "").is_empty()) {
            errors.extend(list_type::validate(new, &self.root, ""));
        }
        if self.root.has_rules {
            if errors.iter().any(is_blocking) {
                let detail = "some validation rules were not checked because the object was invalid; correct the \
                              existing errors to complete validation";
                errors.push(FieldError::invalid("<nil>", Value::Null, detail));
            } else if let Some(data) = self.data.get_or_init(|| data::declared(&self.root, true)) {
                errors.extend(evaluate::object(&self.root, data, &value, before.as_ref()));
            }
        }
        errors
    }

    fn violations(&self, value: &Value, old: Option<correlate::Old<'_>>) -> Vec<FieldError> {
        let mut seen = HashSet::new();
        validate::validate(&self.root, value, old)
            .into_iter()
            .map(|failure| failure.into_error(None))
            .filter(|error| seen.insert(error.to_string()))
            .collect()
    }

    /// The schema in the form that decoding and server-side apply read. Built anew on every call: keep it.
    pub fn definition(&self, name: &str) -> Arc<Definition> {
        definition::resource(name, &self.root)
    }
}

/// Whether an error leaves the shape of the object in doubt, so that rules cannot be run.
fn is_blocking(error: &FieldError) -> bool {
    matches!(
        error.kind,
        ErrorType::NotSupported
            | ErrorType::Required
            | ErrorType::TooLong
            | ErrorType::TooMany
            | ErrorType::TypeInvalid
    )
}
