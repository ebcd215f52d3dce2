//! What validating webhooks refuse: all are asked at once (upstream: `plugin/webhook/validating/dispatcher.go`).

use super::call::{Asks, Review, call};
use super::told;
use crate::apiserver::admission::policy::attributes::{Attributes, is_exempt};
use crate::apiserver::error::ApiError;
use futures_util::future::join_all;

/// The first refusal in the order of the webhooks.
pub async fn validate(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let ctx = attributes.ctx;
    let hooks = ctx.server.webhooks.read().validating();
    if hooks.is_empty() || is_exempt(attributes.subject.kind) {
        return Ok(());
    }
    let mut calls = Vec::new();
    for hook in hooks.iter() {
        if let Some(told) = told(hook, attributes).await? {
            calls.push((hook, Review::of(hook, attributes, &told)?));
        }
    }
    let answers = calls
        .iter()
        .map(|(hook, review)| call(ctx, hook, review, Asks::Consent));
    for answer in join_all(answers).await {
        answer?;
    }
    Ok(())
}
