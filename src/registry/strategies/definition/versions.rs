//! What stands in a version of a definition: schema, subresources, columns, selectable fields
//! (upstream: `validateCustomResourceDefinitionVersion` and what it calls).

use crate::registry::field::FieldError;
use crate::registry::json::{at, items, map, objects, text};
use crate::registry::strategy::Object;
use crate::registry::structural;
use serde_json::Value;
use std::collections::BTreeSet;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
const SELECTABLE_FIELDS_MAX: usize = 8;
const DEPRECATION_WARNING_BYTES_MAX: usize = 256;
/// Which fields are the same in all versions.
#[derive(Clone, Copy)]
pub struct Hoisted {
    pub schema: bool,
    pub subresources: bool,
    pub columns: bool,
    pub selectable: bool,
}

impl Hoisted {
    pub fn of(spec: &Object) -> Self {
        let versions = items(spec, &["versions"]);
        let same = |field: &str| {
            let first = versions.first().and_then(|version| version.get(field));
            versions.iter().all(|version| version.get(field) == first)
        };
        Self {
            schema: same("schema"),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }
}

/// The fields of one version that differ from those of others.
pub fn validate(version: &Object, index: usize, hoisted: &Hoisted, old: Option<&Object>) -> Vec<FieldError> {
    let path = format!("spec.versions[{index}]");
    let mut errors = deprecation_warning(version, &format!("{path}.deprecationWarning"));
    if !hoisted.schema {
        errors.extend(schema(version, &format!("{path}.schema"), old));
    }
    if !hoisted.subresources {
        errors.extend(subresources(version, &format!("{path}.subresources")));
    }
    if !hoisted.columns {
        errors.extend(columns(version, &format!("{path}.additionalPrinterColumns")));
    }
    if !hoisted.selectable {
        errors.extend(selectable_fields(version, &format!("{path}.selectableFields")));
    }
    errors
}

/// The fields that all versions have in common; `version` is any of them.
pub fn validate_hoisted(version: &Object, hoisted: &Hoisted, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if hoisted.schema {
        errors.extend(schema(version, "spec.validation", old));
    }
    if hoisted.subresources {
        errors.extend(subresources(version, "spec.subresources"));
    }
    if hoisted.columns {
        errors.extend(columns(version, "spec.additionalPrinterColumns"));
    }
    if hoisted.selectable {
        errors.extend(selectable_fields(version, "spec.selectableFields"));
    }
    errors
}

fn deprecation_warning(version: &Object, path: &str) -> Vec<FieldError> {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
        return Vec::new();
    };
    let invalid = |detail: &str| FieldError::invalid(path, warning, detail);
    if version.get("deprecated") != Some(&Value::Bool(true)) {
        return vec![invalid("can only be set for deprecated versions")];
    }
    let mut errors = Vec::new();
    if warning.len() > DEPRECATION_WARNING_BYTES_MAX {
        errors.push(invalid("must be <= 256 characters long"));
    }
    if warning.is_empty() {
        errors.push(invalid("must not be an empty string"));
    }
    if let Some((position, _)) = warning.char_indices().find(|(_, character)| character.is_control()) {
        errors.push(invalid(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {position}"
        )));
    }
    errors
}

/// The schema at `path`, which is that of its holder. What is as it was before was accepted before.
fn schema(version: &Object, path: &str, old: Option<&Object>) -> Vec<FieldError> {
    let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) else {
        return Vec::new();
    };
    let name = text(version, &["name"]);
    let before = old.and_then(|old| {
        let (_, version) = objects(old, &["spec", "versions"]).find(|(_, version)| text(version, &["name"]) == name)?;
        at(version, &["schema", "openAPIV3Schema"])
    });
    if before == Some(schema) {
        return Vec::new();
    }
    let path = format!("{path}.openAPIV3Schema");
    let mut errors = Vec::new();
    if at(version, &["subresources", "status"]).is_some() {
        errors.extend(structural::check_with_status(schema, &path));
    }
    errors.extend(structural::check(schema, &path));
    errors
}

fn simple_path(given: &str, path: &str) -> Option<FieldError> {
    match given {
        "" => Some(FieldError::invalid(path, given, "must not be empty")),
        _ if !given.starts_with('.') => {
            let detail = "must be a simple json path starting with .";
            Some(FieldError::invalid(path, given, detail))
        }
        _ => None,
    }
}

fn subresources(version: &Object, path: &str) -> Vec<FieldError> {
    let Some(scale) = map(version, &["subresources", "scale"]) else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    for (field, roots, detail) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        (
            "statusReplicasPath",
            &[".status."][..],
            "should be a json path under .status",
        ),
        (
            "labelSelectorPath",
            &[".spec.", ".status."][..],
            "should be a json path under either .spec or .status",
        ),
    ] {
        let (given, at) = (text(scale, &[field]), format!("{path}.scale.{field}"));
        if given.is_empty() {
            if field != "labelSelectorPath" {
                errors.push(FieldError::required(at, ""));
            }
        } else if let Some(error) = simple_path(given, &at) {
            errors.push(error);
        } else if !roots.iter().any(|root| given.starts_with(root)) {
            errors.push(FieldError::invalid(at, given, detail));
        }
    }
    errors
}

fn columns(version: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, column) in objects(version, &["additionalPrinterColumns"]) {
        let at = |field: &str| format!("{path}[{index}].{field}");
        if text(column, &["name"]).is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        let one_of = |known: &[&str]| format!("must be one of {}", known.join(","));
        match text(column, &["type"]) {
            "" => errors.push(FieldError::required(at("type"), &one_of(&COLUMN_TYPES))),
            known if COLUMN_TYPES.contains(&known) => {}
            other => errors.push(FieldError::invalid(at("type"), other, &one_of(&COLUMN_TYPES))),
        }
        match text(column, &["format"]) {
            "" => {}
            known if COLUMN_FORMATS.contains(&known) => {}
            other => errors.push(FieldError::invalid(at("format"), other, &one_of(&COLUMN_FORMATS))),
        }
        match text(column, &["jsonPath"]) {
            "" => errors.push(FieldError::required(at("JSONPath"), "")),
            given => errors.extend(simple_path(given, &at("JSONPath"))),
        }
    }
    errors
}

fn selectable_fields(version: &Object, path: &str) -> Vec<FieldError> {
    let fields = items(version, &["selectableFields"]);
    if fields.is_empty() {
        return Vec::new();
    }
    let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) else {
        let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
        return vec![FieldError::invalid(path, "", detail)];
    };
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let given = field.get("jsonPath").and_then(Value::as_str).unwrap_or_default();
        let at = format!("{path}[{index}].jsonPath");
        if given.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let found = match field_schema(schema, given) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(at, given, &format!("is an invalid path: {why}")));
                continue;
            }
        };
        if given.starts_with(".metadata") && given[9..].starts_with(['.', '[']) || given == ".metadata" {
            let detail = "must not point to fields in metadata";
            errors.push(FieldError::invalid(at.clone(), given, detail));
        }
        let kind = found.get("type").and_then(Value::as_str).unwrap_or_default();
        if !matches!(kind, "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            errors.push(FieldError::invalid(at.clone(), given, detail));
        }
        if !seen.insert(given) {
            errors.push(FieldError::duplicate(at, given));
        }
    }
    if seen.len() > SELECTABLE_FIELDS_MAX {
        errors.push(FieldError::too_many(path, seen.len(), SELECTABLE_FIELDS_MAX));
    }
    errors
}

/// The schema of the field at a path of names.
fn field_schema<'a>(schema: &'a Value, path: &str) -> Result<&'a Value, String> {
    let Some(path) = path.strip_prefix('.') else {
        return Err(format!("expected [ or . but got: {path}"));
    };
    path.split('.').try_fold(schema, |schema, name| {
        if name.is_empty() {
            return Err("unexpected end of JSON path".to_owned());
        }
        let found = schema.get("properties").and_then(|properties| properties.get(name));
        found.ok_or_else(|| "does not refer to a valid field".to_owned())
    })
}

/// What is accepted and has no effect, or not the one that is meant.
pub fn warnings(definition: &Object) -> Vec<String> {
    let mut formats = Vec::new();
    let mut sets = BTreeSet::new();
    for (_, version) in objects(definition, &["spec", "versions"]) {
        if let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) {
            walk(schema, &mut formats, &mut sets);
        }
    }
    let mut warnings: Vec<String> = Vec::new();
    for format in formats {
        let warning = format!("unrecognized format {format:?}");
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings.extend(sets);
    warnings
}

fn walk<'a>(schema: &'a Value, formats: &mut Vec<&'a str>, sets: &mut BTreeSet<String>) {
    let Some(object) = schema.as_object() else { return };
    if let Some(format) = object.get("format").and_then(Value::as_str)
        && !format.is_empty()
        && !is_known_format(object.get("type").and_then(Value::as_str).unwrap_or_default(), format)
    {
        formats.push(format);
    }
    let item = object.get("items").and_then(|items| items.get("type")?.as_str());
    if object.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set")
        && let Some(kind @ ("object" | "array")) = item
    {
        sets.insert(format!(
            "x-kubernetes-list-type: set for items of type {kind:?} is not supported by server-side apply or CEL \
             validation rules"
        ));
    }
    for (key, value) in object {
        match key.as_str() {
            "properties" | "patternProperties" | "definitions" => {
                let schemas = value.as_object().into_iter().flatten();
                schemas.for_each(|(_, schema)| walk(schema, formats, sets));
            }
            "items" | "additionalProperties" | "not" | "additionalItems" => walk(value, formats, sets),
            "allOf" | "anyOf" | "oneOf" => {
                let schemas = value.as_array().into_iter().flatten();
                schemas.for_each(|schema| walk(schema, formats, sets));
            }
            _ => {}
        }
    }
}

/// Whether the format means something for values of the type.
fn is_known_format(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => STRING_FORMATS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Without their dashes (upstream: `apiserver/validation/formats.go`).
const STRING_FORMATS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];
