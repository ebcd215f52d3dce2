//! Field errors: what is wrong where (upstream: `apimachinery/pkg/util/validation/field`).

use std::fmt;

/// The kind of a field error; `reason()` and the text are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl ErrorType {
    /// The `reason` of the Status cause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

/// One error at one field. `body` is the text without the path, as the Status cause carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub kind: ErrorType,
    pub path: String,
    pub body: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body)
    }
}

/// A value as upstream prints it in errors: strings Go-quoted, the rest as JSON.
fn show(value: &serde_json::Value) -> String {
    value.to_string()
}

impl FieldError {
    pub fn required(path: impl Into<String>, detail: &str) -> Self {
        Self::simple(ErrorType::Required, path, "Required value", detail)
    }
    pub fn forbidden(path: impl Into<String>, detail: &str) -> Self {
        Self::simple(ErrorType::Forbidden, path, "Forbidden", detail)
    }
    pub fn invalid(path: impl Into<String>, value: impl Into<serde_json::Value>, detail: &str) -> Self {
        let head = format!("Invalid value: {}", show(&value.into()));
        Self::simple(ErrorType::Invalid, path, &head, detail)
    }
    pub fn duplicate(path: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        let head = format!("Duplicate value: {}", show(&value.into()));
        Self::simple(ErrorType::Duplicate, path, &head, "")
    }
    pub fn not_supported(path: impl Into<String>, value: impl Into<serde_json::Value>, supported: &[&str]) -> Self {
        let head = format!("Unsupported value: {}", show(&value.into()));
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if list.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", list.join(", "))
        };
        Self::simple(ErrorType::NotSupported, path, &head, &detail)
    }
    pub fn not_found(path: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        let head = format!("Not found: {}", show(&value.into()));
        Self::simple(ErrorType::NotFound, path, &head, "")
    }
    /// A list with more than `items_max` elements.
    pub fn too_many(path: impl Into<String>, items: usize, items_max: usize) -> Self {
        let unit = if items_max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {items_max} {unit}");
        Self::simple(ErrorType::TooMany, path, &format!("Too many: {items}"), &detail)
    }
    pub fn too_long(path: impl Into<String>, bytes_max: usize) -> Self {
        let detail = format!("may not be more than {bytes_max} bytes");
        Self::simple(ErrorType::TooLong, path, "Too long", &detail)
    }
    fn simple(kind: ErrorType, path: impl Into<String>, head: &str, detail: &str) -> Self {
        let body = if detail.is_empty() {
            head.to_owned()
        } else {
            format!("{head}: {detail}")
        };
        Self {
            kind,
            path: path.into(),
            body,
        }
    }
}
