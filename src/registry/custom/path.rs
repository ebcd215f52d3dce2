//! The JSON paths of definitions: fields, indexes, wildcards, filters (upstream: `client-go/util/jsonpath`).
//!
//! `.spec.replicas`, `.metadata.labels['app.kubernetes.io/name']`, `.status.conditions[?(@.type=="Ready")].status`

use crate::registry::strategy::Object;
use serde_json::Value;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unrecognized JSON path {0:?}")]
pub struct PathError(String);

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    /// A field at any depth.
    Deep(String),
    Filter(Operand, Comparison, Operand),
    Exists(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let mut parser = Parser { rest: text };
        parser
            .steps()
            .filter(|_| parser.rest.is_empty())
            .map(Self)
            .ok_or_else(|| PathError(text.to_owned()))
    }

    /// A path of names.
    pub fn fields(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Step::Field((*name).to_owned())).collect())
    }

    /// The first value at the path.
    pub fn first<'a>(&self, object: &'a Object) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        match first {
            Step::Field(name) => find(object.get(name)?, rest),
            Step::All => object.values().find_map(|value| find(value, rest)),
            Step::Deep(name) => object
                .get(name)
                .and_then(|value| find(value, rest))
                .or_else(|| object.values().find_map(|value| find(value, &self.0))),
            _ => None,
        }
    }
}

fn find<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    match (step, value) {
        (Step::Field(name), Value::Object(object)) => find(object.get(name)?, rest),
        (Step::Index(index), Value::Array(items)) => find(items.get(absolute(*index, items.len())?)?, rest),
        (Step::Slice(from, to), Value::Array(items)) => {
            let from = absolute(from.unwrap_or(0), items.len())?;
            let to = to
                .map_or(Some(items.len()), |to| absolute(to, items.len()))?
                .min(items.len());
            items.get(from..to)?.iter().find_map(|item| find(item, rest))
        }
        (Step::All, Value::Array(items)) => items.iter().find_map(|item| find(item, rest)),
        (Step::All, Value::Object(object)) => object.values().find_map(|item| find(item, rest)),
        (Step::Deep(name), Value::Object(object)) => object
            .get(name)
            .and_then(|value| find(value, rest))
            .or_else(|| object.values().find_map(|value| find(value, steps))),
        (Step::Deep(_), Value::Array(items)) => items.iter().find_map(|item| find(item, steps)),
        (Step::Filter(left, comparison, right), Value::Array(items)) => {
            let chosen = items
                .iter()
                .filter(|item| comparison.holds(left.value(item), right.value(item)));
            chosen.into_iter().find_map(|item| find(item, rest))
        }
        (Step::Exists(path), Value::Array(items)) => {
            let chosen = items.iter().filter(|item| find(item, path).is_some());
            chosen.into_iter().find_map(|item| find(item, rest))
        }
        _ => None,
    }
}

/// Negative numbers count from the end.
fn absolute(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { length + index } else { index }).ok()
}

impl Operand {
    fn value<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(steps) => find(item, steps),
            Self::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    /// Values of different types are not comparable, and what is absent equals nothing.
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let (Some(left), Some(right)) = (left, right) else {
            return false;
        };
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            _ => left.as_f64().and_then(|left| left.partial_cmp(&right.as_f64()?)),
        };
        let Some(order) = order else {
            return false;
        };
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn take(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Steps for as long as there are any.
    fn steps(&mut self) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.take("..") {
                steps.push(Step::Deep(self.name()?));
            } else if self.rest.starts_with(".[") {
                self.take(".");
            } else if self.take(".") {
                if self.take("*") {
                    steps.push(Step::All);
                } else if self.rest.is_empty() && steps.is_empty() {
                    return Some(steps);
                } else {
                    steps.push(Step::Field(self.name()?));
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else {
                return Some(steps);
            }
        }
    }

    /// A name up to what ends it; a backslash takes the next character as it is.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((position, character)) = characters.next() {
            match character {
                '\\' => name.push(characters.next()?.1),
                '.' | '[' | ']' | ')' | '=' | '!' | '<' | '>' | ' ' | '&' | '|' | '{' | '}' => {
                    end = position;
                    break;
                }
                other => name.push(other),
            }
        }
        self.rest = &self.rest[end..];
        (!name.is_empty()).then_some(name)
    }

    fn bracket(&mut self) -> Option<Step> {
        if self.take("?(") {
            let step = self.filter()?;
            return (self.take(")") && self.take("]")).then_some(step);
        }
        if let Some(name) = self.quoted() {
            return self.take("]").then_some(Step::Field(name));
        }
        let (inner, rest) = self.rest.split_once(']')?;
        self.rest = rest;
        match inner.split_once(':') {
            _ if inner == "*" => Some(Step::All),
            None => inner.trim().parse().ok().map(Step::Index),
            Some((from, to)) => {
                let number = |text: &str| match text.trim() {
                    "" => Some(None),
                    text => text.parse().ok().map(Some),
                };
                Some(Step::Slice(number(from)?, number(to)?))
            }
        }
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((position, character)) = characters.next() {
            match character {
                '\\' => text.push(characters.next()?.1),
                end if end == quote => {
                    self.rest = &self.rest[position + 1..];
                    return Some(text);
                }
                other => text.push(other),
            }
        }
        None
    }

    fn filter(&mut self) -> Option<Step> {
        let left = self.operand()?;
        self.rest = self.rest.trim_start();
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (text, comparison) in comparisons {
            if self.take(text) {
                let right = self.operand()?;
                self.rest = self.rest.trim_start();
                return Some(Step::Filter(left, comparison, right));
            }
        }
        match left {
            Operand::Path(steps) => Some(Step::Exists(steps)),
            Operand::Literal(_) => None,
        }
    }

    fn operand(&mut self) -> Option<Operand> {
        self.rest = self.rest.trim_start();
        if self.take("@") {
            return self.steps().map(Operand::Path);
        }
        if let Some(text) = self.quoted() {
            return Some(Operand::Literal(Value::String(text)));
        }
        let end = self
            .rest
            .find([')', '=', '!', '<', '>', ' '])
            .unwrap_or(self.rest.len());
        let (literal, rest) = self.rest.split_at(end);
        self.rest = rest;
        serde_json::from_str(literal).ok().map(Operand::Literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_the_first_value() {
        let object = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"replicas": 3, "on": true, "ports": [{"port": 80}, {"port": 443, "name": "tls"}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "n": 1}, {"type": "Synced", "status": "False", "n": 5},
            ]},
        });
        let object = object.as_object().unwrap();
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            (".metadata.labels['app.kubernetes.io/name']", json!("web")),
            (".metadata.labels.app\\.kubernetes\\.io/name", json!("web")),
            (".spec.ports[0].port", json!(80)),
            (".spec.ports[-1].port", json!(443)),
            (".spec.ports[*].name", json!("tls")),
            (".spec.ports[1:].port", json!(443)),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='Synced')].status", json!("False")),
            (".status.conditions[?(@.type != 'Ready')].status", json!("False")),
            (".status.conditions[?(@.n > 2)].type", json!("Synced")),
            (".spec.ports[?(@.name)].port", json!(443)),
            ("..port", json!(80)),
        ] {
            let found = JsonPath::parse(path).unwrap().first(object).cloned();
            assert_eq!(found, Some(expected), "{path}");
        }
        for path in [
            ".spec.absent",
            ".spec.replicas.deeper",
            ".spec.ports[9].port",
            ".status.conditions[?(@.type==\"Other\")].status",
            ".",
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(object), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [".spec[", ".spec[?(@.a==]", "spec", ".spec..", ".a[x]", ".a b"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
