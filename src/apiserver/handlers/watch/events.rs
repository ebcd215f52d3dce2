//! Changes as watch events (upstream: `cacher/cache_watcher.go` for selectors, `handlers/watch.go` for writing).

use super::Selection;
use crate::apiserver::ApiServer;
use crate::apiserver::codec::accept::{Format, Negotiated, Transform};
use crate::apiserver::codec::shared::{Form, message};
use crate::apiserver::codec::table::{self, IncludeObject};
use crate::apiserver::codec::{partial, protobuf, stored};
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::Query;
use crate::registry::Kind;
use crate::registry::strategy::Object;
use crate::storage::{Entry, Event, EventKind};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

/// The annotation on the bookmark that ends the initial state.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventType {
    fn text(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// What a change is to one who sees only what the selection matches; None: nothing.
pub fn classify(event: &Event, selection: &Selection) -> Option<EventType> {
    let was = event
        .previous
        .as_ref()
        .is_some_and(|previous| selection.matches(previous));
    let is = event.kind == EventKind::Put && selection.matches(&event.entry);
    match (was, is) {
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
        (false, false) => None,
    }
}

/// Writes events: lines of JSON, or frames of protobuf. What does not depend on the watcher is shared with the others.
pub struct Writer {
    server: Arc<ApiServer>,
    kind: Arc<Kind>,
    format: Format,
    transform: Transform,
    include: IncludeObject,
    /// Events of protobuf say their length; not on a WebSocket, which has messages.
    framed: bool,
    /// The columns were sent: they come with the first table only.
    columns_sent: bool,
}

impl Writer {
    pub fn new(
        server: Arc<ApiServer>,
        kind: Arc<Kind>,
        negotiated: &Negotiated,
        query: &Query,
        framed: bool,
    ) -> Result<Self, ApiError> {
        let include = IncludeObject::from_query(query, negotiated.transform)?;
        Ok(Self {
            server,
            kind,
            format: negotiated.format,
            transform: negotiated.transform,
            include,
            framed,
            columns_sent: false,
        })
    }

    /// Changes with objects of the version that is watched.
    pub async fn converted(&self, mut events: Vec<Arc<Event>>) -> Result<Vec<Arc<Event>>, ApiError> {
        conversion::events(&self.server, &self.kind, &mut events).await?;
        Ok(events)
    }

    /// The event for an object that is there.
    pub fn added(&mut self, entry: &Entry) -> Result<Bytes, ApiError> {
        // Not shared: a large initial state would drive out what is.
        self.stored(EventType::Added, entry)
    }

    /// The event for a change, if it is one to this watcher.
    pub fn change(&mut self, event: &Event, selection: &Selection) -> Result<Option<Bytes>, ApiError> {
        let Some(kind) = classify(event, selection) else {
            return Ok(None);
        };
        // It was not deleted, but is no longer selected: the last selected version at the change's revision.
        let left = kind == EventType::Deleted && event.kind == EventKind::Put;
        let shown = match &event.previous {
            Some(previous) if left => previous,
            _ => &event.entry,
        };
        let make = |writer: &mut Self| {
            if !left {
                return writer.stored(kind, shown);
            }
            let mut object = stored::object(&writer.kind, shown)?;
            set_revision(&mut object, event.revision());
            writer.object(kind, object)
        };
        if matches!(self.transform, Transform::Table(_)) {
            return make(self).map(Some);
        }
        let form = Form::Event {
            event: kind.text(),
            left,
            format: self.format,
            transform: self.transform,
            framed: self.framed,
        };
        let server = self.server.clone();
        let row = self.kind.clone();
        let made = server.shared.get_or_make(&row, event.revision(), form, || make(self));
        made.map(Some)
    }

    /// An object as it is stored.
    fn stored(&mut self, event: EventType, entry: &Entry) -> Result<Bytes, ApiError> {
        let json = match self.transform {
            Transform::None => return self.plain(event, entry),
            Transform::PartialObject(version) | Transform::PartialList(version) => {
                partial::of_entry(&self.kind, entry, version)?.into_bytes()
            }
            Transform::Table(version) => {
                let metadata = json!({ "resourceVersion": entry.revision.to_string() });
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                let one = std::iter::once(entry);
                table::of_entries(&self.kind, version, one, &metadata, self.include, columns)?
            }
        };
        match self.format {
            Format::Protobuf => self.value(event, &serde_json::from_slice(&json).map_err(ApiError::internal)?),
            _ => Ok(line(event, &json)),
        }
    }

    /// An object as it is.
    fn plain(&self, event: EventType, entry: &Entry) -> Result<Bytes, ApiError> {
        match self.format {
            Format::Protobuf => {
                let raw = message(&self.kind, entry)?;
                let body = protobuf::wrap(&self.kind.group_version(), self.kind.kind, &raw);
                Ok(protobuf::watch_event(event.text(), &body, self.framed).into())
            }
            _ => Ok(line(event, &stored::bytes(&self.kind, entry)?)),
        }
    }

    fn object(&mut self, event: EventType, object: Object) -> Result<Bytes, ApiError> {
        let value = match self.transform {
            Transform::None => Value::Object(object),
            Transform::PartialObject(version) | Transform::PartialList(version) => partial::object(&object, version),
            Transform::Table(version) => {
                let metadata =
                    json!({ "resourceVersion": object.get("metadata").map(|m| m["resourceVersion"].clone()) });
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                // Where the state ends stands in the metadata.
                let include = match event {
                    EventType::Bookmark => IncludeObject::Metadata,
                    _ => self.include,
                };
                table::render(&self.kind, version, vec![object], metadata, include, columns)
            }
        };
        self.value(event, &value)
    }

    fn value(&self, event: EventType, value: &Value) -> Result<Bytes, ApiError> {
        if self.format == Format::Protobuf
            && let Some(object) = value.as_object()
            && let Some(body) = protobuf::encode_body(object).map_err(ApiError::internal)?
        {
            return Ok(protobuf::watch_event(event.text(), &body, self.framed).into());
        }
        Ok(line(event, value.to_string().as_bytes()))
    }

    /// The event that says: everything up to `revision` was sent. `initial`: it ends the initial state.
    pub fn bookmark(&mut self, revision: u64, initial: bool) -> Result<Bytes, ApiError> {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if initial {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let mut object = Object::new();
        object.insert("kind".into(), json!(self.kind.kind));
        object.insert("apiVersion".into(), json!(self.kind.group_version()));
        object.insert("metadata".into(), metadata);
        self.object(EventType::Bookmark, object)
    }

    /// The last event of a watch that cannot go on.
    pub fn error(&self, error: &ApiError) -> Bytes {
        let status = error.status();
        self.value(EventType::Error, &status)
            .unwrap_or_else(|_| line(EventType::Error, status.to_string().as_bytes()))
    }
}

fn line(event: EventType, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(event.text().as_bytes());
    out.extend_from_slice(br#"","object":"#);
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

fn set_revision(object: &mut Object, revision: u64) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("resourceVersion".into(), json!(revision.to_string()));
    }
}
