//! Kubernetes' protobuf bodies (upstream: `apimachinery/pkg/runtime/serializer/protobuf` and the `generated.pb.go`
//! files).
//!
//! A body is the four bytes `k8s\0` and a message `Unknown {1: TypeMeta {1: apiVersion, 2: kind}, 2: raw,
//! 3: contentEncoding, 4: contentType}`, where `raw` is the message of the object. Field numbers come with the
//! schema ([`Property::wire`](crate::registry::schema::Property)); [`decode`](mod@decode) walks along it and builds
//! what the same object is in JSON, [`encode`](mod@encode) goes the other way, so that the rest of the request path
//! does not know how a body was written or will be.

mod decode;
mod encode;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;
mod wire;

use crate::registry::Kind;
use crate::registry::schema::{self, Definition};
use serde_json::{Map, Value};
use wire::{Field, Fields};

/// The bytes that every body starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Messages within one another.
const DEPTH_MAX: usize = 100;

/// The envelope of a body.
#[derive(Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// The message of the object, without apiVersion and kind.
    pub raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Takes the envelope off.
    pub fn open(body: &'a [u8]) -> Result<Self, String> {
        let Some(message) = body.strip_prefix(MAGIC) else {
            return Err(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".into(),
            );
        };
        let mut envelope = Self::default();
        for field in Fields::new(message, "Unknown") {
            let field = field?;
            match field.number {
                1 => envelope.read_type_meta(field.bytes()?)?,
                2 => envelope.raw = field.bytes()?,
                3 if !field.bytes()?.is_empty() => {
                    return Err("the content encoding of the body is not supported".into());
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type_meta(&mut self, message: &'a [u8]) -> Result<(), String> {
        for field in Fields::new(message, "TypeMeta") {
            let field: Field<'a> = field?;
            match field.number {
                1 => self.api_version = field.text()?,
                2 => self.kind = field.text()?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads a body: its apiVersion, its kind, and the object as JSON. Err says what is wrong with the bytes, or that
/// the kind is not known.
pub fn decode(body: &[u8]) -> Result<(String, String, Map<String, Value>), String> {
    read_body(body, DEPTH_MAX)
}

fn read_body(body: &[u8], depth: usize) -> Result<(String, String, Map<String, Value>), String> {
    let Envelope { api_version, kind, raw } = Envelope::open(body)?;
    let Some(definition) = schema::lookup(api_version, kind) else {
        return Err(format!("no kind {kind:?} is registered for version {api_version:?}"));
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    decode::read(&definition, raw, &mut object, depth)?;
    Ok((api_version.to_owned(), kind.to_owned(), object))
}

/// Whether objects of the kind can be written this way: custom resources have no field numbers.
pub fn is_offered(kind: &Kind) -> bool {
    schema::is_builtin(kind)
}

/// The message of an object, without envelope. `json` is the object in the kind's version.
pub fn encode_json(definition: &Definition, json: &[u8]) -> Result<Vec<u8>, String> {
    let object: Map<String, Value> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut raw = Vec::with_capacity(json.len());
    encode::write(definition, &object, &mut raw)?;
    Ok(raw)
}

/// A body: the envelope around the message of an object that says of itself what it is. None if its kind has no
/// protobuf form.
pub fn encode_body(object: &Map<String, Value>) -> Result<Option<Vec<u8>>, String> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let definition = schema::lookup(api_version, kind).filter(|definition| !definition.wire().fields.is_empty());
    let Some(definition) = definition else {
        return Ok(None);
    };
    let mut raw = Vec::with_capacity(512);
    encode::write(&definition, object, &mut raw)?;
    Ok(Some(wrap(api_version, kind, &raw)))
}

/// Puts the envelope around a message.
pub fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut body = envelope_head(api_version, kind, raw.len());
    body.reserve(raw.len() + ENVELOPE_TAIL.len());
    body.extend_from_slice(raw);
    body.extend_from_slice(ENVELOPE_TAIL);
    body
}

/// What stands behind the message: neither an encoding nor a content type.
pub const ENVELOPE_TAIL: &[u8] = b"\x1a\0\x22\0";

/// What stands before a message of `length` bytes.
pub fn envelope_head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    wire::bytes(&mut type_meta, 1, api_version.as_bytes());
    wire::bytes(&mut type_meta, 2, kind.as_bytes());
    let mut head = Vec::with_capacity(type_meta.len() + 32);
    head.extend_from_slice(MAGIC);
    wire::bytes(&mut head, 1, &type_meta);
    wire::head(&mut head, 2, length);
    head
}

/// An item of a list's message: lists are `{1: ListMeta, 2: items}`, whatever they are of.
pub fn push_item(items: &mut Vec<u8>, raw: &[u8]) {
    wire::bytes(items, 2, raw);
}

/// The beginning of a list's message: its metadata.
pub fn list_metadata(metadata: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    wire::message(&mut out, 1, |out| encode::write(&schema::list_meta(), metadata, out))?;
    Ok(out)
}

/// A watch event as it stands in a stream: the length in four bytes, and `WatchEvent {1: type, 2: RawExtension {1: body}}`.
/// `framed` is false where the transport itself has messages (WebSocket).
pub fn watch_event(event: &str, body: &[u8], framed: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + event.len() + 24);
    if framed {
        out.extend_from_slice(&[0; 4]);
    }
    wire::bytes(&mut out, 1, event.as_bytes());
    let mut extension = Vec::with_capacity(12);
    wire::head(&mut extension, 1, body.len());
    wire::head(&mut out, 2, extension.len() + body.len());
    out.extend_from_slice(&extension);
    out.extend_from_slice(body);
    if framed {
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
    }
    out
}
