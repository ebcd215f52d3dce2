//! Rules of the statuses that controllers of workloads write (upstream: `Validate…Status` in `pkg/apis/apps/validation`
//! and `pkg/apis/core/validation`).

use crate::registry::field::FieldError;
use crate::registry::json::{at, number};
use crate::registry::strategy::Object;
use crate::registry::validation::non_negative;

fn counts(object: &Object, fields: &[&str]) -> Vec<FieldError> {
    let check = |field: &&str| non_negative(at(object, &["status", field]), &format!("status.{field}"));
    fields.iter().filter_map(check).collect()
}

fn bounded(object: &Object, fields: &[&str], bound: &str, detail: &str) -> Vec<FieldError> {
    let count = |field: &str| number(object, &["status", field]);
    let above = fields.iter().filter(|field| count(field) > count(bound));
    above
        .map(|field| FieldError::invalid(format!("status.{field}"), count(field), detail))
        .collect()
}

const OF_ALL: &str = "cannot be greater than status.replicas";

/// How often a name was taken only grows.
fn collisions(object: &Object, old: &Object) -> Option<FieldError> {
    let count = |object| at(object, &["status", "collisionCount"]).and_then(serde_json::Value::as_i64);
    let before = count(old)?;
    let now = count(object);
    let value = now.unwrap_or(0);
    let detail = "cannot be decremented";
    (now.is_none() || value < before).then(|| FieldError::invalid("status.collisionCount", value, detail))
}

pub fn deployment(object: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = counts(
        object,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "terminatingReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ],
    );
    let fields = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    errors.extend(bounded(object, &fields, "replicas", OF_ALL));
    let detail = "cannot be greater than readyReplicas";
    errors.extend(bounded(object, &["availableReplicas"], "readyReplicas", detail));
    errors.extend(collisions(object, old));
    errors
}

/// Of ReplicaSets and ReplicationControllers.
pub fn replicas(object: &Object, _old: &Object) -> Vec<FieldError> {
    let fields = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = counts(object, &["replicas"]);
    errors.extend(counts(object, &fields));
    errors.extend(counts(object, &["terminatingReplicas", "observedGeneration"]));
    errors.extend(bounded(object, &fields, "replicas", OF_ALL));
    let detail = "cannot be greater than readyReplicas";
    errors.extend(bounded(object, &["availableReplicas"], "readyReplicas", detail));
    errors
}

pub fn daemon_set(object: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = counts(
        object,
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
    );
    errors.extend(collisions(object, old));
    errors
}

pub fn stateful_set(object: &Object, old: &Object) -> Vec<FieldError> {
    let fields = [
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ];
    let mut errors = counts(object, &["replicas"]);
    errors.extend(counts(object, &fields));
    errors.extend(counts(object, &["observedGeneration", "collisionCount"]));
    errors.extend(bounded(object, &fields, "replicas", OF_ALL));
    let detail = "cannot be greater than status.readyReplicas";
    errors.extend(bounded(object, &["availableReplicas"], "readyReplicas", detail));
    errors.extend(collisions(object, old));
    errors
}
