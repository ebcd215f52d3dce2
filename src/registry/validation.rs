//! Rules that all kinds share: names, labels, annotations, metadata
//! (upstream: `apimachinery/pkg/api/validation/objectmeta.go`, `apimachinery/pkg/apis/meta/v1/validation`).

pub use super::formats::*;

use super::Kind;
use super::field::FieldError;
use super::strategy::Object;
use serde_json::Value;
use std::collections::BTreeSet;

/// All keys and values of the annotations together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const FIELD_MANAGER_BYTES_MAX: usize = 128;
const SUBRESOURCE_BYTES_MAX: usize = 256;
/// The text for a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Object, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Metadata of an object to be created, after names were generated and the namespace was filled in.
pub fn object_meta(kind: &Kind, metadata: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let strategy = &kind.strategy;
    let generate_name = text(metadata, "generateName");
    if !generate_name.is_empty() {
        for problem in strategy.validate_name(generate_name, true) {
            errors.push(FieldError::invalid("metadata.generateName", generate_name, &problem));
        }
    }
    match text(metadata, "name") {
        "" => errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        )),
        name => {
            for problem in strategy.validate_name(name, false) {
                errors.push(FieldError::invalid("metadata.name", name, &problem));
            }
        }
    }
    match (kind.namespaced(), text(metadata, "namespace")) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, namespace) => {
            for problem in dns1123_label(namespace, false) {
                errors.push(FieldError::invalid("metadata.namespace", namespace, &problem));
            }
        }
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
    }
    errors.extend(non_negative(metadata.get("generation"), "metadata.generation"));
    errors.extend(object_meta_common(metadata));
    errors.extend(finalizers(metadata));
    if !kind.is_custom() && !OTHER_SERVERS.contains(&kind.group) {
        errors.extend(unqualified_finalizers(metadata));
    }
    errors
}

/// Groups that upstream serves with servers of their own: they let finalizers have any name.
const OTHER_SERVERS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

fn unqualified_finalizers(metadata: &Object) -> Vec<FieldError> {
    let names = list(metadata, "finalizers")
        .iter()
        .filter_map(Value::as_str)
        .enumerate();
    let is_known = |name: &str| ["kubernetes", "orphan", "foregroundDeletion"].contains(&name) || name.contains('/');
    names
        .filter(|(_, name)| !is_known(name))
        .map(|(index, name)| {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            FieldError::invalid(format!("metadata.finalizers[{index}]"), name, detail)
        })
        .collect()
}

/// Metadata of an object to be updated. System fields that clients cannot set were put back by the engine.
pub fn object_meta_update(metadata: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.contains_key("deletionTimestamp") {
        let before: BTreeSet<&str> = list(old, "finalizers").iter().filter_map(Value::as_str).collect();
        let added: BTreeSet<&str> = list(metadata, "finalizers")
            .iter()
            .filter_map(Value::as_str)
            .filter(|f| !before.contains(f))
            .collect();
        if !added.is_empty() {
            let added: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &detail));
        }
    }
    if text(metadata, "resourceVersion").is_empty() {
        let detail = "must be specified for an update";
        errors.push(FieldError::invalid("metadata.resourceVersion", "", detail));
    }
    errors.extend(non_negative(metadata.get("generation"), "metadata.generation"));
    let generation = |metadata: &Object| metadata.get("generation").and_then(Value::as_i64).unwrap_or_default();
    if generation(metadata) < generation(old) {
        let detail = "must not be decremented";
        errors.push(FieldError::invalid("metadata.generation", generation(metadata), detail));
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        errors.extend(immutable(
            metadata.get(field),
            old.get(field),
            &format!("metadata.{field}"),
        ));
    }
    errors.extend(object_meta_common(metadata));
    errors
}

/// What the path behind the domain of [`domain_path`] is made of.
const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";

/// `example.com/name`: a domain and a path, as controllers are named.
pub fn domain_path(value: &str, path: &str) -> Vec<FieldError> {
    if value.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let parts = value.split_once('/');
    let Some((domain, rest)) = parts.filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty()) else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![FieldError::invalid(path, value, detail)];
    };
    let problems = dns1123_subdomain(domain, false);
    let mut errors: Vec<FieldError> = problems
        .iter()
        .map(|problem| FieldError::invalid(path, domain, problem))
        .collect();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(known) {
        let detail = regex_error("Invalid path", HTTP_PATH, &[]);
        errors.push(FieldError::invalid(path, rest, &detail));
    }
    errors
}

/// `field is immutable` unless both are equal.
pub fn immutable(value: Option<&Value>, old: Option<&Value>, path: &str) -> Option<FieldError> {
    (value != old).then(|| FieldError::invalid(path, value.cloned().unwrap_or_default(), IMMUTABLE))
}

/// A number that, if there is one, is not below zero.
pub fn non_negative(value: Option<&Value>, path: &str) -> Option<FieldError> {
    let number = value.and_then(Value::as_i64)?;
    (number < 0).then(|| FieldError::invalid(path, number, "must be greater than or equal to 0"))
}

fn object_meta_common(metadata: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(Value::Object(labels_map)) = metadata.get("labels") {
        errors.extend(labels(labels_map, "metadata.labels"));
    }
    if let Some(Value::Object(annotations_map)) = metadata.get("annotations") {
        errors.extend(annotations(annotations_map, "metadata.annotations"));
    }
    errors.extend(owner_references(metadata));
    errors.extend(managed_fields(metadata));
    errors
}

/// Keys and values of labels at `path`.
pub fn labels(labels: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        for problem in label_key(key) {
            errors.push(FieldError::invalid(path, key.as_str(), &problem));
        }
        let value = value.as_str().unwrap_or_default();
        for problem in label_value(value) {
            errors.push(FieldError::invalid(path, value, &problem));
        }
    }
    errors
}

/// Keys and the total size of annotations at `path`.
pub fn annotations(annotations: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations {
        for problem in label_key(&key.to_lowercase()) {
            errors.push(FieldError::invalid(path, key.as_str(), &problem));
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
    errors
}

fn owner_references(metadata: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for (index, owner) in list(metadata, "ownerReferences").iter().enumerate() {
        let Some(owner) = owner.as_object() else { continue };
        let (api_version, kind, name) = (text(owner, "apiVersion"), text(owner, "kind"), text(owner, "name"));
        let field = |name: &str| format!("{path}[{index}].{name}");
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if api_version.is_empty() {
            errors.push(FieldError::required(field("apiVersion"), "must not be empty"));
        } else if version.is_empty() || api_version.matches('/').count() > 1 {
            let detail = "must be <group>/<version> or <version>";
            errors.push(FieldError::invalid(field("apiVersion"), api_version, detail));
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, key).is_empty() {
                errors.push(FieldError::required(field(key), "must not be empty"));
            }
        }
        if (api_version, kind) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(format!("{path}[{index}]"), owner.clone(), detail));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{kind}/{name}");
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. \
                         Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(FieldError::invalid(
                        path,
                        list(metadata, "ownerReferences").to_vec(),
                        &detail,
                    ));
                }
            }
        }
    }
    errors
}

fn finalizers(metadata: &Object) -> Vec<FieldError> {
    let path = "metadata.finalizers";
    let mut errors = Vec::new();
    let names: Vec<&str> = list(metadata, "finalizers").iter().filter_map(Value::as_str).collect();
    for name in &names {
        for problem in label_key(name) {
            errors.push(FieldError::invalid(path, *name, &problem));
        }
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, list(metadata, "finalizers").to_vec(), detail));
    }
    errors
}

fn managed_fields(metadata: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, entry) in list(metadata, "managedFields").iter().enumerate() {
        let Some(entry) = entry.as_object() else { continue };
        let field = |name: &str| format!("metadata.managedFields[{index}].{name}");
        match text(entry, "operation") {
            "Apply" | "Update" => {}
            "" => errors.push(FieldError::required(field("operation"), "must not be empty")),
            other => errors.push(FieldError::not_supported(
                field("operation"),
                other,
                &["Apply", "Update"],
            )),
        }
        match text(entry, "fieldsType") {
            "" | "FieldsV1" => {}
            other => errors.push(FieldError::invalid(field("fieldsType"), other, "must be `FieldsV1`")),
        }
        errors.extend(field_manager(text(entry, "manager"), &field("manager")));
        if text(entry, "subresource").len() > SUBRESOURCE_BYTES_MAX {
            errors.push(FieldError::too_long(field("subresource"), SUBRESOURCE_BYTES_MAX));
        }
    }
    errors
}

/// The name of a field manager, also as a query option.
pub fn field_manager(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > FIELD_MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long(path, FIELD_MANAGER_BYTES_MAX));
    }
    for (position, character) in name.char_indices().filter(|(_, character)| character.is_control()) {
        let detail = format!(
            "invalid character U+{:04X} (at position {position})",
            u32::from(character)
        );
        errors.push(FieldError::invalid(path, name, &detail));
    }
    errors
}

/// Metadata of an object embedded in another: any name will do, and there may be none.
pub fn embedded_meta(metadata: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, is_prefix) in [("generateName", true), ("name", false)] {
        let name = text(metadata, key);
        if !name.is_empty() {
            for problem in path_segment(name, is_prefix) {
                errors.push(FieldError::invalid(format!("metadata.{key}"), name, &problem));
            }
        }
    }
    let namespace = text(metadata, "namespace");
    if !namespace.is_empty() {
        for problem in dns1123_label(namespace, false) {
            errors.push(FieldError::invalid("metadata.namespace", namespace, &problem));
        }
    }
    errors.extend(non_negative(metadata.get("generation"), "metadata.generation"));
    errors.extend(object_meta_common(metadata));
    errors.extend(finalizers(metadata));
    errors
}
