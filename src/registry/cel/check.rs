//! Finds the types of an expression and what is wrong with it (upstream: `cel-go/checker/checker.go`).

use super::ast::{Comprehension, Entry, Expr, Field, Kind, Literal};
use super::signatures::{self, Overload};
use super::source::Problem;
use super::structs;
use super::types::{Substitutions, Type, most_general};
use std::sync::Arc;

/// What the checker learned: by node, its type and the overloads that a call can be.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub types: Vec<Type>,
    pub overloads: Vec<Vec<&'static str>>,
    /// Variables of the environment that are named.
    pub references: Vec<Arc<str>>,
}

pub(super) struct Checker<'e> {
    variables: &'e [(Arc<str>, Type)],
    /// Expressions can make objects and patches.
    patches: bool,
    /// Variables of loops, innermost last.
    scopes: Vec<(Arc<str>, Type)>,
    substitutions: Substitutions,
    offsets: &'e [usize],
    checked: Checked,
    problems: Vec<Problem>,
}

/// Checks the tree and completes names in it. The problems are empty if there are none.
pub(super) fn check(
    root: &mut Expr,
    offsets: &[usize],
    variables: &[(Arc<str>, Type)],
    patches: bool,
) -> (Checked, Vec<Problem>) {
    let mut checker = Checker {
        variables,
        patches,
        scopes: Vec::new(),
        substitutions: Substitutions::default(),
        offsets,
        checked: Checked {
            types: vec![Type::Dyn; offsets.len()],
            overloads: vec![Vec::new(); offsets.len()],
            references: Vec::new(),
        },
        problems: Vec::new(),
    };
    checker.expression(root);
    let substitutions = std::mem::take(&mut checker.substitutions);
    for found in &mut checker.checked.types {
        *found = substitutions.apply(found, true);
    }
    (checker.checked, checker.problems)
}

impl Checker<'_> {
    fn problem(&mut self, id: u32, message: String) {
        let offset = self.offsets.get(id as usize).copied().unwrap_or_default();
        self.problems.push(Problem { offset, message });
    }

    fn set(&mut self, id: u32, found: Type) -> Type {
        self.checked.types[id as usize] = found.clone();
        found
    }

    fn known(&self, of: &Type) -> Type {
        self.substitutions.apply(of, false)
    }

    fn expression(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let found = match &mut expr.kind {
            Kind::Literal(literal) => of_literal(literal),
            Kind::Ident(name) => {
                let name = name.clone();
                self.ident(id, &name)
            }
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List(elements) => {
                let mut joined = None;
                for element in elements {
                    let mut found = self.expression(&mut element.value);
                    if element.optional {
                        found = self.unwrapped(element.value.id, found);
                    }
                    joined = Some(self.join(joined, found));
                }
                Type::list(joined.unwrap_or_else(|| self.substitutions.fresh()))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => {
                let name = name.clone();
                self.structure(id, &name, fields)
            }
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
        };
        self.set(id, found)
    }

    fn ident(&mut self, id: u32, name: &Arc<str>) -> Type {
        if let Some((_, found)) = self.scopes.iter().rev().find(|(other, _)| other == name) {
            return found.clone();
        }
        if let Some((name, found)) = self.variables.iter().find(|(other, _)| other == name) {
            if !self.checked.references.contains(name) {
                self.checked.references.push(name.clone());
            }
            return found.clone();
        }
        if let Some(named) = signatures::type_named(name) {
            return Type::Type(Arc::new(named));
        }
        self.problem(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn structure(&mut self, id: u32, name: &Arc<str>, fields: &mut [Field]) -> Type {
        let known = self.patches && structs::is_known(name);
        if !known {
            self.problem(id, format!("undeclared reference to '{name}' (in container '')"));
        }
        for field in fields {
            let mut found = self.expression(&mut field.value);
            if field.optional {
                found = self.unwrapped(field.value.id, found);
            }
            if !known {
                continue;
            }
            match structs::field(name, &field.name) {
                None => self.problem(id, format!("undefined field '{}'", field.name)),
                Some(expected) if self.substitutions.assign(&expected, &found) => {}
                Some(expected) => {
                    let found = self.known(&found);
                    let message = format!(
                        "expected type of field '{}' is '{expected}' but provided type is '{found}'",
                        field.name
                    );
                    self.problem(field.value.id, message);
                }
            }
        }
        if known { Type::Struct(name.clone()) } else { Type::Error }
    }

    /// Makes `a.b` a variable of that name, if there is one: `authorizer.requestResource`, `variables.x`.
    fn dotted(&mut self, expr: &mut Expr) -> Option<Type> {
        let Kind::Select { operand, field, test } = &expr.kind else {
            return None;
        };
        let prefix = operand.qualified_name()?;
        if self.scopes.iter().any(|(other, _)| **other == *prefix) {
            return None;
        }
        let name = format!("{prefix}.{field}");
        let (name, _) = self.variables.iter().find(|(other, _)| **other == *name)?;
        if *test {
            expr.kind = Kind::Literal(Literal::Bool(true));
            return Some(Type::Bool);
        }
        let name = name.clone();
        expr.kind = Kind::Ident(name.clone());
        Some(self.ident(expr.id, &name))
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(found) = self.dotted(expr) {
            return found;
        }
        if let Some(name) = expr.qualified_name()
            && signatures::type_named(&name).is_some()
        {
            let root = name.split('.').next().unwrap_or_default();
            let is_variable = self
                .scopes
                .iter()
                .chain(self.variables)
                .any(|(other, _)| &**other == root);
            if !is_variable {
                let name: Arc<str> = name.into();
                expr.kind = Kind::Ident(name.clone());
                return self.ident(expr.id, &name);
            }
        }
        let id = expr.id;
        let Kind::Select { operand, field, test } = &mut expr.kind else {
            return Type::Error;
        };
        let (field, test) = (field.clone(), *test);
        let found = self.field(id, operand, &field, false);
        if test { Type::Bool } else { found }
    }

    /// The type of a member of an operand.
    fn field(&mut self, id: u32, operand: &mut Expr, field: &str, optional: bool) -> Type {
        let operand = self.expression(operand);
        let (target, is_optional) = self.known(&operand).unwrap_optional();
        let found = match &target {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(decl) => match decl.field(field) {
                Some(member) => Type::of(&member.decl),
                None => {
                    self.problem(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Struct(name) => match structs::field(name, field) {
                Some(found) => found,
                None => {
                    self.problem(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.substitutions.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            other if other.is_dyn_or_error() => Type::Dyn,
            other => {
                self.problem(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if is_optional || optional {
            Type::optional(found)
        } else {
            found
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let Kind::Call {
            function,
            target,
            arguments,
        } = &mut expr.kind
        else {
            return Type::Error;
        };
        if &**function == "_?._"
            && let [operand, name] = &mut arguments[..]
        {
            let Kind::Literal(Literal::String(field)) = &name.kind else {
                return Type::Error;
            };
            let field = field.clone();
            let name_id = name.id;
            self.set(name_id, Type::String);
            let found = self.field(id, operand, &field, true);
            self.checked.overloads[id as usize] = vec!["select_optional_field"];
            return found;
        }
        let mut types: Vec<Type> = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments.iter_mut() {
            types.push(self.expression(argument));
        }
        if let Some(receiver) = target {
            let qualified = receiver.qualified_name().map(|prefix| format!("{prefix}.{function}"));
            if let Some(name) = qualified.filter(|name| signatures::lookup(name).is_some()) {
                *function = name.into();
                *target = None;
            } else {
                types.insert(0, self.expression(receiver));
            }
        }
        let is_member = target.is_some();
        let function = function.clone();
        let overloads = signatures::lookup(&function);
        match overloads.filter(|_| self.patches || !structs::is_function(&function)) {
            None => {
                self.problem(id, format!("undeclared reference to '{function}' (in container '')"));
                Type::Error
            }
            Some(overloads) => self.overload(id, &function, overloads, &types, is_member),
        }
    }

    fn overload(
        &mut self,
        id: u32,
        function: &str,
        overloads: &'static [Overload],
        types: &[Type],
        is_member: bool,
    ) -> Type {
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.is_member == is_member) {
            if overload.arguments.len() != types.len() {
                continue;
            }
            let base: Vec<Type> = (0..overload.params).map(|_| self.substitutions.fresh()).collect();
            let arguments: Vec<Type> = overload.arguments.iter().map(|of| instance(of, &base)).collect();
            if !self.substitutions.assign_all(types, &arguments) {
                continue;
            }
            self.checked.overloads[id as usize].push(overload.id);
            let found = self.known(&instance(&overload.result, &base));
            result = Some(match result {
                None => found,
                Some(before) if matches!(before, Type::Dyn) || found.same(&before) => before,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let shown: Vec<String> = types
                .iter()
                .map(|of| self.substitutions.apply(of, true).to_string())
                .collect();
            let signature = match shown.split_first() {
                Some((receiver, rest)) if is_member => format!("{receiver}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let message = format!("found no matching overload for '{function}' applied to '{signature}'");
            self.problem(id, message);
            Type::Error
        })
    }

    /// One type for elements of a list or a map.
    fn join(&mut self, before: Option<Type>, found: Type) -> Type {
        let Some(before) = before else { return found };
        if self.substitutions.assign(&before, &found) {
            return most_general(&before, &found).clone();
        }
        Type::Dyn
    }

    fn unwrapped(&mut self, id: u32, found: Type) -> Type {
        let known = self.known(&found);
        let (inner, is_optional) = known.unwrap_optional();
        if !is_optional && !inner.is_dyn_or_error() {
            let expected = Type::optional(inner.clone());
            self.problem(id, format!("expected type '{expected}' but found '{inner}'"));
        }
        inner
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.expression(&mut entry.key);
            keys = Some(self.join(keys, key));
            let mut value = self.expression(&mut entry.value);
            if entry.optional {
                value = self.unwrapped(entry.value.id, value);
            }
            values = Some(self.join(values, value));
        }
        let key = keys.unwrap_or_else(|| self.substitutions.fresh());
        let value = values.unwrap_or_else(|| self.substitutions.fresh());
        Type::map(key, value)
    }

    fn comprehension(&mut self, parts: &mut Comprehension) -> Type {
        let range = self.expression(&mut parts.range);
        let accumulator = self.expression(&mut parts.init);
        let range = self.known(&range);
        let depth = self.scopes.len();
        self.scopes.push((parts.accumulator.clone(), accumulator.clone()));
        let two = parts.second.is_some();
        let (first, second) = match &range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.substitutions.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.problem(parts.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((parts.variable.clone(), first));
        if let Some(name) = &parts.second {
            self.scopes.push((name.clone(), second));
        }
        let condition = self.expression(&mut parts.condition);
        self.expect(parts.condition.id, &Type::Bool, &condition);
        let step = self.expression(&mut parts.step);
        self.expect(parts.step.id, &accumulator, &step);
        // The result sees the accumulator only.
        self.scopes.truncate(depth + 1);
        let result = self.expression(&mut parts.result);
        self.scopes.truncate(depth);
        self.known(&result)
    }

    fn expect(&mut self, id: u32, expected: &Type, found: &Type) {
        if !self.substitutions.assign(expected, found) {
            let (expected, found) = (self.known(expected), self.known(found));
            self.problem(id, format!("expected type '{expected}' but found '{found}'"));
        }
    }
}

/// A type with its unknown types replaced.
fn instance(of: &Type, params: &[Type]) -> Type {
    match of {
        Type::Param(number) => params.get(*number as usize).cloned().unwrap_or(Type::Dyn),
        Type::List(item) => Type::list(instance(item, params)),
        Type::Optional(inner) => Type::optional(instance(inner, params)),
        Type::Type(inner) => Type::Type(Arc::new(instance(inner, params))),
        Type::Map(entry) => Type::map(instance(&entry.0, params), instance(&entry.1, params)),
        other => other.clone(),
    }
}

fn of_literal(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
