//! Admission policies and their bindings: defaults and rules
//! (upstream: `pkg/apis/admissionregistration/v1/defaults.go` and `…/validation/validation.go`).

use super::match_rules::{match_conditions, match_resources};
use super::pod::validate::{invalid, label_selector, one_of};
use super::{Stored, conditions};
use crate::registry::cel::words;
use crate::registry::columns::extension;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_subdomain, label_key, path_segment};
use crate::registry::json::{child, child_or_new, children, default_text, is_set, items, map, objects, text};
use crate::registry::policy::Policy;
use crate::registry::strategy::Object;
use std::collections::BTreeSet;

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const AUDIT_EXPRESSION_BYTES_MAX: usize = 5 * 1024;
const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const NO_AUDIT: &str = "there is no audit log: what is said to it is evaluated, and kept nowhere";

pub fn validating_policy() -> Stored {
    Stored::new(extension::VALIDATING_POLICY)
        .generation()
        .conditional()
        .defaults(default_policy)
        .rules(validating_rules)
        .status_rules(|policy, _| validating_status(policy))
        .field_warnings(|policy| {
            let says = map(policy, &["spec"]).is_some_and(|spec| is_set(spec, "auditAnnotations"));
            Vec::from_iter(says.then(|| NO_AUDIT.to_owned()))
        })
}

pub fn mutating_policy() -> Stored {
    Stored::new(extension::MUTATING_POLICY)
        .generation()
        .conditional()
        .defaults(|policy| {
            default_policy(policy);
            default_text(child_or_new(policy, "spec"), "reinvocationPolicy", "Never");
        })
        .rules(mutating_rules)
}

pub fn validating_binding() -> Stored {
    binding()
        .rules(|binding| {
            let mut errors = binding_rules(binding);
            let spec = map(binding, &["spec"]);
            errors.extend(spec.map(validation_actions).unwrap_or_default());
            errors
        })
        .declared(binding_declared)
        .field_warnings(|binding| {
            let audits = items(binding, &["spec", "validationActions"])
                .iter()
                .any(|action| action == "Audit");
            Vec::from_iter(audits.then(|| NO_AUDIT.to_owned()))
        })
}

pub fn mutating_binding() -> Stored {
    binding().rules(|binding| {
        let name = text(binding, &["spec", "policyName"]);
        let mut errors = Vec::from_iter(name.is_empty().then(|| FieldError::required("spec.policyName", "")));
        errors.extend(binding_rules(binding));
        if let Some(resources) = map(binding, &["spec", "matchResources"]) {
            errors.extend(mutable_operations(resources, "spec.matchResources"));
        }
        errors
    })
}

fn binding() -> Stored {
    Stored::new(extension::POLICY_BINDING)
        .generation()
        .conditional()
        .defaults(|binding| {
            if let Some(resources) = child(binding, "spec").and_then(|spec| child(spec, "matchResources")) {
                default_match(resources);
            }
        })
}

fn default_policy(policy: &mut Object) {
    let spec = child_or_new(policy, "spec");
    default_text(spec, "failurePolicy", "Fail");
    if let Some(constraints) = child(spec, "matchConstraints") {
        default_match(constraints);
    }
}

fn default_match(resources: &mut Object) {
    default_text(resources, "matchPolicy", "Equivalent");
    for selector in ["namespaceSelector", "objectSelector"] {
        child_or_new(resources, selector);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in children(resources, list) {
            default_text(rule, "scope", "*");
        }
    }
}

/// What both kinds of policy have.
fn policy_rules(spec: &Object, compiled: &Policy, mutates: bool) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(one_of(spec, "failurePolicy", &FAILURE_POLICIES, "spec"));
    if let Some(kind) = map(spec, &["paramKind"]) {
        errors.extend(param_kind(kind));
    }
    match map(spec, &["matchConstraints"]) {
        None => errors.push(FieldError::required("spec.matchConstraints", "")),
        Some(constraints) => {
            errors.extend(match_resources(constraints, "spec.matchConstraints"));
            if !is_set(constraints, "resourceRules") {
                errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
            }
            if mutates {
                errors.extend(mutable_operations(constraints, "spec.matchConstraints"));
            }
        }
    }
    errors.extend(match_conditions(spec, "spec.matchConditions", &compiled.conditions));
    for (index, variable) in objects(spec, &["variables"]) {
        let path = format!("spec.variables[{index}]");
        match text(variable, &["name"]) {
            name if name.trim().is_empty() => {
                errors.push(FieldError::required(format!("{path}.name"), "name is not specified"));
            }
            name if is_cel_identifier(name) => {}
            name => {
                let detail = "must be a valid CEL identifier";
                errors.push(FieldError::invalid(format!("{path}.name"), name, detail));
            }
        }
        let missing = "expression is not specified";
        errors.extend(expression(variable, "expression", &path, missing, compiled));
    }
    errors
}

/// What is deleted is not changed.
fn mutable_operations(resources: &Object, path: &str) -> Vec<FieldError> {
    let known = ["*", "CONNECT", "CREATE", "UPDATE"];
    let operations = objects(resources, &["resourceRules"]).flat_map(|(_, rule)| items(rule, &["operations"]));
    operations
        .filter(|operation| !operation.as_str().is_some_and(|operation| known.contains(&operation)))
        .map(|operation| {
            FieldError::not_supported(format!("{path}.resourceRules.operations"), operation.clone(), &known)
        })
        .collect()
}

/// An expression must be there and compile.
fn expression(owner: &Object, field: &str, path: &str, missing: &str, compiled: &Policy) -> Option<FieldError> {
    let path = format!("{path}.{field}");
    if text(owner, &[field]).trim().is_empty() {
        return Some(FieldError::required(path, missing));
    }
    compiled.problem_at(&path)
}

fn is_cel_identifier(name: &str) -> bool {
    let word = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    name.bytes().all(word) && !name.starts_with(|first: char| first.is_ascii_digit()) && !words::is_taken(name)
}

fn param_kind(kind: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (api_version, path) = (text(kind, &["apiVersion"]), "spec.paramKind.apiVersion");
    match api_version.matches('/').count() {
        _ if api_version.is_empty() => errors.push(FieldError::required(path, "")),
        0 | 1 => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let problems = if group.is_empty() {
                Vec::new()
            } else {
                dns1123_subdomain(group, false)
            };
            if !problems.is_empty() {
                errors.push(FieldError::invalid(path, group, &problems.join(",")));
            }
            if version.is_empty() {
                errors.push(FieldError::invalid(path, api_version, "version must be specified"));
            } else if let problems = dns1035_label(version, false)
                && !problems.is_empty()
            {
                errors.push(FieldError::invalid(path, version, &problems.join(",")));
            }
        }
        _ => {
            let detail = format!("unexpected GroupVersion string: {api_version}");
            errors.push(FieldError::invalid(path, api_version, &detail));
        }
    }
    let name = text(kind, &["kind"]);
    let problems = dns1035_label(&name.to_lowercase(), false);
    if name.is_empty() {
        errors.push(FieldError::required("spec.paramKind.kind", ""));
    } else if !problems.is_empty() {
        let detail = format!(
            "may have mixed case, but should otherwise match: {}",
            problems.join(",")
        );
        errors.push(FieldError::invalid("spec.paramKind.kind", name, &detail));
    }
    errors
}

fn validating_rules(policy: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(policy, &["spec"]).unwrap_or(&empty);
    let compiled = Policy::compile(policy);
    let mut errors = policy_rules(spec, &compiled, false);
    if !is_set(spec, "validations") && !is_set(spec, "auditAnnotations") {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required("spec.validations", detail));
        errors.push(FieldError::required("spec.auditAnnotations", detail));
        return errors;
    }
    for (index, validation) in objects(spec, &["validations"]) {
        errors.extend(validation_rules(
            validation,
            &format!("spec.validations[{index}]"),
            &compiled,
        ));
    }
    errors.extend(audit_annotations(text(policy, &["metadata", "name"]), spec, &compiled));
    errors
}

fn validation_rules(validation: &Object, path: &str, compiled: &Policy) -> Vec<FieldError> {
    let missing = "expression is not specified";
    let mut errors = Vec::from_iter(expression(validation, "expression", path, missing, compiled));
    let at = |field: &str| format!("{path}.{field}");
    let given = text(validation, &["messageExpression"]);
    if !given.is_empty() && given.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(FieldError::invalid(at("messageExpression"), given, detail));
    } else {
        errors.extend(compiled.problem_at(&at("messageExpression")));
    }
    let message = text(validation, &["message"]);
    if !message.is_empty() && message.trim().is_empty() {
        let detail = "message must be non-empty if specified";
        errors.push(FieldError::invalid(at("message"), message, detail));
    } else if message.trim().contains(['\n', '\r']) {
        let detail = "message must not contain line breaks";
        errors.push(FieldError::invalid(at("message"), message, detail));
    }
    if validation.contains_key("reason") {
        errors.extend(one_of(validation, "reason", &REASONS, path));
    }
    errors
}

fn audit_annotations(policy: &str, spec: &Object, compiled: &Policy) -> Vec<FieldError> {
    let path = "spec.auditAnnotations";
    let annotations = items(spec, &["auditAnnotations"]);
    let (mut errors, mut keys) = (Vec::new(), BTreeSet::new());
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(FieldError::invalid(path, annotations.to_vec(), &detail));
    }
    for (index, annotation) in objects(spec, &["auditAnnotations"]) {
        let path = format!("{path}[{index}]");
        let (key, key_path) = (text(annotation, &["key"]), format!("{path}.key"));
        let full = format!("{policy}/{key}");
        for problem in label_key(&full) {
            errors.push(FieldError::invalid(key_path.as_str(), full.as_str(), &problem));
        }
        if text(annotation, &["valueExpression"]).trim().len() > AUDIT_EXPRESSION_BYTES_MAX {
            let detail = format!("must not exceed {AUDIT_EXPRESSION_BYTES_MAX} bytes in length");
            errors.push(FieldError::required(format!("{path}.valueExpression"), &detail));
        } else {
            let missing = "valueExpression is not specified";
            errors.extend(expression(annotation, "valueExpression", &path, missing, compiled));
        }
        if !keys.insert(key) {
            errors.push(FieldError::duplicate(key_path, key));
        }
    }
    errors
}

fn mutating_rules(policy: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(policy, &["spec"]).unwrap_or(&empty);
    let compiled = Policy::compile(policy);
    let mut errors = policy_rules(spec, &compiled, true);
    if !is_set(spec, "mutations") {
        errors.push(FieldError::required(
            "spec.mutations",
            "mutations must contain at least one item",
        ));
    }
    for (index, mutation) in objects(spec, &["mutations"]) {
        errors.extend(mutation_rules(mutation, &format!("spec.mutations[{index}]"), &compiled));
    }
    errors.extend(one_of(spec, "reinvocationPolicy", &["IfNeeded", "Never"], "spec"));
    errors
}

fn mutation_rules(mutation: &Object, path: &str, compiled: &Policy) -> Vec<FieldError> {
    let kind = text(mutation, &["patchType"]);
    let (used, other) = match kind {
        "" => return vec![FieldError::required(format!("{path}.patchType"), "")],
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        unknown => {
            let types = ["ApplyConfiguration", "JSONPatch"];
            return vec![FieldError::not_supported(format!("{path}.patchType"), unknown, &types)];
        }
    };
    let mut errors = Vec::new();
    match map(mutation, &[used]) {
        None => {
            let detail = format!("must be specified when patchType is {kind}");
            errors.push(FieldError::required(format!("{path}.{used}"), &detail));
        }
        Some(body) => errors.extend(expression(body, "expression", &format!("{path}.{used}"), "", compiled)),
    }
    if mutation.contains_key(other) {
        let (value, detail) = (
            format!("{{{other}}}"),
            format!("must not be specified when patchType is {kind}"),
        );
        errors.push(FieldError::invalid(format!("{path}.{other}"), value, &detail));
    }
    errors
}

fn binding_rules(binding: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(binding, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let name = text(spec, &["policyName"]);
    if !name.is_empty() {
        errors.extend(invalid("spec.policyName", name, &dns1123_subdomain(name, false)));
    }
    if let Some(reference) = map(spec, &["paramRef"]) {
        errors.extend(param_ref(reference));
    }
    if let Some(resources) = map(spec, &["matchResources"]) {
        errors.extend(match_resources(resources, "spec.matchResources"));
    }
    errors
}

fn param_ref(reference: &Object) -> Vec<FieldError> {
    let path = "spec.paramRef";
    let exclusive =
        |field: &str| FieldError::forbidden(format!("{path}.{field}"), "name and selector are mutually exclusive");
    let mut errors = Vec::new();
    let (name, selector) = (text(reference, &["name"]), map(reference, &["selector"]));
    for problem in if name.is_empty() {
        Vec::new()
    } else {
        path_segment(name, false)
    } {
        errors.push(FieldError::invalid(format!("{path}.name"), name, &problem));
    }
    match selector {
        Some(selector) if name.is_empty() => errors.extend(label_selector(selector, &format!("{path}.selector"))),
        Some(selector) => {
            errors.push(exclusive("name"));
            errors.extend(label_selector(selector, &format!("{path}.selector")));
            errors.push(exclusive("selector"));
        }
        None if name.is_empty() => {
            errors.push(FieldError::required(path, "one of name or selector must be specified"));
        }
        None => {}
    }
    match text(reference, &["parameterNotFoundAction"]) {
        "" => errors.push(FieldError::required(format!("{path}.parameterNotFoundAction"), "")),
        _ => errors.extend(one_of(reference, "parameterNotFoundAction", &["Deny", "Allow"], path)),
    }
    errors
}

fn validation_actions(spec: &Object) -> Vec<FieldError> {
    let path = "spec.validationActions";
    let actions = items(spec, &["validationActions"]);
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, action) in actions.iter().enumerate() {
        let (action, path) = (action.as_str().unwrap_or_default(), format!("{path}[{index}]"));
        let known = ["Audit", "Deny", "Warn"];
        if !known.contains(&action) {
            errors.push(FieldError::not_supported(path.as_str(), action, &known));
        }
        if !seen.insert(action) {
            errors.push(FieldError::duplicate(path, action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
            API response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, actions.to_vec(), detail));
    }
    errors
}

/// What a binding must have, as upstream's type asks for it.
fn binding_declared(binding: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let named = |binding| text(binding, &["spec", "policyName"]);
    let acts = |binding| items(binding, &["spec", "validationActions"]);
    let mut errors = Vec::new();
    if named(binding).is_empty() && old.is_none_or(|old| !named(old).is_empty()) {
        errors.push(FieldError::required("spec.policyName", ""));
    }
    if acts(binding).is_empty() && old.is_none_or(|old| !acts(old).is_empty()) {
        errors.push(FieldError::required("spec.validationActions", ""));
    }
    errors
}

/// What the type checker noted on a policy.
fn validating_status(policy: &Object) -> Vec<FieldError> {
    let path = "status.typeChecking.expressionWarnings";
    let mut errors = Vec::new();
    for (index, warning) in objects(policy, &["status", "typeChecking", "expressionWarnings"]) {
        for field in ["warning", "fieldRef"] {
            if text(warning, &[field]).trim().is_empty() {
                errors.push(FieldError::required(format!("{path}[{index}].{field}"), ""));
            }
        }
    }
    errors.extend(map(policy, &["status"]).map_or_else(Vec::new, |status| conditions::validate(status, "status")));
    errors
}
