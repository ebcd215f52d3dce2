//! YAML documents as JSON values and back (upstream: `sigs.k8s.io/yaml`). Objects are not read this way but
//! along their schema, which also finds fields that are given twice.

use serde_json::Value;

/// Decodes one document of any shape; the last of several equal keys counts.
pub fn decode(text: &[u8]) -> Result<Value, String> {
    serde_yaml_ng::from_slice(text).map_err(|e| format!("yaml: {e}"))
}

pub fn encode(value: &Value) -> Result<String, serde_yaml_ng::Error> {
    serde_yaml_ng::to_string(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_become_json_and_back() {
        let value = json!({"a": 1, "b": ["x", true, null]});
        assert_eq!(decode(b"a: 1\nb: [x, true, null]\n"), Ok(value.clone()));
        assert_eq!(decode(encode(&value).unwrap().as_bytes()), Ok(value));
    }

    #[test]
    fn broken_documents_are_errors() {
        for bad in ["a: [", "{a: b"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
