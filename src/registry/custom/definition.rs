//! From the bytes of a CustomResourceDefinition to rows of the table, one per version
//! (upstream: `getOrCreateServingInfoFor` of the custom resource handler).

use super::columns::PrinterColumn;
use super::conversion::Conversion;
use super::path::JsonPath;
use super::schema::Schemas;
use super::strategy::CustomStrategy;
use super::{CustomKind, ScalePaths, SelectableField, compare_versions};
use crate::registry::intern::{intern, intern_list};
use crate::registry::{Kind, Scope, Subresource};
use crate::storage::Entry;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use tokio_util::sync::CancellationToken;

/// Where definitions are stored.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Of a definition that is being deleted.
const VERBS_TERMINATING: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];
const VERBS_OF_SUBRESOURCES: &[&str] = &["get", "patch", "update"];

#[derive(Debug, thiserror::Error)]
#[error("the stored definition {name} is unreadable: {source}")]
pub struct DefinitionError {
    name: String,
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct Definition<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: &'a RawValue,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Metadata {
    uid: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    scope: String,
    #[serde(default)]
    versions: Vec<Version>,
    #[serde(default)]
    conversion: Conversion,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    name: String,
    served: bool,
    storage: bool,
    deprecated: bool,
    deprecation_warning: Option<String>,
    subresources: Subresources,
    additional_printer_columns: Vec<Column>,
    selectable_fields: Vec<Field>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subresources {
    status: Option<serde::de::IgnoredAny>,
    scale: Option<Scale>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Scale {
    spec_replicas_path: String,
    status_replicas_path: String,
    label_selector_path: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    format: String,
    description: String,
    priority: i32,
    json_path: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Field {
    json_path: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    accepted_names: Names,
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Names {
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
    short_names: Vec<String>,
    categories: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Status {
    fn is_true(&self, kind: &str) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.kind == kind && condition.status == "True")
    }
}

/// The rows of the definition that `entry` holds, those that it had before taken into account: no rows if it is not
/// established, the old ones if nothing changed.
pub fn rows(entry: &Entry, before: &[Arc<Kind>]) -> Result<Vec<Arc<Kind>>, DefinitionError> {
    let failed = |source| DefinitionError {
        name: entry.key.name.to_string(),
        source,
    };
    let definition: Definition<'_> = serde_json::from_slice(&entry.bytes).map_err(failed)?;
    let status = &definition.status;
    if !status.is_true("Established") {
        return Ok(Vec::new());
    }
    let terminating = definition.metadata.deletion_timestamp.is_some() || status.is_true("Terminating");
    let mut digest = Sha256::new();
    digest.update(&definition.metadata.uid);
    digest.update(definition.spec.get());
    let names = &status.accepted_names;
    for name in [&names.plural, &names.singular, &names.kind, &names.list_kind] {
        digest.update([0]);
        digest.update(name);
    }
    for list in [&names.short_names, &names.categories] {
        digest.update([1]);
        list.iter().for_each(|name| digest.update(format!("{name},")));
    }
    let digest = hex::encode(digest.finalize());
    // Objects are as they were while only the condition of the definition changes.
    let same = before
        .first()
        .and_then(|kind| kind.custom.as_ref())
        .filter(|custom| custom.digest == digest);
    if same.is_some_and(|custom| custom.terminating == terminating) {
        return Ok(before.to_vec());
    }
    let (written_since, retired) = match same {
        Some(custom) => (custom.written_since, custom.retired.clone()),
        None => (entry.revision, CancellationToken::new()),
    };
    let spec: Spec = serde_json::from_str(definition.spec.get()).map_err(failed)?;
    let builder = Builder {
        entry,
        spec: &spec,
        names,
        uid: &definition.metadata.uid,
        terminating,
        digest,
        written_since,
        retired,
    };
    Ok(builder.rows())
}

struct Builder<'a> {
    entry: &'a Entry,
    spec: &'a Spec,
    names: &'a Names,
    uid: &'a str,
    terminating: bool,
    digest: String,
    written_since: u64,
    retired: CancellationToken,
}

impl Builder<'_> {
    fn rows(&self) -> Vec<Arc<Kind>> {
        let schemas = self.spec.versions.iter().map(|version| {
            let name = open_api_name(&self.spec.group, &version.name, &self.names.kind);
            (intern(&version.name), name)
        });
        let schemas = Schemas::new(&self.entry.bytes, schemas);
        let storage = self.spec.versions.iter().find(|version| version.storage);
        let storage = storage.map_or("", |version| version.name.as_str());
        let versions = self
            .spec
            .versions
            .iter()
            .filter(|version| version.served || version.storage);
        versions.map(|version| self.row(version, storage, &schemas)).collect()
    }

    fn row(&self, version: &Version, storage: &str, schemas: &Arc<Schemas>) -> Arc<Kind> {
        let (group, kind) = (intern(&self.spec.group), intern(&self.names.kind));
        let name = intern(&version.name);
        let custom = Arc::new(self.custom(version, schemas));
        let subresource = |name, (group, version, kind)| Subresource {
            name,
            group,
            version,
            kind,
            verbs: VERBS_OF_SUBRESOURCES,
            connect: false,
        };
        let mut subresources = Vec::new();
        if custom.scale.is_some() {
            subresources.push(subresource("scale", ("autoscaling", "v1", "Scale")));
        }
        if custom.has_status {
            subresources.push(subresource("status", (group, name, kind)));
        }
        Arc::new(Kind {
            group,
            version: name,
            kind,
            list_kind: self.names.list_kind.clone(),
            resource: intern(&self.names.plural),
            singular: self.names.singular.clone(),
            short_names: intern_list(&self.names.short_names),
            categories: intern_list(&self.names.categories),
            scope: if self.spec.scope == "Namespaced" {
                Scope::Namespaced
            } else {
                Scope::Cluster
            },
            verbs: if self.terminating { VERBS_TERMINATING } else { VERBS },
            subresources,
            storage_resource: custom.definition,
            storage_group_version: intern(&format!("{group}/{storage}")),
            // Its schema is not schemars'.
            json_schema: |_| schemars::Schema::default(),
            definition: open_api_name(group, name, kind),
            strategy: Arc::new(CustomStrategy::new(custom.clone(), self.spec.scope == "Namespaced")),
            custom: Some(custom),
        })
    }

    fn custom(&self, version: &Version, schemas: &Arc<Schemas>) -> CustomKind {
        let selectable: Vec<SelectableField> = version
            .selectable_fields
            .iter()
            .filter_map(|field| {
                Some(SelectableField {
                    name: intern(field.json_path.trim_start_matches('.')),
                    path: JsonPath::parse(&field.json_path).ok()?,
                })
            })
            .collect();
        let names: Vec<&str> = selectable.iter().map(|field| field.name).collect();
        let scale = version.subresources.scale.as_ref().map(|scale| ScalePaths {
            spec_replicas: scale.spec_replicas_path.clone(),
            status_replicas: scale.status_replicas_path.clone(),
            label_selector: scale.label_selector_path.clone().filter(|path| !path.is_empty()),
        });
        let warning = version.deprecation_warning.clone();
        CustomKind {
            definition: intern(&self.entry.key.name),
            uid: self.uid.to_owned(),
            served: version.served,
            terminating: self.terminating,
            deprecation_warning: version
                .deprecated
                .then(|| warning.unwrap_or_else(|| self.deprecation(version))),
            has_status: version.subresources.status.is_some(),
            scale,
            conversion: self.spec.conversion.webhook(),
            digest: self.digest.clone(),
            columns: printer_columns(&version.additional_printer_columns),
            selectable_names: intern_list(&names),
            selectable,
            schemas: schemas.clone(),
            // Every version of the definition has one.
            schema: schemas
                .version(&version.name)
                .cloned()
                .unwrap_or_else(|| unreachable!("a version without a schema")),
            written_since: self.written_since,
            all_current: AtomicBool::new(false),
            not_current: AtomicU64::new(u64::MAX),
            retired: self.retired.clone(),
        }
    }

    /// What is said of a deprecated version whose author says nothing.
    fn deprecation(&self, version: &Version) -> String {
        let Spec { group, versions, .. } = self.spec;
        let kind = &self.names.kind;
        let text = format!("{group}/{} {kind} is deprecated", version.name);
        let better = versions
            .iter()
            .filter(|other| other.served && !other.deprecated && compare_versions(&version.name, &other.name).is_lt())
            .max_by(|left, right| compare_versions(&left.name, &right.name));
        match better {
            Some(better) => format!("{text}; use {group}/{} {kind}", better.name),
            None => text,
        }
    }
}

/// The columns after the name; with one that cannot be understood there is none.
fn printer_columns(columns: &[Column]) -> Vec<PrinterColumn> {
    if columns.is_empty() {
        return vec![PrinterColumn::age()];
    }
    let parsed = columns.iter().map(|column| {
        Some(PrinterColumn::new(
            &column.name,
            &column.kind,
            &column.format,
            &column.description,
            column.priority,
            &column.json_path,
            JsonPath::parse(&column.json_path).ok()?,
        ))
    });
    parsed.collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// `com.example.stable.v1.CronTab` for the kind CronTab of stable.example.com/v1.
fn open_api_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.extend([version, kind]);
    parts.join(".")
}
