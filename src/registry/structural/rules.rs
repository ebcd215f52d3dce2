//! The rules of a schema (`x-kubernetes-validations`; upstream: `schema/cel/compilation.go`).

use super::field_path;
use super::node::Node;
use crate::registry::cel::{self, Decl, Environment, Program, Type};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// One rule as it was written.
#[derive(Debug)]
pub(super) struct Rule {
    pub rule: Arc<str>,
    pub message: Option<Arc<str>>,
    pub message_expression: Option<Arc<str>>,
    pub reason: Option<Arc<str>>,
    pub field_path: Option<Arc<str>>,
    pub optional_old_self: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Rules {
    pub rules: Box<[Rule]>,
    compiled: OnceLock<Box<[Compiled]>>,
}

/// What became of a rule.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    /// None if the rule is empty.
    pub program: Option<Result<Program, String>>,
    pub message: Option<Result<Program, String>>,
    /// The rule compares with what was before.
    pub uses_old_self: bool,
    pub field_path: Option<String>,
}

impl Rules {
    /// None if there are none.
    pub fn read(value: Option<&Value>, mut share: impl FnMut(&str) -> Arc<str>) -> Option<Self> {
        let rules = value?.as_array().filter(|rules| !rules.is_empty())?;
        let mut text = |rule: &Value, key: &str| {
            let text = rule.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.map(&mut share)
        };
        Some(Self {
            rules: rules
                .iter()
                .map(|rule| Rule {
                    rule: text(rule, "rule").unwrap_or_default(),
                    message: text(rule, "message"),
                    message_expression: text(rule, "messageExpression"),
                    reason: text(rule, "reason"),
                    field_path: text(rule, "fieldPath"),
                    optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool),
                })
                .collect(),
            compiled: OnceLock::new(),
        })
    }

    /// The rules, compiled on first use. `decl` is of the data of `node`, whose rules they are.
    pub fn compiled(&self, node: &Node, decl: &Arc<Decl>) -> &[Compiled] {
        self.compiled
            .get_or_init(|| self.rules.iter().map(|rule| compile(rule, node, decl)).collect())
    }
}

fn compile(rule: &Rule, node: &Node, decl: &Arc<Decl>) -> Compiled {
    let mut compiled = Compiled::default();
    if rule.rule.trim().is_empty() {
        return compiled;
    }
    let environment = Environment::default().with_data("self", decl);
    let environment = if rule.optional_old_self == Some(true) {
        environment.with_optional_data("oldSelf", decl)
    } else {
        environment.with_data("oldSelf", decl)
    };
    let program = cel::compile(&rule.rule, &environment)
        .map_err(|error| format!("compilation failed: {error}"))
        .and_then(|program| match program.result() {
            Type::Bool => Ok(program),
            _ => Err("cel expression must evaluate to a bool".to_owned()),
        });
    compiled.uses_old_self = program.as_ref().is_ok_and(|program| program.uses("oldSelf"));
    let usable = program.is_ok();
    compiled.program = Some(program);
    if !usable {
        return compiled;
    }
    if let Some(expression) = &rule.message_expression {
        let message = cel::compile(expression, &environment)
            .map_err(|error| format!("messageExpression compilation failed: {error}"))
            .and_then(|program| match program.result() {
                Type::String => Ok(program),
                _ => Err("messageExpression must evaluate to a string".to_owned()),
            });
        let failed = message.is_err();
        compiled.message = Some(message);
        if failed {
            return compiled;
        }
    }
    compiled.field_path = rule
        .field_path
        .as_ref()
        .and_then(|path| field_path::normalized(path, node).ok());
    compiled
}
