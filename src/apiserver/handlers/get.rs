//! GET of one object (upstream: `handlers/get.go`): a look-up and shared bytes.

use super::{parse_revision, render, wait_for_revision};
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::Kind;
use poem::Response;
use poem::http::StatusCode;

pub async fn handle(ctx: &Context, kind: &Kind) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Object)?;
    if ctx.query.flag("export") {
        return Err(ApiError::bad_request(
            "the export parameter, deprecated since v1.14, is no longer supported",
        ));
    }
    if let Some(revision) = parse_revision(ctx.query.get("resourceVersion").unwrap_or_default())? {
        wait_for_revision(ctx, revision).await?;
    }
    let entry = ctx
        .storage()
        .get(kind.storage_resource, ctx.key_namespace(kind), &ctx.info.name)
        .ok_or_else(|| ctx.not_found(kind))?;
    render::entry(ctx, kind, &negotiated, StatusCode::OK, &entry).await
}
