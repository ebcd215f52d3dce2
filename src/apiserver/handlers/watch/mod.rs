//! WATCH (upstream: `handlers/watch.go`, `storage/cacher`): a stream of events, as lines of JSON or frames of protobuf.
//!
//! - [`events`]: what a change is to this watcher, and how it is written.
//! - [`stream`]: initial state, changes, bookmarks and the end, in one state machine.
//! - [`websocket`]: the same events as messages.

mod events;
mod stream;
pub mod websocket;

use super::parse_revision;
use super::selection::Selection;
use crate::apiserver::codec::accept::{Format, Shape};
use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::ListOptions;
use crate::registry::Kind;
use crate::storage::StorageError;
use events::Writer;
use poem::http::{HeaderValue, header};
use poem::{Body, Request, Response};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use stream::{Initial, Span, WatchStream};
use tokio::time::Instant;
use websocket::Source;

/// Watches without `timeoutSeconds` end after one to two times this, so that not all come back at once.
const LIFETIME_MIN: Duration = Duration::from_secs(1800);

pub async fn handle(ctx: &Context, kind: &Arc<Kind>, request: &Request) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Watch)?;
    let options = ListOptions::from_query(&ctx.query, true)?;
    let selection = Selection::new(ctx, kind, &options)?;
    let socket = match websocket::is_requested(request) {
        true => Some(websocket::accept(request).await?),
        false => None,
    };
    let writer = Writer::new(
        ctx.server.clone(),
        kind.clone(),
        &negotiated,
        &ctx.query,
        socket.is_none(),
    )?;
    let lifetime = options
        .timeout
        .unwrap_or_else(|| LIFETIME_MIN + rand::rng().random_range(Duration::ZERO..LIFETIME_MIN));
    let watchers = &ctx.server.flow_control.watchers;
    let span = Span {
        bookmarks: options.allow_watch_bookmarks,
        deadline: Instant::now() + lifetime,
        shutdown: ctx.server.shutdown.clone(),
        retired: kind.custom.as_ref().map(|custom| custom.retired().clone()),
        watcher: watchers.register(&ctx.info, |field| selection.exact(field)),
    };
    let format = negotiated.format;
    Ok(match (open(ctx, kind, &options).await?, socket) {
        (Opened::Stream(initial, watch), None) => {
            let stream = WatchStream::new(writer, selection, initial, watch, span);
            body(format, Body::from_bytes_stream(stream.into_chunks()))
        }
        (Opened::Stream(initial, watch), Some(socket)) => {
            let stream = WatchStream::new(writer, selection, initial, watch, span);
            websocket::respond(socket, Source::Stream(Box::new(stream)), format)
        }
        (Opened::Refused(error), None) => body(format, Body::from_bytes(writer.error(&error))),
        (Opened::Refused(error), Some(socket)) => {
            websocket::respond(socket, Source::Last(writer.error(&error)), format)
        }
    })
}

fn body(format: Format, body: Body) -> Response {
    let content_type = match format {
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        .body(body)
}

enum Opened {
    Stream(Initial, crate::storage::Watch),
    /// The client's version is too old or too new; it learns so from the stream.
    Refused(ApiError),
}

/// Opens the store's watch, and takes the state that the client is to be sent first.
async fn open(ctx: &Context, kind: &Kind, options: &ListOptions) -> Result<Opened, ApiError> {
    let (resource, namespace) = (kind.storage_resource, ctx.list_namespace(kind));
    let revision = parse_revision(&options.resource_version)?;
    // Who names no version gets the state first, and is told where it ends (upstream's WatchList default).
    let state_first = options.send_initial_events.unwrap_or(revision.is_none());
    if let Some(revision) = revision.filter(|_| !state_first) {
        return match ctx.storage().watch(resource, namespace, revision) {
            Ok(watch) => Ok(Opened::Stream(Initial::none(), watch)),
            Err(error @ StorageError::Compacted { .. }) => Ok(Opened::Refused(ApiError::from_storage(error, kind))),
            Err(error) => Err(ApiError::from_storage(error, kind)),
        };
    }
    // The state is at least as new as the version; changes alone can be waited for, however long it takes.
    if let Some(revision) = revision
        && let Err(error) = super::wait_for_revision(ctx, revision).await
    {
        return Ok(Opened::Refused(error));
    }
    let failed = |error| ApiError::from_storage(error, kind);
    let (mut snapshot, watch) = ctx.storage().list_and_watch(resource, namespace).map_err(failed)?;
    if options.send_initial_events != Some(false) {
        conversion::entries(ctx, kind, &mut snapshot.entries).await?;
    }
    // Asked not to, the state is left out; only what changes from now on is sent.
    let initial = match options.send_initial_events {
        Some(false) => Initial::none(),
        _ => Initial::new(snapshot, state_first),
    };
    Ok(Opened::Stream(initial, watch))
}
