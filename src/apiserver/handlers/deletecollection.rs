//! DELETE of all objects that a list selects (upstream: `handlers/delete.go` DeleteCollection).

use super::engine::Deleted;
use super::selection::Selection;
use super::{delete, engine, list};
use crate::apiserver::admission;
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::ListOptions;
use crate::registry::Kind;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use poem::http::StatusCode;
use poem::{Body, Response};
use std::sync::Arc;

/// Deletions at once.
const WORKERS: usize = 64;

/// Answers with the list of what was deleted.
pub async fn handle(ctx: &Context, kind: &Arc<Kind>, request_body: Body) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::List)?;
    let list_options = ListOptions::from_query(&ctx.query, false)?;
    let selection = Selection::new(ctx, kind, &list_options)?;
    let options = delete::options(ctx, request_body).await?;
    admission::admit_collection(ctx, kind, &options).await?;
    let page = list::page(ctx, kind, &list_options, &selection).await?;
    // Several at once, so that they are committed together.
    let mut running: FuturesUnordered<BoxFuture<'_, Result<Deleted, ApiError>>> = FuturesUnordered::new();
    for entry in &page.entries {
        if running.len() == WORKERS {
            running.next().await.map_or(Ok(()), settle)?;
        }
        running.push(engine::delete(ctx, kind, &entry.key.name, &options).boxed());
    }
    while let Some(deleted) = running.next().await {
        settle(deleted)?;
    }
    list::respond_page(ctx, kind, &negotiated, &page).await
}

fn settle(deleted: Result<Deleted, ApiError>) -> Result<(), ApiError> {
    match deleted {
        Ok(_) => Ok(()),
        // Somebody else was first: it is gone, which is what was asked for.
        Err(error) if error.code() == StatusCode::NOT_FOUND => Ok(()),
        Err(error) => Err(error),
    }
}
