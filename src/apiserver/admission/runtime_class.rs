//! RuntimeClass (upstream: `plugin/pkg/admission/runtimeclass`): what a pod's class says of its overhead and of the
//! nodes that can run it.

use super::Subject;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::json::{child_or_new, is_set, items, map, text};
use crate::registry::strategy::Object;
use serde_json::Value;

const CLASSES: &str = "runtimeclasses.node.k8s.io";

pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    if !subject.creates_pod() {
        return Ok(());
    }
    let class = match text(object, &["spec", "runtimeClassName"]) {
        "" => None,
        name => {
            let entry = ctx.storage().get(CLASSES, "", name);
            let missing = || {
                let why = format!("pod rejected: RuntimeClass {name:?} not found");
                ApiError::forbidden(subject.kind, &subject.name, &why)
            };
            let class: Object =
                serde_json::from_slice(&entry.ok_or_else(missing)?.bytes).map_err(ApiError::internal)?;
            Some(class)
        }
    };
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return Ok(());
    };
    join(spec, class.as_ref()).map_err(|why| ApiError::forbidden(subject.kind, &subject.name, &why))
}

/// Writes into the pod's spec what its class says. Err says why the two do not fit together.
fn join(spec: &mut Object, class: Option<&Object>) -> Result<(), String> {
    let overhead = class.and_then(|class| class.get("overhead")?.get("podFixed"));
    match (overhead, spec.get("overhead")) {
        (None, Some(_)) => {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
        }
        (Some(fixed), Some(own)) if fixed != own => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (Some(fixed), _) => {
            spec.insert("overhead".into(), fixed.clone());
        }
        (None, None) => {}
    }
    let Some(scheduling) = class.and_then(|class| map(class, &["scheduling"])) else {
        return Ok(());
    };
    if let Some(wanted) = map(scheduling, &["nodeSelector"]).filter(|wanted| !wanted.is_empty()) {
        let selector = child_or_new(spec, "nodeSelector");
        for (key, value) in wanted {
            if let Some(own) = selector.get(key).filter(|own| *own != value) {
                let (of_class, of_pod) = (value.as_str().unwrap_or_default(), own.as_str().unwrap_or_default());
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {of_class}; \
                     pod.spec.nodeSelector[{key}] = {of_pod}"
                ));
            }
            selector.insert(key.clone(), value.clone());
        }
    }
    if is_set(scheduling, "tolerations") {
        let mut tolerations = items(spec, &["tolerations"]).to_vec();
        let added = items(scheduling, &["tolerations"]);
        tolerations.extend(
            added
                .iter()
                .filter(|one| !tolerations.contains(one))
                .cloned()
                .collect::<Vec<_>>(),
        );
        spec.insert("tolerations".into(), tolerations.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_brings_overhead_and_scheduling() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let class = object(
            json!({"handler": "h", "overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {
            "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}}),
        );
        let joined = |spec: Value, class: Option<&Object>| {
            let mut spec = object(spec);
            join(&mut spec, class).map(|()| Value::Object(spec))
        };
        assert_eq!(
            joined(json!({"nodeSelector": {"c": "d"}}), Some(&class)),
            Ok(
                json!({"nodeSelector": {"c": "d", "a": "b"}, "overhead": {"cpu": "250m"},
                "tolerations": [{"key": "k", "operator": "Exists"}]})
            )
        );
        assert_eq!(joined(json!({}), None), Ok(json!({})));
        let refused = [
            (
                json!({"overhead": {"cpu": "1"}}),
                Some(&class),
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            ),
            (
                json!({"overhead": {"cpu": "1"}}),
                None,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            ),
            (
                json!({"nodeSelector": {"a": "x"}}),
                Some(&class),
                "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x",
            ),
        ];
        for (spec, class, why) in refused {
            assert_eq!(joined(spec, class), Err(why.to_owned()));
        }
    }
}
