//! SelfSubjectReview: who am I (upstream: `pkg/registry/authentication/selfsubjectreview`).

use super::user_info;
use crate::apiserver::context::Context;
use serde_json::{Value, json};

pub fn status(ctx: &Context) -> Value {
    json!({ "userInfo": user_info(&ctx.user) })
}
