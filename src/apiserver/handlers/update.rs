//! PUT of an object or of a subresource that writes it (upstream: `handlers/update.go`).

use super::engine::{self, Update, Written, metadata, ownership};
use super::render;
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::WriteOptions;
use crate::apiserver::request::RequestInfo;
use crate::registry::Kind;
use crate::registry::strategy::Target;
use poem::http::StatusCode;
use poem::{Body, Response};

pub async fn handle(ctx: &Context, kind: &Kind, target: Target, body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::update(&ctx.query)?;
    let negotiated = ctx.negotiate(Shape::Object)?;
    let mut object = body::read_object(ctx, &Expected::of(kind), body, options.field_validation).await?;
    metadata::check_name(&object, &ctx.info.name)?;
    metadata::check_namespace(kind, metadata::text(&object, "namespace"), ctx.key_namespace(kind))?;
    kind.strategy.default(&mut object);
    let request = Update {
        kind,
        name: &ctx.info.name,
        target,
        dry_run: options.dry_run,
    };
    let written = engine::update(ctx, &request, &mut |old| {
        let mut new = object.clone();
        ownership::update(ctx, kind, target, Some(old), &mut new);
        Ok(new)
    })
    .await?;
    let (written, status) = match written {
        Some(written) => (written, StatusCode::OK),
        None if target == Target::Main && kind.strategy.allow_create_on_update() => {
            may_create(ctx)?;
            // A version is no condition here: it is dropped, not refused as by POST.
            let mut object = object;
            engine::metadata::of_mut(&mut object).remove("resourceVersion");
            (
                engine::create(ctx, kind, object, options.dry_run).await?,
                StatusCode::CREATED,
            )
        }
        None => return Err(ctx.not_found(kind)),
    };
    match written {
        Written::Stored(entry) => render::entry(ctx, kind, &negotiated, status, &entry).await,
        Written::DryRun(object) => render::object(ctx, kind, &negotiated, status, object).await,
    }
}

/// Whoever creates by another verb must be allowed to create, too.
pub(super) fn may_create(ctx: &Context) -> Result<(), ApiError> {
    let create = RequestInfo {
        verb: "create".into(),
        ..ctx.info.clone()
    };
    ctx.authorize(&create)
}
