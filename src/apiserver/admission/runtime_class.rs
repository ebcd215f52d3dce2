//! RuntimeClass (upstream: `plugin/pkg/admission/runtimeclass`): what a pod's class says of its overhead and of the
//! nodes that can run it.

use super::Subject;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::quantity::Quantity;
use crate::registry::json::{child_or_new, is_set, items, map, quantity, text};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::BTreeMap;

const CLASSES: &str = "runtimeclasses.node.k8s.io";
const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    if !subject.creates_pod() {
        return Ok(());
    }
    let Some(class) = class_of(ctx, subject, object)? else {
        return Ok(());
    };
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return Ok(());
    };
    join(spec, &class).map_err(|why| ApiError::forbidden(subject.kind, &subject.name, &why))
}

/// Whether the pod, as all who change pods have left it, has the overhead of its class.
pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    if !subject.creates_pod() {
        return Ok(());
    }
    let class = class_of(ctx, subject, object)?;
    let Some(spec) = map(object, &["spec"]) else {
        return Ok(());
    };
    check_overhead(spec, class.as_ref()).map_err(|why| ApiError::forbidden(subject.kind, &subject.name, why))
}

fn class_of(ctx: &Context, subject: &Subject<'_>, pod: &Object) -> Result<Option<Object>, ApiError> {
    let name = text(pod, &["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(None);
    }
    let entry = ctx.storage().get(CLASSES, "", name).ok_or_else(|| {
        let why = format!("pod rejected: RuntimeClass {name:?} not found");
        ApiError::forbidden(subject.kind, &subject.name, &why)
    })?;
    serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)
}

/// Whether two lists say the same, however they write it; none is as good as an empty one.
fn is_same(one: Option<&Object>, other: Option<&Object>) -> bool {
    let amounts = |list: Option<&Object>| -> BTreeMap<String, Option<Quantity>> {
        let amounts = list.into_iter().flatten();
        amounts.map(|(name, amount)| (name.clone(), quantity(amount))).collect()
    };
    amounts(one) == amounts(other)
}

fn check_overhead(spec: &Object, class: Option<&Object>) -> Result<(), &'static str> {
    match class.and_then(|class| map(class, &["overhead"])) {
        Some(overhead) if is_same(map(overhead, &["podFixed"]), map(spec, &["overhead"])) => Ok(()),
        Some(_) => Err(MISMATCH),
        None if spec.contains_key("overhead") => {
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        }
        None => Ok(()),
    }
}

/// Writes into the pod's spec what its class says. Err says why the two do not fit together.
fn join(spec: &mut Object, class: &Object) -> Result<(), String> {
    if let Some(fixed) = map(class, &["overhead", "podFixed"]) {
        let own = map(spec, &["overhead"]).filter(|own| !own.is_empty());
        if own.is_some() && !is_same(Some(fixed), own) {
            return Err(MISMATCH.to_owned());
        }
        spec.insert("overhead".into(), fixed.clone().into());
    }
    let Some(scheduling) = map(class, &["scheduling"]) else {
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
        let joined = |spec: Value| {
            let mut spec = object(spec);
            join(&mut spec, &class).map(|()| Value::Object(spec))
        };
        assert_eq!(
            joined(json!({"nodeSelector": {"c": "d"}})),
            Ok(
                json!({"nodeSelector": {"c": "d", "a": "b"}, "overhead": {"cpu": "250m"},
                "tolerations": [{"key": "k", "operator": "Exists"}]})
            )
        );
        let refused = [
            (json!({"overhead": {"cpu": "1"}}), MISMATCH),
            (
                json!({"nodeSelector": {"a": "x"}}),
                "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x",
            ),
        ];
        for (spec, why) in refused {
            assert_eq!(joined(spec), Err(why.to_owned()));
        }
    }

    #[test]
    fn the_overhead_is_that_of_the_class() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let with = object(json!({"handler": "h", "overhead": {"podFixed": {"cpu": "250m"}}}));
        let without = object(json!({"handler": "h"}));
        let alone = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        for (spec, class, expected) in [
            (json!({}), None, Ok(())),
            (json!({"overhead": {"cpu": "1"}}), None, Err(alone)),
            (json!({}), Some(&without), Ok(())),
            (json!({"overhead": {"cpu": "1"}}), Some(&without), Err(alone)),
            (json!({"overhead": {"cpu": "0.25"}}), Some(&with), Ok(())),
            (json!({"overhead": {"cpu": "1"}}), Some(&with), Err(MISMATCH)),
            (json!({}), Some(&with), Err(MISMATCH)),
        ] {
            assert_eq!(check_overhead(&object(spec.clone()), class), expected, "{spec}");
        }
    }
}
