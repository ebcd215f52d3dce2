//! YAML documents as JSON values and back (upstream: `sigs.k8s.io/yaml`). Objects are not read this way but
//! along their schema, which also finds fields that are given twice.

mod repeated;

use serde_json::Value;

/// More are not reported.
const REPEATED_KEYS_MAX: usize = 10;

/// Decodes one document of any shape; the last of several equal keys counts.
pub fn decode(text: &[u8]) -> Result<Value, String> {
    serde_yaml_ng::from_slice(text).map_err(|e| format!("yaml: {e}"))
}

/// What stands before all that an apply configuration's YAML has against it.
pub const CONVERTING_HEAD: &str = "error converting YAML to JSON: ";
/// What stands before the lines of repeated keys in errors.
pub const REPEATED_HEAD: &str = "yaml: unmarshal errors:\n  ";

/// Keys that one map has twice, each as `line 4: key "foo" already set in map`.
pub fn repeated_keys(text: &[u8]) -> Vec<String> {
    let mut repeated = Vec::new();
    // The reader tells lines only of what it fails at, so it runs once more for every one found.
    while repeated.len() < REPEATED_KEYS_MAX {
        let mut walk = repeated::Walk::new(repeated.len());
        match walk.run(serde_yaml_ng::Deserializer::from_slice(text)) {
            Some(found) => repeated.push(found),
            None => break,
        }
    }
    repeated
}

/// Writes a document in block style. Text is plain only where no version of YAML takes it for anything else:
/// readers of YAML 1.1 see times, numbers and booleans in many words. Quoted, it is a JSON string, which is YAML, too.
pub fn encode(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Array(items) if !items.is_empty() => list(&mut out, items, 0),
        Value::Object(fields) if !fields.is_empty() => map(&mut out, fields, 0),
        other => {
            scalar(&mut out, other);
            out.push('\n');
        }
    }
    out
}

fn map(out: &mut String, fields: &serde_json::Map<String, Value>, indent: usize) {
    for (position, (key, value)) in fields.iter().enumerate() {
        // The first stands behind the dash of a list, or at the start of its own line.
        if position > 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        text(out, key);
        out.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent + 2));
                map(out, fields, indent + 2);
            }
            // Lists stand no deeper than their key, as kubectl prints them.
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent));
                list(out, items, indent);
            }
            other => {
                out.push(' ');
                scalar(out, other);
                out.push('\n');
            }
        }
    }
}

fn list(out: &mut String, items: &[Value], indent: usize) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => map(out, fields, indent + 2),
            Value::Array(items) if !items.is_empty() => list(out, items, indent + 2),
            other => {
                scalar(out, other);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(content) => text(out, content),
        // Numbers, booleans, null and what is empty are written as in JSON.
        other => out.push_str(&other.to_string()),
    }
}

fn text(out: &mut String, content: &str) {
    if is_plain(content) {
        out.push_str(content);
    } else {
        out.push_str(&Value::from(content).to_string());
    }
}

fn is_plain(content: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    content.starts_with(|first: char| first.is_ascii_alphabetic())
        && content
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-'))
        && !WORDS.iter().any(|word| content.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_become_json_and_back() {
        let values = [
            json!({"a": 1, "b": ["x", true, null], "c": {"d": {"e": []}, "f": {}}}),
            json!([[1, [2, {"a": {"b": [{"c": 1, "d": "2"}]}}]], [], "x"]),
            json!({"text": "two\nlines\t\"quoted\" \u{1} ä: #", "": "empty key", "a: b": "- c"}),
            json!({"n": "no", "y": "1e3", "t": "2026-01-01T00:00:00Z", "o": "0x1f", "m": "-", "s": " x "}),
            json!("text"),
            json!({}),
        ];
        for value in values {
            let text = encode(&value);
            assert_eq!(decode(text.as_bytes()), Ok(value), "{text}");
        }
    }

    #[test]
    fn it_reads_as_kubectl_prints_it() {
        let value = json!({
            "kind": "Pod", "at": "2026-01-01T00:00:00Z", "yes": "on",
            "spec": {"containers": [{"name": "a", "ports": [{"port": 80}]}, {"name": "b"}]},
        });
        let expected = "kind: Pod\nat: \"2026-01-01T00:00:00Z\"\n\"yes\": \"on\"\nspec:\n  containers:\n  - name: a\n    \
                        ports:\n    - port: 80\n  - name: b\n";
        assert_eq!(encode(&value), expected);
    }

    #[test]
    fn broken_documents_are_errors() {
        for bad in ["a: [", "{a: b"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
