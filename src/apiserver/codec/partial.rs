//! PartialObjectMetadata: objects reduced to their metadata (upstream: `meta/v1` and `handlers/response.go`).

use crate::registry::strategy::Object;
use serde_json::{Value, json};

/// `version` is that of `meta.k8s.io`.
pub fn object(object: &Object, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// A list of them with the metadata of the list they come from.
pub fn list(objects: &[Object], metadata: Value, version: &str) -> Value {
    let items: Vec<Value> = objects.iter().map(|item| object(item, version)).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "items": items,
    })
}
