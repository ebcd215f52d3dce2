//! JSON patch, RFC 6902 (upstream: `evanphx/json-patch`).

use crate::apiserver::error::ApiError;
use crate::registry::strategy::Object;
use serde_json::Value;

const OPERATIONS_MAX: usize = 10_000;

pub fn parse(bytes: &[u8]) -> Result<json_patch::Patch, ApiError> {
    let patch: json_patch::Patch =
        serde_json::from_slice(bytes).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    if patch.0.len() > OPERATIONS_MAX {
        return Err(ApiError::request_entity_too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.0.len()
        )));
    }
    Ok(patch)
}

/// All operations, or the constant 422 of upstream.
pub fn apply(patch: &json_patch::Patch, old: &Object) -> Result<Value, ApiError> {
    let mut value = Value::Object(old.clone());
    json_patch::patch(&mut value, &patch.0).map_err(|error| {
        tracing::debug!(%error, "a JSON patch does not apply");
        ApiError::unprocessable_patch()
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(patch: Value) -> Result<Value, u16> {
        let old = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2]});
        let code = |e: ApiError| e.code().as_u16();
        let patch = parse(patch.to_string().as_bytes()).map_err(code)?;
        apply(&patch, old.as_object().unwrap()).map_err(code)
    }

    #[test]
    fn operations_apply_in_order() {
        let patched = run(json!([
            {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "remove", "path": "/metadata/labels/a~1b"},
            {"op": "add", "path": "/metadata/labels", "value": {}},
        ]));
        assert_eq!(patched, Ok(json!({"metadata": {"labels": {}}, "list": [1, 2, 3]})));
    }

    #[test]
    fn what_fails_is_422_and_what_is_no_patch_400() {
        assert_eq!(run(json!([{"op": "test", "path": "/list/0", "value": 9}])), Err(422));
        assert_eq!(run(json!([{"op": "remove", "path": "/absent"}])), Err(422));
        assert_eq!(run(json!([{"op": "replace", "path": "/absent", "value": 1}])), Err(422));
        assert_eq!(run(json!({"op": "remove"})), Err(400));
        let many: Vec<Value> = (0..=OPERATIONS_MAX)
            .map(|_| json!({"op": "remove", "path": "/x"}))
            .collect();
        assert_eq!(run(json!(many)), Err(413));
    }
}
