//! A value as Go's `%+v` prints it, which is how upstream shows a strategic patch in an error.

use serde_json::Value;
use std::fmt::{self, Display};

pub struct GoText<'a>(pub &'a Value);

impl Display for GoText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::String(text) => f.write_str(text),
            Value::Array(items) => {
                f.write_str("[")?;
                for (position, item) in items.iter().enumerate() {
                    let space = if position > 0 { " " } else { "" };
                    write!(f, "{space}{}", GoText(item))?;
                }
                f.write_str("]")
            }
            Value::Object(fields) => {
                // Go prints maps in the order of their keys.
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_unstable_by_key(|(key, _)| *key);
                f.write_str("map[")?;
                for (position, (key, value)) in fields.into_iter().enumerate() {
                    let space = if position > 0 { " " } else { "" };
                    write!(f, "{space}{key}:{}", GoText(value))?;
                }
                f.write_str("]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_are_sorted_and_nothing_is_quoted() {
        let value = json!({"spec": {"b": null, "a": [1, true, "x y"]}, "metadata": {}});
        assert_eq!(
            GoText(&value).to_string(),
            "map[metadata:map[] spec:map[a:[1 true x y] b:<nil>]]"
        );
    }
}
