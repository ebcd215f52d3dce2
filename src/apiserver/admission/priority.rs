//! Priority (upstream: `plugin/pkg/admission/priority`): a pod's class becomes the number that the scheduler's
//! queue orders by. Nothing is preempted yet, so that the class's preemptionPolicy is not copied.

use super::Subject;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::registry::strategies::cluster::SYSTEM_PRIORITY_CLASSES;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const CLASSES: &str = "priorityclasses.scheduling.k8s.io";

pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    if !subject.creates_pod() {
        return Ok(());
    }
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return Ok(());
    };
    let name = spec
        .get("priorityClassName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let class = if name.is_empty() {
        default_class(&classes(ctx)?)
    } else {
        let found = system_class(name).or_else(|| class_value(ctx, name));
        let missing = || {
            let why = format!("no PriorityClass with name {name} was found");
            ApiError::forbidden(subject.kind, &subject.name, &why)
        };
        Some((name.to_owned(), found.ok_or_else(missing)?))
    };
    let priority = class.as_ref().map_or(0, |(_, value)| *value);
    if let Some(sent) = spec
        .get("priority")
        .and_then(Value::as_i64)
        .filter(|sent| *sent != priority)
    {
        let why = format!(
            "the integer value of priority ({sent}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden(subject.kind, &subject.name, &why));
    }
    if let Some((name, _)) = class {
        spec.insert("priorityClassName".into(), json!(name));
    }
    spec.insert("priority".into(), json!(priority));
    Ok(())
}

fn system_class(name: &str) -> Option<i64> {
    SYSTEM_PRIORITY_CLASSES
        .iter()
        .find(|(class, _)| *class == name)
        .map(|(_, value)| *value)
}

fn value_of(class: &Object) -> i64 {
    class.get("value").and_then(Value::as_i64).unwrap_or_default()
}

fn class_value(ctx: &Context, name: &str) -> Option<i64> {
    let entry = ctx.storage().get(CLASSES, "", name)?;
    serde_json::from_slice(&entry.bytes).ok().as_ref().map(value_of)
}

fn classes(ctx: &Context) -> Result<Vec<Object>, ApiError> {
    let snapshot = ctx.storage().list(CLASSES, None, None).map_err(ApiError::internal)?;
    let objects = snapshot
        .entries
        .iter()
        .map(|entry| serde_json::from_slice(&entry.bytes));
    objects.collect::<Result<_, _>>().map_err(ApiError::internal)
}

/// The class of pods that name none. Of several the lowest counts, as upstream.
fn default_class(classes: &[Object]) -> Option<(String, i64)> {
    let defaults = classes
        .iter()
        .filter(|class| class.get("globalDefault") == Some(&Value::Bool(true)));
    defaults
        .map(|class| (metadata::text(class, "name").to_owned(), value_of(class)))
        .min_by_key(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_default_counts() {
        let class = |name: &str, value: i64, default: bool| {
            let class = json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
            class.as_object().unwrap().clone()
        };
        let classes = [class("a", 5, true), class("b", 1, false), class("c", 3, true)];
        assert_eq!(default_class(&classes), Some(("c".into(), 3)));
        assert_eq!(default_class(&classes[1..2]), None);
    }
}
