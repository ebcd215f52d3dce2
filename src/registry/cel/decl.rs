//! What is known of JSON data that expressions look at: types of fields and how large they can be
//! (upstream: `apiserver/pkg/cel/types.go`, `apiserver/pkg/cel/common/schemas.go`).

use super::words;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of the largest request, by which sizes without a bound are estimated.
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// A piece of data.
#[derive(Debug)]
pub struct Decl {
    pub shape: Shape,
    pub nullable: bool,
    /// Characters, items or entries that it can have at most.
    pub elements_max: u64,
    /// Bytes of the shortest JSON for it.
    pub bytes_min: u64,
}

#[derive(Debug)]
pub enum Shape {
    /// JSON without a schema.
    Any,
    IntOrString,
    /// Data that is kept without a schema: it can be compared, not looked into.
    Preserved,
    Bool,
    Int,
    Double,
    String,
    /// base64
    Bytes,
    Duration,
    Date,
    DateTime,
    List {
        item: Arc<Decl>,
        kind: ListKind,
    },
    Map(Arc<Decl>),
    Object(ObjectDecl),
}

/// How items of a list are told apart when lists are compared and added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    Map(Box<[Arc<str>]>),
}

#[derive(Debug)]
pub struct ObjectDecl {
    pub name: Arc<str>,
    /// By the name that expressions use.
    pub fields: HashMap<Arc<str>, FieldDecl, ahash::RandomState>,
}

#[derive(Debug)]
pub struct FieldDecl {
    /// The name in JSON.
    pub name: Arc<str>,
    pub decl: Arc<Decl>,
}

/// JSON of which nothing is known.
pub static ANY: Decl = Decl {
    shape: Shape::Any,
    nullable: true,
    elements_max: u64::MAX,
    bytes_min: 1,
};

impl Decl {
    pub fn name(&self) -> &str {
        match &self.shape {
            Shape::Object(object) => &object.name,
            _ => "dyn",
        }
    }

    /// A value of one size: a bool or a number.
    pub fn scalar(shape: Shape, nullable: bool) -> Self {
        let bytes_min = if matches!(shape, Shape::Bool) { 4 } else { 1 };
        Self {
            shape,
            nullable,
            elements_max: 1,
            bytes_min,
        }
    }

    /// The declaration of a member, by the name that expressions use.
    pub fn field(&self, name: &str) -> Option<&FieldDecl> {
        match &self.shape {
            Shape::Object(object) => object.fields.get(name),
            _ => None,
        }
    }
}

/// The name by which expressions can speak of a member: `a-b` is `a__dash__b`. None if there is no way.
pub fn escape(name: &str) -> Option<String> {
    let first = name.bytes().next()?;
    if first.is_ascii_digit() {
        return None;
    }
    if words::is_taken(name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("__") {
            out.push_str("__underscores__");
            rest = &rest[2..];
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (name, escaped) in [
            ("a", Some("a")),
            ("a_b", Some("a_b")),
            ("a__b", Some("a__underscores__b")),
            ("a.b-c/d", Some("a__dot__b__dash__c__slash__d")),
            ("namespace", Some("__namespace__")),
            ("int", Some("int")),
            ("1a", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }
}
