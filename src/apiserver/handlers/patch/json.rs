//! JSON patch, RFC 6902 with the liberties of upstream's library (`evanphx/json-patch`, version 4): members that are
//! missing read as null, `replace` adds them, and negative indices count from the end.

use super::strict::{self, Strict};
use crate::apiserver::error::ApiError;
use crate::apiserver::options::FieldValidation;
use crate::registry::strategy::Object;
use crate::transport::go_json;
use serde_json::Value;

/// An operation of type `test` found something else.
pub const TEST_FAILED: &str = "a test failed";
const OPERATIONS_MAX: usize = 10_000;
const FIELDS: [&str; 4] = ["op", "path", "from", "value"];

/// The operations, undecoded: what is wrong with one shows when it is applied.
#[derive(Debug)]
pub struct JsonPatch(Vec<Object>);

/// Reads a patch and what strict validation has against it.
pub fn parse(bytes: &[u8], validation: FieldValidation) -> Result<(JsonPatch, Vec<String>), ApiError> {
    let is_strict = validation != FieldValidation::Ignore;
    let undecodable = |text: String| {
        let prefix = if is_strict { "error decoding patch: " } else { "" };
        ApiError::bad_request(format!("{prefix}{text}"))
    };
    let Strict { value, mut errors } = strict::parse(bytes).map_err(undecodable)?;
    let list_type = if is_strict {
        "[]handlers.jsonPatchOp"
    } else {
        "jsonpatch.Patch"
    };
    let operations = match value {
        Value::Array(operations) => operations,
        Value::Null => Vec::new(),
        other => return Err(undecodable(go_json::mismatch(&other, "value", list_type))),
    };
    let mut patch = Vec::with_capacity(operations.len());
    for (index, operation) in operations.into_iter().enumerate() {
        let operation = match operation {
            Value::Object(operation) => operation,
            Value::Null => Object::new(),
            other => return Err(undecodable(go_json::mismatch(&other, "value", "handlers.jsonPatchOp"))),
        };
        if is_strict {
            for field in ["op", "path", "from"] {
                if let Some(value) = operation
                    .get(field)
                    .filter(|value| !value.is_string() && !value.is_null())
                {
                    let kind = go_json::kind(value);
                    let text = format!(
                        "json: cannot unmarshal {kind} into Go struct field jsonPatchOp.{field} of type string"
                    );
                    return Err(undecodable(text));
                }
            }
            let unknown = operation.keys().filter(|key| !FIELDS.contains(&key.as_str()));
            errors.extend(unknown.map(|key| format!("unknown field \"[{index}].{key}\"")));
        }
        patch.push(operation);
    }
    if patch.len() > OPERATIONS_MAX {
        return Err(ApiError::request_entity_too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.len()
        )));
    }
    let errors = errors.into_iter().map(|error| format!("json patch {error}")).collect();
    Ok((JsonPatch(patch), errors))
}

/// All operations, or the constant 422 of upstream.
pub fn apply(patch: &JsonPatch, old: &Object) -> Result<Value, ApiError> {
    apply_operations(&patch.0, old).map_err(|error| {
        tracing::debug!(error, "a JSON patch does not apply");
        ApiError::unprocessable_patch()
    })
}

/// The same for operations at hand; Err says what is wrong, which is [`TEST_FAILED`] if it is that.
pub fn apply_operations(operations: &[Object], old: &Object) -> Result<Value, &'static str> {
    let mut value = Value::Object(old.clone());
    for operation in operations {
        run(&mut value, operation)?;
    }
    Ok(value)
}

fn run(document: &mut Value, operation: &Object) -> Result<(), &'static str> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let path = || text("path").ok_or("the operation has no path");
    let from = || text("from").ok_or("the operation has no from");
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match text("op") {
        Some("add") => add(document, path()?, value()),
        Some("remove") => remove(document, path()?),
        Some("replace") => replace(document, path()?, value()),
        Some("test") => test(document, path()?, &value()),
        Some("copy") => {
            let copied = read(document, from()?)?;
            add(document, path()?, copied)
        }
        Some("move") => {
            let from = from()?;
            let moved = read(document, from)?;
            remove(document, from)?;
            add(document, path()?, moved)
        }
        _ => Err("unknown operation"),
    }
}

/// The list or map that holds the last step of the path, and that step.
fn holder<'d, 'p>(document: &'d mut Value, path: &'p str) -> Result<(&'d mut Value, String), &'static str> {
    let steps: Vec<&'p str> = path.split('/').collect();
    let [_, between @ .., last] = steps.as_slice() else {
        return Err("the path names no member");
    };
    let unescaped = |step: &str| step.replace("~1", "/").replace("~0", "~");
    let mut current = document;
    for step in between {
        let step = unescaped(step);
        current = match current {
            Value::Object(map) => map.get_mut(&step).ok_or("a part of the path is missing")?,
            Value::Array(list) => {
                let at = index(&step, list.len(), list.len())?;
                &mut list[at]
            }
            _ => return Err("a part of the path has no members"),
        };
    }
    match current {
        Value::Object(_) | Value::Array(_) => Ok((current, unescaped(last))),
        _ => Err("a part of the path has no members"),
    }
}

/// An index below `limit`; negative ones count from `length`.
fn index(step: &str, limit: usize, length: usize) -> Result<usize, &'static str> {
    let at: i64 = step.parse().map_err(|_| "no index of a list")?;
    let from_start = if at < 0 {
        at + i64::try_from(length).unwrap_or(i64::MAX)
    } else {
        at
    };
    usize::try_from(from_start)
        .ok()
        .filter(|at| *at < limit)
        .ok_or("an index beyond the list")
}

fn read(document: &mut Value, path: &str) -> Result<Value, &'static str> {
    let (holder, step) = holder(document, path)?;
    match holder {
        Value::Array(list) => Ok(list[index(&step, list.len(), list.len())?].clone()),
        other => Ok(other.get(&step).cloned().unwrap_or(Value::Null)),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), &'static str> {
    match holder(document, path)? {
        (Value::Array(list), step) if step == "-" => list.push(value),
        (Value::Array(list), step) => {
            // One more place than there are items: it may be appended.
            let places = list.len() + 1;
            list.insert(index(&step, places, places)?, value);
        }
        (Value::Object(map), step) => {
            map.insert(step, value);
        }
        _ => return Err("a part of the path has no members"),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<(), &'static str> {
    match holder(document, path)? {
        (Value::Array(list), step) => {
            let at = index(&step, list.len(), list.len())?;
            list.remove(at);
            Ok(())
        }
        (Value::Object(map), step) => map.shift_remove(&step).map(|_| ()).ok_or("there is no such member"),
        _ => Err("a part of the path has no members"),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), &'static str> {
    if path.is_empty() {
        if !matches!(value, Value::Object(_) | Value::Array(_)) {
            return Err("the whole document can only be an object or a list");
        }
        *document = value;
        return Ok(());
    }
    match holder(document, path)? {
        (Value::Array(list), step) => {
            let at = index(&step, list.len(), list.len())?;
            list[at] = value;
        }
        (Value::Object(map), step) => {
            map.insert(step, value);
        }
        _ => return Err("a part of the path has no members"),
    }
    Ok(())
}

fn test(document: &mut Value, path: &str, value: &Value) -> Result<(), &'static str> {
    let found = if path.is_empty() {
        document.clone()
    } else {
        read(document, path)?
    };
    if found == *value { Ok(()) } else { Err(TEST_FAILED) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(patch: Value) -> Result<Value, u16> {
        let old = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2], "null": null});
        let code = |e: ApiError| e.code().as_u16();
        let (patch, _) = parse(patch.to_string().as_bytes(), FieldValidation::Strict).map_err(code)?;
        apply(&patch, old.as_object().unwrap()).map_err(code)
    }

    fn list(operation: Value) -> Result<Value, u16> {
        run(json!([operation])).map(|value| value["list"].clone())
    }

    #[test]
    fn operations_apply_in_order() {
        let patched = run(json!([
            {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "remove", "path": "/metadata/labels/a~1b"},
            {"op": "add", "path": "/metadata/labels", "value": {}},
            {"op": "move", "from": "/null", "path": "/moved"},
        ]));
        let expected = json!({"metadata": {"labels": {}}, "list": [1, 2, 3], "moved": null});
        assert_eq!(patched, Ok(expected));
    }

    #[test]
    fn lists_are_indexed_from_both_ends() {
        let rows = [
            (
                json!({"op": "add", "path": "/list/0", "value": 0}),
                Ok(json!([0, 1, 2])),
            ),
            (
                json!({"op": "add", "path": "/list/2", "value": 0}),
                Ok(json!([1, 2, 0])),
            ),
            (
                json!({"op": "add", "path": "/list/-1", "value": 0}),
                Ok(json!([1, 2, 0])),
            ),
            (
                json!({"op": "add", "path": "/list/-3", "value": 0}),
                Ok(json!([0, 1, 2])),
            ),
            (json!({"op": "add", "path": "/list/-4", "value": 0}), Err(422)),
            (json!({"op": "add", "path": "/list/3", "value": 0}), Err(422)),
            (json!({"op": "add", "path": "/list/x", "value": 0}), Err(422)),
            (json!({"op": "remove", "path": "/list/-1"}), Ok(json!([1]))),
            (json!({"op": "remove", "path": "/list/-"}), Err(422)),
            (
                json!({"op": "replace", "path": "/list/1", "value": 9}),
                Ok(json!([1, 9])),
            ),
            (json!({"op": "replace", "path": "/list/2", "value": 9}), Err(422)),
            (
                json!({"op": "copy", "from": "/list/0", "path": "/list/-"}),
                Ok(json!([1, 2, 1])),
            ),
        ];
        for (operation, expected) in rows {
            assert_eq!(list(operation.clone()), expected, "{operation}");
        }
    }

    #[test]
    fn missing_members_read_as_null() {
        for good in [
            json!({"op": "test", "path": "/absent", "value": null}),
            json!({"op": "test", "path": "/null", "value": null}),
            json!({"op": "test", "path": "/absent"}),
            json!({"op": "replace", "path": "/absent", "value": 1}),
            json!({"op": "copy", "from": "/absent", "path": "/copied"}),
        ] {
            assert!(run(json!([good])).is_ok(), "{good}");
        }
        for bad in [
            json!({"op": "test", "path": "/list/0", "value": null}),
            json!({"op": "move", "from": "/absent", "path": "/moved"}),
            json!({"op": "remove", "path": "/absent"}),
            json!({"op": "add", "path": "/absent/below", "value": 1}),
            json!({"op": "add", "path": "/null/below", "value": 1}),
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "add", "path": "list", "value": {}}),
            json!({"op": "add", "value": {}}),
            json!({"op": "frobnicate", "path": "/list"}),
            json!({"op": "replace", "path": "", "value": 1}),
        ] {
            assert_eq!(run(json!([bad])), Err(422), "{bad}");
        }
    }

    #[test]
    fn what_is_no_patch_is_400() {
        assert_eq!(run(json!({"op": "remove"})), Err(400));
        assert_eq!(run(json!(["x"])), Err(400));
        assert_eq!(run(json!([{"op": 1}])), Err(400));
        let many: Vec<Value> = (0..=OPERATIONS_MAX)
            .map(|_| json!({"op": "remove", "path": "/x"}))
            .collect();
        assert_eq!(run(json!(many)), Err(413));
    }

    #[test]
    fn strict_validation_looks_at_the_operations() {
        let text = br#"[{"op":"add","path":"/a","path":"/b","more":1,"value":{"x":1,"x":2}}]"#;
        let (_, errors) = parse(text, FieldValidation::Strict).unwrap();
        assert_eq!(
            errors,
            [
                r#"json patch duplicate field "[0].path""#,
                r#"json patch duplicate field "[0].value.x""#,
                r#"json patch unknown field "[0].more""#,
            ]
        );
    }
}
