//! Runs the rules of a schema over an object (upstream: `schema/cel/validation.go`).

use super::correlate::{Old, OldItems};
use super::data;
use super::embedded::child;
use super::node::{Node, Type};
use super::rules::{Compiled, Rule};
use crate::registry::cel::{self, Decl, Error, Program, Value as Data};
use crate::registry::field::{ErrorType, FieldError};
use serde_json::Value;
use std::sync::Arc;

/// Bytes of a message that an expression made.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// The errors of all rules of an object.
pub(super) fn object(root: &Node, decl: &Arc<Decl>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut run = Run::new();
    let correlated = old.map(|old| Correlated {
        old: Old { value: old, node: root },
        new,
    });
    let place = Place {
        current: correlated,
        parent: None,
    };
    run.value(root, Some(decl), "", new, old, place);
    run.errors
}

/// The errors of the rules of one value, at a path, without anything taken back; and the budget that is left.
pub(super) fn part(
    node: &Node,
    decl: &Arc<Decl>,
    path: &str,
    new: &Value,
    old: Option<&Value>,
    budget: i64,
) -> (Vec<FieldError>, i64) {
    let mut run = Run::new();
    run.budget = budget;
    run.value(node, Some(decl), path, new, old, Place::default());
    (run.errors, run.budget)
}

/// A value and what it was.
#[derive(Clone, Copy)]
struct Correlated<'a> {
    old: Old<'a>,
    new: &'a Value,
}

/// By what it is decided whether an error may pass because nothing changed.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    current: Option<Correlated<'a>>,
    /// The nearest part around this one of which it is known what it was.
    parent: Option<Correlated<'a>>,
}

impl<'a> Place<'a> {
    fn is_unchanged(self) -> bool {
        self.current
            .or(self.parent)
            .is_some_and(|correlated| correlated.old.is_equal(correlated.new))
    }

    fn member(self, name: &str, new: &'a Value) -> Self {
        let Some(current) = self.current else { return self };
        if self.parent.is_none() && matches!(name, "apiVersion" | "kind") {
            return Self::default();
        }
        Self {
            current: current.old.member(name).map(|old| Correlated { old, new }),
            parent: Some(current),
        }
    }

    fn item(self, old: Option<Old<'a>>, new: &'a Value) -> Self {
        let Some(current) = self.current else { return self };
        Self {
            current: old.map(|old| Correlated { old, new }),
            parent: Some(current),
        }
    }
}

struct Run {
    errors: Vec<FieldError>,
    /// Cost that is left for this object; below zero no further rule is run.
    budget: i64,
}

fn shown_path(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

impl Run {
    fn new() -> Self {
        Self {
            errors: Vec::new(),
            budget: i64::try_from(cel::REQUEST_COST_MAX).unwrap_or(i64::MAX),
        }
    }

    fn value<'a>(
        &mut self,
        node: &Node,
        decl: Option<&Arc<Decl>>,
        path: &str,
        new: &'a Value,
        old: Option<&'a Value>,
        place: Place<'a>,
    ) {
        if !node.has_rules || new.is_null() || self.budget < 0 {
            return;
        }
        if let (Some(rules), Some(decl)) = (&node.rules, decl) {
            let compiled = rules.compiled(node, decl);
            let old = old.filter(|old| !old.is_null());
            self.rules(node, (&rules.rules, compiled), decl, path, (new, old), place);
        }
        match new {
            Value::Array(items) => {
                let Some(item_node) = node.items.as_deref() else { return };
                let decl = data::items(decl);
                let old_items = old.and_then(|value| OldItems::of(Old { value, node }));
                let correlated = place.current.and_then(|current| OldItems::of(current.old));
                for (index, item) in items.iter().enumerate() {
                    let old = old_items.as_ref().and_then(|items| items.get(item));
                    let place = place.item(correlated.as_ref().and_then(|items| items.get(item)), item);
                    let path = format!("{path}[{index}]");
                    self.value(item_node, decl.as_ref(), &path, item, old.map(|old| old.value), place);
                }
            }
            Value::Object(members) => {
                let old = old.and_then(Value::as_object);
                for (name, value) in members {
                    let old = old.and_then(|old| old.get(name));
                    let place = place.member(name, value);
                    if let Some(schema) = node.additional_schema() {
                        let decl = data::values(decl);
                        self.value(schema, decl.as_ref(), &format!("{path}[{name}]"), value, old, place);
                    }
                    if let Some(property) = node.property(name)
                        && property.has_rules
                    {
                        let decl = data::property(decl, name, property);
                        self.value(property, decl.as_ref(), &child(path, name), value, old, place);
                    }
                }
            }
            _ => {}
        }
    }

    fn invalid(&mut self, path: &str, node: &Node, detail: &str) {
        self.errors
            .push(FieldError::invalid(shown_path(path), node.kind.name(), detail));
    }

    fn rules<'a>(
        &mut self,
        node: &Node,
        (rules, compiled): (&[Rule], &[Compiled]),
        decl: &Arc<Decl>,
        path: &str,
        (new, old): (&'a Value, Option<&'a Value>),
        place: Place<'a>,
    ) {
        const SPENT: &str =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        if self.budget <= 0 {
            self.invalid(path, node, SPENT);
            self.budget = -1;
            return;
        }
        for (rule, compiled) in rules.iter().zip(compiled) {
            let program = match &compiled.program {
                None => continue,
                Some(Err(error)) => {
                    self.invalid(path, node, &format!("rule compile error: {error}"));
                    continue;
                }
                Some(Ok(program)) => program,
            };
            let optional = rule.optional_old_self == Some(true);
            // A transition needs something to come from.
            if compiled.uses_old_self && old.is_none() && !optional {
                continue;
            }
            let (result, cost) = evaluated(program, decl, new, old, optional, cel::CALL_COST_MAX);
            let cost = i64::try_from(cost).unwrap_or(i64::MAX);
            if cost > self.budget {
                self.invalid(path, node, SPENT);
                self.budget = -1;
                return;
            }
            self.budget -= cost;
            match result {
                Ok(Data::Bool(true)) => continue,
                Ok(_) => {}
                Err(error @ Error::NoSuchOverload) => {
                    let detail = format!(
                        "'{error}': call arguments did not match a supported operator, function or macro signature \
                         for rule: {}",
                        shown_rule(rule)
                    );
                    self.invalid(path, node, &detail);
                    continue;
                }
                Err(error @ Error::CostLimit) => {
                    let detail = format!(
                        "'{error}': no further validation rules will be run due to call cost exceeds limit for \
                         rule: {}",
                        shown_rule(rule)
                    );
                    self.invalid(path, node, &detail);
                    self.budget = -1;
                    return;
                }
                Err(error) => {
                    self.invalid(path, node, &format!("{error} evaluating rule: {}", shown_rule(rule)));
                    continue;
                }
            }
            let tolerated = !compiled.uses_old_self && place.is_unchanged();
            let field = match &compiled.field_path {
                Some(field) if field.starts_with('[') => format!("{path}{field}"),
                Some(field) => child(path, field),
                None => path.to_owned(),
            };
            let mut detail = None;
            if let Some(Ok(message)) = &compiled.message {
                let source = rule.message_expression.as_deref().unwrap_or_default();
                match self.message(message, source, decl, new, old, optional) {
                    Ok(text) => detail = text,
                    Err(problem) => {
                        if !tolerated {
                            self.invalid(&field, node, &problem);
                        }
                        self.budget = -1;
                        return;
                    }
                }
            }
            let detail = detail.unwrap_or_else(|| match &rule.message {
                Some(message) => message.trim().to_owned(),
                None => format!("failed rule: {}", shown_rule(rule)),
            });
            if !tolerated {
                let value = (!matches!(node.kind, Type::Object | Type::Array)).then_some(new);
                self.errors
                    .push(error_for(rule.reason.as_deref(), shown_path(&field), value, &detail));
            }
        }
    }

    /// The message that an expression makes; None if it makes none that can be shown. Err ends the run.
    fn message(
        &mut self,
        program: &Program,
        source: &str,
        decl: &Arc<Decl>,
        new: &Value,
        old: Option<&Value>,
        optional: bool,
    ) -> Result<Option<String>, String> {
        let (result, cost) = evaluated(program, decl, new, old, optional, cel::CALL_COST_MAX);
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        if cost > self.budget {
            return Err(
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules \
                 will be run"
                    .to_owned(),
            );
        }
        if matches!(result, Err(Error::CostLimit)) {
            return Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: \
                 {source:?}"
            ));
        }
        self.budget -= cost;
        let Ok(Data::String(text)) = result else {
            return Ok(None);
        };
        let text = text.trim();
        let usable = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
        Ok(usable.then(|| text.to_owned()))
    }
}

fn evaluated<'a>(
    program: &'a Program,
    decl: &'a Arc<Decl>,
    new: &'a Value,
    old: Option<&'a Value>,
    optional: bool,
    limit: u64,
) -> (Result<Data<'a>, Error>, u64) {
    let lookup = |name: &str| match name {
        "self" => Some(Data::of(new, decl)),
        "oldSelf" if optional => Some(match old {
            Some(old) => Data::of(old, decl).map(Data::some),
            None => Ok(Data::Optional(None)),
        }),
        "oldSelf" => old.map(|old| Data::of(old, decl)),
        _ => None,
    };
    program.evaluate(&lookup, limit)
}

fn shown_rule(rule: &Rule) -> &str {
    rule.message.as_deref().unwrap_or(&rule.rule).trim()
}

/// The error of a rule that does not hold; objects and lists are not shown.
fn error_for(reason: Option<&str>, path: &str, value: Option<&Value>, detail: &str) -> FieldError {
    match (reason, value) {
        (Some("FieldValueForbidden"), _) => FieldError::forbidden(path, detail),
        (Some("FieldValueRequired"), _) => FieldError::required(path, detail),
        (Some("FieldValueDuplicate"), Some(value)) => FieldError::duplicate(path, value.clone()),
        (Some("FieldValueDuplicate"), None) => FieldError {
            kind: ErrorType::Duplicate,
            path: path.to_owned(),
            body: "Duplicate value".to_owned(),
        },
        (_, Some(value)) => FieldError::invalid(path, value.clone(), detail),
        (_, None) => FieldError {
            kind: ErrorType::Invalid,
            path: path.to_owned(),
            body: format!("Invalid value: {detail}"),
        },
    }
}
