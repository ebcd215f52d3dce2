//! Kinds that come from CustomResourceDefinitions (upstream: `kubernetes/apiextensions-apiserver`).
//!
//! - [`definition`]: what serving needs of a definition, read from its bytes; rows made of it.
//! - [`strategy`]: the one strategy of all custom resources; [`scale`]: its rules about replicas.
//! - [`schema`]: the schemas of a definition's versions, compiled when they are first needed.
//! - [`conversion`]: who converts between versions.
//! - [`columns`] and [`path`]: cells by JSON path.
//! - [`versions`]: which version of a group is preferred.

mod columns;
mod conversion;
mod definition;
mod path;
mod scale;
mod schema;
mod strategy;
#[cfg(test)]
mod tests;
mod versions;

pub use conversion::WebhookConversion;
pub use definition::{DEFINITIONS, DefinitionError, rows};
pub use path::{JsonPath, PathError};
pub use scale::ScalePaths;
pub use schema::{Schemas, VersionSchema};
pub use versions::compare_versions;

use super::Kind;
use super::strategy::Object;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// What a custom kind's row has beyond a built-in one's.
#[derive(Debug)]
pub struct CustomKind {
    /// The name of the definition: `<plural>.<group>`.
    pub definition: &'static str,
    pub uid: String,
    /// The version can be asked for. The stored version has a row also if it cannot.
    pub served: bool,
    /// The definition is being deleted: nothing may be created.
    pub terminating: bool,
    /// What every request for a deprecated version is told.
    pub deprecation_warning: Option<String>,
    /// The status is a subresource.
    pub has_status: bool,
    /// The scale subresource, if there is one.
    pub scale: Option<ScalePaths>,
    /// Who converts between versions, if it is not done by renaming alone.
    pub conversion: Option<WebhookConversion>,
    /// SHA-256 of all that the row was made of, in hexadecimal: what is derived from equal rows is equal.
    pub digest: String,
    columns: Vec<columns::PrinterColumn>,
    selectable: Vec<SelectableField>,
    /// As [`SelectableField::name`], for the strategy.
    selectable_names: &'static [&'static str],
    schemas: Arc<Schemas>,
    schema: Arc<VersionSchema>,
    /// Objects up to this revision may have been written under another schema.
    written_since: u64,
    /// No object in the store is so old, or the present schema changes nothing of those that are.
    all_current: AtomicBool,
    /// The state of the store in which that was looked for in vain.
    not_current: AtomicU64,
    retired: CancellationToken,
}

#[derive(Debug)]
struct SelectableField {
    /// `spec.color`
    name: &'static str,
    path: JsonPath,
}

impl CustomKind {
    /// The schema of this version.
    pub fn schema(&self) -> &VersionSchema {
        &self.schema
    }

    /// Cancelled when the definition has changed or is gone: who follows its objects must look again.
    pub fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Whether an object with this revision was written under the present schema and storage version.
    pub fn is_current(&self, revision: u64) -> bool {
        revision > self.written_since
    }

    /// Whether all objects are as they would be read. `look` finds out; `changed` names the state that it sees. Once
    /// it is so, it stays so.
    pub fn all_current(&self, changed: u64, look: impl FnOnce() -> bool) -> bool {
        if self.all_current.load(Ordering::Relaxed) {
            return true;
        }
        if self.not_current.load(Ordering::Relaxed) == changed {
            return false;
        }
        let current = look();
        self.all_current.store(current, Ordering::Relaxed);
        self.not_current.store(changed, Ordering::Relaxed);
        current
    }

    /// Brings an object as it was stored into the version of `kind`, whose part this is: renamed, pruned and
    /// defaulted. False: only a webhook can convert it.
    pub fn convert(&self, kind: &Kind, object: &mut Object) -> bool {
        let wanted = kind.group_version();
        let stored = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if stored != wanted {
            if self.conversion.is_some() {
                return false;
            }
            let version = stored.rsplit('/').next().unwrap_or_default();
            if let Some(schema) = self.schemas.version(version) {
                schema.structural().prune(object);
                schema.structural().default(object);
            }
            object.insert("apiVersion".into(), Value::String(wanted));
        }
        self.schema.structural().prune(object);
        self.schema.structural().default(object);
        true
    }

    /// Brings an object of this version into the one in which it is stored.
    pub fn to_storage(&self, object: &mut Object, storage_group_version: &str) {
        object.insert("apiVersion".into(), Value::String(storage_group_version.to_owned()));
        let version = storage_group_version.rsplit('/').next().unwrap_or_default();
        if let Some(schema) = self.schemas.version(version) {
            schema.structural().prune(object);
            schema.structural().default(object);
        }
    }

    /// The value of a selectable field; None: it is none.
    pub fn selectable(&self, object: &Object, field: &str) -> Option<String> {
        let field = self.selectable.iter().find(|known| known.name == field)?;
        Some(field.value(object))
    }
}

impl SelectableField {
    fn value(&self, object: &Object) -> String {
        match self.path.first(object) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}
