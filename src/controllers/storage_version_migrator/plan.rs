//! What a migration needs next. Pure.

use jiff::Timestamp;
use k8s_openapi::api::storagemigration::v1::{StorageVersionMigration, StorageVersionMigrationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, GroupResource, Time};

pub const RUNNING: &str = "Running";
pub const SUCCEEDED: &str = "Succeeded";
pub const FAILED: &str = "Failed";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Find out which revision the resource is at.
    Resolve,
    /// It is its turn.
    Begin,
    /// Rewrite all objects.
    Migrate,
    /// Clean up after its end.
    Finish {
        succeeded: bool,
    },
}

pub fn resource(migration: &StorageVersionMigration) -> GroupResource {
    let spec = migration.spec.as_ref();
    spec.map(|spec| spec.resource.clone()).unwrap_or_default()
}

fn condition<'a>(migration: &'a StorageVersionMigration, kind: &str) -> Option<&'a Condition> {
    let conditions = migration.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn holds(migration: &StorageVersionMigration, kind: &str) -> bool {
    condition(migration, kind).is_some_and(|condition| condition.status == "True")
}

fn is_over(migration: &StorageVersionMigration) -> bool {
    holds(migration, SUCCEEDED) || holds(migration, FAILED)
}

/// `all` are the migrations of the same resource, this one among them: one runs at a time, the oldest first.
pub fn next<'a>(
    migration: &StorageVersionMigration,
    all: impl IntoIterator<Item = &'a StorageVersionMigration>,
) -> Step {
    if is_over(migration) {
        return if holds(migration, RUNNING) {
            Step::Finish {
                succeeded: holds(migration, SUCCEEDED),
            }
        } else {
            Step::Nothing
        };
    }
    let revision = migration
        .status
        .as_ref()
        .and_then(|status| status.resource_version.as_deref());
    if revision.unwrap_or_default().is_empty() {
        return Step::Resolve;
    }
    if holds(migration, RUNNING) {
        return Step::Migrate;
    }
    let age = |migration: &StorageVersionMigration| {
        let metadata = &migration.metadata;
        (
            metadata.creation_timestamp.as_ref().map(|time| time.0),
            metadata.name.clone(),
        )
    };
    let mine = age(migration);
    // One that is over runs until what it leaves behind is seen to.
    let mut others = all.into_iter();
    match others.any(|other| holds(other, RUNNING) || (!is_over(other) && age(other) < mine)) {
        true => Step::Nothing,
        false => Step::Begin,
    }
}

/// Sets a condition to true.
pub fn set(status: &mut StorageVersionMigrationStatus, kind: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions
        .iter()
        .any(|known| known.type_ == kind && known.status == "True")
    {
        return;
    }
    conditions.retain(|known| known.type_ != kind);
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    });
}

/// It runs no more: what it leaves behind is seen to.
pub fn end_running(status: &mut StorageVersionMigrationStatus, generation: Option<i64>, now: Timestamp) {
    let conditions = status.conditions.iter_mut().flatten();
    for running in conditions.filter(|condition| condition.type_ == RUNNING) {
        running.status = "False".to_owned();
        running.reason = "MigrationCompleted".to_owned();
        running.message = "Migration completed".to_owned();
        running.last_transition_time = Time(now);
        running.observed_generation = generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn migration(name: &str, created: u32, revision: &str, conditions: &[(&str, &str)]) -> StorageVersionMigration {
        let conditions: Vec<serde_json::Value> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"resource": {"group": "", "resource": "pods"}},
            "status": {"resourceVersion": revision, "conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn one_after_the_other() {
        let over = migration("a", 1, "5", &[("Running", "True"), ("Succeeded", "True")]);
        let failed = migration("b", 1, "5", &[("Running", "True"), ("Failed", "True")]);
        let clean = migration("c", 1, "5", &[("Running", "False"), ("Succeeded", "True")]);
        let new = migration("d", 2, "", &[]);
        let old = migration("e", 3, "6", &[]);
        let young = migration("f", 4, "7", &[]);
        let running = migration("g", 9, "8", &[("Running", "True")]);
        let all = [&over, &failed, &clean, &new, &old, &young];
        let next_of = |migration, all: &[&StorageVersionMigration]| next(migration, all.iter().copied());
        assert_eq!(next_of(&over, &all), Step::Finish { succeeded: true });
        assert_eq!(next_of(&failed, &all), Step::Finish { succeeded: false });
        assert_eq!(next_of(&clean, &all), Step::Nothing);
        assert_eq!(next_of(&new, &all), Step::Resolve);
        assert_eq!(next_of(&old, &all), Step::Nothing, "an older one waits");
        assert_eq!(next_of(&old, &[&over, &old]), Step::Nothing, "one is not seen to yet");
        let all = [&clean, &old, &young];
        assert_eq!(next_of(&old, &all), Step::Begin);
        assert_eq!(next_of(&young, &all), Step::Nothing);
        let all = [&running, &old];
        assert_eq!(next_of(&old, &all), Step::Nothing, "another runs");
        assert_eq!(next_of(&running, &all), Step::Migrate);
    }

    #[test]
    fn the_end_of_a_migration_ends_its_running() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut status = StorageVersionMigrationStatus::default();
        set(
            &mut status,
            RUNNING,
            "MigrationRunning",
            "The migration is running",
            now,
        );
        set(&mut status, SUCCEEDED, "StorageVersionMigrationSucceeded", "", now);
        set(&mut status, SUCCEEDED, "Again", "", now);
        end_running(&mut status, Some(2), now);
        let told: Vec<(String, String, String)> = status
            .conditions
            .clone()
            .unwrap()
            .into_iter()
            .map(|condition| (condition.type_, condition.status, condition.reason))
            .collect();
        let text = |words: [&str; 3]| (words[0].to_owned(), words[1].to_owned(), words[2].to_owned());
        assert_eq!(
            told,
            [
                text(["Running", "False", "MigrationCompleted"]),
                text(["Succeeded", "True", "StorageVersionMigrationSucceeded"]),
            ]
        );
    }
}
