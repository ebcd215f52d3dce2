//! ServiceAccount (upstream: `plugin/pkg/admission/serviceaccount`), as far as tokens are served: the name.

use super::Subject;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const DEFAULT: &str = "default";

pub fn admit(_ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    if !subject.creates_pod() {
        return Ok(());
    }
    if let Some(Value::Object(spec)) = object.get_mut("spec") {
        let name = spec
            .get("serviceAccountName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let name = if name.is_empty() {
            DEFAULT.to_owned()
        } else {
            name.to_owned()
        };
        // The old name of the field is kept equal, as upstream's conversion does.
        spec.insert("serviceAccountName".into(), json!(name));
        spec.insert("serviceAccount".into(), json!(name));
    }
    Ok(())
}
