//! Paths below an object (upstream: the subresources that `pkg/registry/*/storage` installs).

pub mod binding;
pub mod connect;
mod eviction;
pub mod log;
mod scale;
mod token;

use super::admission;
use super::context::Context;
use super::error::ApiError;
use super::handlers;
use super::request::RequestInfo;
use crate::registry::strategy::Target;
use crate::registry::{Kind, Subresource};
use crate::transport::dial::KubeletClient;
use poem::{Request, Response};

pub async fn dispatch(ctx: &Context, kind: &Kind, request: &mut Request) -> Result<Response, ApiError> {
    let info = &ctx.info;
    let sub = kind
        .subresource(&info.subresource)
        .ok_or_else(ApiError::unknown_resource)?;
    if info.name.is_empty() || !(sub.connect || sub.verbs.contains(&info.verb.as_str())) {
        return Err(match kind.custom {
            None => ApiError::no_route_for_method(),
            Some(_) => ApiError::method_not_allowed(kind, &info.verb),
        });
    }
    if sub.connect {
        admission::subresource::connected(ctx, kind, sub).await?;
    }
    match sub.name {
        "binding" => binding::handle(ctx, kind, request.take_body()).await,
        "eviction" => eviction::handle(ctx, kind, request.take_body()).await,
        "scale" => scale::handle(ctx, kind, request).await,
        "token" => token::handle(ctx, kind, request.take_body()).await,
        "log" => log::handle(ctx.storage(), kubelets(ctx)?, info, &ctx.query, request).await,
        "exec" | "attach" | "portforward" => {
            // A WebSocket handshake is a GET, but whoever may only read must not run things (upstream since 1.35:
            // AuthorizePodWebsocketUpgradeCreatePermission).
            if info.verb == "get" {
                let create = RequestInfo {
                    verb: "create".to_owned(),
                    ..info.clone()
                };
                ctx.authorize(&create)?;
            }
            connect::handle(ctx.storage(), kubelets(ctx)?, info, &ctx.query, request).await
        }
        "proxy" => connect::proxy::handle(ctx.storage(), kubelets(ctx)?, info, request).await,
        _ if speaks_the_kind(kind, sub) => object(ctx, kind, sub, request).await,
        // Known to the table, and not served by this version of the server.
        other => Err(ApiError::bad_request(format!(
            "{}/{other} is not served by this server",
            kind.resource
        ))),
    }
}

fn kubelets(ctx: &Context) -> Result<&KubeletClient, ApiError> {
    let client = ctx.server.kubelet_client.as_ref();
    client.ok_or_else(|| ApiError::service_unavailable("this server has no client for kubelets"))
}

/// The subresource reads and writes the object itself.
fn speaks_the_kind(kind: &Kind, sub: &Subresource) -> bool {
    !sub.connect && (sub.group, sub.version, sub.kind) == (kind.group, kind.version, kind.kind)
}

async fn object(ctx: &Context, kind: &Kind, sub: &Subresource, request: &mut Request) -> Result<Response, ApiError> {
    let target = match sub.name {
        "status" => Target::Status,
        name => Target::Subresource(name),
    };
    match ctx.info.verb.as_str() {
        "get" => handlers::get::handle(ctx, kind).await,
        "update" => handlers::update::handle(ctx, kind, target, request.take_body()).await,
        "patch" => handlers::patch::handle(ctx, kind, target, request.take_body()).await,
        verb => Err(ApiError::method_not_allowed(kind, verb)),
    }
}
