//! Kinds that are questions: answered and not stored (upstream: `pkg/registry/{authentication,authorization}`).
//! One file per question; those about access share [`access`].

mod access;
mod rules;
mod self_subject;
mod token;

use super::codec::accept::Shape;
use super::codec::body::{self, Expected};
use super::codec::respond::respond_value;
use super::context::Context;
use super::error::ApiError;
use super::options::WriteOptions;
use super::request::User;
use crate::registry::Kind;
use crate::registry::json::text;
use crate::registry::strategy::Object;
use poem::http::StatusCode;
use poem::{Body, Response};
use serde_json::{Value, json};

/// Whether the kind is a question that is answered here.
pub fn is_review(kind: &Kind) -> bool {
    kind.verbs == ["create"]
}

pub async fn handle(ctx: &Context, kind: &Kind, request_body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::create(&ctx.query)?;
    let negotiated = ctx.negotiate(Shape::Plain)?;
    let mut object = body::read_object(ctx, &Expected::of(kind), request_body, options.field_validation).await?;
    let status = match kind.kind {
        "SelfSubjectReview" => self_subject::status(ctx),
        "SelfSubjectAccessReview" => access::of_self(ctx, kind, &object)?,
        "SubjectAccessReview" => access::of_subject(ctx, kind, &object)?,
        "LocalSubjectAccessReview" => access::of_subject_in_namespace(ctx, kind, &object)?,
        "SelfSubjectRulesReview" => rules::status(ctx, &object)?,
        "TokenReview" => token::status(ctx, &mut object)?,
        "Binding" => return super::subresources::binding::create(ctx, object).await,
        _ => return Err(ApiError::method_not_allowed(kind, "create")),
    };
    object.entry("metadata").or_insert_with(|| json!({}));
    object.insert("status".into(), status);
    respond_value(&ctx.query, &ctx.headers, &negotiated, StatusCode::CREATED, &object).await
}

/// A user as `authentication.k8s.io/v1` UserInfo.
fn user_info(user: &User) -> Value {
    let mut info = Object::new();
    if !user.name.is_empty() {
        info.insert("username".into(), json!(user.name));
    }
    if !user.uid.is_empty() {
        info.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

/// A list of strings of the review.
fn strings(values: &[Value]) -> Vec<String> {
    values
        .iter()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}

/// The text at a path of the review, owned.
fn owned(review: &Object, path: &[&str]) -> String {
    text(review, path).to_owned()
}
