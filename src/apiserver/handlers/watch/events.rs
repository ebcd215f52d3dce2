//! Changes as watch events (upstream: `cacher/cache_watcher.go` for selectors, `handlers/watch.go` for writing).

use super::Selection;
use crate::apiserver::codec::accept::{Negotiated, Transform};
use crate::apiserver::codec::table::{self, IncludeObject};
use crate::apiserver::codec::{partial, stored};
use crate::apiserver::error::ApiError;
use crate::apiserver::options::Query;
use crate::registry::Kind;
use crate::registry::strategy::Object;
use crate::storage::{Entry, Event, EventKind};
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

/// Writes events as lines.
pub struct Writer {
    kind: Arc<Kind>,
    transform: Transform,
    include: IncludeObject,
    /// The columns were sent: they come with the first table only.
    columns_sent: bool,
}

impl Writer {
    pub fn new(kind: Arc<Kind>, negotiated: &Negotiated, query: &Query) -> Result<Self, ApiError> {
        let include = IncludeObject::from_query(query)?;
        Ok(Self {
            kind,
            transform: negotiated.transform,
            include,
            columns_sent: false,
        })
    }

    /// Appends a line for an object that is there.
    pub fn added(&mut self, out: &mut Vec<u8>, entry: &Entry) -> Result<(), ApiError> {
        self.entry(out, EventType::Added, entry)
    }

    /// Appends the line for a change, if it is one to this watcher.
    pub fn change(&mut self, out: &mut Vec<u8>, event: &Event, selection: &Selection) -> Result<(), ApiError> {
        match classify(event, selection) {
            None => Ok(()),
            // It was not deleted, but is no longer selected: the last selected version at the change's revision.
            Some(EventType::Deleted) if event.kind == EventKind::Put => match &event.previous {
                Some(previous) => {
                    let mut object = stored::object(&self.kind, previous)?;
                    set_revision(&mut object, event.revision());
                    self.object(out, EventType::Deleted, object)
                }
                None => Ok(()),
            },
            Some(kind) => self.entry(out, kind, &event.entry),
        }
    }

    fn entry(&mut self, out: &mut Vec<u8>, event: EventType, entry: &Entry) -> Result<(), ApiError> {
        if self.transform == Transform::None {
            line(out, event, &stored::bytes(&self.kind, entry)?);
            return Ok(());
        }
        self.object(out, event, stored::object(&self.kind, entry)?)
    }

    fn object(&mut self, out: &mut Vec<u8>, event: EventType, object: Object) -> Result<(), ApiError> {
        let value = match self.transform {
            Transform::None => Value::Object(object),
            Transform::PartialObject(version) | Transform::PartialList(version) => partial::object(&object, version),
            Transform::Table(version) => {
                let metadata =
                    json!({ "resourceVersion": object.get("metadata").map(|m| m["resourceVersion"].clone()) });
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                table::render(&self.kind, version, vec![object], metadata, self.include, columns)
            }
        };
        line(out, event, value.to_string().as_bytes());
        Ok(())
    }

    /// The line that says: everything up to `revision` was sent. `initial`: it ends the initial state.
    pub fn bookmark(&mut self, out: &mut Vec<u8>, revision: u64, initial: bool) -> Result<(), ApiError> {
        let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let mut object = Object::new();
        object.insert("kind".into(), json!(self.kind.kind));
        object.insert("apiVersion".into(), json!(self.kind.group_version()));
        object.insert("metadata".into(), metadata);
        self.object(out, EventType::Bookmark, object)
    }

    /// The last line of a watch that cannot go on.
    pub fn error(&mut self, error: &ApiError) -> Vec<u8> {
        let mut out = Vec::new();
        line(&mut out, EventType::Error, error.status().to_string().as_bytes());
        out
    }
}

fn line(out: &mut Vec<u8>, event: EventType, object: &[u8]) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(event.text().as_bytes());
    out.extend_from_slice(br#"","object":"#);
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

fn set_revision(object: &mut Object, revision: u64) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("resourceVersion".into(), json!(revision.to_string()));
    }
}
