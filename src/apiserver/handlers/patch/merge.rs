//! JSON merge patch, RFC 7386.

use crate::registry::strategy::Object;
use serde_json::Value;

/// Merges `patch` into `target`: `null` deletes, objects merge, all else replaces.
pub fn apply(mut target: Object, patch: &Object) -> Object {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(changes) => {
                let before = match target.get_mut(key).map(Value::take) {
                    Some(Value::Object(before)) => before,
                    _ => Object::new(),
                };
                target.insert(key.clone(), Value::Object(apply(before, changes)));
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc() {
        let rows = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (target, patch, expected) in rows {
            let merged = apply(target.as_object().unwrap().clone(), patch.as_object().unwrap());
            assert_eq!(Value::Object(merged), expected);
        }
    }
}
