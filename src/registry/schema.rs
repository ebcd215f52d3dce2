//! The compact schema of a kind: what decoding, defaulting, patching and protobuf walk along
//! (upstream: the Go types and their struct tags). Built once per definition from k8s-openapi's schemars
//! schemas and the overlay of merge keys; nodes are shared, so recursive types are finite.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// A definition by name (`io.k8s.api.core.v1.Pod`), resolved on first use so that types may refer to themselves.
#[derive(Debug)]
pub struct Definition {
    /// Upstream's name, also the key in the OpenAPI documents.
    pub name: String,
    pub(crate) body: OnceLock<Object>,
}

/// The properties of an object type.
#[derive(Debug, Default)]
pub struct Object {
    pub properties: HashMap<String, Property>,
    pub required: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// One property and the extensions that stand on it.
#[derive(Debug)]
pub struct Property {
    pub node: Node,
    /// `x-kubernetes-patch-strategy` has `merge`.
    pub patch_merge: bool,
    /// `x-kubernetes-patch-strategy` has `retainKeys`.
    pub patch_retain_keys: bool,
    pub patch_merge_key: Option<String>,
    pub list_type: Option<ListType>,
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
}

/// The shape of a value.
#[derive(Clone, Debug)]
pub enum Node {
    Object(Arc<Definition>),
    Map(Arc<Node>),
    List(Arc<Node>),
    String,
    /// base64 in JSON (Secret.data).
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    Int32,
    Int64,
    Double,
    Boolean,
    IntOrString,
    Quantity,
    /// RawExtension, FieldsV1, JSON: anything.
    Any,
}
