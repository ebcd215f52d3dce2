//! Stored bytes in the version of the URL (upstream: the codec that converts between versions).
//!
//! Most kinds are stored in the version that is asked for; then the stored bytes are the answer.

use crate::apiserver::error::ApiError;
use crate::registry::Kind;
use crate::registry::strategy::Object;
use crate::storage::Entry;
use bytes::Bytes;
use serde_json::Value;

/// Whether objects of `kind` are stored in the kind's own version.
pub fn is_native(kind: &Kind) -> bool {
    match kind.storage_group_version.split_once('/') {
        Some((group, version)) => group == kind.group && version == kind.version,
        None => kind.group.is_empty() && kind.storage_group_version == kind.version,
    }
}

/// The object in the kind's version.
pub fn object(kind: &Kind, entry: &Entry) -> Result<Object, ApiError> {
    let mut object: Object = serde_json::from_slice(&entry.bytes)
        .map_err(|e| ApiError::internal(format_args!("stored object {:?} is unreadable: {e}", entry.key)))?;
    if !is_native(kind) {
        from_storage(kind, &mut object);
    }
    Ok(object)
}

/// Turns a stored object into one of the kind's version.
pub fn from_storage(kind: &Kind, object: &mut Object) {
    if !is_native(kind) {
        kind.strategy.convert_from_storage(object);
    }
    object.insert("apiVersion".into(), Value::String(kind.group_version()));
}

/// The object as JSON in the kind's version; shared with the store if nothing is to convert.
pub fn bytes(kind: &Kind, entry: &Entry) -> Result<Bytes, ApiError> {
    if is_native(kind) {
        return Ok(entry.bytes.clone());
    }
    serde_json::to_vec(&object(kind, entry)?)
        .map(Bytes::from)
        .map_err(ApiError::internal)
}

/// Turns an object of the kind's version into the stored one.
pub fn to_storage(kind: &Kind, object: &mut Object) {
    if !is_native(kind) {
        kind.strategy.convert_to_storage(object);
        object.insert("apiVersion".into(), Value::String(kind.storage_group_version.into()));
    }
}
