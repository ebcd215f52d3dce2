//! APIGroupDiscoveryList: everything in one document (upstream: `endpoints/discovery/aggregated`).

use super::AGGREGATED_VERSIONS;
use crate::apiserver::aggregation::Aggregator;
use crate::registry::{Group, Kind, Snapshot};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

const GROUP: &str = "apidiscovery.k8s.io";
const KIND: &str = "APIGroupDiscoveryList";

pub struct Document {
    pub json: Bytes,
    /// Quoted, as the header carries it.
    pub etag: String,
    /// With the parameters: without them clients take it for the legacy document.
    pub content_type: String,
}

impl Document {
    /// `core`: only the core group, as `/api` serves it; otherwise all others.
    pub fn new(snapshot: &Snapshot, aggregator: &Aggregator, version: &str, core: bool) -> Self {
        let items: Vec<Value> = aggregator
            .groups(snapshot.groups())
            .iter()
            .filter(|group| group.name.is_empty() == core)
            .map(|group| describe(snapshot, aggregator, group))
            .collect();
        let document = json!({
            "kind": KIND, "apiVersion": format!("{GROUP}/{version}"), "metadata": {}, "items": items,
        });
        let json = document.to_string();
        let etag = format!("\"{}\"", hex::encode_upper(Sha512::digest(&json)));
        let content_type = format!("application/json;g={GROUP};v={version};as={KIND}");
        Self {
            json: json.into(),
            etag,
            content_type,
        }
    }
}

/// The index of the version that an Accept header prefers to plain JSON; None: it wants the legacy form.
pub fn preferred(accept: &str) -> Option<usize> {
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !matches!(media_type, "application/json" | "application/*" | "*/*") {
            continue;
        }
        let parameters: Vec<&str> = parts.collect();
        if !parameters.iter().any(|parameter| parameter.starts_with("as=")) {
            return None;
        }
        let says = |text: String| parameters.contains(&text.as_str());
        if says(format!("as={KIND}")) && says(format!("g={GROUP}")) {
            let version = AGGREGATED_VERSIONS
                .iter()
                .position(|version| says(format!("v={version}")));
            if version.is_some() {
                return version;
            }
        }
    }
    None
}

fn describe(snapshot: &Snapshot, aggregator: &Aggregator, group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            if let Some(elsewhere) = aggregator.discovery(group.name, version) {
                return elsewhere;
            }
            let kinds = snapshot.kinds_in(group.name, version);
            let resources: Vec<Value> = kinds.iter().map(|kind| resource(kind)).collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".into(), json!(group.name));
    }
    metadata.insert("creationTimestamp".into(), Value::Null);
    json!({ "metadata": metadata, "versions": versions })
}

fn resource(kind: &Kind) -> Value {
    let mut object = Map::new();
    object.insert("resource".into(), json!(kind.resource));
    object.insert(
        "responseKind".into(),
        response_kind(kind.group, kind.version, kind.kind),
    );
    object.insert(
        "scope".into(),
        json!(if kind.namespaced() { "Namespaced" } else { "Cluster" }),
    );
    object.insert("singularResource".into(), json!(kind.singular));
    object.insert("verbs".into(), json!(kind.verbs));
    if !kind.short_names.is_empty() {
        object.insert("shortNames".into(), json!(kind.short_names));
    }
    if !kind.categories.is_empty() {
        object.insert("categories".into(), json!(kind.categories));
    }
    if !kind.subresources.is_empty() {
        let subresources = kind.subresources.iter().map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": response_kind(sub.group, sub.version, sub.kind),
                "verbs": sub.verbs,
            })
        });
        object.insert("subresources".into(), subresources.collect());
    }
    Value::Object(object)
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::storage::{Options, Storage};

    #[test]
    fn the_first_clause_that_can_be_served_counts() {
        let v2 = format!("application/json;g={GROUP};v=v2;as={KIND}");
        let v2beta1 = format!("application/json;g={GROUP};v=v2beta1;as={KIND}");
        assert_eq!(preferred(&format!("{v2},{v2beta1},application/json")), Some(0));
        assert_eq!(preferred(&format!("{v2beta1},application/json")), Some(1));
        assert_eq!(
            preferred(&format!("{v2};profile=nopeer,{v2},application/json")),
            Some(0)
        );
        assert_eq!(preferred(&format!("application/json,{v2}")), None);
        assert_eq!(preferred("*/*"), None);
    }

    #[tokio::test]
    async fn etag_and_type_are_upstreams() {
        let storage = Storage::open(Options::memory(), Registry::builtin()).await.unwrap();
        let aggregator = Aggregator::new(storage, None);
        let document = Document::new(&Registry::builtin().snapshot(), &aggregator, "v2", true);
        assert_eq!(document.etag.len(), 130);
        assert_eq!(
            document.content_type,
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        let value: Value = serde_json::from_slice(&document.json).unwrap();
        assert_eq!(value["items"][0]["versions"][0]["version"], "v1");
    }
}
