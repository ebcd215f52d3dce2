//! Replicas of custom resources: where they stand, and what they may be
//! (upstream: `ValidateScaleSpec` and `ValidateScaleStatus` of `pkg/registry/customresource/validator.go`).

use crate::registry::field::FieldError;
use crate::registry::json::go_type;
use crate::registry::strategy::Object;
use serde_json::Value;

/// Where the numbers of the scale subresource stand: names joined by dots, `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// The value at a path of names; None: there is none, an error: something on the way is no object.
fn at<'a>(object: &'a Object, path: &str) -> Result<Option<&'a Value>, String> {
    let mut names = path.trim_start_matches('.').split('.');
    let mut walked = String::new();
    let Some(mut value) = names.next().and_then(|name| object.get(name)) else {
        return Ok(None);
    };
    for name in names {
        walked.push_str(&format!(".{name}"));
        match value {
            Value::Object(object) => match object.get(name) {
                Some(inner) => value = inner,
                None => return Ok(None),
            },
            Value::Null => return Ok(None),
            other => {
                let found = go_type(other);
                return Err(format!(
                    "{path} accessor error: {} is of the type {found}, expected map[string]interface {{}}",
                    shown(other)
                ));
            }
        }
    }
    Ok(Some(value))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The number at a path; 0 if there is none.
fn number_at(object: &Object, path: &str) -> Result<i64, String> {
    match at(object, path)? {
        None => Ok(0),
        Some(value) => value.as_i64().ok_or_else(|| {
            format!(
                "{path} accessor error: {} is of the type {}, expected int64",
                shown(value),
                go_type(value)
            )
        }),
    }
}

/// The string at a path; empty if there is none.
fn text_at<'a>(object: &'a Object, path: &str) -> Result<&'a str, String> {
    match at(object, path)? {
        None => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| {
            format!(
                "{path} accessor error: {} is of the type {}, expected string",
                shown(value),
                go_type(value)
            )
        }),
    }
}

fn replicas(object: &Object, path: &str) -> Option<FieldError> {
    match number_at(object, path) {
        Err(why) => Some(FieldError::invalid(path, 0, &why)),
        Ok(number) if number < 0 => Some(FieldError::invalid(path, number, "should be a non-negative integer")),
        Ok(number) if number > i64::from(i32::MAX) => {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            Some(FieldError::invalid(path, number, &detail))
        }
        Ok(_) => None,
    }
}

/// What is wrong with the replicas; `spec`: those that are wanted are looked at, too.
pub fn validate(object: &Object, paths: &ScalePaths, spec: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec {
        errors.extend(replicas(object, &paths.spec_replicas));
    }
    errors.extend(replicas(object, &paths.status_replicas));
    if let Some(path) = &paths.label_selector
        && let Err(why) = text_at(object, path)
    {
        errors.push(FieldError::invalid(path.clone(), "", &why));
    }
    errors
}
