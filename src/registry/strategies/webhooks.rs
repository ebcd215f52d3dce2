//! Webhook configurations: defaults and rules
//! (upstream: `pkg/apis/admissionregistration/v1/defaults.go` and `…/validation/validation.go`).

use super::Stored;
use super::match_rules::{hooks_rule, match_conditions};
use super::pod::validate::{label_selector, one_of};
use crate::registry::columns::extension;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_subdomain, port_number};
use crate::registry::json::{
    child, child_or_new, children, default_number, default_text, default_to, integer, items, map, objects, text,
};
use crate::registry::policy::Conditions;
use crate::registry::policy::expression::Names;
use crate::registry::strategy::Object;
use std::collections::BTreeSet;

/// Versions of AdmissionReview that some server ever sent.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const HARMLESS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const SERVICE_PORT: i64 = 443;

pub fn configuration() -> Stored {
    Stored::new(extension::WEBHOOKS)
        .generation()
        .conditional()
        .defaults(default_configuration)
        .create_rules(|configuration| rules(configuration, &Leniency::default()))
        .update_rules(|new, old| rules(new, &Leniency::of(old)))
}

fn default_configuration(configuration: &mut Object) {
    let mutating = text(configuration, &["kind"]) == "MutatingWebhookConfiguration";
    for webhook in children(configuration, "webhooks") {
        default_text(webhook, "failurePolicy", "Fail");
        default_text(webhook, "matchPolicy", "Equivalent");
        for selector in ["namespaceSelector", "objectSelector"] {
            child_or_new(webhook, selector);
        }
        default_to(webhook, "timeoutSeconds", 10);
        if mutating {
            default_text(webhook, "reinvocationPolicy", "Never");
        }
        for rule in children(webhook, "rules") {
            default_text(rule, "scope", "*");
        }
        if let Some(service) = child(webhook, "clientConfig").and_then(|config| child(config, "service")) {
            default_number(service, "port", SERVICE_PORT);
        }
    }
}

/// What a stored configuration already gets wrong may stay wrong.
#[derive(Default)]
struct Leniency {
    side_effects: bool,
    review_versions: bool,
    same_names: bool,
    conditions: Vec<Option<serde_json::Value>>,
}

impl Leniency {
    fn of(old: &Object) -> Self {
        let hooks: Vec<&Object> = objects(old, &["webhooks"]).map(|(_, hook)| hook).collect();
        let names: BTreeSet<&str> = hooks.iter().map(|hook| text(hook, &["name"])).collect();
        Self {
            side_effects: hooks
                .iter()
                .any(|hook| !HARMLESS.contains(&text(hook, &["sideEffects"]))),
            review_versions: hooks.iter().any(|hook| {
                let versions = items(hook, &["admissionReviewVersions"]);
                !versions.is_empty() && !versions.iter().any(is_review_version)
            }),
            same_names: names.len() < hooks.len(),
            conditions: hooks.iter().map(|hook| hook.get("matchConditions").cloned()).collect(),
        }
    }

    /// Conditions that did not change are not looked at again.
    fn keeps_conditions(&self, configuration: &Object) -> bool {
        let now: Vec<_> = objects(configuration, &["webhooks"])
            .map(|(_, hook)| hook.get("matchConditions").cloned())
            .collect();
        !now.is_empty() && now == self.conditions
    }
}

fn is_review_version(version: &serde_json::Value) -> bool {
    version
        .as_str()
        .is_some_and(|version| REVIEW_VERSIONS.contains(&version))
}

fn rules(configuration: &Object, leniency: &Leniency) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    let conditions = !leniency.keeps_conditions(configuration);
    for (index, hook) in objects(configuration, &["webhooks"]) {
        let path = format!("webhooks[{index}]");
        errors.extend(webhook(hook, &path, leniency));
        if conditions {
            let (path, names) = (format!("{path}.matchConditions"), Names::of_hook());
            let compiled = Conditions::compile(hook, &path, names);
            errors.extend(match_conditions(hook, &path, &compiled));
        }
        errors.extend(review_versions(
            hook,
            &format!("{path}.admissionReviewVersions"),
            leniency,
        ));
        let name = text(hook, &["name"]);
        if !leniency.same_names && !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
    }
    errors
}

fn webhook(hook: &Object, path: &str, leniency: &Leniency) -> Vec<FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    let mut errors = fully_qualified(text(hook, &["name"]), &at("name"));
    for (index, rule) in objects(hook, &["rules"]) {
        errors.extend(hooks_rule(rule, &format!("{path}.rules[{index}]")));
    }
    errors.extend(one_of(hook, "failurePolicy", &["Fail", "Ignore"], path));
    errors.extend(one_of(hook, "matchPolicy", &["Equivalent", "Exact"], path));
    let allowed: &[&str] = if leniency.side_effects {
        &SIDE_EFFECTS
    } else {
        &HARMLESS
    };
    match text(hook, &["sideEffects"]) {
        "" => {
            let detail = format!("must specify one of {}", allowed.join(", "));
            errors.push(FieldError::required(at("sideEffects"), &detail));
        }
        effects if allowed.contains(&effects) => {}
        other => errors.push(FieldError::not_supported(at("sideEffects"), other, allowed)),
    }
    if let Some(seconds) = integer(hook, &["timeoutSeconds"]).filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(at("timeoutSeconds"), seconds, detail));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        if let Some(selected) = map(hook, &[selector]) {
            errors.extend(label_selector(selected, &at(selector)));
        }
    }
    if hook.contains_key("reinvocationPolicy") {
        errors.extend(one_of(hook, "reinvocationPolicy", &["IfNeeded", "Never"], path));
    }
    errors.extend(client_config(hook, &at("clientConfig")));
    errors
}

/// At least three labels: the name of a webhook belongs to somebody's domain.
fn fully_qualified(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let problems = dns1123_subdomain(name, false);
    if !problems.is_empty() {
        return vec![FieldError::invalid(path, name, &problems.join(","))];
    }
    if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        return vec![FieldError::invalid(path, name, detail)];
    }
    Vec::new()
}

fn review_versions(hook: &Object, path: &str, leniency: &Leniency) -> Vec<FieldError> {
    let versions = items(hook, &["admissionReviewVersions"]);
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return vec![FieldError::required(path, &format!("must specify one of {known}"))];
    }
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or_default();
        let path = format!("{path}[{index}]");
        if !seen.insert(version) {
            errors.push(FieldError::invalid(path, version, "duplicate version"));
            continue;
        }
        for problem in dns1035_label(version, false) {
            errors.push(FieldError::invalid(path.as_str(), version, &problem));
        }
    }
    if !leniency.review_versions && !versions.iter().any(is_review_version) {
        let detail = format!("must include at least one of {known}");
        errors.push(FieldError::invalid(path, versions.to_vec(), &detail));
    }
    errors
}

fn client_config(hook: &Object, path: &str) -> Vec<FieldError> {
    let empty = Object::new();
    let config = map(hook, &["clientConfig"]).unwrap_or(&empty);
    match (
        config.get("url").and_then(|url| url.as_str()),
        map(config, &["service"]),
    ) {
        (Some(url), None) => webhook_url(url, &format!("{path}.url")),
        (None, Some(service)) => webhook_service(service, &format!("{path}.service")),
        _ => vec![FieldError::required(path, "exactly one of url or service is required")],
    }
}

/// The URL of a webhook or a conversion (upstream: `util/webhook.ValidateWebhookURL`).
pub fn webhook_url(url: &str, path: &str) -> Vec<FieldError> {
    const FORM: &str = "; desired format: https://host[/path]";
    let invalid = |value: &str, why: &str| FieldError::invalid(path, value, &format!("{why}{FORM}"));
    let Some((scheme, rest)) = url.split_once("://") else {
        return vec![
            invalid("", "'https' is the only allowed URL scheme"),
            invalid("", "host must be specified"),
        ];
    };
    let mut errors = Vec::new();
    if scheme != "https" {
        errors.push(invalid(scheme, "'https' is the only allowed URL scheme"));
    }
    let (rest, fragment) = rest
        .split_once('#')
        .map_or((rest, None), |(rest, part)| (rest, Some(part)));
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(rest, part)| (rest, Some(part)));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.push(invalid(host, "host must be specified"));
    }
    if let Some(user) = user {
        let why = "user information is not permitted in the URL";
        errors.push(FieldError::invalid(path, user, why));
    }
    if let Some(fragment) = fragment.filter(|fragment| !fragment.is_empty()) {
        let why = "fragments are not permitted in the URL";
        errors.push(FieldError::invalid(path, fragment, why));
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        let why = "query parameters are not permitted in the URL";
        errors.push(FieldError::invalid(path, query, why));
    }
    errors
}

/// The service of a webhook or a conversion (upstream: `util/webhook.ValidateWebhookService`).
pub fn webhook_service(service: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, detail) in [
        ("name", "service name is required"),
        ("namespace", "service namespace is required"),
    ] {
        if text(service, &[field]).is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), detail));
        }
    }
    let port = integer(service, &["port"]).unwrap_or(SERVICE_PORT);
    for problem in port_number(port) {
        let detail = format!("port is not valid: {problem}");
        errors.push(FieldError::invalid(format!("{path}.port"), port, &detail));
    }
    let Some(url_path) = service.get("path").and_then(|path| path.as_str()) else {
        return errors;
    };
    let path = format!("{path}.path");
    if url_path == "/" {
        return errors;
    }
    let Some(rest) = url_path.strip_prefix('/') else {
        errors.push(FieldError::invalid(path, url_path, "must start with a '/'"));
        return errors;
    };
    // A last slash is fine.
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            let detail = format!("segment[{index}] may not be empty");
            errors.push(FieldError::invalid(path.as_str(), url_path, &detail));
            continue;
        }
        for problem in dns1123_subdomain(step, false) {
            let detail = format!("segment[{index}]: {problem}");
            errors.push(FieldError::invalid(path.as_str(), url_path, &detail));
        }
    }
    errors
}
