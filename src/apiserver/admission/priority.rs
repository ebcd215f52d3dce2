//! Priority (upstream: `plugin/pkg/admission/priority`): a pod's class becomes the number that the scheduler's
//! queue orders by, and its word on preemption the pod's. One class at most is the default.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::registry::json::text;
use crate::registry::strategies::cluster::SYSTEM_PRIORITY_CLASSES;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    if !subject.subresource.is_empty() {
        return Ok(());
    }
    let refused = |why: String| ApiError::forbidden(subject.kind, &subject.name, &why);
    match (
        subject.kind.group,
        subject.kind.resource,
        subject.operation,
        subject.old,
    ) {
        ("", "pods", Operation::Create, _) => resolve(ctx, object)?.map_err(refused),
        ("", "pods", Operation::Update, Some(old)) => {
            keep(object, old);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Of a class, which may be the default only if no other is.
pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let writes = matches!(subject.operation, Operation::Create | Operation::Update);
    let is_class = (subject.kind.group, subject.kind.resource) == ("scheduling.k8s.io", "priorityclasses");
    if !writes || !is_class || !subject.subresource.is_empty() {
        return Ok(());
    }
    let refused = |why: String| ApiError::forbidden(subject.kind, &subject.name, &why);
    one_default(&classes(ctx)?, object, subject).map_err(refused)
}

/// What a class says for its pods.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    name: String,
    value: i64,
    policy: String,
}

impl Class {
    fn of(class: &Object) -> Self {
        Self {
            name: metadata::text(class, "name").to_owned(),
            value: class.get("value").and_then(Value::as_i64).unwrap_or_default(),
            policy: match text(class, &["preemptionPolicy"]) {
                "" => PREEMPT.to_owned(),
                policy => policy.to_owned(),
            },
        }
    }
}

/// Writes the class and what it stands for into a new pod. The inner Err is upstream's text.
fn resolve(ctx: &Context, pod: &mut Object) -> Result<Result<(), String>, ApiError> {
    let class = match text(pod, &["spec", "priorityClassName"]) {
        "" => default_class(&classes(ctx)?),
        name => match system_class(name).or_else(|| class(ctx, name)) {
            Some(class) => Some(class),
            None => return Ok(Err(format!("no PriorityClass with name {name} was found"))),
        },
    };
    let Some(Value::Object(spec)) = pod.get_mut("spec") else {
        return Ok(Ok(()));
    };
    Ok(fill(spec, class))
}

fn fill(spec: &mut Object, class: Option<Class>) -> Result<(), String> {
    let (priority, policy) = match &class {
        Some(class) => (class.value, class.policy.as_str()),
        None => (0, PREEMPT),
    };
    let sent = spec.get("priority").and_then(Value::as_i64);
    if let Some(sent) = sent.filter(|sent| *sent != priority) {
        return Err(format!(
            "the integer value of priority ({sent}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        ));
    }
    let sent = spec.get("preemptionPolicy").and_then(Value::as_str);
    if let Some(sent) = sent.filter(|sent| *sent != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({sent}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.insert("preemptionPolicy".into(), json!(policy));
    if let Some(class) = class {
        spec.insert("priorityClassName".into(), json!(class.name));
    }
    spec.insert("priority".into(), json!(priority));
    Ok(())
}

/// An update that leaves out what admission once wrote keeps it.
fn keep(pod: &mut Object, old: &Object) {
    let (Some(Value::Object(spec)), Some(Value::Object(before))) = (pod.get_mut("spec"), old.get("spec")) else {
        return;
    };
    for field in ["priority", "preemptionPolicy"] {
        if let (None, Some(value)) = (spec.get(field), before.get(field)) {
            spec.insert(field.into(), value.clone());
        }
    }
}

/// There is one default at most.
fn one_default(classes: &[Object], class: &Object, subject: &Subject<'_>) -> Result<(), String> {
    if class.get("globalDefault") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    match default_class(classes) {
        Some(other) if subject.operation == Operation::Create || other.name != subject.name => Err(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.name
        )),
        _ => Ok(()),
    }
}

fn system_class(name: &str) -> Option<Class> {
    let found = SYSTEM_PRIORITY_CLASSES.iter().find(|(class, _)| *class == name);
    found.map(|(name, value)| Class {
        name: (*name).to_owned(),
        value: *value,
        policy: PREEMPT.to_owned(),
    })
}

fn class(ctx: &Context, name: &str) -> Option<Class> {
    let entry = ctx.storage().get(CLASSES, "", name)?;
    serde_json::from_slice(&entry.bytes).ok().as_ref().map(Class::of)
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
fn default_class(classes: &[Object]) -> Option<Class> {
    let defaults = classes
        .iter()
        .filter(|class| class.get("globalDefault") == Some(&Value::Bool(true)));
    defaults.map(Class::of).min_by_key(|class| class.value)
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
        assert_eq!(default_class(&classes).unwrap().name, "c");
        assert_eq!(default_class(&classes[1..2]), None);
    }

    #[test]
    fn pods_get_what_their_class_says_and_nothing_else() {
        let gentle = || Class {
            name: "gentle".into(),
            value: 5,
            policy: "Never".into(),
        };
        let filled = |spec: Value, class: Option<Class>| {
            let mut spec = spec.as_object().unwrap().clone();
            fill(&mut spec, class).map(|()| Value::Object(spec))
        };
        assert_eq!(
            filled(json!({}), Some(gentle())),
            Ok(json!({"preemptionPolicy": "Never", "priorityClassName": "gentle", "priority": 5}))
        );
        assert_eq!(
            filled(json!({"priority": 0}), None),
            Ok(json!({"preemptionPolicy": "PreemptLowerPriority", "priority": 0}))
        );
        assert!(filled(json!({"priority": 7}), None).is_err());
        assert_eq!(
            filled(json!({"preemptionPolicy": "PreemptLowerPriority"}), Some(gentle())).unwrap_err(),
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority \
             admission controller computed Never from the given PriorityClass name"
        );
    }
}
