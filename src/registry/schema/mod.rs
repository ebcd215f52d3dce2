//! The compact schema of a kind: what decoding, defaulting, patching and protobuf walk along
//! (upstream: the Go types and their struct tags).
//!
//! Definitions are built when a kind is first used, from k8s-openapi's schemas ([`compile`]) joined with what
//! only the Go structs say ([`facts`]). They are shared process-wide, and nodes are shared, so recursive types
//! are finite. [`decode`] reads bodies along them.

mod bodies;
mod compile;
mod decode;
pub(crate) mod facts;
#[cfg(test)]
pub mod made_up;
pub(crate) mod scalars;
pub(crate) mod shape;
#[cfg(test)]
mod tests;

pub use bodies::{is_builtin, list_meta, lookup};
pub use compile::{definition, type_definition};
pub use decode::{Decoded, decode, decode_from, prune, syntax_error};

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// A definition by name (`io.k8s.api.core.v1.Pod`). The body is filled in after all definitions of a kind are
/// known, so that types may refer to themselves.
#[derive(Debug)]
pub struct Definition {
    /// Upstream's name, also the key in the OpenAPI documents.
    pub name: String,
    body: OnceLock<Object>,
    wire: OnceLock<WireMessage>,
    implied: OnceLock<Vec<(String, Value)>>,
}

/// The properties of an object type.
#[derive(Debug, Default)]
pub struct Object {
    pub properties: HashMap<String, Property, ahash::RandomState>,
    pub required: Vec<String>,
    /// `x-kubernetes-map-type: atomic` on the type itself (LabelSelector, ObjectReference).
    pub atomic: bool,
    /// Members that no property names are kept and are no error (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// Values are read as they stand, nulls and wrong types, too: a structural schema judges them later.
    pub untyped: bool,
}

/// `x-kubernetes-list-type`.
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
    /// `x-kubernetes-patch-strategy` is `replace`.
    pub patch_replace: bool,
    pub patch_merge_key: Option<String>,
    pub list_type: Option<ListType>,
    pub list_map_keys: Vec<String>,
    /// The default, where the field is a key of a list's items: an item that leaves it out has this key.
    pub default: Option<Value>,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// The Go type as reflection prints it (`[]v1.Container`, `*int32`); empty where it is not known.
    pub go_type: &'static str,
    /// `false`, `0`, `""`, `[]` and `{}` are the same as absent and are left out (Go: `omitempty`, not a pointer).
    pub omit_empty: bool,
    /// Protobuf field numbers from the outermost message inwards; more than one where JSON inlines messages,
    /// none where protobuf lacks the field.
    pub wire: Vec<u32>,
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
    /// An object of the definition, or the other shape (`JSONSchemaPropsOrBool` and its like).
    Either(Arc<Definition>, Arc<Node>),
}

/// What the fields of a protobuf message are, by number and in the order in which they are written.
#[derive(Debug, Default)]
pub struct WireMessage {
    pub fields: BTreeMap<u32, WireField>,
}

#[derive(Debug)]
pub enum WireField {
    /// The name of a property of the definition.
    Property(String),
    /// A message whose fields stand inline in JSON.
    Inline(WireMessage),
}

static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::default);

impl Definition {
    /// A definition whose body is given later by [`Definition::fill`]; until then it has no properties.
    fn declare(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            body: OnceLock::new(),
            wire: OnceLock::new(),
            implied: OnceLock::new(),
        })
    }

    /// A definition built at run time (custom resources).
    pub fn new(name: impl Into<String>, object: Object) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            body: OnceLock::from(object),
            wire: OnceLock::new(),
            implied: OnceLock::new(),
        })
    }

    fn fill(&self, object: Object) {
        // A definition is filled once, under the lock of the catalogue; a second body would be the same.
        let _ = self.body.set(object);
    }

    /// The properties.
    pub fn object(&self) -> &Object {
        self.body.get().unwrap_or(&EMPTY)
    }

    /// `Pod`: the Go name of the type.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// `v1.Pod`: the type as Go prints it.
    pub fn go_type(&self) -> &str {
        self.name
            .rmatch_indices('.')
            .nth(1)
            .map_or(self.name.as_str(), |(at, _)| &self.name[at + 1..])
    }

    /// What Go writes of every value of this type, said or not: structs that are no pointers, and fields that are
    /// written even when empty. Sorted by name; each with what it is when nothing was said.
    pub fn implied(&self) -> &[(String, Value)] {
        self.implied.get_or_init(|| {
            let properties = &self.object().properties;
            let mut implied: Vec<_> = properties
                .iter()
                .filter_map(|(name, property)| Some((name.clone(), shape::implied(name, property)?)))
                .collect();
            implied.sort_by(|a, b| a.0.cmp(&b.0));
            implied
        })
    }

    /// The protobuf message of this type.
    pub fn wire(&self) -> &WireMessage {
        self.wire.get_or_init(|| {
            let mut message = WireMessage::default();
            for (name, property) in &self.object().properties {
                message.insert(&property.wire, name);
            }
            message
        })
    }
}

impl WireMessage {
    fn insert(&mut self, path: &[u32], name: &str) {
        match path {
            [] => {}
            [number] => {
                self.fields.insert(*number, WireField::Property(name.to_owned()));
            }
            [number, rest @ ..] => {
                let inner = self
                    .fields
                    .entry(*number)
                    .or_insert_with(|| WireField::Inline(Self::default()));
                if let WireField::Inline(message) = inner {
                    message.insert(rest, name);
                }
            }
        }
    }
}

impl Property {
    /// A property of which nothing more is known.
    pub fn of(node: Node) -> Self {
        Self {
            node,
            patch_merge: false,
            patch_retain_keys: false,
            patch_replace: false,
            patch_merge_key: None,
            list_type: None,
            list_map_keys: Vec::new(),
            default: None,
            atomic_map: false,
            go_type: "",
            omit_empty: false,
            wire: Vec::new(),
        }
    }
}

impl Object {
    /// The property of this name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.get(name)
    }
}

impl Node {
    /// The properties, where the value is an object with a schema.
    pub fn as_object(&self) -> Option<&Arc<Definition>> {
        match self {
            Self::Object(definition) | Self::Either(definition, _) => Some(definition),
            _ => None,
        }
    }
}
