//! `scale`: how many there should be, in one type for all kinds with replicas
//! (upstream: the `ScaleREST` of `pkg/registry/apps/*/storage`, `customresource/etcd.go`).

use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::{ApiError, Subject};
use crate::apiserver::handlers::engine::{self, Update, Written, metadata, ownership};
use crate::apiserver::handlers::patch::Sent;
use crate::apiserver::handlers::render;
use crate::apiserver::options::WriteOptions;
use crate::registry::scale::{self, SCALE, ScalePaths};
use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, managed, schema, validation};
use poem::http::StatusCode;
use poem::{Body, Request, Response};

const TARGET: Target = Target::Subresource("scale");

/// GET, PUT and PATCH of `…/NAME/scale`.
pub async fn handle(ctx: &Context, kind: &Kind, request: &mut Request) -> Result<Response, ApiError> {
    let paths = scale::paths(kind).ok_or_else(ApiError::unknown_resource)?;
    match ctx.info.verb.as_str() {
        "get" => get(ctx, kind, &paths).await,
        "update" => put(ctx, kind, &paths, request.take_body()).await,
        "patch" => patch(ctx, kind, &paths, request.take_body()).await,
        verb => Err(ApiError::method_not_allowed(kind, verb)),
    }
}

async fn get(ctx: &Context, kind: &Kind, paths: &ScalePaths) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Object)?;
    let entry = ctx
        .storage()
        .get(kind.storage_resource, ctx.key_namespace(kind), &ctx.info.name)
        .ok_or_else(|| ctx.not_found(kind))?;
    let scale = scale_of(paths, &conversion::object(ctx, kind, &entry).await?)?;
    render::object(ctx, &SCALE, &negotiated, StatusCode::OK, scale).await
}

async fn put(ctx: &Context, kind: &Kind, paths: &ScalePaths, request_body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::update(&ctx.query)?;
    let scale = body::read_object(ctx, &Expected::of(&SCALE), request_body, options.field_validation).await?;
    metadata::check_name(&scale, &ctx.info.name)?;
    metadata::check_namespace(kind, metadata::text(&scale, "namespace"), ctx.key_namespace(kind))?;
    let change = |old: &Object| {
        let mut new = scale.clone();
        ownership::update(ctx, &SCALE, TARGET, Some(old), &mut new);
        Ok(new)
    };
    write(ctx, kind, paths, options.dry_run, change).await
}

async fn patch(ctx: &Context, kind: &Kind, paths: &ScalePaths, request_body: Body) -> Result<Response, ApiError> {
    let sent = Sent::read(ctx, kind, request_body).await?;
    let definition = schema::definition(&SCALE);
    let change = |old: &Object| sent.apply(ctx, &SCALE, TARGET, &definition, Some(old));
    write(ctx, kind, paths, sent.dry_run, change).await
}

/// Writes what `change` makes of the scale into the object.
async fn write(
    ctx: &Context,
    kind: &Kind,
    paths: &ScalePaths,
    dry_run: bool,
    change: impl Fn(&Object) -> Result<Object, ApiError> + Send + Sync,
) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Object)?;
    let request = Update {
        kind,
        name: &ctx.info.name,
        target: TARGET,
        dry_run,
    };
    let written = engine::update(ctx, &request, &mut |old| {
        let replicas = |version: &str| replicas_path(ctx, kind, version);
        let owners = managed::of(old);
        let mut before = scale_of(paths, old)?;
        managed::put(&mut before, managed::scale::to_scale(owners, &replicas));
        let mut scale = change(&before)?;
        let of_scale = managed::take(&mut scale);
        metadata::check_name(&scale, &ctx.info.name)?;
        check(ctx, kind, &scale, old)?;
        let mut object = old.clone();
        paths.apply(&scale, &mut object);
        managed::take(&mut object);
        let owners = managed::scale::to_parent(owners, of_scale.as_ref(), &kind.group_version(), &replicas);
        managed::put(&mut object, owners);
        Ok(object)
    })
    .await?;
    let object = match written.ok_or_else(|| ctx.not_found(kind))? {
        Written::Stored(entry) => conversion::object(ctx, kind, &entry).await?,
        Written::DryRun(object) => object,
    };
    render::object(ctx, &SCALE, &negotiated, StatusCode::OK, scale_of(paths, &object)?).await
}

/// Where the version of the kind keeps its replicas.
fn replicas_path(ctx: &Context, kind: &Kind, version: &str) -> Option<Vec<String>> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let other = ctx.server.registry.lookup(group, version, kind.resource)?;
    scale::paths(&other).map(|paths| paths.spec_replicas)
}

fn scale_of(paths: &ScalePaths, object: &Object) -> Result<Object, ApiError> {
    paths.of(object).map_err(ApiError::internal)
}

/// The rules of a Scale, and that it is that of the very object.
fn check(ctx: &Context, kind: &Kind, scale: &Object, object: &Object) -> Result<(), ApiError> {
    let name = &ctx.info.name;
    let mut named = metadata::of(scale).clone();
    // A patch may have left out what the URL says.
    if let Some(namespace) = metadata::of(object).get("namespace") {
        named.entry("namespace").or_insert_with(|| namespace.clone());
    }
    let mut errors = if kind.namespaced() {
        validation::object_meta(&SCALE, &named)
    } else {
        Vec::new()
    };
    errors.extend(SCALE.strategy.validate(scale));
    if !errors.is_empty() {
        return Err(ApiError::invalid(SCALE.group, SCALE.kind, name, &errors));
    }
    let (uid, stored) = (metadata::text(scale, "uid"), metadata::text(object, "uid"));
    if !uid.is_empty() && uid != stored {
        let resource = format!("{}/scale", kind.resource);
        let subject = Subject {
            group: kind.group,
            resource: &resource,
        };
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(ApiError::conflict(subject, name, &why));
    }
    Ok(())
}
