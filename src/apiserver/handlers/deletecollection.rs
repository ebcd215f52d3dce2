//! DELETE of all objects that a list selects (upstream: `handlers/delete.go` DeleteCollection).

use super::selection::Selection;
use super::{delete, engine, list};
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::ListOptions;
use crate::registry::Kind;
use poem::http::StatusCode;
use poem::{Body, Response};
use std::sync::Arc;

/// Answers with the list of what was deleted.
pub async fn handle(ctx: &Context, kind: &Arc<Kind>, request_body: Body) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::List)?;
    let list_options = ListOptions::from_query(&ctx.query, false)?;
    let selection = Selection::new(ctx, kind, &list_options)?;
    let options = delete::options(ctx, request_body).await?;
    let page = list::page(ctx, kind, &list_options, &selection).await?;
    for entry in &page.entries {
        match engine::delete(ctx, kind, &entry.key.name, &options).await {
            Ok(_) => {}
            // Somebody else was first: it is gone, which is what was asked for.
            Err(error) if error.code() == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    list::respond_page(ctx, kind, &negotiated, &page).await
}
