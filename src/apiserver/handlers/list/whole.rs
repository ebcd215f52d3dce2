//! The common case of a list: everything, as it is now, in plain JSON or protobuf. Its bytes, compressed ones too,
//! are shared with all who ask the same.

use super::shared::{Body, Form, Items};
use super::{gzip, list_revision};
use crate::apiserver::codec::accept::{Format, Negotiated, Transform};
use crate::apiserver::codec::respond::{is_compressed, wants_pretty};
use crate::apiserver::codec::stored::ItemHead;
use crate::apiserver::codec::{protobuf, stored};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::selection::Selection;
use crate::apiserver::handlers::wait_for_revision;
use crate::apiserver::options::{ListOptions, VersionMatch};
use crate::registry::Kind;
use crate::storage::Entry;
use bytes::Bytes;
use poem::Response;
use poem::http::{HeaderValue, header};
use serde_json::{Map, json};
use std::sync::Arc;

/// What is copied at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// The answer, if this is such a list.
pub async fn whole(
    ctx: &Context,
    kind: &Arc<Kind>,
    negotiated: &Negotiated,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Option<Response>, ApiError> {
    let as_stored = match negotiated.format {
        Format::Json => {
            stored::all_as_stored(ctx.storage(), kind) && !wants_pretty(&ctx.query, &ctx.headers, negotiated)
        }
        Format::Protobuf => true,
        Format::Yaml => false,
    };
    let everything = selection.is_empty()
        && options.limit.is_none()
        && options.continue_token.is_empty()
        && options.resource_version_match != Some(VersionMatch::Exact);
    if !(as_stored && everything && negotiated.transform == Transform::None) {
        return Ok(None);
    }
    if let Some(revision) = list_revision(options)? {
        wait_for_revision(ctx, revision).await?;
    }
    let list = WholeList {
        ctx,
        kind,
        namespace: ctx.list_namespace(kind),
    };
    match negotiated.format {
        Format::Protobuf => list.protobuf().await,
        _ => list.json().await,
    }
    .map(Some)
}

/// A list of everything.
struct WholeList<'a> {
    ctx: &'a Context,
    kind: &'a Arc<Kind>,
    namespace: Option<&'a str>,
}

impl WholeList<'_> {
    async fn json(&self) -> Result<Response, ApiError> {
        let list = self
            .ctx
            .storage()
            .list(self.kind.storage_resource, self.namespace, None)
            .map_err(|error| ApiError::from_storage(error, self.kind))?;
        // The objects, and commas between them.
        let item_head = ItemHead::of(self.kind);
        let items = list.entries.iter().map(|entry| item_head.item(&entry.bytes));
        let objects: usize = items.flatten().map(<[u8]>::len).sum();
        let bytes = objects + list.entries.len().saturating_sub(1);
        let head = |revision: u64| {
            format!(
                r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{revision}"}},"items":["#,
                self.kind.list_kind, self.kind.storage_group_version
            )
        };
        let tail = Bytes::from_static(b"]}\n");
        if is_compressed(&self.ctx.headers, bytes) {
            let items = self.items(Form::PackedJson).await?;
            if let Body::Packed(packed) = items.body {
                let member = gzip::member(head(items.revision).as_bytes(), &packed, &tail);
                let length = member.iter().map(Bytes::len).sum();
                return Ok(in_chunks(Format::Json, member, length, true));
            }
        }
        let head = Bytes::from(head(list.revision));
        let length = head.len() + bytes + tail.len();
        let chunks = std::iter::once(head)
            .chain(Blocks::new(item_head, list.entries))
            .chain([tail]);
        Ok(in_chunks(Format::Json, chunks, length, false))
    }

    async fn protobuf(&self) -> Result<Response, ApiError> {
        let items = self.items(Form::Protobuf).await?;
        let tail = Bytes::from_static(protobuf::ENVELOPE_TAIL);
        let Body::Plain(bytes) = items.body else {
            return Err(ApiError::internal("a list is compressed that should not be"));
        };
        if is_compressed(&self.ctx.headers, bytes.len()) {
            let items = self.items(Form::PackedProtobuf).await?;
            if let Body::Packed(packed) = items.body {
                let head = self.head(items.revision, packed.length())?;
                let member = gzip::member(&head, &packed, &tail);
                let length = member.iter().map(Bytes::len).sum();
                return Ok(in_chunks(Format::Protobuf, member, length, true));
            }
        }
        let head = self.head(items.revision, bytes.len())?;
        let length = head.len() + bytes.len() + tail.len();
        Ok(in_chunks(Format::Protobuf, [head.into(), bytes, tail], length, false))
    }

    async fn items(&self, form: Form) -> Result<Items, ApiError> {
        let (server, kind) = (self.ctx.server.clone(), self.kind.clone());
        let namespace = self.namespace.map(str::to_owned);
        let make = move || {
            server
                .shared_lists
                .get(&server.storage, &kind, namespace.as_deref(), form)
        };
        tokio::task::spawn_blocking(make).await.map_err(ApiError::internal)?
    }

    /// All that stands before the items.
    fn head(&self, revision: u64, items_bytes: usize) -> Result<Vec<u8>, ApiError> {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), json!(revision.to_string()));
        let metadata = protobuf::list_metadata(&metadata).map_err(ApiError::internal)?;
        let length = metadata.len() + items_bytes;
        let mut head = protobuf::envelope_head(&self.kind.group_version(), &self.kind.list_kind, length);
        head.extend_from_slice(&metadata);
        Ok(head)
    }
}

/// The objects of a list with commas between them, put together piece by piece while they are sent: the bytes of a whole
/// list are never in one place.
struct Blocks {
    item_head: ItemHead,
    entries: Vec<Arc<Entry>>,
    next: usize,
}

impl Blocks {
    fn new(item_head: ItemHead, entries: Vec<Arc<Entry>>) -> Self {
        Self {
            item_head,
            entries,
            next: 0,
        }
    }
}

impl Iterator for Blocks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let rest = &self.entries[self.next..];
        let first = rest.first()?;
        let mut block = Vec::with_capacity(BLOCK_BYTES.max(first.bytes.len() + 1));
        for entry in rest {
            if !block.is_empty() && block.len() + entry.bytes.len() + 1 > block.capacity() {
                break;
            }
            if self.next > 0 {
                block.push(b',');
            }
            for part in self.item_head.item(&entry.bytes) {
                block.extend_from_slice(part);
            }
            self.next += 1;
        }
        Some(block.into())
    }
}

/// `length` is that of all chunks together.
fn in_chunks<C>(format: Format, chunks: C, length: usize, compressed: bool) -> Response
where
    C: IntoIterator<Item = Bytes, IntoIter: Send + 'static>,
{
    let stream = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()))
        .header(header::CONTENT_LENGTH, HeaderValue::from(length));
    if compressed {
        response = response
            .header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
            .header(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response.body(poem::Body::from_bytes_stream(stream))
}
