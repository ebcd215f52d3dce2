//! Values against schemas (upstream: `kube-openapi/pkg/validation/validate`), with errors in parts that an update
//! left as they were taken back (upstream: `apiserver/validation/ratcheting.go`).

use super::correlate::{Old, OldItems};
use super::failure::{Failure, invalid, wrong_type};
use super::node::{Additional, Constraints, Node, Type};
use super::numbers;
use crate::registry::field::go_quoted;
use crate::registry::patterns;
use crate::registry::string_formats as formats;
use serde_json::{Map, Value};
use std::fmt::Write;

/// What was found, and how much held: of several alternatives that fail, the one that got furthest is reported.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub failures: Vec<Failure>,
    matched: usize,
}

impl Outcome {
    fn failure(failure: Failure) -> Self {
        Self {
            failures: vec![failure],
            matched: 0,
        }
    }
    fn is_valid(&self) -> bool {
        self.failures.is_empty()
    }
    fn merge(&mut self, other: Self) {
        self.failures.extend(other.failures);
        self.matched += other.matched;
    }
    fn add(&mut self, failure: Failure) {
        self.failures.push(failure);
    }
}

/// Validates `value` against `node`. `old` is what stands there now and may differ in parts only.
pub(super) fn validate(node: &Node, value: &Value, old: Option<Old<'_>>) -> Vec<Failure> {
    let mut path = String::new();
    Walk { path: &mut path }.correlated(node, value, old).failures
}

struct Walk<'p> {
    path: &'p mut String,
}

fn type_names(node: &Node) -> &'static str {
    if node.int_or_string {
        "integer,string"
    } else {
        node.kind.name()
    }
}

fn has_type(node: &Node, kind: Type) -> bool {
    if node.int_or_string {
        matches!(kind, Type::Integer | Type::String)
    } else {
        node.kind == kind
    }
}

/// The JSON type of a value and the format that a Go value of it has.
fn kind_of(value: &Value) -> (Type, &'static str) {
    match value {
        Value::Null => (Type::Absent, ""),
        Value::Bool(_) => (Type::Boolean, ""),
        Value::String(_) => (Type::String, ""),
        Value::Array(_) => (Type::Array, ""),
        Value::Object(_) => (Type::Object, ""),
        Value::Number(number) if number.is_f64() => (Type::Number, "float64"),
        Value::Number(_) => (Type::Integer, "int64"),
    }
}

fn format_of(node: &Node) -> &str {
    node.constraints
        .as_deref()
        .and_then(|constraints| constraints.format.as_ref())
        .map_or("", |format| &format.0)
}

impl Walk<'_> {
    /// The value where an old one is known: what fails and did not change is let pass.
    fn correlated(&mut self, node: &Node, value: &Value, old: Option<Old<'_>>) -> Outcome {
        let mut outcome = self.value(node, value, old);
        if !outcome.is_valid() && old.is_some_and(|old| old.is_equal(value)) {
            outcome.failures.clear();
        }
        outcome
    }

    fn value(&mut self, node: &Node, value: &Value, old: Option<Old<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        if value.is_null() {
            outcome.merge(self.null(node));
            outcome.merge(self.enumeration(node, value));
            return outcome;
        }
        if node.kind != Type::Absent || node.int_or_string || !format_of(node).is_empty() {
            outcome.merge(self.kind(node, value));
            outcome.matched += 1;
        }
        let none = Constraints::default();
        let constraints = node.constraints.as_deref().unwrap_or(&none);
        outcome.merge(self.alternatives(constraints, value, old));
        outcome.matched += 1;
        match value {
            Value::String(text) => {
                outcome.merge(self.string(constraints, text));
                outcome.matched += 1;
                let format = format_of(node);
                if formats::is_known(format) {
                    if !formats::matches(format, text) {
                        outcome.add(wrong_type(self.path, format, text));
                    }
                    outcome.matched += 1;
                }
            }
            Value::Number(number) => {
                let format = format_of(node);
                let single = if node.int_or_string { Type::Absent } else { node.kind };
                outcome
                    .failures
                    .extend(numbers::validate(constraints, number, single, format, self.path));
                outcome.matched += 2;
            }
            Value::Array(items) => {
                outcome.merge(self.array(node, constraints, items, old));
                outcome.matched += 2;
            }
            _ => {}
        }
        outcome.merge(self.enumeration(node, value));
        outcome.matched += 1;
        if let Value::Object(object) = value {
            outcome.merge(self.object(node, constraints, object, old));
            outcome.matched += 1;
        }
        outcome.matched += 1;
        outcome
    }

    fn null(&self, node: &Node) -> Outcome {
        if type_names(node).is_empty() || node.nullable {
            return Outcome {
                matched: 1,
                ..Outcome::default()
            };
        }
        Outcome::failure(wrong_type(self.path, type_names(node), "null"))
    }

    fn kind(&self, node: &Node, value: &Value) -> Outcome {
        let good = Outcome {
            matched: 1,
            ..Outcome::default()
        };
        let (found, found_format) = kind_of(value);
        let format = format_of(node);
        let whole = found == Type::Number
            && has_type(node, Type::Integer)
            && value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let compatible = has_type(node, found) || whole || (found == Type::Integer && has_type(node, Type::Number));
        let textual = matches!(found, Type::String | Type::Array);
        if !textual && !format.is_empty() && !compatible && found_format != format {
            return Outcome::failure(wrong_type(self.path, format, found_format));
        }
        let numeric = has_type(node, Type::Number) || has_type(node, Type::Integer);
        // The format decides alone; a list passes here as it does upstream.
        if (!numeric && !format.is_empty() && textual) || compatible {
            return good;
        }
        Outcome::failure(wrong_type(self.path, type_names(node), found.name()))
    }

    fn string(&self, constraints: &Constraints, text: &str) -> Outcome {
        let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = constraints.max_length
            && length() > max
        {
            return Outcome::failure(Failure::TooLong {
                at: self.path.clone(),
                max,
            });
        }
        if let Some(min) = constraints.min_length
            && length() < min
        {
            return Outcome::failure(invalid(
                self.path,
                text,
                &format!("should be at least {min} chars long"),
            ));
        }
        if let Some(pattern) = &constraints.pattern {
            match patterns::compiled(pattern) {
                Ok(regex) if regex.is_match(text) => {}
                Ok(_) => return Outcome::failure(invalid(self.path, text, &format!("should match '{pattern}'"))),
                Err(error) => {
                    let detail = format!("should match '{pattern}, but pattern is invalid: {error}'");
                    return Outcome::failure(invalid(self.path, text, &detail));
                }
            }
        }
        Outcome::default()
    }

    fn enumeration(&self, node: &Node, value: &Value) -> Outcome {
        let Some(constraints) = node.constraints.as_deref() else {
            return Outcome::default();
        };
        let values = &constraints.enumeration;
        let equal = |other: &Value| {
            !value.is_null()
                && (value == other
                    || matches!((value, other), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64()))
        };
        if values.is_empty() || values.iter().any(equal) {
            return Outcome::default();
        }
        Outcome::failure(Failure::Enumeration {
            at: self.path.clone(),
            value: value.clone(),
            values: values.clone(),
        })
    }

    fn alternatives(&mut self, constraints: &Constraints, value: &Value, old: Option<Old<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        if !constraints.any_of.is_empty() {
            outcome.merge(self.any_of(&constraints.any_of, value, old));
        }
        if !constraints.one_of.is_empty() {
            outcome.merge(self.one_of(&constraints.one_of, value, old));
        }
        if !constraints.all_of.is_empty() {
            outcome.merge(self.all_of(&constraints.all_of, value, old));
        }
        if let Some(not) = &constraints.not
            && self.value(not, value, old).is_valid()
        {
            let text = format!("{} must not validate the schema (not)", go_quoted(self.path));
            outcome.add(Failure::Composite(text));
        }
        outcome.matched += 1;
        outcome
    }

    fn any_of(&mut self, schemas: &[Node], value: &Value, old: Option<Old<'_>>) -> Outcome {
        let mut best: Option<Outcome> = None;
        for schema in schemas {
            let tried = self.value(schema, value, old);
            if tried.is_valid() {
                return tried;
            }
            if best.as_ref().is_none_or(|best| tried.matched > best.matched) {
                best = Some(tried);
            }
        }
        let text = format!("{} must validate at least one schema (anyOf)", go_quoted(self.path));
        let mut outcome = Outcome::failure(Failure::Composite(text));
        outcome.merge(best.unwrap_or_default());
        outcome
    }

    fn one_of(&mut self, schemas: &[Node], value: &Value, old: Option<Old<'_>>) -> Outcome {
        let mut best: Option<Outcome> = None;
        let mut first: Option<Outcome> = None;
        let mut valid = 0;
        for schema in schemas {
            let tried = self.value(schema, value, old);
            if tried.is_valid() {
                valid += 1;
                best = None;
                first.get_or_insert(tried);
            } else if valid == 0 && best.as_ref().is_none_or(|best| tried.matched > best.matched) {
                best = Some(tried);
            }
        }
        let found = match (valid, first) {
            (1, Some(first)) => return first,
            (0, _) => "Found none valid".to_owned(),
            (count, _) => format!("Found {count} valid alternatives"),
        };
        let text = format!(
            "{} must validate one and only one schema (oneOf). {found}",
            go_quoted(self.path)
        );
        let mut outcome = Outcome::failure(Failure::Composite(text));
        outcome.merge(best.unwrap_or_default());
        outcome
    }

    fn all_of(&mut self, schemas: &[Node], value: &Value, old: Option<Old<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut valid = 0;
        for schema in schemas {
            let tried = self.value(schema, value, old);
            valid += usize::from(tried.is_valid());
            outcome.merge(tried);
        }
        if valid != schemas.len() {
            let more = if valid == 0 { ". None validated" } else { "" };
            let text = format!("{} must validate all the schemas (allOf){more}", go_quoted(self.path));
            outcome.add(Failure::Composite(text));
        }
        outcome
    }

    fn array(&mut self, node: &Node, constraints: &Constraints, items: &[Value], old: Option<Old<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(item_node) = node.items.as_deref() {
            let old_items = old.and_then(OldItems::of);
            for (index, item) in items.iter().enumerate() {
                let length = self.path.len();
                write!(self.path, "[{index}]").unwrap_or_default();
                let old = old_items.as_ref().and_then(|items| items.get(item));
                outcome.merge(self.correlated(item_node, item, old));
                self.path.truncate(length);
            }
        }
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(min) = constraints.min_items
            && count < min
        {
            outcome.add(invalid(self.path, count, &format!("should have at least {min} items")));
        }
        if let Some(max) = constraints.max_items
            && count > max
        {
            outcome.add(Failure::TooMany {
                at: self.path.clone(),
                actual: items.len(),
                max,
            });
        }
        if constraints.unique_items && (1..items.len()).any(|at| items[..at].contains(&items[at])) {
            outcome.add(invalid(self.path, "", "shouldn't contain duplicates"));
        }
        outcome
    }

    fn object(
        &mut self,
        node: &Node,
        constraints: &Constraints,
        object: &Map<String, Value>,
        old: Option<Old<'_>>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let count = i64::try_from(object.len()).unwrap_or(i64::MAX);
        if let Some(min) = constraints.min_properties
            && count < min
        {
            outcome.add(invalid(
                self.path,
                count,
                &format!("should have at least {min} properties"),
            ));
        }
        if let Some(max) = constraints.max_properties
            && count > max
        {
            outcome.add(Failure::TooMany {
                at: self.path.clone(),
                actual: object.len(),
                max,
            });
        }
        let is_root = self.path.is_empty();
        for (name, value) in object {
            let (schema, property) = match (node.property(name), &node.additional) {
                (Some(schema), _) => (schema, true),
                (None, Additional::Schema(schema)) => (&**schema, false),
                (None, Additional::Nothing) => {
                    let path = &self.path;
                    outcome.add(Failure::Invalid {
                        at: path.to_string(),
                        value: name.as_str().into(),
                        text: format!("{path}.{name} in body is a forbidden property"),
                    });
                    continue;
                }
                (None, _) => continue,
            };
            let length = self.path.len();
            if length > 0 || !property {
                self.path.push('.');
            }
            self.path.push_str(name);
            let old = match old {
                // What the type is called cannot have been wrong before: both were brought to the same version.
                Some(_) if is_root && matches!(name.as_str(), "apiVersion" | "kind") => None,
                old => old.and_then(|old| old.member(name)),
            };
            outcome.merge(self.correlated(schema, value, old));
            self.path.truncate(length);
        }
        for name in &constraints.required {
            if !object.contains_key(&**name) {
                outcome.add(Failure::Required(format!("{}.{name}", self.path)));
            }
        }
        outcome
    }
}
