//! The compact form of one schema: what is common stands inline, what is rare behind a box
//! (upstream: `apiextensions-apiserver/pkg/apiserver/schema/structural.go`).
//!
//! Schemas below `allOf`, `anyOf`, `oneOf` and `not` have the same form; that they carry less is a rule of
//! [`super::check`].

use super::rules::Rules;
use crate::registry::schema::ListType;
use serde_json::Value;
use std::sync::Arc;

/// The `type` of a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Type {
    #[default]
    Absent,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => Self::Absent,
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What is said of members that no property names.
#[derive(Debug, Default)]
pub(super) enum Additional {
    #[default]
    Absent,
    /// `additionalProperties: false`
    Nothing,
    /// `additionalProperties: true`
    Anything,
    Schema(Box<Node>),
}

/// Schemas by name.
pub(super) type Properties = Box<[(Arc<str>, Node)]>;

#[derive(Debug, Default)]
pub(super) struct Node {
    pub kind: Type,
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    /// `x-kubernetes-list-type`
    pub list_type: Option<ListType>,
    pub list_map_keys: Box<[Arc<str>]>,
    /// Sorted by name.
    pub properties: Properties,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    /// Never null: a default of null is none.
    pub default: Option<Box<Value>>,
    pub constraints: Option<Box<Constraints>>,
    pub rules: Option<Box<Rules>>,
    /// There are rules here or in a part.
    pub has_rules: bool,
}

/// What restricts values without shaping them.
#[derive(Debug, Default)]
pub(super) struct Constraints {
    pub format: Option<Format>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Arc<str>>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    pub enumeration: Box<[Value]>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Box<[Arc<str>]>,
    pub all_of: Box<[Node]>,
    pub one_of: Box<[Node]>,
    pub any_of: Box<[Node]>,
    pub not: Option<Box<Node>>,
}

/// A `format` that is acted on, under its name as written; others are dropped when a schema is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(pub Arc<str>);

impl Node {
    pub fn property(&self, name: &str) -> Option<&Node> {
        self.properties
            .binary_search_by(|(other, _)| (**other).cmp(name))
            .ok()
            .map(|at| &self.properties[at].1)
    }

    /// The schema of the member `name`: its property, else what stands for additional ones.
    pub fn member(&self, name: &str) -> Option<&Node> {
        self.property(name).or_else(|| self.additional_schema())
    }

    pub fn additional_schema(&self) -> Option<&Node> {
        match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        }
    }

    /// The schemas that shape parts of the value: properties, additional properties, items.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        self.properties
            .iter()
            .map(|(_, node)| node)
            .chain(self.additional_schema())
            .chain(self.items.as_deref())
    }

    /// Whether `what` holds here or in a part.
    pub fn any(&self, what: &dyn Fn(&Node) -> bool) -> bool {
        what(self) || self.children().any(|child| child.any(what))
    }
}
