//! What is wrong with a definition (upstream: `apiextensions-apiserver/pkg/apis/apiextensions/validation`).
//!
//! Upstream validates its internal type, in which what is the same in all versions stands once, above them. Paths
//! are therefore `spec.validation.…` for most definitions, and `spec.versions[i].schema.…` for the others.

use super::versions::{self, Hoisted};
use super::{approval, conversion, has_condition};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_subdomain};
use crate::registry::json::{items, map, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use serde_json::{Value, json};

static NOTHING: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);

/// The whole definition, before it is written.
pub fn definition(object: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = map(object, &["spec"]).unwrap_or(&NOTHING);
    if old.is_none() {
        let name = text(object, &["metadata", "name"]);
        if name != format!("{}.{}", text(spec, &["names", "plural"]), text(spec, &["group"])) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", name, detail));
        }
    }
    errors.extend(validate_spec(spec, old));
    if let Some(old) = old {
        let old_spec = map(old, &["spec"]).unwrap_or(&NOTHING);
        let same = |path: &[&str]| {
            let at = |spec| crate::registry::json::at(spec, path);
            immutable(at(spec), at(old_spec), &format!("spec.{}", path.join(".")))
        };
        if has_condition(old, "Established") {
            errors.extend(same(&["scope"]));
            errors.extend(same(&["names", "kind"]));
        }
        errors.extend(same(&["group"]));
        errors.extend(same(&["names", "plural"]));
    }
    errors.extend(status(object));
    errors.extend(stored_versions(object));
    errors.extend(approval::validate(object, old));
    let preserves = |object: &Object| {
        map(object, &["spec"]).is_some_and(|spec| spec.get("preserveUnknownFields") == Some(&Value::Bool(true)))
    };
    if preserves(object) && !old.is_some_and(preserves) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema \
                      instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
    errors
}

/// What a write of the status is checked for.
pub fn status(object: &Object) -> Vec<FieldError> {
    match map(object, &["status", "acceptedNames"]) {
        Some(accepted) => names(accepted, "status.acceptedNames"),
        None => Vec::new(),
    }
}

fn validate_spec(spec: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let group = text(spec, &["group"]);
    let problems = dns1123_subdomain(group, false);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !problems.is_empty() {
        errors.push(FieldError::invalid("spec.group", group, &problems.join(",")));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(FieldError::invalid("spec.group", group, detail));
    }
    match text(spec, &["scope"]) {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported(
            "spec.scope",
            other,
            &["Cluster", "Namespaced"],
        )),
    }
    let hoisted = Hoisted::of(spec);
    let versions = items(spec, &["versions"]);
    for (index, version) in objects(spec, &["versions"]) {
        if map(version, &["schema", "openAPIV3Schema"]).is_none() {
            let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
            errors.push(FieldError::required(path, ""));
        }
    }
    for (index, version) in objects(spec, &["versions"]) {
        let name = text(version, &["name"]);
        let problems = dns1035_label(name, false);
        if !problems.is_empty() {
            let path = format!("spec.versions[{index}].name");
            errors.push(FieldError::invalid(path, name, &problems.join(",")));
        }
        errors.extend(versions::validate(version, index, &hoisted, old));
    }
    let mut seen = std::collections::BTreeSet::new();
    let unique = objects(spec, &["versions"]).all(|(_, version)| seen.insert(text(version, &["name"])));
    if !unique {
        let detail = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", shown(versions, &hoisted), detail));
    }
    let storage =
        objects(spec, &["versions"]).filter(|(_, version)| version.get("storage") == Some(&Value::Bool(true)));
    if storage.count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", shown(versions, &hoisted), detail));
    }
    let spec_names = map(spec, &["names"]).unwrap_or(&NOTHING);
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(spec_names, &[field]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    errors.extend(names(spec_names, "spec.names"));
    if let Some(first) = versions.first().and_then(Value::as_object) {
        errors.extend(versions::validate_hoisted(first, &hoisted, old));
    }
    if let Some(given) = map(spec, &["conversion"]) {
        let preserves = spec.get("preserveUnknownFields") == Some(&Value::Bool(true));
        let strategy = text(given, &["strategy"]);
        if preserves && strategy != "None" {
            let detail = "must be None if spec.preserveUnknownFields is true";
            errors.push(FieldError::invalid("spec.conversion.strategy", strategy, detail));
        }
        let old_conversion = old.and_then(|old| map(old, &["spec", "conversion"]));
        let recognized = conversion::is_recognized(old_conversion);
        errors.extend(conversion::validate(given, recognized, "spec.conversion"));
    }
    errors
}

/// The versions as upstream's internal type shows them.
fn shown(versions: &[Value], hoisted: &Hoisted) -> Value {
    let field = |version: &Value, name: &str, hoisted: bool| match hoisted {
        true => Value::Null,
        false => version.get(name).cloned().unwrap_or_default(),
    };
    versions
        .iter()
        .map(|version| {
            json!({
                "Name": version["name"], "Served": version["served"], "Storage": version["storage"],
                "Deprecated": version.get("deprecated").cloned().unwrap_or(json!(false)),
                "DeprecationWarning": version.get("deprecationWarning").cloned().unwrap_or_default(),
                "Schema": field(version, "schema", hoisted.schema),
                "Subresources": field(version, "subresources", hoisted.subresources),
                "AdditionalPrinterColumns": field(version, "additionalPrinterColumns", hoisted.columns),
                "SelectableFields": field(version, "selectableFields", hoisted.selectable),
            })
        })
        .collect()
}

fn names(names: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let label = |name: &str| dns1035_label(name, false).join(",");
    for field in ["plural", "singular"] {
        let name = text(names, &[field]);
        if !name.is_empty() && !label(name).is_empty() {
            errors.push(FieldError::invalid(format!("{path}.{field}"), name, &label(name)));
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(names, &[field]);
        let problems = label(&name.to_lowercase());
        if !name.is_empty() && !problems.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {problems}");
            errors.push(FieldError::invalid(format!("{path}.{field}"), name, &detail));
        }
    }
    let mut list = |field: &str| {
        for (index, name) in items(names, &[field]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            if !label(name).is_empty() {
                errors.push(FieldError::invalid(
                    format!("{path}.{field}[{index}]"),
                    name,
                    &label(name),
                ));
            }
        }
    };
    list("shortNames");
    let (kind, list_kind) = (text(names, &["kind"]), text(names, &["listKind"]));
    if !kind.is_empty() && kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{path}.listKind"), list_kind, detail));
    }
    for (index, category) in items(names, &["categories"]).iter().enumerate() {
        let category = category.as_str().unwrap_or_default();
        if !label(category).is_empty() {
            let at = format!("{path}.categories[{index}]");
            errors.push(FieldError::invalid(at, category, &label(category)));
        }
    }
    errors
}

/// No version may go that objects may still be stored in.
fn stored_versions(object: &Object) -> Vec<FieldError> {
    const PATH: &str = "status.storedVersions";
    let stored = items(object, &["status", "storedVersions"]);
    if stored.is_empty() {
        return vec![FieldError::invalid(
            PATH,
            json!([]),
            "must have at least one stored version",
        )];
    }
    let mut errors = Vec::new();
    for (_, version) in objects(object, &["spec", "versions"]) {
        let name = text(version, &["name"]);
        if version.get("storage") == Some(&Value::Bool(true)) && !stored.iter().any(|stored| stored == name) {
            let detail = format!("must have the storage version {name}");
            errors.push(FieldError::invalid(PATH, json!(stored), &detail));
        }
    }
    for (index, version) in stored.iter().filter_map(Value::as_str).enumerate() {
        if !objects(object, &["spec", "versions"]).any(|(_, known)| text(known, &["name"]) == version) {
            let detail = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {version} and removes \
                 {version} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("{PATH}[{index}]"), version, &detail));
        }
    }
    errors
}
