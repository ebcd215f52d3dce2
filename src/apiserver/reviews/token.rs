//! TokenReview: whose token is this (upstream: `pkg/registry/authentication/tokenreview`).

use super::{strings, user_info};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::filters::authentication::authenticated;
use crate::registry::json::{child_or_new, is_set, items, text};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

/// The answer; audiences that the question leaves out are put into it, as upstream does.
pub fn status(ctx: &Context, review: &mut Object) -> Result<Value, ApiError> {
    let namespace = text(review, &["metadata", "namespace"]);
    if !namespace.is_empty() {
        return Err(ApiError::bad_request(format!(
            "namespace is not allowed on this type: {namespace}"
        )));
    }
    let token = text(review, &["spec", "token"]).to_owned();
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let authenticator = &ctx.server.authenticator;
    let wanted = strings(items(review, &["spec", "audiences"]));
    let own = authenticator.tokens().audiences();
    let asked = if wanted.is_empty() { own } else { &wanted };
    if !is_set(child_or_new(review, "spec"), "audiences") {
        child_or_new(review, "spec").insert("audiences".into(), json!(own));
    }
    let found = match authenticator.authenticate_token(ctx.storage(), &token, asked) {
        Ok(found) => found,
        Err(error) => return Ok(json!({"user": {}, "error": error})),
    };
    // A token that names nobody is for the API server.
    let audiences: Vec<&String> = match found.audiences.as_slice() {
        [] => own.iter().filter(|audience| asked.contains(audience)).collect(),
        named => named.iter().collect(),
    };
    if audiences.is_empty() {
        return Ok(json!({"user": {}, "error": "invalid bearer token"}));
    }
    Ok(json!({
        "authenticated": true,
        "user": user_info(&authenticated(found.user)),
        "audiences": audiences,
    }))
}
