//! One violation of a schema, in the words of upstream's validator, and the field error it becomes
//! (upstream: `kube-openapi/pkg/validation/errors`, `apiserver/validation/validation.go`).

use crate::registry::field::{ErrorType, FieldError, go_quoted};
use serde_json::Value;

/// What was violated; the kinds that become different field errors.
#[derive(Debug)]
pub(super) enum Failure {
    /// `<nil>` for a path: alternatives that do not hold, numbers out of their type's range.
    Composite(String),
    Required(String),
    Enumeration {
        at: String,
        value: Value,
        values: Box<[Value]>,
    },
    TooLong {
        at: String,
        max: i64,
    },
    TooMany {
        at: String,
        actual: usize,
        max: i64,
    },
    Type {
        at: String,
        value: Value,
        text: String,
    },
    Invalid {
        at: String,
        value: Value,
        text: String,
    },
}

/// `spec.x in body must be of type integer: "string"`
pub(super) fn wrong_type(at: &str, expected: &str, found: &str) -> Failure {
    Failure::Type {
        at: at.to_owned(),
        value: found.into(),
        text: format!("{at} in body must be of type {expected}: {}", go_quoted(found)),
    }
}

pub(super) fn invalid(at: &str, value: impl Into<Value>, text: &str) -> Failure {
    Failure::Invalid {
        at: at.to_owned(),
        value: value.into(),
        text: format!("{at} in body {text}"),
    }
}

impl Failure {
    /// The field error at `path`, where the schema's own value stands (None: at the root of an object).
    pub fn into_error(self, path: Option<&str>) -> FieldError {
        let joined = |at: &str| {
            let at = at.strip_prefix('.').unwrap_or(at);
            match path {
                Some(path) if at.is_empty() => path.to_owned(),
                Some(path) => format!("{path}.{at}"),
                None if at.is_empty() => "<nil>".to_owned(),
                None => at.to_owned(),
            }
        };
        match self {
            Self::Composite(text) => FieldError::invalid(path.unwrap_or("<nil>"), "", &text),
            Self::Required(at) => FieldError::required(joined(&at), ""),
            Self::Enumeration { at, value, values } => {
                let shown: Vec<String> = values
                    .iter()
                    .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                    .collect();
                let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
                FieldError::not_supported(joined(&at), value, &shown)
            }
            Self::TooLong { at, max } => {
                let max = usize::try_from(max).unwrap_or_default();
                FieldError::too_long(joined(&at), max)
            }
            Self::TooMany { at, actual, max } => {
                let max = usize::try_from(max).unwrap_or_default();
                FieldError::too_many(joined(&at), actual, max)
            }
            Self::Type { at, value, text } => FieldError {
                kind: ErrorType::TypeInvalid,
                ..FieldError::invalid(joined(&at), value, &text)
            },
            Self::Invalid { at, value, text } => FieldError::invalid(joined(&at), value, &text),
        }
    }
}
