//! What mutating webhooks change: one is asked after the other (upstream: `plugin/webhook/mutating/dispatcher.go`).

use super::call::{Asks, Patch, Review, call};
use super::told;
use crate::apiserver::admission::policy::attributes::Attributes;
use crate::apiserver::admission::policy::mutating::{Decoding, decoded};
use crate::apiserver::admission::reinvocation::Reinvocation;
use crate::apiserver::admission::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::conversion::between;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::patch::json::apply_operations;
use crate::registry::Kind;
use crate::registry::policy::hook::Hook;
use crate::registry::strategy::Object;
use serde_json::Value;
use std::sync::Arc;

/// Asks the webhooks that are for the request and take part. True if one changed the object.
pub async fn round(
    ctx: &Context,
    subject: &Subject<'_>,
    object: &mut Object,
    hooks: &[Arc<Hook>],
    rounds: &mut Reinvocation<usize>,
) -> Result<bool, ApiError> {
    let mut changed = false;
    for (place, hook) in hooks.iter().enumerate() {
        if !rounds.takes_part(&place) {
            continue;
        }
        let prepared = {
            let attributes = Attributes::new(ctx, subject, object);
            match told(hook, &attributes).await? {
                None => None,
                Some(told) => Some((Review::of(hook, &attributes, &told)?, told.kind)),
            }
        };
        let Some((review, kind)) = prepared else { continue };
        let patch = call(ctx, hook, &review, Asks::Changes).await?;
        if !patch.is_empty()
            && let Some(next) = apply(ctx, hook, subject, (&*object, kind.as_deref()), &patch).await?
        {
            *object = next;
            changed = true;
            rounds.changed();
        }
        if hook.reinvoked {
            rounds.asked(place);
        }
    }
    rounds.end(object);
    Ok(changed)
}

/// The object with a webhook's changes; None if there are none.
async fn apply(
    ctx: &Context,
    hook: &Hook,
    subject: &Subject<'_>,
    (object, matched): (&Object, Option<&Kind>),
    patch: &Patch,
) -> Result<Option<Object>, ApiError> {
    if subject.operation == Operation::Delete {
        return Err(ApiError::internal(format_args!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    }
    let kind = matched.unwrap_or(subject.kind);
    let current = match matched {
        Some(kind) => between(ctx, subject.kind, kind, object).await?,
        None => object.clone(),
    };
    let patched = apply_operations(patch, &current).map_err(ApiError::internal)?;
    let next = if subject.is_sent() {
        // A Binding and the like is read when it is acted upon.
        match patched {
            Value::Object(next) => next,
            _ => return Err(ApiError::internal("the patched object is no object")),
        }
    } else {
        decoded(kind, patched, Decoding::Lenient).map_err(ApiError::internal)?
    };
    if next == current {
        return Ok(None);
    }
    Ok(Some(match matched {
        Some(kind) => between(ctx, kind, subject.kind, &next).await?,
        None => next,
    }))
}
