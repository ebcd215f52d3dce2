//! The syntax tree of an expression; macros are expanded into comprehensions (upstream: `cel-go/common/ast`).

use std::sync::Arc;

/// Numbers the nodes of one expression, so that the checker can keep what it learns beside the tree.
pub(super) type Id = u32;

#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub id: Id,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Literal),
    Ident(Arc<str>),
    /// `operand.field`, or with `test` whether it is there: `has(operand.field)`.
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        test: bool,
    },
    Call {
        function: Arc<str>,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct {
        name: Arc<str>,
        fields: Vec<Field>,
    },
    Comprehension(Box<Comprehension>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Clone, Debug)]
pub(super) struct Element {
    pub value: Expr,
    /// `[?value]`: left out where the optional has no value.
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: Arc<str>,
    pub value: Expr,
    /// `?name: value`: left out where the optional has no value.
    pub optional: bool,
}

/// Folds `range` into `accumulator` while `condition` holds.
#[derive(Clone, Debug)]
pub(super) struct Comprehension {
    pub range: Expr,
    pub variable: Arc<str>,
    /// The second of two variables: the value where the first is index or key.
    pub second: Option<Arc<str>>,
    pub accumulator: Arc<str>,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// The name of the accumulator of macros, which no expression can spell.
pub(super) const ACCUMULATOR: &str = "@result";

impl Expr {
    /// `a.b.c` as one name, if it is nothing but names.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select {
                operand,
                field,
                test: false,
            } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }

    pub fn is_empty_list(&self) -> bool {
        matches!(&self.kind, Kind::List(elements) if elements.is_empty())
    }
}

impl Comprehension {
    /// Not a loop, but a name for a value (`cel.bind`).
    pub fn is_binding(&self) -> bool {
        self.range.is_empty_list()
            && matches!(self.condition.kind, Kind::Literal(Literal::Bool(false)))
            && &*self.accumulator != ACCUMULATOR
    }
}
