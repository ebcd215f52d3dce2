//! Kinds that are questions: answered and not stored (upstream: `pkg/registry/{authentication,authorization}`).

use super::codec::accept::Shape;
use super::codec::body::{self, Expected};
use super::codec::respond::respond_value;
use super::context::Context;
use super::error::ApiError;
use super::options::WriteOptions;
use super::request::RequestInfo;
use crate::registry::Kind;
use crate::registry::field::FieldError;
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
        "SelfSubjectReview" => json!({ "userInfo": user_info(ctx) }),
        "SelfSubjectAccessReview" => access(ctx, kind, &object)?,
        "Binding" => return super::subresources::binding::create(ctx, object).await,
        _ => return Err(ApiError::method_not_allowed(kind, "create")),
    };
    object.entry("metadata").or_insert_with(|| json!({}));
    object.insert("status".into(), status);
    respond_value(&ctx.query, &ctx.headers, &negotiated, StatusCode::CREATED, &object).await
}

fn user_info(ctx: &Context) -> Value {
    let user = &ctx.user;
    let mut info = Object::new();
    info.insert("username".into(), json!(user.name));
    if !user.uid.is_empty() {
        info.insert("uid".into(), json!(user.uid));
    }
    info.insert("groups".into(), json!(user.groups));
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

/// Whether the user may do what `spec` describes.
fn access(ctx: &Context, kind: &Kind, review: &Object) -> Result<Value, ApiError> {
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let text = |attributes: &Value, field: &str| {
        attributes
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let info = match (spec.get("resourceAttributes"), spec.get("nonResourceAttributes")) {
        (Some(resource), None) => RequestInfo {
            is_resource_request: true,
            verb: text(resource, "verb"),
            api_group: text(resource, "group"),
            api_version: text(resource, "version"),
            namespace: text(resource, "namespace"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            name: text(resource, "name"),
            ..RequestInfo::default()
        },
        (None, Some(path)) => RequestInfo {
            verb: text(path, "verb"),
            path: text(path, "path"),
            ..RequestInfo::default()
        },
        _ => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let error = FieldError::invalid("spec.resourceAttributes", Value::Null, why);
            return Err(ApiError::invalid(kind.group, kind.kind, "", &[error]));
        }
    };
    Ok(json!({ "allowed": ctx.authorize(&info).is_ok() }))
}
