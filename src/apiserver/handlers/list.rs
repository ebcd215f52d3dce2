//! LIST (upstream: `handlers/get.go` ListResource, `storage/etcd3/store.go` GetList, `storage/continue.go`).

mod gzip;
mod shared;
mod token;
mod whole;

pub use shared::SharedLists;

use super::selection::Selection;
use super::{parse_revision, wait_for_revision};
use crate::apiserver::codec::accept::{Format, Negotiated, Shape, Transform};
use crate::apiserver::codec::respond::{finish, respond};
use crate::apiserver::codec::shared::message;
use crate::apiserver::codec::stored::ItemHead;
use crate::apiserver::codec::table::{self, IncludeObject};
use crate::apiserver::codec::{partial, protobuf, stored};
use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::{ListOptions, VersionMatch};
use crate::registry::Kind;
use crate::storage::{Entry, StorageError};
use bytes::Bytes;
use poem::Response;
use poem::http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use token::Token;

/// More objects than this are rendered on a thread of their own.
const RENDER_AT_ONCE_MAX: usize = 100;

pub async fn handle(ctx: &Context, kind: &Arc<Kind>) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::List)?;
    let options = ListOptions::from_query(&ctx.query, false)?;
    let selection = Selection::new(ctx, kind, &options)?;
    if let Some(response) = whole::whole(ctx, kind, &negotiated, &options, &selection).await? {
        return Ok(response);
    }
    let page = page(ctx, kind, &options, &selection).await?;
    respond_page(ctx, kind, &negotiated, &page).await
}

/// What a list request selected.
pub struct Page {
    pub revision: u64,
    pub entries: Vec<Arc<Entry>>,
    continue_token: String,
    /// Known only without selectors.
    remaining: Option<usize>,
}

impl Page {
    /// All there is.
    pub fn whole(revision: u64, entries: Vec<Arc<Entry>>) -> Self {
        Self {
            revision,
            entries,
            continue_token: String::new(),
            remaining: None,
        }
    }
}

/// Finds the objects of a list request at the revision that it asks for.
pub async fn page(ctx: &Context, kind: &Kind, options: &ListOptions, selection: &Selection) -> Result<Page, ApiError> {
    let at = At::of(ctx, options).await?;
    let found = match options.limit.filter(|_| selection.is_empty()) {
        Some(limit) => at.window(ctx, kind, limit)?,
        None => at.selected(ctx, kind, options, selection).await?,
    };
    let Found {
        revision,
        mut entries,
        converted,
        more,
        remaining,
    } = found;
    if !converted {
        conversion::entries(ctx, kind, &mut entries).await?;
    }
    let last = entries.last().filter(|_| more);
    Ok(Page {
        revision,
        continue_token: last.map_or_else(String::new, |entry| Token::after(kind, entry, revision).encode()),
        remaining,
        entries,
    })
}

/// The objects of a page.
struct Found {
    revision: u64,
    entries: Vec<Arc<Entry>>,
    /// In the version that is asked for.
    converted: bool,
    /// Whether that is not all, and how many more there are, if that is known.
    more: bool,
    remaining: Option<usize>,
}

/// Lists say more of a version that is none than other reads.
fn list_revision(options: &ListOptions) -> Result<Option<u64>, ApiError> {
    parse_revision(&options.resource_version)
        .map_err(|error| ApiError::bad_request(format!("invalid resource version: {error}")))
}

/// The state that a list asks for.
struct At {
    /// None: now.
    revision: Option<u64>,
    /// Where it goes on, at the state that the first page showed.
    token: Option<Token>,
}

impl At {
    async fn of(ctx: &Context, options: &ListOptions) -> Result<Self, ApiError> {
        if let Some(token) = Token::of(options)? {
            return Ok(Self {
                revision: u64::try_from(token.rv).ok(),
                token: Some(token),
            });
        }
        let revision = list_revision(options)?;
        // Without a match rule a limit makes the version exact, for clients from before the rules.
        let exact = match options.resource_version_match {
            Some(rule) => rule == VersionMatch::Exact,
            None => options.limit.is_some(),
        };
        if let Some(revision) = revision {
            wait_for_revision(ctx, revision).await?;
        }
        Ok(Self {
            revision: revision.filter(|_| exact),
            token: None,
        })
    }

    /// Where the page begins.
    fn start(&self, kind: &Kind) -> (&str, &str) {
        self.token.as_ref().map_or(("", ""), |token| token.position(kind))
    }

    /// The next `limit` objects, whatever they are.
    fn window(&self, ctx: &Context, kind: &Kind, limit: usize) -> Result<Found, ApiError> {
        let namespace = ctx.list_namespace(kind);
        let window = ctx
            .storage()
            .window(kind.storage_resource, namespace, self.revision, self.start(kind), limit)
            .map_err(|error| self.refused(error, kind))?;
        Ok(Found {
            revision: window.revision,
            entries: window.entries,
            converted: false,
            more: window.rest > 0,
            remaining: Some(window.rest).filter(|rest| *rest > 0),
        })
    }

    /// The next objects that are selected.
    async fn selected(
        &self,
        ctx: &Context,
        kind: &Kind,
        options: &ListOptions,
        selection: &Selection,
    ) -> Result<Found, ApiError> {
        let mut snapshot = ctx
            .storage()
            .list(kind.storage_resource, ctx.list_namespace(kind), self.revision)
            .map_err(|error| self.refused(error, kind))?;
        // Fields that are selected by are those of the version that is asked for.
        let converted = selection.needs_objects();
        if converted {
            conversion::entries(ctx, kind, &mut snapshot.entries).await?;
        }
        let (namespace, name) = self.start(kind);
        let start = self.token.as_ref().map_or(0, |_| snapshot.position(namespace, name));
        let mut selected = snapshot.entries[start..]
            .iter()
            .filter(|entry| selection.matches(entry));
        let limit = options.limit.unwrap_or(usize::MAX);
        Ok(Found {
            revision: snapshot.revision,
            entries: selected.by_ref().take(limit).cloned().collect(),
            converted,
            more: selected.next().is_some(),
            remaining: None,
        })
    }

    fn refused(&self, error: StorageError, kind: &Kind) -> ApiError {
        match (&self.token, error) {
            (Some(token), StorageError::Compacted { .. } | StorageError::Future { .. }) => {
                let inconsistent = token.inconsistent();
                ApiError::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a \
                     new list without the continue parameter, or use the continue token in this response to retrieve \
                     the remainder of the results. Continuing with the provided token results in an inconsistent \
                     list - objects that were created, modified, or deleted between the time the first chunk was \
                     returned and now may show up in the list.",
                )
                .with_continue(inconsistent.encode())
            }
            (None, StorageError::Compacted { .. }) => {
                ApiError::expired("The resourceVersion for the provided list is too old.")
            }
            (_, other) => ApiError::from_storage(other, kind),
        }
    }
}

fn metadata(page: &Page) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), json!(page.revision.to_string()));
    if !page.continue_token.is_empty() {
        metadata.insert("continue".into(), json!(page.continue_token));
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".into(), json!(remaining));
    }
    Value::Object(metadata)
}

/// Answers with the objects of a page in the negotiated form.
pub async fn respond_page(
    ctx: &Context,
    kind: &Arc<Kind>,
    negotiated: &Negotiated,
    page: &Page,
) -> Result<Response, ApiError> {
    let rendering = Rendering {
        kind: kind.clone(),
        format: negotiated.format,
        transform: negotiated.transform,
        include: IncludeObject::from_query(&ctx.query, negotiated.transform)?,
        metadata: metadata(page),
    };
    let bytes = if page.entries.len() <= RENDER_AT_ONCE_MAX {
        rendering.render(&page.entries)?
    } else {
        // Long enough to hold up the requests that share this thread.
        let entries = page.entries.clone();
        tokio::task::spawn_blocking(move || rendering.render(&entries))
            .await
            .map_err(ApiError::internal)??
    };
    match (negotiated.format, negotiated.transform) {
        (Format::Protobuf, Transform::None) => finish(&ctx.headers, StatusCode::OK, Format::Protobuf, bytes).await,
        _ => respond(&ctx.query, &ctx.headers, negotiated, StatusCode::OK, bytes).await,
    }
}

/// What is made of the entries of a list.
struct Rendering {
    kind: Arc<Kind>,
    format: Format,
    transform: Transform,
    include: IncludeObject,
    metadata: Value,
}

impl Rendering {
    /// Protobuf if that is the format and there is no transform, else JSON.
    fn render(self, entries: &[Arc<Entry>]) -> Result<Bytes, ApiError> {
        let kind = &self.kind;
        Ok(match self.transform {
            Transform::None if self.format == Format::Protobuf => messages(kind, &self.metadata, entries)?,
            Transform::None => concatenate(kind, &self.metadata, entries)?,
            Transform::Table(version) => {
                let stored = entries.iter().map(|entry| &**entry);
                table::of_entries(kind, version, stored, &self.metadata, self.include, true)?.into()
            }
            Transform::PartialObject(version) | Transform::PartialList(version) => {
                partial::list(kind, entries, &self.metadata, version)?.into()
            }
        })
    }
}

fn messages(kind: &Kind, metadata: &Value, entries: &[Arc<Entry>]) -> Result<Bytes, ApiError> {
    let metadata = metadata.as_object().cloned().unwrap_or_default();
    let mut list = protobuf::list_metadata(&metadata).map_err(ApiError::internal)?;
    for entry in entries {
        protobuf::push_item(&mut list, &message(kind, entry)?);
    }
    Ok(protobuf::wrap(&kind.group_version(), &kind.list_kind, &list).into())
}

fn concatenate(kind: &Kind, metadata: &Value, entries: &[Arc<Entry>]) -> Result<Bytes, ApiError> {
    let size: usize = entries.iter().map(|entry| entry.bytes.len() + 1).sum();
    let mut json = Vec::with_capacity(size + 256);
    let head = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{metadata},"items":["#,
        kind.list_kind,
        kind.group_version()
    );
    json.extend_from_slice(head.as_bytes());
    let item_head = ItemHead::of(kind);
    for (position, entry) in entries.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        for part in item_head.item(&stored::bytes(kind, entry)?) {
            json.extend_from_slice(part);
        }
    }
    json.extend_from_slice(b"]}\n");
    Ok(json.into())
}
