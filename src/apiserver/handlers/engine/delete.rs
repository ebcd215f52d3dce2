//! Deleting an object: preconditions, finalizers, grace (upstream: `registry/rest/delete.go`, `Store.Delete`).

use super::{ATTEMPTS_MAX, draft, key, metadata, propagation};
use crate::apiserver::admission::{self, Operation as AdmissionOperation};
use crate::apiserver::allocation;
use crate::apiserver::codec::stored;
use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::DeleteOptions;
use crate::registry::Kind;
use crate::registry::strategy::{Deletion, Object};
use crate::storage::{Draft, Entry, Operation, StorageError};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// What a deletion left behind: the object as it is now, or as it was last.
pub struct Deleted {
    pub object: Object,
    /// It is gone; otherwise it waits for finalizers or for its grace to pass.
    pub gone: bool,
}

/// What is to happen to the object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Remove it now.
    Remove,
    /// Store this: the object is marked, somebody else ends it.
    Mark(Object),
    /// It is on its way already, and nothing changes.
    Pending,
}

/// Deletes the object `name` in the namespace of the URL.
pub async fn delete(ctx: &Context, kind: &Kind, name: &str, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    let key = key(ctx, kind, name);
    if options.propagation.is_none()
        && let Some(warning) = kind.strategy.delete_warning()
    {
        ctx.warnings.add(warning);
    }
    for _ in 0..ATTEMPTS_MAX {
        let entry = ctx
            .storage()
            .get(&key.resource, &key.namespace, &key.name)
            .ok_or_else(|| ApiError::not_found(kind, name))?;
        let old = conversion::object(ctx, kind, &entry).await?;
        check_preconditions(kind, &entry, options)?;
        kind.strategy
            .check_delete(&old)
            .map_err(|rejection| ApiError::from_rejection(rejection, kind, name))?;
        let subject = admission::Subject {
            kind,
            subresource: "",
            name: name.to_owned(),
            operation: AdmissionOperation::Delete,
            old: Some(&old),
            dry_run: options.dry_run,
            deletion: Some(options),
        };
        let mut nothing = Object::new();
        admission::admit(ctx, &subject, &mut nothing).await?;
        admission::validate(ctx, &subject, &nothing).await?;
        let plan = plan(kind, &old, options, jiff::Timestamp::now());
        let (operation, gone) = match plan {
            Plan::Pending => {
                return Ok(Deleted {
                    object: old,
                    gone: false,
                });
            }
            Plan::Mark(object) => {
                let object = metadata::canonical(object);
                if options.dry_run {
                    return Ok(Deleted { object, gone: false });
                }
                let draft = draft(ctx, kind, &object).await?;
                (
                    Operation::Update {
                        key: key.clone(),
                        expected: entry.revision,
                        draft,
                    },
                    false,
                )
            }
            Plan::Remove if options.dry_run => {
                return Ok(Deleted {
                    object: old,
                    gone: true,
                });
            }
            Plan::Remove => {
                let draft = if conversion::by_webhook(kind) {
                    // As it is: nobody need convert it back.
                    Draft::new(&stored::raw(&entry)?, entry.index.clone())
                } else {
                    draft(ctx, kind, &old).await?
                };
                (
                    Operation::Delete {
                        key: key.clone(),
                        expected: entry.revision,
                        draft,
                    },
                    true,
                )
            }
        };
        match ctx.storage().write(operation).await {
            Ok(written) => {
                if gone {
                    allocation::after_delete(ctx, kind, &old).await;
                }
                return Ok(Deleted {
                    object: conversion::object(ctx, kind, &written).await?,
                    gone,
                });
            }
            Err(StorageError::Conflict { .. }) => {}
            Err(error) => return Err(ApiError::from_storage(error, kind)),
        }
    }
    Err(ApiError::server_timeout(kind, "delete", 1))
}

fn check_preconditions(kind: &Kind, entry: &Entry, options: &DeleteOptions) -> Result<(), ApiError> {
    let name = &*entry.key.name;
    let failed = |what: &str, wanted: &str, found: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Err(ApiError::conflict(kind, name, &why))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != entry.index.uid) {
        return failed("UID", uid, &entry.index.uid);
    }
    let revision = entry.revision.to_string();
    match options.resource_version.as_deref() {
        Some(wanted) if wanted != revision => failed("ResourceVersion", wanted, &revision),
        _ => Ok(()),
    }
}

/// Decides what a deletion does to `old`.
fn plan(kind: &Kind, old: &Object, options: &DeleteOptions, now: jiff::Timestamp) -> Plan {
    let deleting = metadata::of(old).contains_key("deletionTimestamp");
    if deleting && kind.strategy.deletes_gracefully() {
        let held = metadata::has_finalizers(old) || kind.strategy.is_held(old);
        return plan_again(old, options.grace_period_seconds, held);
    }
    let mut object = old.clone();
    let changed = propagation::apply(kind, &mut object, options.propagation);
    let held = metadata::has_finalizers(&object) || kind.strategy.is_held(&object);
    if deleting {
        // A later deletion may still change its mind about the dependents.
        return match (held, changed) {
            (false, _) => Plan::Remove,
            (true, true) => Plan::Mark(object),
            (true, false) => Plan::Pending,
        };
    }
    let grace_seconds = match kind.strategy.deletion(old, options.grace_period_seconds) {
        Deletion::Immediate if !held => return Plan::Remove,
        Deletion::Graceful { grace_seconds: 0 } if !held => return Plan::Remove,
        Deletion::Immediate => 0,
        Deletion::Graceful { grace_seconds } => grace_seconds,
    };
    let at = now
        .checked_add(SignedDuration::from_secs(grace_seconds))
        .unwrap_or(jiff::Timestamp::MAX);
    mark(&mut object, at, grace_seconds);
    metadata::bump_generation(&mut object);
    kind.strategy.mark_deleted(&mut object);
    Plan::Mark(object)
}

/// A second deletion may only shorten the grace.
fn plan_again(old: &Object, requested: Option<i64>, held: bool) -> Plan {
    let current = metadata::of(old)
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    // Upstream takes a negative grace for one second.
    let requested = requested.map(|seconds| if seconds < 0 { 1 } else { seconds });
    match requested {
        _ if current == 0 => {
            if held {
                Plan::Pending
            } else {
                Plan::Remove
            }
        }
        Some(0) if !held => Plan::Remove,
        Some(seconds) if seconds < current => {
            let Ok(end) = metadata::text(old, "deletionTimestamp").parse::<jiff::Timestamp>() else {
                return Plan::Remove;
            };
            let sooner = end
                .checked_sub(SignedDuration::from_secs(current - seconds))
                .unwrap_or(end);
            let mut object = old.clone();
            mark(&mut object, sooner, seconds);
            Plan::Mark(object)
        }
        _ => Plan::Pending,
    }
}

fn mark(object: &mut Object, at: jiff::Timestamp, grace_seconds: i64) {
    let metadata = metadata::of_mut(object);
    metadata.insert("deletionTimestamp".into(), json!(super::metadata::timestamp(at)));
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace_seconds));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::options::PropagationPolicy;
    use crate::registry::Registry;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn run(resource: &str, object: Value, requested: Option<i64>) -> Plan {
        let options = DeleteOptions {
            grace_period_seconds: requested,
            ..DeleteOptions::default()
        };
        run_with(resource, object, &options)
    }

    fn run_with(resource: &str, object: Value, options: &DeleteOptions) -> Plan {
        let kind = Registry::builtin().lookup("", "v1", resource).unwrap();
        plan(&kind, object.as_object().unwrap(), options, NOW.parse().unwrap())
    }

    fn marked(plan: Plan) -> (Value, Value) {
        match plan {
            Plan::Mark(object) => {
                let metadata = &object["metadata"];
                (
                    metadata["deletionTimestamp"].clone(),
                    metadata["deletionGracePeriodSeconds"].clone(),
                )
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_holds_a_config_map_but_finalizers() {
        assert_eq!(run("configmaps", json!({"metadata": {}}), None), Plan::Remove);
        let held = run("configmaps", json!({"metadata": {"finalizers": ["a/b"]}}), Some(30));
        assert_eq!(marked(held), (json!(NOW), json!(0)));
        let again = json!({"metadata": {
            "finalizers": ["a/b"], "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0,
        }});
        assert_eq!(run("configmaps", again, None), Plan::Pending);
    }

    #[test]
    fn a_running_pod_has_its_grace() {
        let pod = json!({"metadata": {}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 40}});
        assert_eq!(
            marked(run("pods", pod.clone(), None)),
            (json!("2026-01-01T00:00:40Z"), json!(40))
        );
        assert_eq!(
            marked(run("pods", pod.clone(), Some(5))),
            (json!("2026-01-01T00:00:05Z"), json!(5))
        );
        assert_eq!(run("pods", pod, Some(0)), Plan::Remove);
    }

    #[test]
    fn a_second_deletion_only_shortens_the_grace() {
        let pod = json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30},
            "spec": {"nodeName": "n"},
        });
        assert_eq!(run("pods", pod.clone(), None), Plan::Pending);
        assert_eq!(run("pods", pod.clone(), Some(60)), Plan::Pending);
        assert_eq!(
            marked(run("pods", pod.clone(), Some(10))),
            (json!("2026-01-01T00:00:10Z"), json!(10))
        );
        assert_eq!(
            marked(run("pods", pod.clone(), Some(-5))),
            (json!("2026-01-01T00:00:01Z"), json!(1))
        );
        assert_eq!(run("pods", pod, Some(0)), Plan::Remove);
    }

    #[test]
    fn what_is_to_become_of_dependents_holds_the_object() {
        let options = |propagation| DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        let finalizers = |plan: Plan| match plan {
            Plan::Mark(object) => object["metadata"]["finalizers"].clone(),
            other => panic!("{other:?}"),
        };
        let plain = || json!({"metadata": {}});
        let background = options(PropagationPolicy::Background);
        let foreground = options(PropagationPolicy::Foreground);
        assert_eq!(run_with("configmaps", plain(), &background), Plan::Remove);
        assert_eq!(
            finalizers(run_with("configmaps", plain(), &foreground)),
            json!(["foregroundDeletion"])
        );
        let going = json!({"metadata": {
            "finalizers": ["foregroundDeletion"], "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0,
        }});
        assert_eq!(run_with("configmaps", going.clone(), &foreground), Plan::Pending);
        assert_eq!(run("configmaps", going.clone(), None), Plan::Pending);
        assert_eq!(
            finalizers(run_with(
                "configmaps",
                going.clone(),
                &options(PropagationPolicy::Orphan)
            )),
            json!(["orphan"])
        );
        assert_eq!(run_with("configmaps", going.clone(), &background), Plan::Remove);
        assert_eq!(run_with("pods", going, &background), Plan::Pending);
        assert_eq!(
            finalizers(run("replicationcontrollers", plain(), None)),
            json!(["orphan"])
        );
    }
}
