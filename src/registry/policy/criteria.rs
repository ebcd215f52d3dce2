//! Which requests a policy, a binding or a webhook is for
//! (upstream: `plugin/policy/matching/matching.go`, `plugin/webhook/predicates`).

use crate::registry::json::{items, map, objects, text};
use crate::registry::selector::LabelSelector;
use crate::registry::strategy::Object;
use crate::registry::{Kind, metadata_index};
use serde_json::Value;
use std::sync::Arc;

/// What selects requests.
#[derive(Debug, Default)]
pub struct Criteria {
    namespaces: Selector,
    objects: Selector,
    /// None matches everything.
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// The same objects in another version are meant, too.
    equivalent: bool,
}

/// A label selector; Err if it cannot be understood.
#[derive(Debug)]
struct Selector(Result<LabelSelector, String>);

impl Default for Selector {
    fn default() -> Self {
        Self(Ok(LabelSelector::default()))
    }
}

impl Selector {
    fn of(owner: &Object, field: &str) -> Self {
        Self(map(owner, &[field]).map_or_else(|| Ok(LabelSelector::default()), LabelSelector::from_object))
    }
}

#[derive(Debug, Default)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    scope: Scope,
    /// Empty for all.
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Scope {
    #[default]
    All,
    Namespaced,
    Cluster,
}

/// A request as rules see it.
pub struct Request<'a> {
    /// What the URL names.
    pub kind: &'a Kind,
    pub subresource: &'a str,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'a str,
    pub name: &'a str,
    /// Of a Namespace that is its own name.
    pub namespace: &'a str,
    pub object: Option<&'a Object>,
    pub old: Option<&'a Object>,
}

/// Where requests are looked up beyond themselves.
pub trait Surroundings {
    /// The labels of a namespace, sorted; None if there is no such namespace.
    fn namespace_labels(&self, name: &str) -> Option<Vec<(String, String)>>;
    /// All versions of the kind.
    fn versions(&self, kind: &Kind) -> Vec<Arc<Kind>>;
}

/// The outcome.
pub enum Match {
    No,
    /// As it was asked for.
    Exactly,
    /// In this version of the kind.
    As(Arc<Kind>),
}

/// What stands in the way of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    #[error("{0}")]
    Selector(String),
    #[error("namespaces {0:?} not found")]
    Namespace(String),
}

impl Criteria {
    /// `matchConstraints` or `matchResources`.
    pub fn of_policy(resources: &Object) -> Self {
        Self {
            excluded: rules(resources, "excludeResourceRules"),
            ..Self::of_hook(resources, "resourceRules")
        }
    }

    /// A webhook, whose rules stand in the field of this name.
    pub fn of_hook(owner: &Object, field: &str) -> Self {
        Self {
            namespaces: Selector::of(owner, "namespaceSelector"),
            objects: Selector::of(owner, "objectSelector"),
            rules: rules(owner, field),
            excluded: Vec::new(),
            equivalent: text(owner, &["matchPolicy"]) != "Exact",
        }
    }

    /// Whether the request is meant, and in which version.
    pub fn matches(&self, request: &Request<'_>, around: &dyn Surroundings) -> Result<Match, MatchError> {
        // Most requests end here: rules cost least.
        let found = match &self.rules[..] {
            [] => Match::Exactly,
            rules => self.first(rules, request, around),
        };
        if matches!(found, Match::No) || !matches!(self.first(&self.excluded, request, around), Match::No) {
            return Ok(Match::No);
        }
        let selected = self.selects_namespace(request, around);
        if selected == Ok(false) {
            return Ok(Match::No);
        }
        let labelled = self.selects_object(request);
        if labelled == Ok(false) {
            return Ok(Match::No);
        }
        selected.and(labelled).map(|_| found)
    }

    fn first(&self, rules: &[Rule], request: &Request<'_>, around: &dyn Surroundings) -> Match {
        if rules.iter().any(|rule| rule.matches(request, request.kind)) {
            return Match::Exactly;
        }
        if !self.equivalent || !rules.iter().any(|rule| rule.could_match(request)) {
            return Match::No;
        }
        let versions = around.versions(request.kind);
        let others = || versions.iter().filter(|other| !is_same(other, request.kind));
        for rule in rules {
            if let Some(other) = others().find(|other| rule.matches(request, other)) {
                return Match::As(other.clone());
            }
        }
        Match::No
    }

    fn selects_namespace(&self, request: &Request<'_>, around: &dyn Surroundings) -> Result<bool, MatchError> {
        let is_namespace = request.kind.resource == "namespaces";
        if request.namespace.is_empty() && !is_namespace {
            // What is in no namespace is never left out.
            return Ok(true);
        }
        let selector = self.namespaces.parsed()?;
        if selector.is_empty() {
            return Ok(true);
        }
        let labels = match request.object {
            Some(object) if is_namespace && request.subresource.is_empty() => metadata_index(object).labels,
            _ => around
                .namespace_labels(request.namespace)
                .ok_or_else(|| MatchError::Namespace(request.namespace.to_owned()))?,
        };
        Ok(selector.matches_labels(&labels))
    }

    fn selects_object(&self, request: &Request<'_>) -> Result<bool, MatchError> {
        let selector = self.objects.parsed()?;
        let mut objects = [request.object, request.old].into_iter().flatten();
        Ok(selector.is_empty() || objects.any(|object| selector.matches_labels(&metadata_index(object).labels)))
    }
}

impl Selector {
    fn parsed(&self) -> Result<&LabelSelector, MatchError> {
        self.0.as_ref().map_err(|error| MatchError::Selector(error.clone()))
    }
}

fn is_same(a: &Kind, b: &Kind) -> bool {
    (a.group, a.version, a.resource) == (b.group, b.version, b.resource)
}

fn rules(owner: &Object, field: &str) -> Vec<Rule> {
    objects(owner, &[field]).map(|(_, rule)| Rule::of(rule)).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    fn of(rule: &Object) -> Self {
        let list = |field: &str| -> Vec<String> {
            let texts = items(rule, &[field]).iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        let resources = list("resources").into_iter().map(|entry| match entry.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (entry, String::new()),
        });
        Self {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: resources.collect(),
            scope: match text(rule, &["scope"]) {
                "Namespaced" => Scope::Namespaced,
                "Cluster" => Scope::Cluster,
                _ => Scope::All,
            },
            names: list("resourceNames"),
        }
    }

    fn matches(&self, request: &Request<'_>, kind: &Kind) -> bool {
        has(&self.groups, kind.group)
            && has(&self.versions, kind.version)
            && self.names_resource(kind.resource, request.subresource)
            && has(&self.operations, request.operation)
            && self.is_in_scope(request)
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
    }

    /// Whether it could be meant in another version: versions are looked up only then.
    fn could_match(&self, request: &Request<'_>) -> bool {
        has(&self.operations, request.operation) && self.names_resource(request.kind.resource, request.subresource)
    }

    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources
            .iter()
            .any(|(of, sub)| (of == "*" || of == resource) && (sub == "*" || sub == subresource))
    }

    fn is_in_scope(&self, request: &Request<'_>) -> bool {
        let is_namespace = request.kind.group.is_empty() && request.kind.resource == "namespaces";
        let cluster_wide = is_namespace || request.namespace.is_empty();
        match self.scope {
            Scope::All => true,
            Scope::Namespaced => !cluster_wide,
            Scope::Cluster => cluster_wide,
        }
    }
}
