//! What the servers of other groups say of them, in the documents of this one
//! (upstream: `kube-aggregator/pkg/controllers/openapi{,v3}/aggregator`, `kube-openapi/pkg/aggregator`).

use super::documents::Document;
use crate::apiserver::aggregation::Swagger;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const REFERENCE: &str = "#/definitions/";

/// The documents of other servers.
#[derive(Default)]
pub struct Extensions {
    /// Tells states apart.
    pub generation: u64,
    /// Where the documents of version 3 are, by key.
    pub v3: BTreeMap<String, String>,
    /// The documents of version 3 of those that have none, by key.
    pub made: BTreeMap<String, Document>,
    pub v2: Vec<Swagger>,
}

impl Extensions {
    /// Adds paths and definitions to a document of version 2.
    pub fn merge_into(&self, document: &mut Value) {
        for swagger in &self.v2 {
            match serde_json::from_slice(&swagger.json) {
                Ok(other) => merge(document, other, &swagger.group_version),
                Err(error) => {
                    tracing::warn!(%error, group_version = swagger.group_version, "another server's OpenAPI is unreadable");
                }
            }
        }
    }
}

/// The paths below one group-version, and the definitions that they refer to. A definition whose name is taken by another
/// gets a name of its own.
fn merge(document: &mut Value, mut other: Value, group_version: &str) {
    let prefix = format!("/apis/{group_version}/");
    let take = |value: &mut Value| match value.take() {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    let mut paths = take(&mut other["paths"]);
    paths.retain(|path, _| path.starts_with(&prefix));
    let theirs = take(&mut other["definitions"]);
    let mut needed = BTreeSet::new();
    paths.values().for_each(|path| references(path, &theirs, &mut needed));
    let (Some(Value::Object(known_paths)), Some(ours)) = (
        document.get("paths").cloned(),
        document.get("definitions").and_then(Value::as_object).cloned(),
    ) else {
        return;
    };
    let mut names = BTreeMap::new();
    for name in &needed {
        if ours.get(name).is_some_and(|known| Some(known) != theirs.get(name)) {
            let mut numbered = (2..).map(|number| format!("{name}_v{number}"));
            let free = numbered.find(|name| !ours.contains_key(name) && !theirs.contains_key(name));
            names.insert(name.clone(), free.unwrap_or_default());
        }
    }
    for path in paths.values_mut() {
        rename(path, &names);
    }
    paths.retain(|path, _| !known_paths.contains_key(path));
    if let Some(Value::Object(all)) = document.get_mut("paths") {
        all.extend(paths);
    }
    if let Some(Value::Object(all)) = document.get_mut("definitions") {
        for (name, mut definition) in theirs.into_iter().filter(|(name, _)| needed.contains(name)) {
            rename(&mut definition, &names);
            all.insert(names.get(&name).cloned().unwrap_or(name), definition);
        }
    }
}

/// The names of definitions that a value refers to, directly or through others.
fn references(value: &Value, definitions: &Map<String, Value>, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            let name = object
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|path| path.strip_prefix(REFERENCE));
            if let Some(name) = name
                && let Some(definition) = definitions.get(name)
                && found.insert(name.to_owned())
            {
                references(definition, definitions, found);
            }
            object.values().for_each(|value| references(value, definitions, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, definitions, found)),
        _ => {}
    }
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            let reference = object.get("$ref").and_then(Value::as_str);
            let renamed = reference
                .and_then(|path| path.strip_prefix(REFERENCE))
                .and_then(|name| names.get(name));
            if let Some(name) = renamed {
                object.insert("$ref".to_owned(), format!("{REFERENCE}{name}").into());
            }
            object.values_mut().for_each(|value| rename(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_part_of_a_group_version_is_added_and_what_it_needs() {
        let reference = |name: &str| json!({"$ref": format!("{REFERENCE}{name}")});
        let mut ours = json!({
            "paths": {"/apis/apps/v1/": {"get": 1}},
            "definitions": {"Meta": {"type": "object", "description": "ours"}, "Time": {"type": "string"}},
        });
        let theirs = json!({
            "paths": {
                "/apis/wardle.example.com/v1/flunders": {"get": reference("Flunder")},
                "/apis/wardle.example.com/v2/flunders": {"get": reference("Other")},
                "/apis/apps/v1/": {"get": 2},
            },
            "definitions": {
                "Flunder": {"properties": {"metadata": reference("Meta"), "parts": {"items": reference("Flunder")}}},
                "Meta": {"type": "object", "properties": {"at": reference("Time")}},
                "Time": {"type": "string"},
                "Other": {},
            },
        });
        merge(&mut ours, theirs, "wardle.example.com/v1");
        assert_eq!(
            ours,
            json!({
                "paths": {
                    "/apis/apps/v1/": {"get": 1},
                    "/apis/wardle.example.com/v1/flunders": {"get": reference("Flunder")},
                },
                "definitions": {
                    "Meta": {"type": "object", "description": "ours"},
                    "Time": {"type": "string"},
                    "Flunder": {"properties": {"metadata": reference("Meta_v2"), "parts": {"items": reference("Flunder")}}},
                    "Meta_v2": {"type": "object", "properties": {"at": reference("Time")}},
                },
            })
        );
    }
}
