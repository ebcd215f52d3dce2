//! From a request to what serves it (upstream: `endpoints/installer.go` and the non-resource handlers).

use super::aggregation::{self, ApiService};
use super::authentication::discovery as oidc;
use super::component_status;
use super::context::Context;
use super::error::ApiError;
use super::handlers;
use super::request::decode;
use super::resource_metrics;
use super::reviews;
use super::subresources;
use super::{discovery, health, logs, metrics_endpoint, openapi, version};
use crate::registry::strategy::Target;
use crate::registry::{Kind, lifecycle};
use poem::{Request, Response};
use std::sync::Arc;

/// Serves a request that has passed the filters.
pub async fn dispatch(ctx: &Context, request: &mut Request) -> Result<Response, ApiError> {
    ctx.server.custom_resources.refresh(&ctx.server);
    if let Some(service) = elsewhere(ctx) {
        return aggregation::proxy::serve(ctx, &service, request).await;
    }
    if !ctx.info.is_resource_request {
        return path(ctx, request).await;
    }
    let info = &ctx.info;
    let kind = ctx
        .server
        .registry
        .lookup(&info.api_group, &info.api_version, &info.resource)
        .filter(|kind| prefix_fits(ctx, kind) && scope_fits(ctx, kind))
        .ok_or_else(|| match ctx.server.registry.is_builtin_group(&info.api_group) {
            true => ApiError::unknown_resource(),
            false => ApiError::unknown_path(),
        })?;
    if let Some(warning) = lifecycle::deprecation(&kind) {
        ctx.warnings.add(warning);
    }
    if let Some(custom) = &kind.custom
        && let Some(warning) = &custom.deprecation_warning
    {
        ctx.warnings.add(warning);
    }
    if info.subresource.is_empty() {
        resource(ctx, &kind, request).await
    } else {
        subresources::dispatch(ctx, &kind, request).await
    }
}

/// Who serves what lies below `/apis/{group}/{version}`, and describes it, if that is another server.
fn elsewhere(ctx: &Context) -> Option<Arc<ApiService>> {
    let path = ctx.info.path.as_str();
    let description = path.strip_prefix("/openapi/v3");
    let below = description.unwrap_or(path).strip_prefix("/apis/")?;
    let (group, rest) = below.split_once('/')?;
    let version = rest.split('/').next().filter(|version| !version.is_empty())?;
    let aggregator = &ctx.server.aggregator;
    let service = aggregator.remote(&decode(group), &decode(version))?;
    (description.is_none() || !aggregator.is_described_here(&service)).then_some(service)
}

/// The core group is below `/api`, all others below `/apis`.
fn prefix_fits(ctx: &Context, kind: &Kind) -> bool {
    (ctx.info.api_prefix == "api") == kind.group.is_empty()
}

/// Cluster-scoped objects are not below a namespace, and objects of a namespace not beside it.
fn scope_fits(ctx: &Context, kind: &Kind) -> bool {
    let info = &ctx.info;
    if kind.namespaced() {
        let is_collection = info.name.is_empty() || matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
        return !info.namespace.is_empty() || is_collection;
    }
    let is_namespace_itself = kind.group.is_empty() && kind.resource == "namespaces";
    info.namespace.is_empty() || (is_namespace_itself && info.namespace == info.name)
}

async fn resource(ctx: &Context, kind: &Arc<Kind>, request: &mut Request) -> Result<Response, ApiError> {
    let info = &ctx.info;
    let verb = info.verb.as_str();
    // Across namespaces things can only be looked at; a name is needed to change one, and none to create.
    let misplaced = match verb {
        "create" => !info.name.is_empty() || (kind.namespaced() && info.namespace.is_empty()),
        "deletecollection" => kind.namespaced() && info.namespace.is_empty(),
        "update" | "patch" => info.name.is_empty(),
        _ => false,
    };
    // A definition that is being deleted shows fewer verbs than it serves.
    let serves = kind.has_verb(verb) || kind.custom.is_some();
    if misplaced || !serves {
        // Routes are upstream's for built-in kinds only; those of custom resources are found by the verb.
        return Err(match kind.custom {
            None => ApiError::no_route_for_method(),
            Some(_) => ApiError::method_not_allowed(&**kind, verb),
        });
    }
    if reviews::is_review(kind) {
        return reviews::handle(ctx, kind, request.take_body()).await;
    }
    if component_status::is_component_status(kind) {
        return component_status::handle(ctx, kind).await;
    }
    if resource_metrics::is_metrics(kind) {
        return resource_metrics::handle(ctx, kind).await;
    }
    match verb {
        "get" => handlers::get::handle(ctx, kind).await,
        "list" => handlers::list::handle(ctx, kind).await,
        "watch" => handlers::watch::handle(ctx, kind, request).await,
        "create" => handlers::create::handle(ctx, kind, request.take_body()).await,
        "update" => handlers::update::handle(ctx, kind, Target::Main, request.take_body()).await,
        "patch" => handlers::patch::handle(ctx, kind, Target::Main, request.take_body()).await,
        "delete" => handlers::delete::handle(ctx, kind, request.take_body()).await,
        "deletecollection" => handlers::deletecollection::handle(ctx, kind, request.take_body()).await,
        other => Err(ApiError::method_not_allowed(&**kind, other)),
    }
}

/// Paths that are no resources.
async fn path(ctx: &Context, request: &Request) -> Result<Response, ApiError> {
    let path = ctx.info.path.trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if !matches!(ctx.info.verb.as_str(), "get" | "head") {
        return Err(ApiError::no_route_for_method());
    }
    match segments.as_slice() {
        [] | [""] => discovery::root(ctx).await,
        ["api"] => discovery::api(ctx).await,
        ["apis"] => discovery::apis(ctx).await,
        ["api", version] => discovery::resources(ctx, "", version).await,
        ["apis", group] => discovery::group(ctx, group).await,
        ["apis", group, version] => discovery::resources(ctx, group, version).await,
        ["version"] => version::handle(ctx).await,
        [endpoint @ ("healthz" | "livez" | "readyz")] => health::handle(ctx, endpoint, None),
        [endpoint @ ("healthz" | "livez" | "readyz"), check] => health::handle(ctx, endpoint, Some(check)),
        ["openapi" | "docs", ..] => openapi::serve(&ctx.server.openapi, request).await,
        ["logs", below @ ..] => logs::handle(below).await,
        [".well-known", "openid-configuration"] => Ok(oidc::configuration(ctx.server.authenticator.tokens())),
        ["openid", "v1", "jwks"] => Ok(oidc::keys(ctx.server.authenticator.tokens())),
        ["metrics"] => metrics_endpoint::handle(ctx),
        ["api" | "apis", ..] => Err(ApiError::unknown_resource()),
        _ => Err(ApiError::unknown_path()),
    }
}
