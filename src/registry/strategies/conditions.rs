//! Conditions of the form that newer kinds share (upstream: `apimachinery/pkg/apis/meta/v1/validation`).

use super::pod::validate::invalid;
use crate::registry::field::FieldError;
use crate::registry::formats::{label_key, regex_error};
use crate::registry::json::{integer, objects, text};
use crate::registry::strategy::Object;
use std::collections::BTreeSet;

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const REASON: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// The `conditions` of `owner`, which stands at `path`.
pub fn validate(owner: &Object, path: &str) -> Vec<FieldError> {
    let (mut errors, mut kinds) = (Vec::new(), BTreeSet::new());
    for (index, condition) in objects(owner, &["conditions"]) {
        let at = |field: &str| format!("{path}.conditions[{index}].{field}");
        let kind = text(condition, &["type"]);
        if !kinds.insert(kind) {
            errors.push(FieldError::duplicate(format!("{path}.conditions[{index}]"), kind));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(at("type"), "is required"));
        } else {
            errors.extend(invalid(&at("type"), kind, &label_key(kind)));
        }
        let status = text(condition, &["status"]);
        if status.is_empty() {
            errors.push(FieldError::required(at("status"), ""));
        } else if !STATUSES.contains(&status) {
            errors.push(FieldError::not_supported(at("status"), status, &STATUSES));
        }
        if let Some(generation) = integer(condition, &["observedGeneration"]).filter(|number| *number < 0) {
            let detail = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(at("observedGeneration"), generation, detail));
        }
        if text(condition, &["lastTransitionTime"]).is_empty() {
            errors.push(FieldError::required(at("lastTransitionTime"), ""));
        }
        errors.extend(reason(text(condition, &["reason"]), &at("reason")));
        if text(condition, &["message"]).len() > MESSAGE_BYTES_MAX {
            errors.push(FieldError::too_long(at("message"), MESSAGE_BYTES_MAX));
        }
    }
    errors
}

fn reason(reason: &str, path: &str) -> Vec<FieldError> {
    if reason.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    let word = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    let good = reason.starts_with(|first: char| first.is_ascii_alphabetic())
        && reason.bytes().all(|byte| word(byte) || b",:".contains(&byte))
        && reason.bytes().last().is_some_and(word);
    if !good {
        let sentence = "a condition reason must start with alphabetic character, optionally followed by a string of \
            alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
        let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
        let detail = regex_error(sentence, REASON, &examples);
        errors.push(FieldError::invalid(path, reason, &detail));
    }
    if reason.len() > REASON_BYTES_MAX {
        errors.push(FieldError::too_long(path, REASON_BYTES_MAX));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_checked() {
        let condition =
            json!({"type": "Ready", "status": "True", "reason": "Good", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let check = |conditions: serde_json::Value| -> Vec<String> {
            let owner = json!({"conditions": conditions}).as_object().cloned().unwrap();
            validate(&owner, "status").iter().map(ToString::to_string).collect()
        };
        assert_eq!(check(json!([condition])), Vec::<String>::new());
        let with = |field: &str, value: &str| {
            let mut changed = condition.clone();
            changed[field] = json!(value);
            check(json!([changed])).join("\n")
        };
        for (field, value, expected) in [
            ("type", "", "status.conditions[0].type: Required value: is required"),
            ("status", "", "status.conditions[0].status: Required value"),
            ("reason", "", "status.conditions[0].reason: Required value"),
            (
                "status",
                "Maybe",
                "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
            ),
            (
                "lastTransitionTime",
                "",
                "status.conditions[0].lastTransitionTime: Required value",
            ),
        ] {
            assert_eq!(with(field, value), expected);
        }
        let twice = check(json!([condition, condition]));
        assert_eq!(twice, ["status.conditions[1]: Duplicate value: \"Ready\""]);
        assert!(with("reason", "not a word").contains("a condition reason must start with alphabetic character"));
    }
}
