//! FlowSchema and PriorityLevelConfiguration: defaults and rules
//! (upstream: `pkg/apis/flowcontrol/v1/defaults.go` and `…/validation/validation.go`).

use super::Stored;
use crate::registry::columns::extension;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain};
use crate::registry::json::{
    boolean, child, child_or_new, default_number, default_to, integer, is_set, items, map, number, objects, text, texts,
};
use crate::registry::priority_and_fairness::{EXEMPT, FLOW_SCHEMA, PRIORITY_LEVEL, fixed_spec};
use crate::registry::strategy::Object;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of the hash that deals a request its queues.
const HASH_BITS_MAX: u32 = 60;
/// Carries a zero through a version that has no way to say it; for that version only.
const PRESERVE_ZERO: &str = "flowcontrol.k8s.io/preserve-zero-concurrency-shares";
const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];
const SUBJECTS: [(&str, &str); 3] = [
    ("Group", "group"),
    ("ServiceAccount", "serviceAccount"),
    ("User", "user"),
];

pub fn flow_schema() -> Stored {
    Stored::new(extension::FLOW_SCHEMA)
        .generation()
        .defaults(|schema| default_number(child_or_new(schema, "spec"), "matchingPrecedence", 1000))
        .rules(schema_rules)
        .status_rules(|new, _| conditions(new))
        .status(|| json!({}))
}

pub fn priority_level() -> Stored {
    Stored::new(extension::PRIORITY_LEVEL)
        .generation()
        .defaults(default_level)
        .rules(level_rules)
        .create_rules(|level| {
            let annotated = texts(level, &["metadata", "annotations"]).any(|(key, _)| key == PRESERVE_ZERO);
            let detail = format!("annotation '{PRESERVE_ZERO}' is forbidden");
            Vec::from_iter(annotated.then(|| FieldError::forbidden("metadata.annotations", &detail)))
        })
        .declared(level_declared)
        .status_rules(|new, _| conditions(new))
        .status(|| json!({}))
}

fn default_level(level: &mut Object) {
    let spec = child_or_new(level, "spec");
    if let Some(limited) = child(spec, "limited") {
        default_to(limited, "nominalConcurrencyShares", 30);
        default_to(limited, "lendablePercent", 0);
        let response = child(limited, "limitResponse");
        if let Some(queuing) = response.and_then(|response| child(response, "queuing")) {
            for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                default_number(queuing, field, value);
            }
        }
    }
    if let Some(exempt) = child(spec, EXEMPT) {
        default_to(exempt, "nominalConcurrencyShares", 0);
        default_to(exempt, "lendablePercent", 0);
    }
}

fn conditions(object: &Object) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, condition) in objects(object, &["status", "conditions"]) {
        let (kind, path) = (text(condition, &["type"]), format!("status.conditions[{index}].type"));
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(path.as_str(), kind));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
    }
    errors
}

fn schema_rules(schema: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(schema, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let (precedence, path) = (number(spec, &["matchingPrecedence"]), "spec.matchingPrecedence");
    if precedence <= 0 {
        errors.push(FieldError::invalid(path, precedence, "must be a positive value"));
    }
    if precedence > PRECEDENCE_MAX {
        let detail = format!("must not be greater than {PRECEDENCE_MAX}");
        errors.push(FieldError::invalid(path, precedence, &detail));
    }
    if precedence == 1 && text(schema, &["metadata", "name"]) != EXEMPT {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(FieldError::invalid(path, precedence, detail));
    }
    if let Some(method) = map(spec, &["distinguisherMethod"]) {
        let kinds = ["ByNamespace", "ByUser"];
        if !kinds.contains(&text(method, &["type"])) {
            let path = "spec.distinguisherMethod.type";
            errors.push(FieldError::not_supported(path, method.clone(), &kinds));
        }
    }
    let (level, path) = (
        text(spec, &["priorityLevelConfiguration", "name"]),
        "spec.priorityLevelConfiguration.name",
    );
    if level.is_empty() {
        errors.push(FieldError::required(path, "must reference a priority level"));
    }
    for problem in if level.is_empty() {
        Vec::new()
    } else {
        dns1123_subdomain(level, false)
    } {
        errors.push(FieldError::invalid(path, level, &problem));
    }
    for (index, rule) in objects(spec, &["rules"]) {
        errors.extend(policy_rule(rule, &format!("spec.rules[{index}]")));
    }
    let name = text(schema, &["metadata", "name"]);
    if let Some(fixed) = fixed_spec(FLOW_SCHEMA, name)
        && schema.get("spec") != Some(&fixed)
    {
        let detail = format!("spec of '{name}' must equal the fixed value");
        errors.push(FieldError::invalid("spec", spec.clone(), &detail));
    }
    errors.extend(conditions(schema));
    errors
}

fn policy_rule(rule: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !is_set(rule, "subjects") {
        let detail = "subjects must contain at least one value";
        errors.push(FieldError::required(format!("{path}.subjects"), detail));
    }
    for (index, subject) in objects(rule, &["subjects"]) {
        errors.extend(subject_rules(subject, &format!("{path}.subjects[{index}]")));
    }
    if !is_set(rule, "resourceRules") && !is_set(rule, "nonResourceRules") {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, detail));
    }
    for (index, resource_rule) in objects(rule, &["resourceRules"]) {
        errors.extend(resource_rules(resource_rule, &format!("{path}.resourceRules[{index}]")));
    }
    for (index, path_rule) in objects(rule, &["nonResourceRules"]) {
        let path = format!("{path}.nonResourceRules[{index}]");
        errors.extend(verbs(path_rule, &path));
        let what = ("nonResourceURLs must contain at least one value", "non-resource URLs");
        let starred = starred_list(path_rule, "nonResourceURLs", what, &path, &mut errors);
        for (index, url) in items(path_rule, &["nonResourceURLs"]).iter().enumerate() {
            let url = url.as_str().unwrap_or_default();
            if let Some(problem) = url_problem(url).filter(|_| !starred) {
                errors.push(FieldError::invalid(
                    format!("{path}.nonResourceURLs[{index}]"),
                    url,
                    problem,
                ));
            }
        }
    }
    errors
}

fn subject_rules(subject: &Object, path: &str) -> Vec<FieldError> {
    let kind = text(subject, &["kind"]);
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind) else {
        let kinds = SUBJECTS.map(|(name, _)| name);
        return vec![FieldError::not_supported(format!("{path}.kind"), kind, &kinds)];
    };
    let mut errors = Vec::new();
    let at = |field: &str| format!("{path}.{field}");
    match map(subject, &[own]) {
        None => {
            let detail = format!("{own} is required when subject kind is '{kind}'");
            errors.push(FieldError::required(at(own), &detail));
        }
        Some(body) => {
            let name = text(body, &["name"]);
            if name.is_empty() {
                errors.push(FieldError::required(format!("{path}.{own}.name"), ""));
            }
            if kind == "ServiceAccount" {
                for problem in if matches!(name, "" | "*") {
                    Vec::new()
                } else {
                    dns1123_subdomain(name, false)
                } {
                    errors.push(FieldError::invalid(format!("{path}.{own}.name"), name, &problem));
                }
                let (namespace, path) = (text(body, &["namespace"]), format!("{path}.{own}.namespace"));
                if namespace.is_empty() {
                    errors.push(FieldError::required(path, "must specify namespace for service account"));
                } else {
                    for problem in dns1123_label(namespace, false) {
                        errors.push(FieldError::invalid(path.as_str(), namespace, &problem));
                    }
                }
            }
        }
    }
    for (name, field) in SUBJECTS.iter().filter(|(_, field)| field != own) {
        if subject.contains_key(*field) {
            let detail = format!("{field} is forbidden when subject kind is not '{name}'");
            errors.push(FieldError::forbidden(at(field), &detail));
        }
    }
    errors
}

/// A list that must not be empty and where a star stands alone. True if there is a star.
fn starred_list(
    rule: &Object,
    field: &str,
    (empty, others): (&str, &str),
    path: &str,
    errors: &mut Vec<FieldError>,
) -> bool {
    let (list, path) = (items(rule, &[field]), format!("{path}.{field}"));
    let starred = list.iter().any(|item| item == "*");
    if list.is_empty() {
        errors.push(FieldError::required(path, empty));
    } else if starred && list.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path, list.to_vec(), &detail));
    }
    starred
}

fn verbs(rule: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let what = ("verbs must contain at least one value", "verbs");
    if !starred_list(rule, "verbs", what, path, &mut errors) {
        let list = items(rule, &["verbs"]);
        let known = |verb: &Value| verb.as_str().is_some_and(|verb| VERBS.contains(&verb));
        if !list.iter().all(known) {
            errors.push(FieldError::not_supported(
                format!("{path}.verbs"),
                list.to_vec(),
                &VERBS,
            ));
        }
    }
    errors
}

fn resource_rules(rule: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = verbs(rule, path);
    for (field, what) in [
        (
            "apiGroups",
            ("resource rules must supply at least one api group", "api groups"),
        ),
        (
            "resources",
            ("resource rules must supply at least one resource", "resources"),
        ),
    ] {
        starred_list(rule, field, what, path, &mut errors);
    }
    if boolean(rule, &["clusterScope"]) && !is_set(rule, "namespaces") {
        return errors;
    }
    let what = (
        "resource rules that are not cluster scoped must supply at least one namespace",
        "namespaces",
    );
    if !starred_list(rule, "namespaces", what, path, &mut errors) {
        for (index, namespace) in items(rule, &["namespaces"]).iter().enumerate() {
            let namespace = namespace.as_str().unwrap_or_default();
            for problem in dns1123_label(namespace, false) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
                errors.push(FieldError::invalid(
                    format!("{path}.namespaces[{index}]"),
                    namespace,
                    &detail,
                ));
            }
        }
    }
    errors
}

fn url_problem(url: &str) -> Option<&'static str> {
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if url.contains('*') && url.find('*') != url.len().checked_sub(1)
            || url.contains('*') && !url.ends_with("/*") =>
        {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

fn level_rules(level: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(level, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let (kind, name) = (text(spec, &["type"]), text(level, &["metadata", "name"]));
    if (name == EXEMPT) != (kind == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid("spec.type", kind, detail));
    }
    match kind {
        "Exempt" => {
            if let Some(exempt) = map(spec, &[EXEMPT]) {
                errors.extend(nominal_shares(exempt, "spec.exempt"));
                errors.extend(lendable_percent(exempt, "spec.exempt"));
            }
        }
        "Limited" => errors.extend(map(spec, &["limited"]).map_or_else(Vec::new, limited_rules)),
        "" => {}
        other => errors.push(FieldError::not_supported("spec.type", other, &["Exempt", "Limited"])),
    }
    if let Some(mut fixed) = fixed_spec(PRIORITY_LEVEL, name) {
        let mut held = Value::Object(spec.clone());
        let mut besides = "";
        if name == EXEMPT {
            (held[EXEMPT], fixed[EXEMPT]) = (Value::Null, Value::Null);
            besides = " except the 'spec.exempt' field";
        }
        if held != fixed {
            let detail = format!("spec of '{name}'{besides} must equal the fixed value");
            errors.push(FieldError::invalid("spec", spec.clone(), &detail));
        }
    }
    errors.extend(conditions(level));
    errors
}

/// Which part goes with which type, as upstream's type has it: one is demanded, the others are not for it.
fn level_declared(level: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = |level| map(level, &["spec"]).unwrap_or(&empty);
    let (new, before) = (spec(level), old.map(spec));
    let mut errors = Vec::new();
    let kind = text(new, &["type"]);
    if kind.is_empty() && before.is_none_or(|old| text(old, &["type"]) != kind) {
        errors.push(FieldError::required("spec.type", ""));
    }
    let parts = [("Limited", "limited", kind == "Limited"), ("Exempt", EXEMPT, false)];
    errors.extend(
        parts
            .iter()
            .filter_map(|(of, field, demanded)| by_mode((new, before), kind == *of, field, *demanded, "spec")),
    );
    let response = |spec| map(spec, &["limited", "limitResponse"]).unwrap_or(&empty);
    let Some(limited) = map(new, &["limited"]) else {
        return errors;
    };
    if before.is_some_and(|old| map(old, &["limited"]) == Some(limited)) {
        return errors;
    }
    let (new, before) = (response(new), before.map(response));
    let (kind, path) = (text(new, &["type"]), "spec.limited.limitResponse");
    if kind.is_empty() && before.is_none_or(|old| text(old, &["type"]) != kind) {
        errors.push(FieldError::required(format!("{path}.type"), ""));
    }
    errors.extend(by_mode((new, before), kind == "Queue", "queuing", true, path));
    errors
}

/// A part that belongs to one `type` of its owner: absent where it is demanded, or there where it is not its type's. Not
/// looked at if neither it nor the type is new.
fn by_mode(
    (owner, old): (&Object, Option<&Object>),
    is_mode: bool,
    field: &str,
    demanded: bool,
    path: &str,
) -> Option<FieldError> {
    let same = |field: &str| old.is_some_and(|old| old.get(field) == owner.get(field));
    if same("type") && same(field) {
        return None;
    }
    let path = format!("{path}.{field}");
    match (is_mode, owner.contains_key(field)) {
        (true, false) if demanded => Some(FieldError::required(path, "")),
        (false, true) => Some(FieldError::forbidden(path, "")),
        _ => None,
    }
}

fn nominal_shares(level: &Object, path: &str) -> Option<FieldError> {
    let shares = number(level, &["nominalConcurrencyShares"]);
    let path = format!("{path}.nominalConcurrencyShares");
    (shares < 0).then(|| FieldError::invalid(path, shares, "must be a non-negative integer"))
}

fn lendable_percent(level: &Object, path: &str) -> Option<FieldError> {
    let percent = number(level, &["lendablePercent"]);
    let path = format!("{path}.lendablePercent");
    let detail = "must be between 0 and 100, inclusive";
    (!(0..=100).contains(&percent)).then(|| FieldError::invalid(path, percent, detail))
}

fn limited_rules(limited: &Object) -> Vec<FieldError> {
    let path = "spec.limited";
    let mut errors = Vec::from_iter(nominal_shares(limited, path));
    let queuing = map(limited, &["limitResponse", "queuing"]);
    let response = format!("{path}.limitResponse");
    match (text(limited, &["limitResponse", "type"]), queuing) {
        ("Queue", Some(queuing)) => errors.extend(queuing_rules(queuing, &format!("{response}.queuing"))),
        ("" | "Queue" | "Reject", _) => {}
        (other, _) => errors.push(FieldError::not_supported(
            format!("{response}.type"),
            other,
            &["Queue", "Reject"],
        )),
    }
    errors.extend(lendable_percent(limited, path));
    if let Some(percent) = integer(limited, &["borrowingLimitPercent"]).filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(
            format!("{path}.borrowingLimitPercent"),
            percent,
            detail,
        ));
    }
    errors
}

fn queuing_rules(queuing: &Object, path: &str) -> Vec<FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    let mut errors = Vec::new();
    let length = number(queuing, &["queueLengthLimit"]);
    if length <= 0 {
        errors.push(FieldError::invalid(at("queueLengthLimit"), length, "must be positive"));
    }
    let (queues, hand) = (number(queuing, &["queues"]), number(queuing, &["handSize"]));
    if queues <= 0 {
        errors.push(FieldError::invalid(at("queues"), queues, "must be positive"));
    } else if queues > QUEUES_MAX {
        let detail = format!("must not be greater than {QUEUES_MAX}");
        errors.push(FieldError::invalid(at("queues"), queues, &detail));
    }
    let problem = if hand <= 0 {
        Some("must be positive".to_owned())
    } else if hand > queues {
        Some(format!("should not be greater than queues ({queues})"))
    } else if entropy_bits(queues, hand) > HASH_BITS_MAX {
        Some(format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
        ))
    } else {
        None
    };
    if let Some(problem) = problem {
        errors.push(FieldError::invalid(at("handSize"), hand, &problem));
    }
    errors
}

/// Bits that choosing one card of `deck` takes, `hand` times.
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    ((deck as f64).log2() * hand as f64).ceil() as u32
}
