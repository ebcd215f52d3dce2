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

/// A value as upstream prints it in errors: strings Go-quoted, the rest as Go's JSON, which spells `<`, `>` and `&` out.
fn show(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => go_quoted(text),
        serde_json::Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or_default()),
        other => other
            .to_string()
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026"),
    }
}

/// Go's `%v` of a float: digits from 10^-4 up to 10^21, an exponent beyond.
pub(crate) fn go_float(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(digits) => format!("{mantissa}e-{digits:0>2}"),
        None => format!("{mantissa}e+{exponent:0>2}"),
    }
}

/// Go's `%q`.
pub(crate) fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            control if control.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(control))),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
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
    /// The text of a rule that upstream's type carries itself, which shows no value.
    pub fn fixed(path: impl Into<String>) -> Self {
        Self::invalid(path, serde_json::Value::Null, "field is immutable")
    }
    /// Invalid, with a value that upstream leaves out.
    pub fn invalid_untold(path: impl Into<String>, detail: &str) -> Self {
        Self::simple(ErrorType::Invalid, path, "Invalid value", detail)
    }
    /// What the server itself got wrong.
    pub fn internal(path: impl Into<String>, detail: &str) -> Self {
        Self::simple(ErrorType::Internal, path, "Internal error", detail)
    }
    pub fn duplicate(path: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        let head = format!("Duplicate value: {}", show(&value.into()));
        Self::simple(ErrorType::Duplicate, path, &head, "")
    }
    pub fn not_supported(path: impl Into<String>, value: impl Into<serde_json::Value>, supported: &[&str]) -> Self {
        let head = format!("Unsupported value: {}", show(&value.into()));
        let list: Vec<String> = supported.iter().map(|s| go_quoted(s)).collect();
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
    /// Upstream's NotFound with an explanation, which only a few rules give.
    pub fn not_found_because(path: impl Into<String>, value: impl Into<serde_json::Value>, detail: &str) -> Self {
        let head = format!("Not found: {}", show(&value.into()));
        Self::simple(ErrorType::NotFound, path, &head, detail)
    }
    /// A list with more than `items_max` elements.
    pub fn too_many(path: impl Into<String>, items: usize, items_max: usize) -> Self {
        let unit = if items_max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {items_max} {unit}");
        Self::simple(ErrorType::TooMany, path, &format!("Too many: {items}"), &detail)
    }
    pub fn too_long(path: impl Into<String>, bytes_max: usize) -> Self {
        let unit = if bytes_max == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {bytes_max} {unit}");
        Self::simple(ErrorType::TooLong, path, "Too long", &detail)
    }
    /// The same, counted in characters.
    pub fn too_long_characters(path: impl Into<String>, characters_max: usize) -> Self {
        let unit = if characters_max == 1 { "character" } else { "characters" };
        let detail = format!("may not be more than {characters_max} {unit}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_read_as_upstreams() {
        let cases = [
            (FieldError::required("a", ""), "a: Required value"),
            (FieldError::required("a", "why"), "a: Required value: why"),
            (
                FieldError::invalid("a", "b\"\0\n", "why"),
                r#"a: Invalid value: "b\"\x00\n": why"#,
            ),
            (FieldError::invalid("a", 7, "why"), "a: Invalid value: 7: why"),
            (
                FieldError::invalid("a", json!(null), "why"),
                "a: Invalid value: null: why",
            ),
            (
                FieldError::invalid("a", json!({"b": "<c>"}), "why"),
                r#"a: Invalid value: {"b":"\u003cc\u003e"}: why"#,
            ),
            (FieldError::fixed("a"), "a: Invalid value: null: field is immutable"),
            (FieldError::invalid_untold("a", "why"), "a: Invalid value: why"),
            (FieldError::internal("a", "why"), "a: Internal error: why"),
            (
                FieldError::too_long_characters("a", 63),
                "a: Too long: may not be more than 63 characters",
            ),
            (FieldError::not_found("a", "b"), "a: Not found: \"b\""),
            (FieldError::duplicate("a", "b"), "a: Duplicate value: \"b\""),
            (
                FieldError::too_many("a", 3, 1),
                "a: Too many: 3: must have at most 1 item",
            ),
            (
                FieldError::too_long("a", 9),
                "a: Too long: may not be more than 9 bytes",
            ),
            (FieldError::forbidden("a", "why"), "a: Forbidden: why"),
            (
                FieldError::not_supported("a", "b", &["c", "d"]),
                "a: Unsupported value: \"b\": supported values: \"c\", \"d\"",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(ErrorType::TypeInvalid.reason(), "FieldValueTypeInvalid");
    }
}
