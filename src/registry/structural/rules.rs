//! The rules of a schema (`x-kubernetes-validations`).

use serde_json::Value;
use std::sync::Arc;

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
        })
    }
}
