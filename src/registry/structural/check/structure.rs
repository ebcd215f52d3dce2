//! Whether a schema is structural (upstream: `schema/validation.go`, `schema/complete.go`).

use super::{flag, is_set, is_zero, members_at, schema_at, schemas_at, text};
use crate::registry::field::FieldError;
use crate::registry::patterns;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The violations, sorted by their texts.
pub(super) fn check(schema: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    invariants(schema, Level::Root, path, &mut errors);
    complete(schema, Some(schema), path, path, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

fn is_int_or_string(any_of: Option<&Value>) -> bool {
    any_of == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

fn invariants(schema: &Object, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let at = |key: &str| format!("{path}.{key}");
    if kind == "array" && schema_at(schema, "items").is_none() {
        errors.push(FieldError::required(at("items"), "must be specified"));
    }
    if let Some(items) = schema_at(schema, "items") {
        invariants(items, Level::Item, &at("items"), errors);
    }
    for (name, property) in members_at(schema, "properties") {
        invariants(property, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    if is_set(schema, "additionalProperties") {
        if level == Level::Root {
            errors.push(FieldError::forbidden(
                at("additionalProperties"),
                "must not be used at the root",
            ));
        }
        if let Some(values) = schema_at(schema, "additionalProperties") {
            invariants(values, Level::Field, &at("additionalProperties"), errors);
        }
    }
    for (key, is_set) in [
        ("x-kubernetes-preserve-unknown-fields", preserve),
        ("x-kubernetes-embedded-resource", embedded),
    ] {
        if int_or_string && is_set {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(at(key), true, detail));
        }
    }
    let skip_any_of = is_int_or_string(schema.get("anyOf"));
    let skip_first = schemas_at(schema, "allOf")
        .next()
        .is_some_and(|(_, first)| is_int_or_string(first.get("anyOf")));
    junctors(schema, skip_any_of, skip_first, level, path, errors);

    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(at("type"), detail)
        } else {
            FieldError::invalid(at("type"), kind, detail)
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(at("type"), detail));
    }
    if embedded && is_set(schema, "additionalProperties") {
        errors.push(FieldError::forbidden(
            at("additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !matches!(kind, "" | "object") {
        errors.push(FieldError::invalid(at("type"), kind, "must be object at the root"));
    }
    meta(schema, level, embedded, path, errors);
    let no_properties = schema_at(schema, "properties").is_none_or(Object::is_empty);
    if embedded && !preserve && no_properties {
        errors.push(FieldError::required(
            at("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// Type and metadata are what they are in every object; a schema may say little of them.
fn meta(schema: &Object, level: Level, embedded: bool, path: &str, errors: &mut Vec<FieldError>) {
    let is_resource = level == Level::Root || embedded;
    for (name, property) in members_at(schema, "properties") {
        let at = format!("{path}.properties[{name}]");
        let kind = text(property, "type");
        match name {
            "kind" | "apiVersion" if is_resource && kind != "string" => {
                errors.push(FieldError::invalid(format!("{at}.type"), kind, "must be string"));
            }
            "metadata" => {
                if is_resource && kind != "object" {
                    errors.push(FieldError::invalid(format!("{at}.type"), kind, "must be object"));
                }
                let more = property.iter().any(|(key, value)| match key.as_str() {
                    "type" | "default" => false,
                    "properties" => {
                        let names = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
                        names.into_iter().any(|name| !matches!(name, "name" | "generateName"))
                    }
                    _ => !is_zero(value),
                });
                if level == Level::Root && more {
                    errors.push(FieldError::forbidden(
                        at,
                        "must not specify anything other than name and generateName, but metadata is implicitly specified",
                    ));
                }
            }
            _ => {}
        }
    }
}

fn junctors(
    schema: &Object,
    skip_any_of: bool,
    skip_first: bool,
    level: Level,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if !skip_any_of {
        for (index, part) in schemas_at(schema, "anyOf") {
            nested(part, false, level, &format!("{path}.anyOf[{index}]"), errors);
        }
    }
    for (index, part) in schemas_at(schema, "allOf") {
        nested(
            part,
            skip_first && index == 0,
            level,
            &format!("{path}.allOf[{index}]"),
            errors,
        );
    }
    for (index, part) in schemas_at(schema, "oneOf") {
        nested(part, false, level, &format!("{path}.oneOf[{index}]"), errors);
    }
    if let Some(part) = schema_at(schema, "not") {
        nested(part, false, level, &format!("{path}.not"), errors);
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(error) = patterns::compiled(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, &detail));
    }
}

/// A schema below a junctor: it restricts values and shapes nothing.
fn nested(schema: &Object, skip_any_of: bool, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    junctors(schema, skip_any_of, false, level, path, errors);
    if let Some(items) = schema_at(schema, "items") {
        nested(items, false, level, &format!("{path}.items"), errors);
    }
    for (name, property) in members_at(schema, "properties") {
        nested(
            property,
            false,
            Level::Field,
            &format!("{path}.properties[{name}]"),
            errors,
        );
    }
    const EMPTY: &str = "must be empty to be structural";
    const UNDEFINED: &str = "must be undefined to be structural";
    const FALSE: &str = "must be false to be structural";
    for (key, detail) in [
        ("type", EMPTY),
        ("additionalProperties", UNDEFINED),
        ("default", UNDEFINED),
        ("title", EMPTY),
        ("description", EMPTY),
        ("nullable", FALSE),
        ("x-kubernetes-preserve-unknown-fields", FALSE),
        ("x-kubernetes-embedded-resource", FALSE),
        ("x-kubernetes-int-or-string", FALSE),
        ("x-kubernetes-list-map-keys", EMPTY),
        ("x-kubernetes-list-type", UNDEFINED),
        ("x-kubernetes-map-type", UNDEFINED),
        ("x-kubernetes-validations", EMPTY),
    ] {
        let is_there = match detail {
            UNDEFINED if key == "additionalProperties" => {
                schema.get(key).is_some_and(|value| !is_zero(value)) || schema_at(schema, key).is_some()
            }
            UNDEFINED => is_set(schema, key),
            _ => schema.get(key).is_some_and(|value| !is_zero(value)),
        };
        if is_there {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), detail));
        }
    }
    if members_at(schema, "properties").any(|(name, _)| name == "metadata") {
        errors.push(FieldError::forbidden(
            format!("{path}.properties[metadata]"),
            "must not be specified in a nested context",
        ));
    }
}

/// What junctors speak of must be there outside of them, too.
fn complete(
    schema: &Object,
    structure: Option<&Object>,
    structure_path: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let parts = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .flat_map(|key| schemas_at(schema, key).map(move |(index, part)| (format!("{path}.{key}[{index}]"), part)))
        .chain(schema_at(schema, "not").map(|part| (format!("{path}.not"), part)));
    for (path, part) in parts {
        complete_nested(part, structure, structure_path, &path, errors);
    }
}

fn complete_nested(
    schema: &Object,
    structure: Option<&Object>,
    structure_path: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(structure) = structure else {
        let detail = format!("because it is defined in {path}");
        errors.push(FieldError::required(structure_path, &detail));
        return;
    };
    complete(schema, Some(structure), structure_path, path, errors);
    if let Some(items) = schema_at(schema, "items") {
        let at = format!("{structure_path}.items");
        complete_nested(
            items,
            schema_at(structure, "items"),
            &at,
            &format!("{path}.items"),
            errors,
        );
    }
    for (name, property) in members_at(schema, "properties") {
        let counterpart = schema_at(structure, "properties").and_then(|properties| schema_at(properties, name));
        let at = format!("{structure_path}.properties[{name}]");
        complete_nested(
            property,
            counterpart,
            &at,
            &format!("{path}.properties[{name}]"),
            errors,
        );
    }
}
