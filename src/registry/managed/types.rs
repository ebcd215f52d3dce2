//! What a schema says of a value where ownership is concerned: is it a leaf, a list with keys, a map?
//! (upstream: `structured-merge-diff/schema` and `kube-openapi/pkg/schemaconv`).

use super::element::Element;
use crate::registry::schema::{Definition, ListType, Node, Object, Property};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The type of a value: its node and what stands on the property that holds it.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    node: &'a Node,
    list: Items<'a>,
    /// One leaf, whatever the shape.
    atomic: bool,
    /// Below a node that keeps unknown fields they are kept everywhere.
    preserve: bool,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items<'a> {
    /// Not at all: the list is one leaf.
    Atomic,
    /// By their values.
    Set,
    /// By the values of these keys.
    Map(&'a [String]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    Number,
    Boolean,
    Any,
}

/// What a value of some type is, once the value is known where the schema leaves it open.
#[derive(Clone, Copy)]
pub enum Shape<'a> {
    Scalar(Scalar),
    List { items: Items<'a>, element: Type<'a> },
    Map { atomic: bool, fields: Fields<'a> },
}

/// The members of a map.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    definition: Option<&'a Definition>,
    /// The type of members that are no declared fields; None where there may be none.
    others: Option<Type<'a>>,
    preserve: bool,
}

static ANY: Node = Node::Any;

impl<'a> Type<'a> {
    pub fn of(node: &'a Node) -> Self {
        Self {
            node,
            list: Items::Atomic,
            atomic: false,
            preserve: false,
        }
    }

    /// JSON without a schema: maps are granular, lists are leaves.
    pub fn deduced() -> Self {
        Self::of(&ANY)
    }

    fn property(property: &'a Property, preserve: bool) -> Self {
        let merge_key = property.patch_merge_key.as_slice();
        let list = match (property.list_type, property.patch_merge, merge_key) {
            (Some(ListType::Map), _, _) => Items::Map(&property.list_map_keys),
            (Some(ListType::Set), _, _) => Items::Set,
            (Some(ListType::Atomic), _, _) => Items::Atomic,
            // Without a list type, what strategic merge does counts.
            (None, true, []) => Items::Set,
            (None, true, keys) => Items::Map(keys),
            (None, false, _) => Items::Atomic,
        };
        // A RawExtension is one value to everybody.
        let raw = matches!(property.node, Node::Any) && property.go_type.ends_with("RawExtension");
        Self {
            node: &property.node,
            list,
            atomic: property.atomic_map || raw,
            preserve,
        }
    }

    fn below(self, node: &'a Node) -> Self {
        Self {
            preserve: self.preserve,
            ..Self::of(node)
        }
    }

    /// The type of a definition's objects.
    pub fn root(definition: &'a Definition) -> Shape<'a> {
        Shape::Map {
            atomic: false,
            fields: Fields::of(definition, false),
        }
    }

    /// The shape; `value` decides where the schema does not.
    pub fn shape(self, value: Option<&Value>) -> Shape<'a> {
        match self.node {
            Node::Object(definition) => {
                let fields = Fields::of(definition, self.preserve);
                Shape::Map {
                    atomic: self.atomic || definition.object().atomic,
                    fields,
                }
            }
            Node::Map(item) => Shape::Map {
                atomic: self.atomic,
                fields: Fields {
                    definition: None,
                    others: Some(self.below(item)),
                    preserve: self.preserve,
                },
            },
            Node::List(item) => Shape::List {
                items: self.list,
                element: self.below(item),
            },
            Node::String | Node::Bytes => Shape::Scalar(Scalar::String),
            Node::Int32 | Node::Int64 | Node::Double => Shape::Scalar(Scalar::Number),
            Node::Boolean => Shape::Scalar(Scalar::Boolean),
            Node::Time | Node::MicroTime | Node::Quantity => Shape::Scalar(Scalar::Any),
            Node::Any | Node::IntOrString | Node::Either(..) => self.deduced_shape(value),
        }
    }

    fn deduced_shape(self, value: Option<&Value>) -> Shape<'a> {
        match value {
            Some(Value::Array(_)) => Shape::List {
                items: Items::Atomic,
                element: Self {
                    atomic: true,
                    ..Self::deduced()
                },
            },
            Some(Value::Object(_)) => Shape::Map {
                atomic: self.atomic,
                fields: Fields {
                    definition: None,
                    others: Some(Self {
                        atomic: self.atomic,
                        ..Self::deduced()
                    }),
                    preserve: true,
                },
            },
            _ => Shape::Scalar(Scalar::Any),
        }
    }
}

impl<'a> Fields<'a> {
    fn of(definition: &'a Definition, preserve: bool) -> Self {
        let Object {
            properties,
            preserve_unknown,
            ..
        } = definition.object();
        let preserve = preserve || *preserve_unknown;
        // An object of which nothing is said may be any.
        let open = preserve || properties.is_empty();
        Self {
            definition: Some(definition),
            others: open.then(Type::deduced),
            preserve,
        }
    }

    /// The type of the member, and whether it is a declared field. None: there may be no such member.
    pub fn get(self, name: &str) -> Option<(Type<'a>, bool)> {
        if let Some(property) = self.definition.and_then(|d| d.object().property(name)) {
            return Some((Type::property(property, self.preserve), true));
        }
        self.others.map(|others| (others, false))
    }

    /// [`Self::get`], where what is not declared does not matter.
    pub fn get_or_deduce(self, name: &str) -> (Type<'a>, bool) {
        self.get(name).unwrap_or_else(|| (Type::deduced(), false))
    }

    /// Fields that are there in Go even if the JSON leaves them out: structs, and what is written even when empty.
    pub fn implied(self) -> &'a [(String, Value)] {
        self.definition.map_or(&[], Definition::implied)
    }
}

/// The elements of a list's items. Err is upstream's text for an item that cannot be told apart.
pub fn element_of<'a>(items: Items<'a>, element: Type<'a>, item: &'a Value) -> Result<Element<'a>, String> {
    match items {
        Items::Atomic => Err("invalid indexing of non-associative list".into()),
        Items::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(Element::Item(Cow::Borrowed(scalar))),
        },
        Items::Map(keys) => match item {
            Value::Object(map) => by_keys(keys, element, map),
            Value::Null => Err("associative list with keys may not have a null element".into()),
            _ => Err("associative list with keys may not have non-map elements".into()),
        },
    }
}

fn by_keys<'a>(keys: &'a [String], element: Type<'a>, item: &'a Map<String, Value>) -> Result<Element<'a>, String> {
    let definition = match element.node {
        Node::Object(definition) => Some(&**definition),
        _ => None,
    };
    let mut fields = Vec::with_capacity(keys.len());
    for key in keys {
        let default = || definition.and_then(|d| d.object().property(key)?.default.as_ref());
        if let Some(value) = item.get(key).or_else(default) {
            fields.push((Cow::Borrowed(key.as_str()), Cow::Borrowed(value)));
        }
    }
    if fields.is_empty() && !keys.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
             values for any key fields)",
            quoted.join(" ")
        ));
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Element::Key(fields))
}
