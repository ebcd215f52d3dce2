//! What each kind does: the table of all kinds, and a strategy per kind that needs one
//! (upstream: `pkg/registry`, `pkg/apis`, `pkg/printers`).
//!
//! - [`rows`]: one row per kind and version, in discovery order. Adding a kind is one row.
//! - [`table`]: the rows, looked up by resource, kind and storage; custom kinds come and go.
//! - [`custom`]: kinds that come from CustomResourceDefinitions; [`intern`]: their names.
//! - [`strategy`]: the trait; one file per kind with rules of its own under `strategies/`.
//! - [`schema`]: the compact schema that decoding, patching and protobuf walk along.
//! - [`managed`]: who owns which field, and server-side apply.
//! - [`scale`]: how many there should be of what a kind stands for.
//! - [`validation`]: names, labels, metadata: rules that all kinds share.
//! - [`selector`]: label and field selectors.
//! - [`columns`]: human durations and other helpers of the printers; [`projection`]: which parts of objects they read.
//! - [`field`]: field errors.
//! - [`structural`]: schemas of custom resources; [`cel`]: the expression language of their rules.
//! - [`policy`]: admission policies and webhooks, compiled; what requests they are for; [`client_config`]: where webhooks are.
//! - [`patterns`], [`string_formats`]: regular expressions and formats of strings that schemas name.
//! - [`resource_metrics`]: kinds that k8s-openapi does not have.
//! - [`network`]: IP addresses and ranges.
//! - [`priority_and_fairness`]: the flow schemas and priority levels that every cluster has.

pub mod cel;
pub mod client_config;
pub mod columns;
#[cfg(test)]
mod contract_tests;
pub mod custom;
pub mod field;
pub mod formats;
pub mod intern;
pub mod json;
pub mod lifecycle;
pub mod managed;
pub mod network;
pub mod patterns;
pub mod policy;
pub mod priority_and_fairness;
pub mod projection;
pub mod reset_fields;
pub mod resource_metrics;
mod row;
mod rows;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod strategies;
pub mod strategy;
pub mod string_formats;
pub mod structural;
pub mod table;
#[cfg(test)]
mod tests;
pub mod validation;

use crate::storage::Index;
use serde_json::Value;
use std::sync::Arc;
use strategy::{Object, Strategy};

pub use table::{CustomGroup, Group, Registry, Snapshot};

/// Where the objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A path below an object and what it speaks (`pods/binding`, `deployments/scale`).
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`, `scale`, `log`, `exec`, …
    pub name: &'static str,
    /// Group, version and kind of what is sent and returned, where it is not the kind's own.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Verbs as discovery shows them, sorted: `get`, `patch`, `update`, `create`.
    pub verbs: &'static [&'static str],
    /// The verbs are CONNECT in OpenAPI (`exec`, `attach`, `portforward`, `proxy`).
    pub connect: bool,
}

/// One served kind in one version: a row of the table.
#[derive(Clone)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: String,
    /// Plural, lower case: the segment of the URL.
    pub resource: &'static str,
    pub singular: String,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub scope: Scope,
    /// As discovery shows them, sorted. Empty for kinds that are not stored (reviews are `create` only).
    pub verbs: &'static [&'static str],
    pub subresources: Vec<Subresource>,
    /// The group-resource under which objects are stored: the same for all versions of one kind
    /// (`events` for both Event groups, `deployments.apps`).
    pub storage_resource: &'static str,
    /// Group-version in which the bytes are stored; where it is not this row's own, `Strategy::convert_*` is used.
    pub storage_group_version: &'static str,
    /// Adds the kind's schema and all it refers to to a schemars generator; the definition's name is upstream's.
    pub json_schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    /// `io.k8s.api.core.v1.Pod`.
    pub definition: String,
    pub strategy: Arc<dyn Strategy>,
    /// Set for kinds of custom resources.
    pub custom: Option<Arc<custom::CustomKind>>,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn group_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
    /// `pods` or `deployments.apps`: how messages name the resource.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
    /// It comes from a CustomResourceDefinition.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// What selectors and the garbage collector need of `object`, which is in its storage version.
pub fn index_of(kind: &Kind, object: &Object) -> Index {
    Index {
        fields: kind.strategy.fields(object),
        ..metadata_index(object)
    }
}

/// The part of the index that every kind has.
pub fn metadata_index(object: &Object) -> Index {
    let Some(Value::Object(metadata)) = object.get("metadata") else {
        return Index::default();
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut labels: Vec<(String, String)> = match metadata.get("labels") {
        Some(Value::Object(labels)) => labels
            .iter()
            .map(|(key, value)| (key.clone(), text(Some(value))))
            .collect(),
        _ => Vec::new(),
    };
    labels.sort_unstable();
    let owner_uids = match metadata.get("ownerReferences") {
        Some(Value::Array(owners)) => owners.iter().map(|owner| text(owner.get("uid"))).collect(),
        _ => Vec::new(),
    };
    Index {
        uid: text(metadata.get("uid")),
        labels,
        fields: Vec::new(),
        owner_uids,
    }
}
