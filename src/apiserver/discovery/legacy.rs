//! The documents that every client understands: APIVersions, APIGroupList, APIGroup, APIResourceList.

use crate::registry::{Group, Kind, Registry, Subresource};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

pub fn versions(registry: &Registry) -> Value {
    let core = registry.snapshot().group("");
    json!({
        "kind": "APIVersions",
        "versions": core.map(|group| group.versions.clone()).unwrap_or_default(),
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "" }],
    })
}

pub fn groups(groups: &[Group]) -> Value {
    let groups: Vec<Value> = groups
        .iter()
        .filter(|group| !group.name.is_empty())
        .map(|group| describe(group, false))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

pub fn group(groups: &[Group], name: &str) -> Option<Value> {
    let group = groups.iter().find(|group| group.name == name && !name.is_empty())?;
    Some(describe(group, true))
}

fn describe(group: &Group, typed: bool) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{}/{version}", group.name), "version": version }))
        .collect();
    let mut object = Map::new();
    if typed {
        object.insert("kind".into(), json!("APIGroup"));
        object.insert("apiVersion".into(), json!("v1"));
    }
    object.insert("name".into(), json!(group.name));
    object.insert("preferredVersion".into(), versions.first().cloned().unwrap_or_default());
    object.insert("versions".into(), Value::Array(versions));
    Value::Object(object)
}

pub fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut group_version = None;
    let mut resources = Vec::new();
    for kind in &registry.snapshot().kinds_in(group, version) {
        group_version = Some(kind.group_version());
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|sub| subresource(kind, sub)));
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version?, "resources": resources,
    }))
}

fn resource(kind: &Kind) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(kind.resource));
    object.insert("singularName".into(), json!(kind.singular));
    object.insert("namespaced".into(), json!(kind.namespaced()));
    object.insert("kind".into(), json!(kind.kind));
    object.insert("verbs".into(), json!(kind.verbs));
    if !kind.short_names.is_empty() {
        object.insert("shortNames".into(), json!(kind.short_names));
    }
    if !kind.categories.is_empty() {
        object.insert("categories".into(), json!(kind.categories));
    }
    if kind.has_verb("get") {
        object.insert("storageVersionHash".into(), json!(storage_version_hash(kind)));
    }
    Value::Object(object)
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(format!("{}/{}", kind.resource, sub.name)));
    object.insert("singularName".into(), json!(""));
    object.insert("namespaced".into(), json!(kind.namespaced()));
    if (sub.group, sub.version) != (kind.group, kind.version) {
        object.insert("group".into(), json!(sub.group));
        object.insert("version".into(), json!(sub.version));
    }
    object.insert("kind".into(), json!(sub.kind));
    object.insert("verbs".into(), json!(sub.verbs));
    Value::Object(object)
}

/// Tells clients when the stored form of a kind changes.
fn storage_version_hash(kind: &Kind) -> String {
    let version = kind.storage_group_version;
    // The core group's name is empty, and its slash stays.
    let slash = if version.contains('/') { "" } else { "/" };
    let digest = Sha256::digest(format!("{slash}{version}/{}", kind.kind));
    STANDARD.encode(&digest[..8])
}
