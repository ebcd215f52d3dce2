//! Fields that hold a number or a share of one (upstream: `ValidatePositiveIntOrPercent`, `IsNotMoreThan100Percent`).

use crate::registry::field::FieldError;
use crate::registry::formats::regex_error;
use crate::registry::validation::non_negative;
use serde_json::Value;

/// The number before the percent sign.
fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// Not below zero, or a share like `25%`.
pub fn positive(value: Option<&Value>, path: &str) -> Vec<FieldError> {
    match value {
        Some(Value::String(text)) if percent(value.unwrap_or(&Value::Null)).is_none() => {
            let sentence = "a valid percent string must be a numeric string followed by an ending '%'";
            let problem = regex_error(sentence, "[0-9]+%", &["1%", "93%"]);
            vec![FieldError::invalid(path, text.as_str(), &problem)]
        }
        value => Vec::from_iter(non_negative(value, path)),
    }
}

/// No share of more than all.
pub fn at_most_all(value: Option<&Value>, path: &str) -> Option<FieldError> {
    let value = value?;
    let detail = "must not be greater than 100%";
    percent(value)
        .filter(|share| *share > 100)
        .map(|_| FieldError::invalid(path, value.clone(), detail))
}

/// Whether it is no number and no share at all; absent counts as that.
pub fn is_zero(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.as_i64() == Some(0) || percent(value) == Some(0))
}
