//! Rules of a schema: how they are written, whether they compile, and what they may cost
//! (upstream: the `x-kubernetes-validations` part of `apis/apiextensions/validation`).

use super::open_api::{Context, Found, Place};
use super::text;
use crate::registry::cel::Decl;
use crate::registry::cel::decl::REQUEST_BYTES_MAX;
use crate::registry::field::{ErrorType, FieldError};
use crate::registry::strategy::Object;
use crate::registry::structural::rules::Rules;
use crate::registry::structural::{compile, field_path};
use serde_json::{Value, json};
use std::sync::Arc;

/// The estimated cost that one expression may have, for all times it can be run in a request.
const COST_MAX: u64 = 10_000_000;
/// The same for all expressions of a schema together.
const TOTAL_COST_MAX: u64 = 100_000_000;
const EXPENSIVE_SHOWN_MAX: usize = 4;

/// The cost of all expressions so far.
#[derive(Default)]
pub(super) struct Totals {
    cost: u64,
    /// The most expensive ones, the dearest first.
    expensive: Vec<(String, u64)>,
}

impl Totals {
    fn add(&mut self, path: String, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost < TOTAL_COST_MAX / 100 {
            return;
        }
        self.expensive.push((path, cost));
        self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        self.expensive.truncate(EXPENSIVE_SHOWN_MAX);
    }

    pub fn exceeded(&self, path: &str) -> Vec<FieldError> {
        if self.cost <= TOTAL_COST_MAX {
            return Vec::new();
        }
        let mut errors: Vec<FieldError> = self
            .expensive
            .iter()
            .map(|(path, _)| {
                FieldError::forbidden(
                    path,
                    "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
                )
            })
            .collect();
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path, &too_dear(what, self.cost, TOTAL_COST_MAX)));
        errors
    }
}

fn too_dear(what: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as it is shown in errors.
fn shown(rule: &Value) -> Value {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    json!({
        "Rule": text("rule"),
        "Message": text("message"),
        "MessageExpression": text("messageExpression"),
        "Reason": rule.get("reason").cloned().unwrap_or_default(),
        "FieldPath": text("fieldPath"),
        "OptionalOldSelf": rule.get("optionalOldSelf").cloned().unwrap_or_default(),
    })
}

pub(super) fn check(
    schema: &Object,
    path: &str,
    place: &Place,
    context: Option<&Context<'_>>,
    decl: Option<&Arc<Decl>>,
    found: &mut Found,
    totals: &mut Totals,
) {
    let rules = schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if rules.is_empty() {
        return;
    }
    for (index, rule) in rules.iter().enumerate() {
        if let Value::Object(rule) = rule {
            written(
                schema,
                rule,
                &format!("{path}.x-kubernetes-validations[{index}]"),
                &mut found.schema,
            );
        }
    }
    // A schema with errors may have no types that rules could be checked with.
    let Some(context) = context.filter(|_| found.schema.is_empty()) else {
        return;
    };
    let Some(decl) = decl else {
        found.rules.push(FieldError {
            kind: ErrorType::Internal,
            path: format!("{path}.x-kubernetes-validations"),
            body: "Internal error: internal error: failed to construct type information for x-kubernetes-validations \
                   rules: unable to convert structural schema to CEL declarations"
                .to_owned(),
        });
        return;
    };
    compiled(rules, path, place, context, decl, &mut found.rules, totals);
}

fn has_newlines(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// What is wrong with how a rule is written.
fn written(schema: &Object, rule: &Object, path: &str, errors: &mut Vec<FieldError>) {
    const REASONS: [&str; 4] = [
        "FieldValueDuplicate",
        "FieldValueForbidden",
        "FieldValueInvalid",
        "FieldValueRequired",
    ];
    let at = |key: &str| format!("{path}.{key}");
    let (expression, message) = (text(rule, "rule"), text(rule, "message"));
    if expression.trim().is_empty() {
        errors.push(FieldError::required(at("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(
            at("message"),
            message,
            "must be non-empty if specified",
        ));
    } else if has_newlines(message.trim()) {
        errors.push(FieldError::invalid(
            at("message"),
            message,
            "must not contain line breaks",
        ));
    } else if has_newlines(expression.trim()) && message.trim().is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(at("message"), detail));
    }
    let message_expression = text(rule, "messageExpression");
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(at("messageExpression"), detail));
    }
    if let Some(reason) = rule.get("reason").and_then(Value::as_str)
        && !REASONS.contains(&reason)
    {
        errors.push(FieldError::not_supported(at("reason"), reason, &REASONS));
    }
    let field = text(rule, "fieldPath");
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        errors.push(FieldError::invalid(
            at("fieldPath"),
            field,
            "must be non-empty if specified",
        ));
    }
    if has_newlines(field) {
        errors.push(FieldError::invalid(
            at("fieldPath"),
            field,
            "must not contain line breaks",
        ));
    }
    let node = compile::node(&Value::Object(schema.clone()), &mut compile::Texts::default());
    if node.is_ok_and(|node| field_path::normalized(field, &node).is_err()) {
        errors.push(FieldError::invalid(at("fieldPath"), field, "must be a valid path"));
    }
}

/// Compiles the rules and weighs them.
fn compiled(
    rules: &[Value],
    path: &str,
    place: &Place,
    context: &Context<'_>,
    decl: &Arc<Decl>,
    errors: &mut Vec<FieldError>,
    totals: &mut Totals,
) {
    let list = Value::Array(rules.to_vec());
    let Some(read) = Rules::read(Some(&list), |text| text.into()) else {
        return;
    };
    // Without a bound there can be as many as fit into a request.
    let cardinality = context
        .cardinality
        .unwrap_or_else(|| REQUEST_BYTES_MAX / decl.bytes_min.saturating_add(1));
    for (index, compiled) in read.compiled(context.node, decl).iter().enumerate() {
        let at = |key: &str| format!("{path}.x-kubernetes-validations[{index}].{key}");
        let Some(program) = &compiled.program else { continue };
        match program {
            Ok(program) => {
                let cost = program.cost_max().saturating_mul(cardinality);
                if cost > COST_MAX {
                    let detail = too_dear("estimated rule cost", cost, COST_MAX);
                    errors.push(FieldError::forbidden(at("rule"), &detail));
                }
                totals.add(at("rule"), cost);
            }
            Err(error) => errors.push(FieldError::invalid(at("rule"), shown(&rules[index]), error)),
        }
        match &compiled.message {
            None => {}
            Some(Ok(message)) => {
                let cost = message.cost_max();
                if cost > COST_MAX {
                    let detail = too_dear("estimated messageExpression cost", cost, COST_MAX);
                    errors.push(FieldError::forbidden(at("messageExpression"), &detail));
                }
                totals.add(at("messageExpression"), cost);
            }
            Some(Err(error)) => {
                errors.push(FieldError::invalid(
                    at("messageExpression"),
                    shown(&rules[index]),
                    error,
                ));
            }
        }
        let stated = rules[index].get("optionalOldSelf").filter(|value| !value.is_null());
        if compiled.uses_old_self {
            if let Some(from) = &place.uncorrelated {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {from}");
                errors.push(FieldError::invalid(at("rule"), &*read.rules[index].rule, &detail));
            }
        } else if let Some(stated) = stated {
            let detail = "may not be set if oldSelf is not used in rule";
            errors.push(FieldError::invalid(at("optionalOldSelf"), stated.clone(), detail));
        }
    }
}
