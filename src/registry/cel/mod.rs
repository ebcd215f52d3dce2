//! The Common Expression Language as Kubernetes has it: parser, type checker, cost estimation and evaluation
//! (upstream: `google/cel-go`, `apiserver/pkg/cel`).
//!
//! Nothing here knows of custom resources: what an expression can name is given by an [`Environment`], and data is
//! JSON that is described by a [`Decl`] and looked at in place. Custom resources, admission policies and device
//! selectors use it with variables of their own.

mod ast;
mod check;
mod compare;
mod cost;
pub mod decl;
mod error;
mod eval;
mod json;
mod lexer;
mod library;
mod macros;
mod parser;
mod range;
mod runtime_cost;
mod signatures;
mod source;
mod structs;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod walk;
pub mod words;

pub use decl::Decl;
pub use error::Error;
pub use eval::Lookup;
pub use library::authz::{Access, Account, Authorizer, Authz, Check, Subject};
pub use source::CompileError;
pub use structs::{OBJECT, PATCH, Structure};
pub use types::Type;
pub use value::{Entries, List, Map, Text, Value};

use ast::Expr;
use library::Native;
use std::sync::Arc;

/// The cost that one evaluation may have.
pub const CALL_COST_MAX: u64 = 1_000_000;
/// The cost that all rules of an object may have together, for each request.
pub const REQUEST_COST_MAX: u64 = 10_000_000;

/// What expressions can name.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(Arc<str>, Type)>,
    /// The data behind variables, by which sizes are estimated.
    roots: Vec<(Arc<str>, Arc<Decl>)>,
    patches: bool,
}

impl Environment {
    /// A variable of a type.
    #[must_use]
    pub fn with(mut self, name: &str, of: Type) -> Self {
        self.variables.push((name.into(), of));
        self
    }

    /// Expressions can make objects and patches: `Object{…}`, `JSONPatch{…}`.
    #[must_use]
    pub fn with_patches(mut self) -> Self {
        self.patches = true;
        self
    }

    /// A variable that is data of a declaration.
    #[must_use]
    pub fn with_data(mut self, name: &str, decl: &Arc<Decl>) -> Self {
        self.roots.push((name.into(), decl.clone()));
        self.with(name, Type::of(decl))
    }

    /// A variable that is data of a declaration, or absent.
    #[must_use]
    pub fn with_optional_data(mut self, name: &str, decl: &Arc<Decl>) -> Self {
        self.roots.push((name.into(), decl.clone()));
        self.with(name, Type::optional(Type::of(decl)))
    }
}

/// A compiled expression.
pub struct Program {
    root: Expr,
    natives: Vec<Option<Native>>,
    result: Type,
    references: Vec<Arc<str>>,
    cost_max: u64,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({})", self.result)
    }
}

/// Compiles an expression; Err says everything that is wrong with it, with its place.
pub fn compile(source: &str, environment: &Environment) -> Result<Program, CompileError> {
    let mut parsed = parser::parse(source)?;
    let (checked, mut problems) = check::check(
        &mut parsed.root,
        &parsed.offsets,
        &environment.variables,
        environment.patches,
    );
    if problems.is_empty() {
        walk::literals(&parsed.root, &parsed.offsets, &mut problems);
        walk::mixed(&parsed.root, &parsed.offsets, &checked, &mut problems);
    }
    if !problems.is_empty() {
        return Err(CompileError::new(source, problems));
    }
    let mut natives = vec![None; parsed.offsets.len()];
    walk::link(&parsed.root, &mut natives);
    let cost = cost::estimate(&parsed.root, &checked, &environment.roots);
    Ok(Program {
        result: checked.types[parsed.root.id as usize].clone(),
        natives,
        references: checked.references,
        cost_max: cost.max,
        root: parsed.root,
    })
}

impl Program {
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Whether the expression names the variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.references.iter().any(|name| &**name == variable)
    }

    /// What an evaluation costs at most.
    pub fn cost_max(&self) -> u64 {
        self.cost_max
    }

    /// The result, and what it cost. An evaluation that costs more than `limit` ends in [`Error::CostLimit`].
    pub fn evaluate<'a>(&'a self, variables: Lookup<'_, 'a>, limit: u64) -> (Result<Value<'a>, Error>, u64) {
        let mut evaluation = eval::Evaluation::new(&self.natives, variables, limit);
        let result = evaluation.expression(&self.root);
        (result, evaluation.cost)
    }
}
