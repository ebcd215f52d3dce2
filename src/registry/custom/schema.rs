//! The schemas of a definition's versions. A cluster has many definitions and uses few at a time: a schema is
//! compiled when it is first needed, from the bytes of the definition that the store has anyway.

use crate::registry::schema::Definition;
use crate::registry::structural::Structural;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The schemas of all versions.
#[derive(Debug)]
pub struct Schemas {
    versions: BTreeMap<&'static str, Arc<VersionSchema>>,
}

/// The schema of one version.
#[derive(Debug)]
pub struct VersionSchema {
    /// The whole CustomResourceDefinition, as it is stored.
    definition: Bytes,
    version: &'static str,
    /// `com.example.v1.Widget`
    name: String,
    structural: OnceLock<Arc<Structural>>,
    compact: OnceLock<Arc<Definition>>,
}

impl Schemas {
    /// `names`: the name of the OpenAPI definition of each version.
    pub fn new(definition: &Bytes, names: impl Iterator<Item = (&'static str, String)>) -> Arc<Self> {
        let versions = names.map(|(version, name)| {
            let schema = VersionSchema {
                definition: definition.clone(),
                version,
                name,
                structural: OnceLock::new(),
                compact: OnceLock::new(),
            };
            (version, Arc::new(schema))
        });
        Arc::new(Self {
            versions: versions.collect(),
        })
    }

    pub fn version(&self, version: &str) -> Option<&Arc<VersionSchema>> {
        self.versions.get(version)
    }
}

impl VersionSchema {
    /// `openAPIV3Schema`, parsed anew: it is needed whole only when documents are made.
    pub fn json(&self) -> Value {
        schema_of(&self.definition, self.version).unwrap_or_else(|| json!({"type": "object"}))
    }

    pub fn structural(&self) -> &Structural {
        self.structural.get_or_init(|| {
            Structural::compile(&self.json()).unwrap_or_else(|error| {
                // Only a definition that was never validated leads here; nothing of its objects may get lost.
                tracing::error!(definition = self.name, %error, "a schema cannot be compiled; objects are kept as they are");
                let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
                Structural::compile(&anything).unwrap_or_else(|error| unreachable!("an object is a schema: {error}"))
            })
        })
    }

    /// What decoding, patching and server-side apply read.
    pub fn definition(&self) -> Arc<Definition> {
        self.compact
            .get_or_init(|| self.structural().definition(&self.name))
            .clone()
    }
}

fn schema_of(definition: &[u8], version: &str) -> Option<Value> {
    #[derive(Deserialize)]
    struct Definition<'a> {
        #[serde(borrow)]
        spec: Spec<'a>,
    }
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow)]
        versions: Vec<Version<'a>>,
    }
    #[derive(Deserialize)]
    struct Version<'a> {
        name: String,
        #[serde(borrow)]
        schema: Option<Schema<'a>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Schema<'a> {
        #[serde(borrow, rename = "openAPIV3Schema")]
        open_api: Option<&'a RawValue>,
    }
    let definition: Definition<'_> = serde_json::from_slice(definition).ok()?;
    let version = definition
        .spec
        .versions
        .into_iter()
        .find(|known| known.name == version)?;
    serde_json::from_str(version.schema?.open_api?.get()).ok()
}
