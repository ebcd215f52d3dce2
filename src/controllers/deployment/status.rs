//! A deployment's status: counts, conditions, and whether it gets on (upstream: `calculateStatus` in
//! `pkg/controller/deployment/sync.go`, and `progress.go`).

use super::replica_sets::{Set, counted};
use super::sizes::Sizes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use std::time::Duration;

pub const AVAILABLE: &str = "Available";
pub const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

pub const CREATED: &str = "NewReplicaSetCreated";
pub const FOUND: &str = "FoundNewReplicaSet";
pub const CREATE_FAILED: &str = "ReplicaSetCreateError";
const UPDATED: &str = "ReplicaSetUpdated";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// A timer may fire a little early.
const SLACK: Duration = Duration::from_secs(1);

/// How long a deployment may go without getting on; None if that is of no interest.
pub fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

pub fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_.as_deref() == Some(kind))
}

pub fn reason<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a str> {
    condition(status, kind)?.reason.as_deref()
}

/// Sets a condition. One that says the same already stays as it is.
pub fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let time = Some(Time(now));
    put(
        status,
        DeploymentCondition {
            type_: Some(kind.to_owned()),
            status: Some(value.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: time.clone(),
            last_update_time: time,
        },
    );
}

fn put(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let kind = new.type_.clone().unwrap_or_default();
    if let Some(old) = condition(status, &kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &kind);
    status.conditions.get_or_insert_default().push(new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
    }
}

/// The clock stops while a deployment is paused, and starts anew when it is resumed.
pub fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() || reason(status, PROGRESSING) == Some(TIMED_OUT) {
        return;
    }
    let noted = reason(status, PROGRESSING) == Some(PAUSED);
    let paused = deployment.spec.paused == Some(true);
    let (reason, message) = match (paused, noted) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => (RESUMED, "Deployment is resumed"),
        _ => return,
    };
    set(status, PROGRESSING, "Unknown", reason, message.to_owned(), now);
}

/// Counts the pods of all sets; the conditions are those of `status`.
pub fn count(
    deployment: &Deployment,
    status: DeploymentStatus,
    new: Option<&Set<'_>>,
    old: &[Set<'_>],
    now: Timestamp,
) -> DeploymentStatus {
    let sizes = Sizes::of(deployment);
    let all = || old.iter().chain(new);
    let sum = |count: fn(&Set<'_>) -> i32| some(all().map(count).sum());
    let available: i32 = all().map(|set| of(set, |status| status.available_replicas)).sum();
    let wanted: i32 = all().map(|set| set.replicas).sum();
    // Not known as long as one set's controller has not said.
    let terminating = all().map(|set| set.is.status.as_ref()?.terminating_replicas).sum();
    let mut counts = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: sum(|set| counted(set.is)),
        updated_replicas: some(new.map_or(0, |new| counted(new.is))),
        ready_replicas: sum(|set| of(set, |status| status.ready_replicas)),
        available_replicas: some(available),
        unavailable_replicas: some((wanted - available).max(0)),
        terminating_replicas: terminating,
        collision_count: status.collision_count,
        conditions: status.conditions,
    };
    let (value, reason, message) = if available >= sizes.min_available() {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(&mut counts, AVAILABLE, value, reason, message.to_owned(), now);
    counts
}

fn of(set: &Set<'_>, count: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>) -> i32 {
    set.is.status.as_ref().and_then(count).unwrap_or(0)
}

/// Zero is not written.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// Says how the update gets on. `before` is the status that the counts of `status` are compared with.
pub fn note_progress(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&str>,
    now: Timestamp,
) {
    let Some(deadline) = deadline(deployment) else {
        return remove(status, PROGRESSING);
    };
    let finished = status.replicas == status.updated_replicas && reason(status, PROGRESSING) == Some(COMPLETE);
    if finished {
        return;
    }
    let subject = match new {
        Some(new) => format!("ReplicaSet \"{new}\""),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, PROGRESSING, "True", COMPLETE, message, now);
    } else if is_progress(before, status) {
        // Every step is noted, also if the reason is the one that stands there.
        let since = condition(status, PROGRESSING)
            .filter(|condition| condition.status.as_deref() == Some("True"))
            .and_then(|condition| condition.last_transition_time.clone());
        remove(status, PROGRESSING);
        let message = format!("{subject} is progressing.");
        set(status, PROGRESSING, "True", UPDATED, message, now);
        let noted = status.conditions.iter_mut().flatten().last();
        if let (Some(noted), Some(since)) = (noted, since) {
            noted.last_transition_time = Some(since);
        }
    } else if is_timed_out(status, deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        set(status, PROGRESSING, "False", TIMED_OUT, message, now);
    }
}

/// All pods are of the new template, and serve.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = Sizes::of(deployment).replicas;
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    all.iter().all(|count| count.unwrap_or(0) == replicas)
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

fn is_progress(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(now.updated_replicas) > count(before.updated_replicas)
        || old(now) < old(before)
        || count(now.ready_replicas) > count(before.ready_replicas)
        || count(now.available_replicas) > count(before.available_replicas)
}

fn is_timed_out(status: &DeploymentStatus, deadline: SignedDuration, now: Timestamp) -> bool {
    match (reason(status, PROGRESSING), last_sign(status)) {
        (Some(COMPLETE), _) => false,
        (Some(TIMED_OUT), _) => true,
        (_, Some(last)) => last.saturating_add(deadline).is_ok_and(|end| end < now),
        _ => false,
    }
}

fn last_sign(status: &DeploymentStatus) -> Option<Timestamp> {
    Some(condition(status, PROGRESSING)?.last_update_time.as_ref()?.0)
}

/// When to look whether the deadline has passed.
pub fn check_after(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    if is_complete(deployment, status) || reason(status, PROGRESSING) == Some(TIMED_OUT) {
        return None;
    }
    let left = last_sign(status)?
        .duration_until(now)
        .checked_neg()?
        .checked_add(deadline)?;
    Some(Duration::try_from(left).unwrap_or_default() + SLACK)
}

/// What keeps a set from having its pods; the new one's trouble before that of old ones.
pub fn note_failure(status: &mut DeploymentStatus, new: Option<&Set<'_>>, old: &[Set<'_>]) {
    let mut conditions = new.into_iter().chain(old).flat_map(|set| {
        let status = set.is.status.as_ref();
        status.into_iter().flat_map(|status| status.conditions.iter().flatten())
    });
    match conditions.find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE)) {
        None => remove(status, REPLICA_FAILURE),
        Some(failure) => put(
            status,
            DeploymentCondition {
                type_: failure.type_.clone(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_transition_time: failure.last_transition_time.clone(),
                last_update_time: failure.last_transition_time.clone(),
            },
        ),
    }
}

/// Whether both say the same: a count that is absent is zero.
pub fn same(one: &DeploymentStatus, other: &DeploymentStatus) -> bool {
    let counts = |status: &DeploymentStatus| {
        [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.unavailable_replicas,
        ]
        .map(|count| count.unwrap_or(0))
    };
    counts(one) == counts(other)
        && one.observed_generation.unwrap_or(0) == other.observed_generation.unwrap_or(0)
        && one.terminating_replicas == other.terminating_replicas
        && one.collision_count == other.collision_count
        && one.conditions.iter().flatten().eq(other.conditions.iter().flatten())
}
