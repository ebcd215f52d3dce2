//! POST of an object (upstream: `handlers/create.go`).

use super::engine::{self, Written};
use super::render;
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::WriteOptions;
use crate::registry::Kind;
use poem::http::StatusCode;
use poem::{Body, Response};

pub async fn handle(ctx: &Context, kind: &Kind, body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::create(&ctx.query)?;
    let negotiated = ctx.negotiate(Shape::Object)?;
    let object = body::read_object(ctx, &Expected::of(kind), body, options.field_validation).await?;
    match engine::create(ctx, kind, object, options.dry_run).await? {
        Written::Stored(entry) => render::entry(ctx, kind, &negotiated, StatusCode::CREATED, &entry).await,
        Written::DryRun(object) => render::object(ctx, kind, &negotiated, StatusCode::CREATED, object).await,
    }
}
