//! WATCH (upstream: `handlers/watch.go`, `storage/cacher`): a stream of lines, one event each.
//!
//! - [`events`]: what a change is to this watcher, and how it is written.
//! - [`stream`]: initial state, changes, bookmarks and the end, in one state machine.

mod events;
mod stream;

use super::parse_revision;
use super::selection::Selection;
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::filters::metrics::LongRunning;
use crate::apiserver::options::ListOptions;
use crate::registry::Kind;
use crate::storage::StorageError;
use events::Writer;
use poem::http::{HeaderValue, header};
use poem::{Body, Response};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use stream::{Initial, WatchStream};
use tokio::time::Instant;

/// Watches without `timeoutSeconds` end after one to two times this, so that not all come back at once.
const LIFETIME_MIN: Duration = Duration::from_secs(1800);

pub async fn handle(ctx: &Context, kind: &Arc<Kind>) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Watch)?;
    let options = ListOptions::from_query(&ctx.query, true)?;
    let selection = Selection::new(ctx, kind, &options)?;
    let mut writer = Writer::new(kind.clone(), &negotiated, &ctx.query)?;
    let lifetime = options
        .timeout
        .unwrap_or_else(|| LIFETIME_MIN + rand::rng().random_range(Duration::ZERO..LIFETIME_MIN));
    let deadline = Instant::now() + lifetime;
    let body = match open(ctx, kind, &options).await? {
        Opened::Stream(initial, watch) => {
            let stream = WatchStream {
                writer,
                selection,
                initial,
                watch,
                bookmarks: options.allow_watch_bookmarks,
                next_bookmark: stream::first_bookmark(deadline),
                deadline,
                shutdown: ctx.server.shutdown.clone(),
                _open: LongRunning::new("WATCH"),
            };
            Body::from_bytes_stream(stream.into_lines())
        }
        Opened::Expired(error) => Body::from_vec(writer.error(&error)),
    };
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(body))
}

enum Opened {
    Stream(Initial, crate::storage::Watch),
    /// The history after the client's version is gone; it learns so from the stream.
    Expired(ApiError),
}

/// Opens the store's watch, and takes the state that the client is to be sent first.
async fn open(ctx: &Context, kind: &Kind, options: &ListOptions) -> Result<Opened, ApiError> {
    let (resource, namespace) = (kind.storage_resource, ctx.list_namespace(kind));
    let revision = parse_revision(&options.resource_version)?;
    if let Some(revision) = revision {
        super::wait_for_revision(ctx, revision).await?;
    }
    let state_first = options.send_initial_events == Some(true);
    if let Some(revision) = revision.filter(|_| !state_first) {
        return match ctx.storage().watch(resource, namespace, revision) {
            Ok(watch) => Ok(Opened::Stream(Initial::none(), watch)),
            Err(error @ StorageError::Compacted { .. }) => Ok(Opened::Expired(ApiError::from_storage(error, kind))),
            Err(error) => Err(ApiError::from_storage(error, kind)),
        };
    }
    let failed = |error| ApiError::from_storage(error, kind);
    let (snapshot, watch) = ctx.storage().list_and_watch(resource, namespace).map_err(failed)?;
    // Asked not to, the state is left out; only what changes from now on is sent.
    let initial = match options.send_initial_events {
        Some(false) => Initial::none(),
        _ => Initial::new(snapshot, state_first),
    };
    Ok(Opened::Stream(initial, watch))
}
