//! What is wrong with a schema itself, said when a CustomResourceDefinition is written
//! (upstream: `validateCustomResourceDefinitionValidation` of `apis/apiextensions/validation`).

mod defaults;
mod open_api;
mod rules;
mod structure;

use super::compile;
use crate::registry::field::FieldError;
use crate::registry::strategy::Object;
use serde_json::Value;

/// Everything that is wrong with `openAPIV3Schema`, which stands at `path`.
pub fn check(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Value::Object(members) = schema else {
        return errors;
    };
    if flag(members, "nullable") {
        errors.push(FieldError::forbidden(
            format!("{path}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let compiled = compile::node(schema, &mut compile::Texts::default());
    let mut root = None;
    match &compiled {
        Err(_) => {}
        Ok(node) => {
            let structure = structure::check(members, path);
            if structure.is_empty() {
                let defaults = defaults::check(node, path);
                if defaults.is_empty() {
                    root = Some(node);
                } else {
                    errors.extend(defaults);
                }
            } else {
                errors.extend(structure);
            }
        }
    }
    errors.extend(open_api::check(members, path, root));
    // What keeps a schema from being compiled is mostly said above, in better words.
    if errors.is_empty()
        && let Err(error) = compiled
    {
        errors.push(FieldError::invalid(path, "", &error.to_string()));
    }
    errors
}

/// What the root may be made of if there is a status subresource.
pub fn check_with_status(schema: &Value, path: &str) -> Vec<FieldError> {
    const ALLOWED: [(&str, &str); 22] = [
        ("description", "Description"),
        ("type", "Type"),
        ("format", "Format"),
        ("title", "Title"),
        ("maximum", "Maximum"),
        ("exclusiveMaximum", "ExclusiveMaximum"),
        ("minimum", "Minimum"),
        ("exclusiveMinimum", "ExclusiveMinimum"),
        ("maxLength", "MaxLength"),
        ("minLength", "MinLength"),
        ("pattern", "Pattern"),
        ("maxItems", "MaxItems"),
        ("minItems", "MinItems"),
        ("uniqueItems", "UniqueItems"),
        ("multipleOf", "MultipleOf"),
        ("required", "Required"),
        ("items", "Items"),
        ("properties", "Properties"),
        ("externalDocs", "ExternalDocs"),
        ("example", "Example"),
        ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
        ("x-kubernetes-validations", "XValidations"),
    ];
    let Value::Object(members) = schema else {
        return Vec::new();
    };
    let kind = text(members, "type");
    if !matches!(kind, "" | "object") {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return vec![FieldError::invalid(format!("{path}.type"), kind, detail)];
    }
    let other = members
        .iter()
        .find(|(key, value)| !is_zero(value) && !ALLOWED.iter().any(|(allowed, _)| *allowed == key.as_str()));
    if other.is_none() {
        return Vec::new();
    }
    let names: Vec<&str> = ALLOWED.iter().map(|(_, name)| *name).collect();
    let detail = format!(
        "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
        names.join(" ")
    );
    vec![FieldError::invalid(path, schema.clone(), &detail)]
}

fn text<'s>(schema: &'s Object, key: &str) -> &'s str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(schema: &Object, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// The schema at a key.
fn schema_at<'s>(schema: &'s Object, key: &str) -> Option<&'s Object> {
    schema.get(key).and_then(Value::as_object)
}

/// The schemas of the list at a key.
fn schemas_at<'s>(schema: &'s Object, key: &str) -> impl Iterator<Item = (usize, &'s Object)> {
    schema
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, schema)| Some((index, schema.as_object()?)))
}

/// The named schemas at a key.
fn members_at<'s>(schema: &'s Object, key: &str) -> impl Iterator<Item = (&'s str, &'s Object)> {
    schema_at(schema, key)
        .into_iter()
        .flatten()
        .filter_map(|(name, schema)| Some((name.as_str(), schema.as_object()?)))
}

fn is_set(schema: &Object, key: &str) -> bool {
    schema.get(key).is_some_and(|value| !value.is_null())
}

/// Whether Go would have the zero value for it.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Number(_) => false,
    }
}
