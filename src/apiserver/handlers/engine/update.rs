//! Changing an object: PUT, PATCH and the subresources that write the object
//! (upstream: `registry/rest/update.go`, `Store.Update`).

use super::{ATTEMPTS_MAX, Written, draft, invalid_unless_empty, key, metadata, ownership};
use crate::apiserver::admission::resource_quota::Charges;
use crate::apiserver::admission::{self, Operation as AdmissionOperation};
use crate::apiserver::allocation;
use crate::apiserver::codec::stored;
use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::registry::field::FieldError;
use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, validation};
use crate::storage::{Entry, Operation, StorageError};
use std::sync::Arc;

/// What an update is about.
pub struct Update<'a> {
    pub kind: &'a Kind,
    pub name: &'a str,
    pub target: Target,
    pub dry_run: bool,
}

/// Makes the new object of the current one, decoded and defaulted, with its managedFields as they will be
/// ([`ownership`]). Called again if somebody else wrote in between.
pub type Change<'a> = dyn FnMut(&Object) -> Result<Object, ApiError> + Send + 'a;

/// Applies `change` to the stored object. None if there is no such object.
pub async fn update(ctx: &Context, request: &Update<'_>, change: &mut Change<'_>) -> Result<Option<Written>, ApiError> {
    let kind = request.kind;
    let key = key(ctx, kind, request.name);
    for _ in 0..ATTEMPTS_MAX {
        let Some(entry) = ctx.storage().get(&key.resource, &key.namespace, &key.name) else {
            return Ok(None);
        };
        let old = conversion::object(ctx, kind, &entry).await?;
        let changed = change(&old)?;
        let mut new = prepare(ctx, request, &entry, &old, changed).await?;
        let transaction = allocation::begin_update(ctx, kind, &mut new, &old, request.target, request.dry_run).await?;
        let (new, charges) = match checked(ctx, request, &old, new).await {
            Ok(checked) => checked,
            Err(error) => {
                transaction.settle().await;
                return Err(error);
            }
        };
        if request.dry_run {
            return Ok(Some(Written::DryRun(new)));
        }
        let draft = match draft(ctx, kind, &new).await {
            Ok(draft) => draft,
            Err(error) => {
                transaction.settle().await;
                return Err(error);
            }
        };
        let same = new == old || ownership::only_times_differ(&new, &old);
        // What is stored in an older version is written in the present one, which is all that a migration does.
        if draft.same_as(&entry) || (same && stored::is_current(kind, &entry)) {
            return Ok(Some(Written::Stored(entry)));
        }
        let (key, expected) = (key.clone(), entry.revision);
        let operation = if is_finished(kind, &new, &old) {
            Operation::Delete { key, expected, draft }
        } else {
            Operation::Update { key, expected, draft }
        };
        let gone = matches!(operation, Operation::Delete { .. });
        match ctx.storage().write_with(operation, charges.alongside()).await {
            Ok(entry) => {
                transaction.commit().await;
                if gone {
                    allocation::after_delete(ctx, kind, &new).await;
                }
                return Ok(Some(Written::Stored(entry)));
            }
            // Somebody else was first. If the client named a version, the next look says so.
            Err(StorageError::Conflict { .. } | StorageError::NotFound(_)) => transaction.settle().await,
            Err(error) => {
                transaction.settle().await;
                return Err(ApiError::from_storage(error, kind));
            }
        }
    }
    Err(ApiError::server_timeout(kind, "update", 1))
}

/// The object as it may be stored, and what it is charged to.
async fn checked(
    ctx: &Context,
    request: &Update<'_>,
    old: &Object,
    new: Object,
) -> Result<(Object, Charges), ApiError> {
    let new = check(ctx, request, old, new).await?;
    let charges = Charges::of(ctx, request.kind, request.target.subresource(), &new, Some(old))?;
    if request.dry_run {
        charges.check(ctx, request.kind, request.name)?;
    }
    Ok((new, charges))
}

/// Everything between the client's object and the one that is checked.
async fn prepare(
    ctx: &Context,
    request: &Update<'_>,
    entry: &Arc<Entry>,
    old: &Object,
    mut new: Object,
) -> Result<Object, ApiError> {
    let Update { kind, name, target, .. } = *request;
    metadata::check_name(&new, name)?;
    metadata::check_namespace(kind, metadata::text(&new, "namespace"), ctx.key_namespace(kind))?;
    check_preconditions(request, entry, old, &new)?;
    metadata::for_update(ctx, &mut new, old, target.is_main());
    kind.strategy.prepare_for_update(&mut new, old, target);
    if admission::admit(ctx, &subject(request, old), &mut new).await? {
        // Policies may change no more than the client.
        kind.strategy.prepare_for_update(&mut new, old, target);
    }
    if kind.strategy.counts_generation(target) && !same_intent(kind, &new, old) {
        metadata::bump_generation(&mut new);
    }
    Ok(new)
}

fn subject<'a>(request: &Update<'a>, old: &'a Object) -> admission::Subject<'a> {
    admission::Subject {
        kind: request.kind,
        subresource: request.target.subresource(),
        name: request.name.to_owned(),
        operation: AdmissionOperation::Update,
        old: Some(old),
        dry_run: request.dry_run,
        deletion: None,
    }
}

/// Refuses what may not be stored.
async fn check(ctx: &Context, request: &Update<'_>, old: &Object, new: Object) -> Result<Object, ApiError> {
    let Update { kind, name, target, .. } = *request;
    let mut errors = validation::object_meta_update(metadata::of(&new), metadata::of(old));
    if target.is_main() {
        for error in validation::object_meta(kind, metadata::of(&new)) {
            // Both look at labels, annotations and owners.
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        errors.extend(kind.strategy.validate(&new));
    }
    errors.extend(kind.strategy.validate_update(&new, old, target));
    invalid_unless_empty(kind, name, errors)?;
    admission::validate(ctx, &subject(request, old), &new).await?;
    for warning in kind.strategy.warnings(&new, Some(old)) {
        ctx.warnings.add(warning);
    }
    Ok(metadata::canonical(new))
}

/// The version and uid that the client's object names must be the stored ones.
fn check_preconditions(request: &Update<'_>, entry: &Entry, old: &Object, new: &Object) -> Result<(), ApiError> {
    let Update { kind, name, target, .. } = *request;
    match metadata::text(new, "resourceVersion") {
        "" | "0" => {
            if target.is_main() && !kind.strategy.allow_unconditional_update() {
                let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
                return Err(ApiError::invalid(kind.group, kind.resource, name, &[error]));
            }
        }
        text => match text.parse::<u64>() {
            Ok(revision) if revision == entry.revision => {}
            Ok(_) => return Err(ApiError::modified(kind, name)),
            Err(_) => {
                let error = FieldError::invalid("metadata.resourceVersion", text, "must be an unsigned integer");
                return Err(ApiError::invalid(kind.group, kind.kind, name, &[error]));
            }
        },
    }
    let (uid, stored) = (metadata::text(new, "uid"), metadata::text(old, "uid"));
    if !uid.is_empty() && uid != stored {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(ApiError::conflict(kind, name, &why));
    }
    Ok(())
}

/// Whether two objects are equal but for metadata and status: what `generation` counts.
fn same_intent(kind: &Kind, new: &Object, old: &Object) -> bool {
    let status = kind.strategy.status_is_intent();
    let intent = |field: &str| match field {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => status,
        _ => true,
    };
    new.iter()
        .filter(|(field, _)| intent(field))
        .all(|(field, value)| old.get(field) == Some(value))
        && old
            .keys()
            .filter(|field| intent(field))
            .all(|field| new.contains_key(field))
}

/// A deleted object goes when nothing holds it any longer: no finalizer, and no grace that somebody else ends.
fn is_finished(kind: &Kind, new: &Object, old: &Object) -> bool {
    let metadata = metadata::of(new);
    let was_held = metadata::has_finalizers(old) || kind.strategy.is_held(old);
    let grace = metadata
        .get("deletionGracePeriodSeconds")
        .and_then(serde_json::Value::as_i64)
        .unwrap_or(0);
    metadata.contains_key("deletionTimestamp")
        && was_held
        && !metadata::has_finalizers(new)
        && !kind.strategy.is_held(new)
        && grace == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generation_counts_neither_metadata_nor_status() {
        let kind = &*crate::registry::Registry::builtin()
            .lookup("apps", "v1", "deployments")
            .unwrap();
        let object = |value: serde_json::Value| value.as_object().unwrap().clone();
        let old = object(json!({"metadata": {"a": 1}, "spec": {"x": 1}, "status": {}}));
        assert!(same_intent(
            kind,
            &object(json!({"metadata": {}, "spec": {"x": 1}, "status": {"y": 1}})),
            &old
        ));
        assert!(!same_intent(
            kind,
            &object(json!({"metadata": {}, "spec": {"x": 2}})),
            &old
        ));
        assert!(!same_intent(kind, &object(json!({"metadata": {}})), &old));
        assert!(!same_intent(kind, &object(json!({"spec": {"x": 1}, "data": {}})), &old));
    }
}
