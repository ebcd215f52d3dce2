//! ConfigMaps (upstream: `ValidateConfigMap`, `ValidateConfigMapUpdate`), and what they share with Secrets.

use super::Stored;
use crate::registry::columns::core::CONFIG_MAP;
use crate::registry::field::FieldError;
use crate::registry::formats::config_map_key;
use crate::registry::json::{boolean, map};
use crate::registry::strategy::Object;
use serde_json::Value;

/// All values together.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

/// The strategy of ConfigMaps.
pub fn strategy() -> Stored {
    Stored::new(CONFIG_MAP)
        .rules(validate)
        .update_rules(|object, old| immutable(object, old, &["data", "binaryData"]))
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    let binary = map(object, &["binaryData"]);
    for (key, value) in map(object, &["data"]).into_iter().flatten() {
        errors.extend(key_errors(key, "data"));
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            let detail = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(format!("data[{key}]"), key.as_str(), detail));
        }
        bytes += value.as_str().map_or(0, str::len);
    }
    for (key, value) in binary.into_iter().flatten() {
        errors.extend(key_errors(key, "binaryData"));
        if map(object, &["data"]).is_some_and(|data| data.contains_key(key)) {
            let detail = "duplicate of key present in data";
            errors.push(FieldError::invalid(format!("binaryData[{key}]"), key.as_str(), detail));
        }
        bytes += decoded_length(value);
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long("", DATA_BYTES_MAX));
    }
    errors
}

/// Problems of a key of `field`.
pub fn key_errors(key: &str, field: &str) -> Vec<FieldError> {
    let path = format!("{field}[{key}]");
    config_map_key(key)
        .iter()
        .map(|problem| FieldError::invalid(path.as_str(), key, problem))
        .collect()
}

/// Bytes behind a base64 text.
pub fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.trim_end_matches('=').len() * 3 / 4
}

/// Once `immutable` is set it stays, and the data with it.
pub fn immutable(object: &Object, old: &Object, data: &[&str]) -> Vec<FieldError> {
    if !boolean(old, &["immutable"]) {
        return Vec::new();
    }
    let detail = "field is immutable when `immutable` is set";
    let mut errors = Vec::new();
    if !boolean(object, &["immutable"]) {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    let is_empty = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Object::is_empty);
    for field in data {
        let (new, old) = (object.get(*field), old.get(*field));
        if new != old && !(is_empty(new) && is_empty(old)) {
            errors.push(FieldError::forbidden(*field, detail));
        }
    }
    errors
}
