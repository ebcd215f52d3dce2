//! Kubernetes' protobuf bodies (upstream: `apimachinery/pkg/runtime/serializer/protobuf` and the `generated.pb.go`
//! files).
//!
//! A body is the four bytes `k8s\0` and a message `Unknown {1: TypeMeta {1: apiVersion, 2: kind}, 2: raw,
//! 3: contentEncoding, 4: contentType}`, where `raw` is the message of the object. Field numbers come with the
//! schema ([`Property::wire`](crate::registry::schema::Property)); [`object`] walks along it and builds what the
//! same object is in JSON, so that the rest of the request path does not know how a body was written.

mod object;
#[cfg(test)]
mod tests;
mod wire;

use crate::registry::schema;
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
    object::read(&definition, raw, &mut object, depth)?;
    Ok((api_version.to_owned(), kind.to_owned(), object))
}
