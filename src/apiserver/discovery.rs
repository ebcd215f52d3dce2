//! What is served: `/api`, `/apis` and below, in the legacy and the aggregated form
//! (upstream: `apiserver/pkg/endpoints/discovery`). Made from the registry, and again when its kinds have changed.

mod aggregated;
mod legacy;

use super::codec::accept::Shape;
use super::codec::respond::respond_value;
use super::context::Context;
use super::error::ApiError;
use crate::registry::Group;
use parking_lot::Mutex;
use poem::Response;
use poem::http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// Documents that are made when they are first asked for, by root and version, each with the generation of the
/// registry that it shows.
#[derive(Default)]
pub struct Discovery {
    documents: [[Slot; 2]; 2],
}

type Slot = Mutex<Option<(Generation, Arc<aggregated::Document>)>>;

/// Of the registry, and of what other servers serve.
type Generation = (u64, (u64, u64));

/// Which of the two URLs an aggregated document is for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Root {
    Core,
    Groups,
}

/// The versions of apidiscovery.k8s.io; kubectl before 1.30 knows only the second.
const AGGREGATED_VERSIONS: [&str; 2] = ["v2", "v2beta1"];

/// `/`: what can be asked for.
pub async fn root(ctx: &Context) -> Result<Response, ApiError> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for group in groups(ctx).iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(
            group
                .versions
                .iter()
                .map(|version| format!("/apis/{}/{version}", group.name)),
        );
    }
    let others = [
        "/docs",
        "/healthz",
        "/livez",
        "/logs",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    paths.extend(others.map(str::to_owned));
    plain(ctx, &json!({ "paths": paths })).await
}

pub async fn api(ctx: &Context) -> Result<Response, ApiError> {
    if let Some(response) = aggregated(ctx, Root::Core) {
        return Ok(response);
    }
    plain(ctx, &legacy::versions(&ctx.server.registry)).await
}

pub async fn apis(ctx: &Context) -> Result<Response, ApiError> {
    if let Some(response) = aggregated(ctx, Root::Groups) {
        return Ok(response);
    }
    plain(ctx, &legacy::groups(&groups(ctx))).await
}

pub async fn group(ctx: &Context, name: &str) -> Result<Response, ApiError> {
    let document = legacy::group(&groups(ctx), name).ok_or_else(ApiError::unknown_path)?;
    plain(ctx, &document).await
}

pub async fn resources(ctx: &Context, group: &str, version: &str) -> Result<Response, ApiError> {
    // The core group is at /api only.
    let named = group.is_empty() == ctx.info.path.starts_with("/api/");
    let document = legacy::resources(&ctx.server.registry, group, version);
    plain(ctx, &document.filter(|_| named).ok_or_else(ApiError::unknown_path)?).await
}

/// All groups, those of other servers included.
fn groups(ctx: &Context) -> Vec<Group> {
    ctx.server.aggregator.groups(ctx.server.registry.groups())
}

async fn plain(ctx: &Context, value: &Value) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Plain)?;
    respond_value(&ctx.query, &ctx.headers, &negotiated, StatusCode::OK, value).await
}

fn document(ctx: &Context, root: Root, version: usize) -> Arc<aggregated::Document> {
    let (snapshot, aggregator) = (ctx.server.registry.snapshot(), &ctx.server.aggregator);
    let current = (snapshot.generation, aggregator.generation());
    let mut slot = ctx.server.discovery.documents[root as usize][version].lock();
    match &*slot {
        Some((generation, document)) if *generation == current => document.clone(),
        _ => {
            let version = AGGREGATED_VERSIONS[version];
            let document = Arc::new(aggregated::Document::new(
                &snapshot,
                aggregator,
                version,
                root == Root::Core,
            ));
            *slot = Some((current, document.clone()));
            document
        }
    }
}

/// The aggregated document, if the client prefers one; not again if it has it.
fn aggregated(ctx: &Context, root: Root) -> Option<Response> {
    let wanted = aggregated::preferred(ctx.header(header::ACCEPT)?)?;
    let document = document(ctx, root, wanted);
    let known = ctx
        .header(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.contains(&*document.etag));
    let mut response = match known {
        true => Response::builder().status(StatusCode::NOT_MODIFIED).finish(),
        false => Response::builder()
            .content_type(&document.content_type)
            .body(document.json.clone()),
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Some(response)
}
