//! ComponentStatus, made when it is asked for (upstream: `pkg/registry/core/componentstatus/rest.go`).
//!
//! The one component that this process does not end with is the database. Scheduler and controllers are tasks
//! of whoever runs them, and `/readyz` speaks for this server.

use super::codec::accept::Shape;
use super::context::Context;
use super::error::ApiError;
use super::handlers::list::{self, Page};
use super::handlers::render;
use super::handlers::selection::Selection;
use super::options::ListOptions;
use crate::registry::strategy::Object;
use crate::registry::{Kind, index_of};
use crate::storage::{Entry, Key};
use poem::Response;
use poem::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// Upstream's name for the database.
const DATABASE: &str = "etcd-0";

/// Whether objects of the kind are made here instead of being stored.
pub fn is_component_status(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.resource == "componentstatuses"
}

pub async fn handle(ctx: &Context, kind: &Arc<Kind>) -> Result<Response, ApiError> {
    if ctx.info.verb == "list" {
        let negotiated = ctx.negotiate(Shape::List)?;
        let options = ListOptions::from_query(&ctx.query, false)?;
        let selection = Selection::new(ctx, kind, &options)?;
        let mut entries = vec![entry(kind, database(ctx))?];
        entries.retain(|entry| selection.matches(entry));
        let page = Page::whole(ctx.storage().revision(), entries);
        return list::respond_page(ctx, kind, &negotiated, &page).await;
    }
    let negotiated = ctx.negotiate(Shape::Object)?;
    if ctx.info.name != DATABASE {
        return Err(ctx.not_found(kind));
    }
    render::object(ctx, kind, &negotiated, StatusCode::OK, database(ctx)).await
}

fn database(ctx: &Context) -> Object {
    let condition = match ctx.storage().is_open() {
        true => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        false => json!({"type": "Healthy", "status": "False", "error": "the store takes no writes"}),
    };
    let object = json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": DATABASE}, "conditions": [condition],
    });
    match object {
        Value::Object(object) => object,
        _ => unreachable!("an object was written"),
    }
}

fn entry(kind: &Kind, object: Object) -> Result<Arc<Entry>, ApiError> {
    Ok(Arc::new(Entry {
        key: Key::new(kind.storage_resource, "", DATABASE),
        revision: 0,
        bytes: serde_json::to_vec(&object).map_err(ApiError::internal)?.into(),
        index: index_of(kind, &object),
    }))
}
