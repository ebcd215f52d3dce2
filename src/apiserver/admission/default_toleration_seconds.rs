//! DefaultTolerationSeconds (upstream: `plugin/pkg/admission/defaulttolerationseconds`): pods stay for five
//! minutes on a node that is not ready or cannot be reached, unless they say otherwise.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub fn admit(_ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    // An update that leaves them out gets them again, too.
    let is_pod = subject.kind.group.is_empty() && subject.kind.resource == "pods" && subject.subresource.is_empty();
    if is_pod
        && subject.operation != Operation::Delete
        && let Some(Value::Object(spec)) = object.get_mut("spec")
    {
        add_defaults(spec);
    }
    Ok(())
}

fn add_defaults(spec: &mut Object) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(tolerations) = tolerations else {
        return;
    };
    for taint in TAINTS {
        if !tolerations.iter().any(|toleration| tolerates(toleration, taint)) {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
}

/// The toleration speaks of the taint, whatever it says.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    matches!(text("effect"), "" | "NoExecute") && (text("key") == taint || text("key").is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(tolerations: Value) -> Vec<String> {
        let mut spec = Object::new();
        spec.insert("tolerations".into(), tolerations);
        add_defaults(&mut spec);
        let list = spec["tolerations"].as_array().unwrap();
        list.iter()
            .map(|t| format!("{}/{}", t["key"].as_str().unwrap_or(""), t["tolerationSeconds"]))
            .collect()
    }

    #[test]
    fn defaults_are_added_where_nothing_is_said() {
        assert_eq!(
            keys(json!([])),
            ["node.kubernetes.io/not-ready/300", "node.kubernetes.io/unreachable/300"]
        );
        let own = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 5}]);
        assert_eq!(
            keys(own),
            ["node.kubernetes.io/not-ready/5", "node.kubernetes.io/unreachable/300"]
        );
        assert_eq!(keys(json!([{"operator": "Exists"}])), ["/null"]);
    }
}
