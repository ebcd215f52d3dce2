//! How much an expression costs at most, by the sizes that data can have
//! (upstream: `cel-go/checker/cost.go`, `apiserver/pkg/cel/library/cost.go`). Users see the figures when a rule is
//! refused, so they are upstream's.

mod library;

use super::ast::{ACCUMULATOR, Comprehension, Expr, Kind, Literal};
use super::check::Checked;
use super::decl::{Decl, Shape};
use super::range::{Range, TRAVERSAL, exactly};
use super::types::Type;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) const LIST_CREATE: u64 = 10;
pub(super) const MAP_CREATE: u64 = 30;
pub(super) const STRUCT_CREATE: u64 = 40;
pub(super) const REGEX_LENGTH: f64 = 0.25;
/// From a variable down: fields, `@items`, `@values`, `@keys`.
type Path = Vec<Arc<str>>;

struct Local {
    name: Arc<str>,
    path: Path,
    size: Option<Range>,
    entries: Option<Entries>,
}

/// Sizes of what is in a list or a map.
#[derive(Clone, Copy)]
struct Entries {
    is_map: bool,
    key: Range,
    value: Range,
}

struct Coster<'c> {
    checked: &'c Checked,
    roots: &'c [(Arc<str>, Arc<Decl>)],
    paths: HashMap<u32, Path, ahash::RandomState>,
    sizes: HashMap<u32, Range, ahash::RandomState>,
    entries: HashMap<u32, Entries, ahash::RandomState>,
    locals: Vec<Local>,
}

/// The cost of evaluating the expression, from the least to the most.
pub(super) fn estimate(root: &Expr, checked: &Checked, roots: &[(Arc<str>, Arc<Decl>)]) -> Range {
    let mut coster = Coster {
        checked,
        roots,
        paths: HashMap::default(),
        sizes: HashMap::default(),
        entries: HashMap::default(),
        locals: Vec::new(),
    };
    coster.cost(root)
}

/// The cost of a call without its arguments, and the size of what it gives.
struct Call {
    cost: Range,
    size: Option<Range>,
}

fn costs(cost: Range) -> Option<Call> {
    Some(Call { cost, size: None })
}

fn sized(cost: Range, size: Range) -> Option<Call> {
    Some(Call { cost, size: Some(size) })
}

impl Coster<'_> {
    fn kind(&self, expr: &Expr) -> &Type {
        &self.checked.types[expr.id as usize]
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| &*local.name == name)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn extended(&self, expr: &Expr, step: &str) -> Path {
        let mut path = self.path(expr);
        path.push(step.into());
        path
    }

    /// The size that the declaration at a path allows.
    fn declared(&self, path: &[Arc<str>]) -> Option<Range> {
        let (root, steps) = path.split_first()?;
        let mut at: &Arc<Decl> = self.roots.iter().find(|(name, _)| name == root).map(|(_, decl)| decl)?;
        for step in steps {
            at = match (&**step, &at.shape) {
                ("@items", Shape::List { item, .. }) => item,
                ("@values", Shape::Map(value)) => value,
                // Keys are strings of any length.
                ("@keys", Shape::Map(_)) => return Some(Range::up_to(super::decl::REQUEST_BYTES_MAX - 2)),
                (name, Shape::Object(_)) => &at.field(name)?.decl,
                _ => return None,
            };
        }
        Some(Range::up_to(at.elements_max))
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = of_expression(expr) {
            return Some(size);
        }
        let path = self.path(expr);
        if path.first().is_some_and(|root| &**root != ACCUMULATOR)
            && let Some(size) = self.declared(&path)
        {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if self.kind(expr).is_scalar() {
            return Some(exactly(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn size_or_any(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::ANY)
    }

    fn entries(&self, expr: &Expr) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => exactly(0),
            Kind::Ident(name) => {
                let path = self
                    .local(name)
                    .map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                exactly(1)
            }
            Kind::Select {
                operand, test: true, ..
            } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut cost = self.cost(operand);
                if matches!(self.kind(operand), Type::Map(_) | Type::Object(_) | Type::Param(_)) {
                    cost = cost.plus(exactly(1));
                }
                let path = self.extended(operand, field);
                self.paths.insert(expr.id, path);
                cost
            }
            Kind::Call { .. } => self.call(expr),
            Kind::List(elements) => {
                let mut cost = exactly(LIST_CREATE);
                let mut item = if elements.is_empty() { exactly(0) } else { Range::NONE };
                for element in elements {
                    cost = cost.plus(self.cost(&element.value));
                    item = item.union(self.size_or_any(&element.value));
                }
                let entries = Entries {
                    is_map: false,
                    key: exactly(1),
                    value: item,
                };
                self.entries.insert(expr.id, entries);
                cost
            }
            Kind::Map(pairs) => {
                let mut cost = exactly(MAP_CREATE);
                let start = if pairs.is_empty() { exactly(0) } else { Range::NONE };
                let (mut key, mut value) = (start, start);
                for pair in pairs {
                    cost = cost.plus(self.cost(&pair.key)).plus(self.cost(&pair.value));
                    key = key.union(self.size_or_any(&pair.key));
                    value = value.union(self.size_or_any(&pair.value));
                }
                let is_map = true;
                self.entries.insert(expr.id, Entries { is_map, key, value });
                cost
            }
            Kind::Struct { fields, .. } => fields
                .iter()
                .fold(exactly(STRUCT_CREATE), |cost, field| cost.plus(self.cost(&field.value))),
            Kind::Comprehension(parts) if parts.is_binding() => self.binding(expr, parts),
            Kind::Comprehension(parts) => self.comprehension(expr, parts),
        }
    }

    fn binding(&mut self, expr: &Expr, parts: &Comprehension) -> Range {
        let cost = self.cost(&parts.range).plus(self.cost(&parts.init));
        let local = Local {
            name: parts.accumulator.clone(),
            path: self.path(&parts.init),
            size: self.size(&parts.init),
            entries: self.entries(&parts.init),
        };
        self.locals.push(local);
        let cost = cost.plus(self.cost(&parts.result));
        let (size, entries) = (self.size(&parts.result), self.entries(&parts.result));
        self.locals.pop();
        self.remember(expr, size, entries);
        cost
    }

    fn remember(&mut self, expr: &Expr, size: Option<Range>, entries: Option<Entries>) {
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        if let Some(entries) = entries {
            self.entries.insert(expr.id, entries);
        }
    }

    fn comprehension(&mut self, expr: &Expr, parts: &Comprehension) -> Range {
        let mut sum = self.cost(&parts.range).plus(self.cost(&parts.init));
        let accumulator = Local {
            name: parts.accumulator.clone(),
            path: self.path(&parts.init),
            size: self.size(&parts.init),
            entries: self.entries(&parts.init),
        };
        self.locals.push(accumulator);
        let depth = self.locals.len();
        let entries = self.entries(&parts.range);
        let is_list = match entries {
            Some(entries) => !entries.is_map,
            None => matches!(self.kind(&parts.range), Type::List(_)),
        };
        let (key_step, value_step) = if is_list {
            ("@indices", "@items")
        } else {
            ("@keys", "@values")
        };
        let key = (key_step, entries.map(|entries| entries.key));
        let value = (value_step, entries.map(|entries| entries.value));
        let names = match &parts.second {
            Some(second) => vec![(parts.variable.clone(), key), (second.clone(), value)],
            None => vec![(parts.variable.clone(), if is_list { value } else { key })],
        };
        for (name, (step, size)) in names {
            let path = self.extended(&parts.range, step);
            self.locals.push(Local {
                name,
                path,
                size,
                entries: None,
            });
        }
        let each = self.cost(&parts.condition).plus(self.cost(&parts.step));
        let step_entries = self.entries(&parts.step);
        self.locals.truncate(depth);
        sum = sum.plus(self.cost(&parts.result));
        self.locals.pop();
        let count = self.size_or_any(&parts.range);
        match &parts.init.kind {
            Kind::Literal(_) => {
                let size = self.size(&parts.init);
                self.remember(expr, size, None);
            }
            Kind::List(_) | Kind::Map(_) => self.remember(expr, Some(count), step_entries),
            _ => {}
        }
        sum.plus(count.times(each))
    }

    fn call(&mut self, expr: &Expr) -> Range {
        let Kind::Call {
            function,
            target,
            arguments,
        } = &expr.kind
        else {
            return exactly(0);
        };
        if &**function == "dyn"
            && let [argument] = &arguments[..]
        {
            let cost = self.cost(argument).plus(exactly(1));
            let (size, entries) = (self.size(argument), self.entries(argument));
            self.remember(expr, size, entries);
            return cost;
        }
        let argument_costs: Vec<Range> = arguments.iter().map(|argument| self.cost(argument)).collect();
        let overloads = &self.checked.overloads[expr.id as usize];
        if overloads.is_empty() {
            return exactly(0);
        }
        let target_cost = target.as_deref().map_or(exactly(0), |target| self.cost(target));
        let mut all = Range::NONE;
        let mut size: Option<Range> = None;
        for overload in overloads {
            let call = self.overload(expr, function, overload, target.as_deref(), arguments, &argument_costs);
            all = all.union(call.cost);
            if let Some(found) = call.size {
                size = Some(size.map_or(found, |size| size.union(found)));
            }
            let step = match *overload {
                "index_list" => Some("@items"),
                "index_map" => Some("@values"),
                _ => None,
            };
            if let (Some(step), Some(container)) = (step, arguments.first()) {
                size = self.entries(container).map(|entries| entries.value);
                let path = self.extended(container, step);
                self.paths.insert(expr.id, path);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        self.remember(expr, size, None);
        target_cost.plus(all)
    }

    fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Expr>,
        arguments: &[Expr],
        argument_costs: &[Range],
    ) -> Call {
        let sum = argument_costs.iter().fold(exactly(0), |sum, cost| sum.plus(*cost));
        let with_arguments = |call: Call| Call {
            cost: call.cost.plus(sum),
            size: call.size,
        };
        if let Some(call) = self.of_lists(overload, target, arguments) {
            return with_arguments(call);
        }
        if let Some(call) = self.of_kubernetes(function, overload, target, arguments) {
            return with_arguments(call);
        }
        match (overload, arguments) {
            ("logical_or" | "logical_and", [_, _]) => {
                let (left, right) = (argument_costs[0], argument_costs[1]);
                Call {
                    cost: Range::new(left.min, left.plus(right).max),
                    size: None,
                }
            }
            ("conditional", [_, truthy, falsy]) => {
                let size = self.size_or_any(truthy).union(self.size_or_any(falsy));
                if let (Some(a), Some(b)) = (self.entries(truthy), self.entries(falsy)) {
                    let joined = Entries {
                        is_map: a.is_map,
                        key: a.key.union(b.key),
                        value: a.value.union(b.value),
                    };
                    self.entries.insert(expr.id, joined);
                }
                Call {
                    cost: argument_costs[0].plus(argument_costs[1].union(argument_costs[2])),
                    size: Some(size),
                }
            }
            _ => with_arguments(self.of_language(expr, overload, target, arguments).unwrap_or(Call {
                cost: exactly(1),
                size: None,
            })),
        }
    }

    /// The language's own functions.
    fn of_language(&mut self, expr: &Expr, overload: &str, target: Option<&Expr>, arguments: &[Expr]) -> Option<Call> {
        let first = arguments.first();
        match (overload, target, first) {
            ("string_format", Some(target), _) => costs(self.size_or_any(target).by(TRAVERSAL)),
            ("string_to_bytes", _, Some(text)) => {
                let size = self.size_or_any(text);
                sized(size.by(TRAVERSAL), Range::new(size.min, size.max.saturating_mul(4)))
            }
            ("bytes_to_string", _, Some(bytes)) => {
                let size = self.size_or_any(bytes);
                sized(size.by(TRAVERSAL), Range::new(size.min / 4, size.max))
            }
            ("strings_quote", _, Some(text)) => {
                let size = self.size_or_any(text);
                let quoted = Range::new(size.min + 2, size.max.saturating_mul(2).saturating_add(2));
                sized(size.by(TRAVERSAL), quoted)
            }
            ("starts_with_string" | "ends_with_string", _, Some(part)) => costs(self.size_or_any(part).by(TRAVERSAL)),
            ("in_list", _, _) => costs(self.size_or_any(arguments.get(1)?)),
            ("matches_string", Some(text), Some(pattern)) => {
                let text = self.size_or_any(text).plus(exactly(1)).by(TRAVERSAL);
                costs(text.times(self.size_or_any(pattern).by(REGEX_LENGTH)))
            }
            ("contains_string", Some(text), Some(part)) => {
                let text = self.size_or_any(text).by(TRAVERSAL);
                costs(text.times(self.size_or_any(part).by(TRAVERSAL)))
            }
            ("add_string" | "add_bytes" | "add_list", _, Some(left)) => {
                let right = arguments.get(1)?;
                let size = self.size_or_any(left).plus(self.size_or_any(right));
                if let (Some(a), Some(b)) = (self.entries(left), self.entries(right)) {
                    let joined = Entries {
                        is_map: a.is_map,
                        key: a.key.union(b.key),
                        value: a.value.union(b.value),
                    };
                    self.entries.insert(expr.id, joined);
                }
                let cost = if overload == "add_list" {
                    exactly(1)
                } else {
                    size.by(TRAVERSAL)
                };
                sized(cost, size)
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                _,
                Some(left),
            ) => {
                let most = self.size_or_any(left).max.min(self.size_or_any(arguments.get(1)?).max);
                costs(Range::new(u64::from(most > 0), most).by(TRAVERSAL))
            }
            _ => None,
        }
    }
}

fn of_expression(expr: &Expr) -> Option<Range> {
    Some(exactly(match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count() as u64,
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len() as u64,
        Kind::Map(pairs) => pairs.len() as u64,
        _ => return None,
    }))
}
