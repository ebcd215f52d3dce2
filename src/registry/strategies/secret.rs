//! Secrets (upstream: `SetDefaults_Secret`, `ValidateSecret`, `ValidateSecretUpdate`).

use super::Stored;
use super::config_map::{DATA_BYTES_MAX, decoded_length, immutable, key_errors};
use crate::registry::columns::core::SECRET;
use crate::registry::field::FieldError;
use crate::registry::json::{child_or_new, default_text, map, text};
use crate::registry::strategy::Object;
use crate::registry::validation;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The strategy of Secrets.
pub fn strategy() -> Stored {
    Stored::new(SECRET)
        .defaults(default)
        .rules(validate)
        .update_rules(validate_update)
        .fields(&["type"], |secret| vec![("type", text(secret, &["type"]).to_owned())])
        .unsupported(|field| format!("field label not supported: {field}"))
}

fn default(secret: &mut Object) {
    default_text(secret, "type", "Opaque");
    // Written in plain and kept with the rest.
    if let Some(Value::Object(plain)) = secret.remove("stringData") {
        let data = child_or_new(secret, "data");
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, json!(encoded));
        }
    }
}

fn validate(secret: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = Object::new();
    let data = map(secret, &["data"]).unwrap_or(&empty);
    for key in data.keys() {
        errors.extend(key_errors(key, "data"));
    }
    if data.values().map(decoded_length).sum::<usize>() > DATA_BYTES_MAX {
        errors.push(FieldError::too_long("data", DATA_BYTES_MAX));
    }
    let missing = |key: &str| {
        let absent = !data.contains_key(key);
        absent.then(|| FieldError::required(format!("data[{key}]"), ""))
    };
    match text(secret, &["type"]) {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if text(secret, &["metadata", "annotations", annotation]).is_empty() {
                errors.push(FieldError::required(format!("metadata.annotations[{annotation}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => errors.extend(json_content(data, ".dockercfg")),
        "kubernetes.io/dockerconfigjson" => errors.extend(json_content(data, ".dockerconfigjson")),
        "kubernetes.io/basic-auth" => {
            // Each may be empty, but one must be there.
            let (username, password) = (missing("username"), missing("password"));
            if username.is_some() && password.is_some() {
                errors.extend(username.into_iter().chain(password));
            }
        }
        "kubernetes.io/ssh-auth" if text(data, &["ssh-privatekey"]).is_empty() => {
            errors.push(FieldError::required("data[ssh-privatekey]", ""));
        }
        "kubernetes.io/tls" => errors.extend(missing("tls.crt").into_iter().chain(missing("tls.key"))),
        _ => {}
    }
    errors
}

/// The key must be there and hold a JSON object; what it holds is not shown.
fn json_content(data: &Object, key: &str) -> Option<FieldError> {
    let path = format!("data[{key}]");
    let Some(value) = data.get(key) else {
        return Some(FieldError::required(path, ""));
    };
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    let error = serde_json::from_slice::<Object>(&bytes).err()?;
    Some(FieldError::invalid(
        path,
        "<secret contents redacted>",
        &error.to_string(),
    ))
}

fn validate_update(secret: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(validation::immutable(secret.get("type"), old.get("type"), "type"));
    errors.extend(immutable(secret, old, &["data"]));
    errors
}
