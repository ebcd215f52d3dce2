//! Selectors, worked out once and then only compared (upstream: `apimachinery/pkg/labels`, `component-helpers` nodeaffinity).

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

static NO_LABELS: Labels = Labels::new();

/// The labels, or none.
pub fn labels_of(labels: &Option<Labels>) -> &Labels {
    labels.as_ref().unwrap_or(&NO_LABELS)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
    /// What cannot be read matches nothing.
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
}

impl Requirement {
    fn new(key: &str, operator: &str, values: &[String]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort();
        let number = || values.first().and_then(|value| value.parse().ok());
        let operator = match operator {
            "In" => Operator::In(sorted),
            "NotIn" => Operator::NotIn(sorted),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => number().map_or(Operator::Never, Operator::Gt),
            "Lt" => number().map_or(Operator::Never, Operator::Lt),
            _ => Operator::Never,
        };
        Self {
            key: key.to_owned(),
            operator,
        }
    }

    fn of_node(requirement: &NodeSelectorRequirement) -> Self {
        let values = requirement.values.as_deref().unwrap_or_default();
        Self::new(&requirement.key, &requirement.operator, values)
    }

    fn meets(&self, value: Option<&str>) -> bool {
        let listed = |values: &[String]| value.is_some_and(|value| values.iter().any(|v| v == value));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => listed(values),
            Operator::NotIn(values) => !listed(values),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt(bound) => number().is_some_and(|value| value > *bound),
            Operator::Lt(bound) => number().is_some_and(|value| value < *bound),
            Operator::Never => false,
        }
    }
}

/// A label selector. The empty one matches everything; the absent one nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    pub fn new(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else {
            return Self {
                requirements: Vec::new(),
                nothing: true,
            };
        };
        let mut this = Self::of_labels(labels_of(&selector.match_labels));
        for e in selector.match_expressions.iter().flatten() {
            let values = e.values.as_deref().unwrap_or_default();
            this.requirements.push(Requirement::new(&e.key, &e.operator, values));
        }
        this
    }

    pub fn of_labels(labels: &Labels) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.clone()]),
        };
        Self {
            requirements: labels.iter().map(equals).collect(),
            nothing: false,
        }
    }

    /// Both selectors at once.
    pub fn and(mut self, other: Self) -> Self {
        self.nothing |= other.nothing;
        for requirement in other.requirements {
            if !self.requirements.contains(&requirement) {
                self.requirements.push(requirement);
            }
        }
        self
    }

    /// Neither asks for anything nor is absent.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|r| r.meets(labels.get(&r.key).map(String::as_str)))
    }
}

#[derive(Clone, Debug)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl Term {
    fn new(term: &NodeSelectorTerm) -> Self {
        let of =
            |list: &Option<Vec<NodeSelectorRequirement>>| list.iter().flatten().map(Requirement::of_node).collect();
        Self {
            labels: of(&term.match_expressions),
            fields: of(&term.match_fields),
        }
    }

    /// A term that asks for nothing matches nothing.
    fn matches(&self, name: &str, labels: &Labels) -> bool {
        (!self.labels.is_empty() || !self.fields.is_empty())
            && self
                .labels
                .iter()
                .all(|r| r.meets(labels.get(&r.key).map(String::as_str)))
            && self
                .fields
                .iter()
                .all(|r| r.key == "metadata.name" && r.meets(Some(name)))
    }
}

/// Terms of which one must match.
#[derive(Clone, Debug)]
pub struct NodeTerms(Vec<Term>);

impl NodeTerms {
    pub fn new(selector: &NodeSelector) -> Self {
        Self(selector.node_selector_terms.iter().map(Term::new).collect())
    }

    pub fn one(term: &NodeSelectorTerm) -> Self {
        Self(vec![Term::new(term)])
    }

    pub fn matches(&self, node: &Node) -> bool {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.matches_labels(name, labels_of(&node.metadata.labels))
    }

    pub fn matches_labels(&self, name: &str, labels: &Labels) -> bool {
        self.0.iter().any(|term| term.matches(name, labels))
    }

    /// The node names that alone can match, if every term names some.
    pub fn names(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for term in &self.0 {
            let mut names: Option<Vec<String>> = None;
            for field in term.fields.iter().filter(|field| field.key == "metadata.name") {
                if let Operator::In(values) = &field.operator {
                    names = Some(match names {
                        Some(names) => names.into_iter().filter(|name| values.contains(name)).collect(),
                        None => values.clone(),
                    });
                }
            }
            all.extend(names?);
        }
        (!self.0.is_empty()).then_some(all)
    }
}

/// nodeSelector and the required node affinity of a pod.
#[derive(Clone, Debug)]
pub struct RequiredNode {
    selector: Option<Labels>,
    terms: Option<NodeTerms>,
}

impl RequiredNode {
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: spec.node_selector.clone().filter(|selector| !selector.is_empty()),
            terms: required.map(NodeTerms::new),
        }
    }

    pub fn asks_nothing(&self) -> bool {
        self.selector.is_none() && self.terms.is_none()
    }

    pub fn terms(&self) -> Option<&NodeTerms> {
        self.terms.as_ref()
    }

    pub fn matches(&self, node: &Node) -> bool {
        let labels = labels_of(&node.metadata.labels);
        self.selector
            .iter()
            .flatten()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.matches(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn selector(value: Value) -> Selector {
        Selector::new(Some(&serde_json::from_value(value).unwrap()))
    }
    fn labels(value: Value) -> Labels {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn label_selectors() {
        let pod = labels(json!({"app": "web", "n": "3"}));
        let expression = |operator: &str, key: &str, values: Value| {
            selector(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        for (selector, expected) in [
            (selector(json!({})), true),
            (selector(json!({"matchLabels": {"app": "web"}})), true),
            (selector(json!({"matchLabels": {"app": "db"}})), false),
            (expression("In", "app", json!(["db", "web"])), true),
            (expression("NotIn", "app", json!(["web"])), false),
            (expression("NotIn", "other", json!(["web"])), true),
            (expression("Exists", "n", json!([])), true),
            (expression("DoesNotExist", "n", json!([])), false),
            (expression("Gt", "n", json!(["2"])), true),
            (expression("Lt", "n", json!(["x"])), false),
            (Selector::new(None), false),
            (Selector::new(None).and(selector(json!({}))), false),
        ] {
            assert_eq!(selector.matches(&pod), expected, "{selector:?}");
        }
    }

    #[test]
    fn node_terms() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "a", "labels": {"zone": "x"}}})).unwrap();
        let field = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        let zone = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]});
        for (terms, matches, names) in [
            (json!([field("a")]), true, Some(vec!["a"])),
            (json!([field("b")]), false, Some(vec!["b"])),
            (json!([field("b"), field("a")]), true, Some(vec!["b", "a"])),
            (json!([field("b"), zone]), true, None),
            (json!([{}]), false, None),
            (json!([]), false, None),
        ] {
            let selector: NodeSelector = serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
            let terms = NodeTerms::new(&selector);
            assert_eq!(terms.matches(&node), matches, "{terms:?}");
            assert_eq!(
                terms.names(),
                names.map(|n| n.iter().map(ToString::to_string).collect()),
                "{terms:?}"
            );
        }
    }
}
