//! How deep a value is nested. JSON bodies are bounded by their parser; what comes another way must keep to the
//! same bound, or the stored object could not be read back.

use serde_json::Value;

/// Below what the JSON parser takes (128), with room for the list or event around an object.
pub const LEVELS_MAX: usize = 120;

/// Whether lists and objects lie deeper within one another than `levels_max`.
pub fn exceeds(value: &Value, levels_max: usize) -> bool {
    let deeper = |child: &Value| levels_max == 0 || exceeds(child, levels_max - 1);
    match value {
        Value::Array(items) => items.iter().any(deeper),
        Value::Object(fields) => fields.values().any(deeper),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels_are_counted() {
        assert!(!exceeds(&json!(1), 0));
        assert!(!exceeds(&json!({"a": 1}), 1));
        assert!(exceeds(&json!({"a": [1]}), 1));
        let deep = (0..LEVELS_MAX).fold(json!(1), |value, _| json!([value]));
        assert!(!exceeds(&deep, LEVELS_MAX));
        assert!(exceeds(&json!([deep]), LEVELS_MAX));
    }
}
