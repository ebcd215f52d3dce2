//! PartialObjectMetadata: objects reduced to their metadata (upstream: `meta/v1` and `handlers/response.go`).
//!
//! Of a stored object the metadata is copied as it stands: watches of metadata see every write of every kind.

use super::stored;
use crate::apiserver::error::ApiError;
use crate::registry::Kind;
use crate::registry::strategy::Object;
use crate::storage::Entry;
use serde_json::{Value, json};
use std::sync::Arc;

/// `version` is that of `meta.k8s.io`.
pub fn object(object: &Object, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// The same of a stored object, as JSON.
pub fn of_entry(kind: &Kind, entry: &Entry, version: &str) -> Result<String, ApiError> {
    let metadata = stored::metadata(kind, entry)?;
    Ok(format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":{metadata}}}"#
    ))
}

/// A list of them with the metadata of the list they come from, as JSON.
pub fn list(kind: &Kind, entries: &[Arc<Entry>], metadata: &Value, version: &str) -> Result<String, ApiError> {
    let mut json = format!(
        r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/{version}","metadata":{metadata},"items":["#
    );
    for (position, entry) in entries.iter().enumerate() {
        if position > 0 {
            json.push(',');
        }
        json.push_str(&of_entry(kind, entry, version)?);
    }
    json.push_str("]}");
    Ok(json)
}
