//! Names of drivers, pools, attributes and requests; taints of devices and what tolerates them.

use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key, label_value, regex_error};
use crate::registry::json::text;
use crate::registry::strategies::pod::validate::invalid;
use crate::registry::strategy::Object;
use serde_json::Value;

const POOL_BYTES_MAX: usize = 253;
const DRIVER_BYTES_MAX: usize = 63;
const ID_BYTES_MAX: usize = 32;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// A label as in DNS; nothing is no label either.
pub fn label(name: &str, path: &str) -> Vec<FieldError> {
    invalid(path, name, &dns1123_label(name, false))
}

/// The name of a driver, which may be in capitals.
pub fn driver_name(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if name.len() > DRIVER_BYTES_MAX {
        errors.push(FieldError::too_long(path, DRIVER_BYTES_MAX));
    }
    errors.extend(invalid(path, name, &dns1123_subdomain(&name.to_lowercase(), false)));
    errors
}

/// A pool's name is made of parts as names in DNS are, with slashes between them.
pub fn pool_name(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if name.len() > POOL_BYTES_MAX {
        errors.push(FieldError::too_long(path, POOL_BYTES_MAX));
    }
    for part in name.split('/') {
        errors.extend(invalid(path, part, &dns1123_subdomain(part, false)));
    }
    errors
}

/// `name`, or `domain/name`.
pub fn qualified(name: &str, path: &str) -> Vec<FieldError> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [id] => identifier(id, path),
        [domain, id] => {
            let mut errors = Vec::new();
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                errors.extend(driver_name(domain, path));
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                errors.extend(identifier(id, path));
            }
            errors
        }
        _ => vec![FieldError::invalid(path, name, "must not contain more than one slash")],
    }
}

/// The same where the domain must be said.
pub fn fully_qualified(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = qualified(name, path);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, name, detail));
    }
    errors
}

fn identifier(id: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if id.len() > ID_BYTES_MAX {
        errors.push(FieldError::too_long(path, ID_BYTES_MAX));
    }
    let good = id.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
        && id.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    if !good {
        let sentence = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
            alphanumeric characters or '_'";
        let detail = regex_error(sentence, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"]);
        errors.push(FieldError::invalid(path, id, &detail));
    }
    errors
}

fn label_name(key: &str, path: &str) -> Vec<FieldError> {
    invalid(path, key, &label_key(key))
}

fn effect(effect: &str, path: &str) -> Option<FieldError> {
    (!EFFECTS.contains(&effect)).then(|| FieldError::not_supported(path, effect, &EFFECTS))
}

/// A taint of a device.
pub fn taint(taint: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = label_name(text(taint, &["key"]), &format!("{path}.key"));
    let value = text(taint, &["value"]);
    errors.extend(invalid(&format!("{path}.value"), value, &label_value(value)));
    let path = format!("{path}.effect");
    match text(taint, &["effect"]) {
        "" => errors.push(FieldError::required(path, "")),
        found => errors.extend(effect(found, &path)),
    }
    errors
}

/// What tolerates taints of devices.
pub fn toleration(toleration: &Object, path: &str) -> Vec<FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    let (key, value) = (text(toleration, &["key"]), text(toleration, &["value"]));
    let mut errors = Vec::new();
    if !key.is_empty() {
        errors.extend(label_name(key, &at("key")));
    }
    match text(toleration, &["operator"]) {
        "Exists" if !value.is_empty() => {
            let detail = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(at("value"), value, detail));
        }
        "Exists" => {}
        "Equal" => errors.extend(invalid(&at("value"), value, &label_value(value))),
        "" => errors.push(FieldError::required(at("operator"), "")),
        other => errors.push(FieldError::not_supported(at("operator"), other, &["Equal", "Exists"])),
    }
    let found = text(toleration, &["effect"]);
    if !found.is_empty() {
        errors.extend(effect(found, &at("effect")));
    }
    errors
}

/// An object of the driver's own, of which nothing is known but how large it may be.
pub fn opaque(value: Option<&Value>, bytes_max: usize, path: &str) -> Option<FieldError> {
    let value = value.filter(|value| !value.is_null());
    match value {
        None => Some(FieldError::required(path, "")),
        Some(value) if value.to_string().len() > bytes_max => Some(FieldError::too_long(path, bytes_max)),
        Some(Value::Object(_)) => None,
        Some(_) => Some(FieldError::invalid(
            path,
            "<value omitted>",
            "must be a valid JSON object",
        )),
    }
}

/// A uid as upstream makes them.
pub fn uid(uid: &str, path: &str) -> Option<FieldError> {
    let problem = match uuid::Uuid::parse_str(uid) {
        Err(_) if uid.len() != 36 => format!("error validating uid: invalid UUID length: {}", uid.len()),
        Err(_) => "error validating uid: invalid UUID format".to_owned(),
        Ok(parsed) if parsed.hyphenated().to_string() != uid => "uid must be in RFC 4122 normalized form, \
            `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters"
            .to_owned(),
        Ok(_) => return None,
    };
    Some(FieldError::invalid(path, uid, &problem))
}

/// Conditions that a device waits for before pods are bound, and those that end the waiting.
pub fn binding_conditions(owner: &Object, path: &str) -> Vec<FieldError> {
    const CONDITIONS_MAX: usize = 4;
    let list = |field: &str| -> Vec<&str> {
        let items = crate::registry::json::items(owner, &[field]);
        items.iter().filter_map(Value::as_str).collect()
    };
    let (fields, lists) = (
        ["bindingConditions", "bindingFailureConditions"],
        [list("bindingConditions"), list("bindingFailureConditions")],
    );
    let mut errors = Vec::new();
    for (field, list) in fields.iter().zip(&lists) {
        let path = format!("{path}.{field}");
        if list.len() > CONDITIONS_MAX {
            errors.push(FieldError::too_many(path, list.len(), CONDITIONS_MAX));
            continue;
        }
        for (index, condition) in list.iter().enumerate() {
            errors.extend(label_name(condition, &format!("{path}[{index}]")));
        }
    }
    for (position, (field, list)) in fields.iter().zip(&lists).enumerate() {
        for (index, condition) in list.iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            if list[..index].contains(condition) {
                errors.push(FieldError::duplicate(path.as_str(), *condition));
            }
            if position == 1 && lists[0].contains(condition) {
                let detail = "bindingFailureConditions must not overlap with bindingConditions";
                errors.push(FieldError::invalid(path, *condition, detail));
            }
        }
    }
    for (missing, given) in [(0, 1), (1, 0)] {
        if lists[missing].is_empty() && !lists[given].is_empty() {
            let detail = format!("{} are required to use {}", fields[missing], fields[given]);
            let shown = Value::Null;
            errors.push(FieldError::invalid(
                format!("{path}.{}", fields[missing]),
                shown,
                &detail,
            ));
        }
    }
    errors
}
