//! Stored bytes in the version of the URL (upstream: the codec that converts between versions).
//!
//! Most kinds are stored in the version that is asked for; then the stored bytes are the answer. Objects of custom
//! resources may be older than their schema: those are pruned and defaulted as they are read.

use crate::apiserver::error::ApiError;
use crate::registry::Kind;
use crate::registry::projection::{Parts, raw_value};
use crate::registry::strategy::Object;
use crate::storage::{Entry, Storage};
use bytes::Bytes;
use serde_json::Value;
use std::borrow::Cow;

/// So many objects are compared with what their schema makes of them, so that their list can be shared.
const COMPARED_MAX: usize = 1000;

/// Whether objects of `kind` are stored in the kind's own version.
pub fn is_native(kind: &Kind) -> bool {
    match kind.storage_group_version.split_once('/') {
        Some((group, version)) => group == kind.group && version == kind.version,
        None => kind.group.is_empty() && kind.storage_group_version == kind.version,
    }
}

/// The object in the kind's version.
pub fn object(kind: &Kind, entry: &Entry) -> Result<Object, ApiError> {
    let mut object = raw(entry)?;
    match &kind.custom {
        _ if is_as_stored(kind, entry) => {}
        Some(custom) => {
            if !custom.convert(kind, &mut object) {
                return Err(unconverted(kind));
            }
        }
        None => from_storage(kind, &mut object),
    }
    Ok(object)
}

/// Some parts of the object in the kind's version; more of it where that costs no less.
pub fn parts(kind: &Kind, entry: &Entry, parts: Parts) -> Result<Object, ApiError> {
    if !is_as_stored(kind, entry) {
        return object(kind, entry);
    }
    parts.read(&entry.bytes).map_err(|error| unreadable(entry, &error))
}

/// The object's metadata as JSON.
pub fn metadata<'a>(kind: &Kind, entry: &'a Entry) -> Result<Cow<'a, str>, ApiError> {
    if is_as_stored(kind, entry)
        && let Some(metadata) = raw_value(&entry.bytes, "metadata")
    {
        return Ok(Cow::Borrowed(metadata));
    }
    let object = object(kind, entry)?;
    let metadata = object.get("metadata").map_or_else(|| "{}".to_owned(), Value::to_string);
    Ok(Cow::Owned(metadata))
}

fn unreadable(entry: &Entry, error: &serde_json::Error) -> ApiError {
    ApiError::internal(format_args!("stored object {:?} is unreadable: {error}", entry.key))
}

/// Turns a stored object into one of the kind's version.
pub fn from_storage(kind: &Kind, object: &mut Object) {
    match &kind.custom {
        Some(custom) => {
            custom.convert(kind, object);
        }
        None if is_native(kind) => {}
        None => kind.strategy.convert_from_storage(object),
    }
    object.insert("apiVersion".into(), Value::String(kind.group_version()));
}

/// Whether an entry's bytes are what is asked for.
fn is_as_stored(kind: &Kind, entry: &Entry) -> bool {
    is_native(kind)
        && kind
            .custom
            .as_ref()
            .is_none_or(|custom| custom.is_current(entry.revision))
}

/// Whether an entry is stored in the version in which objects of its kind are stored now.
pub fn is_current(kind: &Kind, entry: &Entry) -> bool {
    is_in(kind.storage_group_version, entry)
}

/// Whether an entry's bytes are of this version.
pub fn is_in(group_version: &str, entry: &Entry) -> bool {
    let head = format!(r#"{{"apiVersion":"{group_version}""#);
    entry.bytes.starts_with(head.as_bytes())
}

/// The object as it is stored.
pub fn raw(entry: &Entry) -> Result<Object, ApiError> {
    serde_json::from_slice(&entry.bytes).map_err(|error| unreadable(entry, &error))
}

/// Whether the bytes of all objects of `kind` are what is asked for.
pub fn all_as_stored(storage: &Storage, kind: &Kind) -> bool {
    let Some(custom) = &kind.custom else {
        return is_native(kind);
    };
    if !is_native(kind) {
        return false;
    }
    let (_, changed) = storage.changed(kind.storage_resource, None);
    custom.all_current(changed, || {
        let Ok(snapshot) = storage.list(kind.storage_resource, None, None) else {
            return false;
        };
        let old = snapshot
            .entries
            .iter()
            .filter(|entry| !custom.is_current(entry.revision));
        // Of many it takes too long to find out.
        old.clone().count() <= COMPARED_MAX && old.into_iter().all(|entry| is_unchanged(kind, entry))
    })
}

/// Whether an entry that is older than its schema would be read as it stands all the same.
fn is_unchanged(kind: &Kind, entry: &Entry) -> bool {
    let stored = serde_json::from_slice::<Object>(&entry.bytes).ok();
    let read = object(kind, entry).ok();
    stored.is_some() && stored == read
}

/// Another version than the stored one is needed where no webhook can be waited for ([`crate::apiserver::conversion`]).
fn unconverted(kind: &Kind) -> ApiError {
    let Kind {
        group, version, kind, ..
    } = kind;
    ApiError::unclassified(format!(
        "conversion webhook for {group}/{version}, Kind={kind} failed: it is not called here"
    ))
}

/// The object as JSON in the kind's version; shared with the store if nothing is to convert.
pub fn bytes(kind: &Kind, entry: &Entry) -> Result<Bytes, ApiError> {
    if is_as_stored(kind, entry) {
        return Ok(entry.bytes.clone());
    }
    serde_json::to_vec(&object(kind, entry)?)
        .map(Bytes::from)
        .map_err(ApiError::internal)
}

/// How the objects of a list begin. Those of built-in kinds do not repeat the kind and version, which the list has told, as
/// upstream's typed lists; custom resources do, as upstream's untyped ones.
pub struct ItemHead(Option<[String; 2]>);

impl ItemHead {
    pub fn of(kind: &Kind) -> Self {
        let type_ = format!(r#""kind":"{}""#, kind.kind);
        let version = format!(r#""apiVersion":"{}""#, kind.group_version());
        let heads = [format!("{{{version},{type_},"), format!("{{{type_},{version},")];
        Self(kind.custom.is_none().then_some(heads))
    }

    /// `object` as an item of a list: one part after the other.
    pub fn item<'a>(&self, object: &'a [u8]) -> [&'a [u8]; 2] {
        let heads = self.0.iter().flatten();
        let mut rest = heads.filter_map(|head| object.strip_prefix(head.as_bytes()));
        match rest.next() {
            Some(rest) => [b"{", rest],
            None => [b"", object],
        }
    }
}

/// An object in another version of its kind, unless a webhook converts it ([`crate::apiserver::conversion::between`]).
pub fn converted(from: &Kind, to: &Kind, object: &Object) -> Object {
    let mut object = object.clone();
    to_storage(from, &mut object);
    from_storage(to, &mut object);
    object
}

/// Turns an object of the kind's version into the stored one.
pub fn to_storage(kind: &Kind, object: &mut Object) {
    if is_native(kind) {
        return;
    }
    if let Some(custom) = &kind.custom {
        custom.to_storage(object, kind.storage_group_version);
    } else {
        kind.strategy.convert_to_storage(object);
        object.insert("apiVersion".into(), Value::String(kind.storage_group_version.into()));
    }
}
