//! DELETE of one object (upstream: `handlers/delete.go`).

use super::{engine, render};
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body;
use crate::apiserver::codec::respond::respond_value;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, success_status};
use crate::apiserver::handlers::engine::metadata;
use crate::apiserver::options::DeleteOptions;
use crate::registry::Kind;
use poem::http::StatusCode;
use poem::{Body, Response};

pub async fn handle(ctx: &Context, kind: &Kind, request_body: Body) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Object)?;
    let options = options(ctx, request_body).await?;
    let deleted = engine::delete(ctx, kind, &ctx.info.name, &options).await?;
    if deleted.gone && !kind.strategy.returns_deleted_object() {
        let status = success_status(kind, &ctx.info.name, metadata::text(&deleted.object, "uid"));
        return respond_value(&ctx.query, &ctx.headers, &negotiated, StatusCode::OK, &status).await;
    }
    let status = if !deleted.gone && options.cascades {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    render::object(ctx, kind, &negotiated, status, deleted.object).await
}

/// The options: from the body if there is one, else from the query.
pub async fn options(ctx: &Context, request_body: Body) -> Result<DeleteOptions, ApiError> {
    let bytes = body::read(ctx, request_body).await?;
    if bytes.is_empty() {
        return DeleteOptions::from_query(&ctx.query);
    }
    let value = body::decode_value(body::format(ctx)?, &bytes)
        .map_err(|text| ApiError::bad_request(format!("unable to decode the body as DeleteOptions: {text}")))?;
    DeleteOptions::from_body(value)
}
