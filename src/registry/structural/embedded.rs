//! Objects within objects: type and metadata of the resource itself and of what `x-kubernetes-embedded-resource`
//! marks (upstream: `schema/objectmeta`).

use super::node::Node;
use crate::registry::field::FieldError;
use crate::registry::schema::{self, Definition};
use crate::registry::strategy::Object;
use crate::registry::validation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::sync::Arc;

pub(super) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The definition of metadata.
pub(super) fn object_meta() -> Arc<Definition> {
    schema::type_definition::<ObjectMeta>()
}

/// What is wrong with the objects embedded in `object`, whose schema is `node`.
pub(super) fn validate(object: &Object, node: &Node, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    members(object, node, path, &mut errors);
    errors
}

fn members(object: &Object, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    for (name, value) in object {
        if let Some(property) = node.property(name) {
            inside(value, property, &child(path, name), errors);
        } else if let Some(schema) = node.additional_schema() {
            inside(value, schema, &format!("{path}[{name}]"), errors);
        }
    }
}

pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn inside(value: &Value, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(object) => {
            if node.embedded {
                resource(object, path, errors);
            }
            members(object, node, path, errors);
        }
        Value::Array(items) => {
            let Some(node) = node.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                inside(item, node, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

/// Type and metadata of one embedded object.
pub(super) fn resource(object: &Object, path: &str, errors: &mut Vec<FieldError>) {
    let at = |name: &str| child(path, name);
    for name in ["apiVersion", "kind"] {
        if !object.contains_key(name) {
            errors.push(FieldError::required(at(name), ""));
        }
    }
    match object.get("apiVersion") {
        None => {}
        Some(Value::String(version)) if version.is_empty() => {
            errors.push(FieldError::invalid(at("apiVersion"), "", "must not be empty"));
        }
        Some(Value::String(version)) if version.matches('/').count() > 1 => {
            let detail = format!("unexpected GroupVersion string: {version}");
            errors.push(FieldError::invalid(at("apiVersion"), version.as_str(), &detail));
        }
        Some(Value::String(_)) => {}
        Some(other) => errors.push(FieldError::invalid(at("apiVersion"), other.clone(), "must be a string")),
    }
    match object.get("kind") {
        None => {}
        Some(Value::String(kind)) if kind.is_empty() => {
            errors.push(FieldError::invalid(at("kind"), "", "must not be empty"));
        }
        Some(Value::String(kind)) => {
            let problems = validation::dns1035_label(&kind.to_lowercase(), false);
            if !problems.is_empty() {
                let detail = format!(
                    "may have mixed case, but should otherwise match: {}",
                    problems.join(",")
                );
                errors.push(FieldError::invalid(at("kind"), kind.as_str(), &detail));
            }
        }
        Some(other) => errors.push(FieldError::invalid(at("kind"), other.clone(), "must be a string")),
    }
    if let Some(metadata) = object.get("metadata") {
        self::metadata(metadata, &at("metadata"), errors);
    }
}

fn metadata(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let read = match value {
        Value::Object(_) | Value::Null => schema::prune(&object_meta(), value.clone()),
        Value::Array(_) => Err("json: cannot unmarshal array into Go value of type v1.ObjectMeta".to_owned()),
        Value::String(_) => Err("json: cannot unmarshal string into Go value of type v1.ObjectMeta".to_owned()),
        Value::Number(_) => Err("json: cannot unmarshal number into Go value of type v1.ObjectMeta".to_owned()),
        Value::Bool(_) => Err("json: cannot unmarshal bool into Go value of type v1.ObjectMeta".to_owned()),
    };
    match read {
        Err(error) => errors.push(FieldError::invalid(path, value.clone(), &error)),
        Ok(decoded) => errors.extend(
            validation::embedded_meta(&decoded.object)
                .into_iter()
                .map(|error| FieldError {
                    path: error.path.replacen("metadata", path, 1),
                    ..error
                }),
        ),
    }
}
