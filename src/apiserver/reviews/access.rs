//! Reviews of access: may I, may somebody, may somebody here
//! (upstream: `pkg/registry/authorization`, `pkg/apis/authorization/validation`).

use super::{owned, strings};
use crate::apiserver::authorization::Decision;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::{RequestInfo, User};
use crate::registry::Kind;
use crate::registry::field::FieldError;
use crate::registry::json::{items, map, text};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

/// SelfSubjectAccessReview.
pub fn of_self(ctx: &Context, kind: &Kind, review: &Object) -> Result<Value, ApiError> {
    let mut errors = attribute_errors(review);
    errors.extend(metadata_errors(review, false));
    check(kind, errors)?;
    Ok(answer(ctx, &ctx.user, review))
}

/// SubjectAccessReview.
pub fn of_subject(ctx: &Context, kind: &Kind, review: &Object) -> Result<Value, ApiError> {
    let mut errors = attribute_errors(review);
    errors.extend(subject_errors(review));
    errors.extend(metadata_errors(review, false));
    check(kind, errors)?;
    Ok(answer(ctx, &subject(review), review))
}

/// LocalSubjectAccessReview: only of its own namespace.
pub fn of_subject_in_namespace(ctx: &Context, kind: &Kind, review: &Object) -> Result<Value, ApiError> {
    let mut errors = attribute_errors(review);
    errors.extend(subject_errors(review));
    errors.extend(metadata_errors(review, true));
    let namespace = ctx.info.namespace.as_str();
    if let Some(attributes) = map(review, &["spec", "resourceAttributes"])
        && text(attributes, &["namespace"]) != namespace
    {
        let detail = "must match metadata.namespace";
        let given = text(attributes, &["namespace"]);
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", given, detail));
    }
    if map(review, &["spec", "nonResourceAttributes"]).is_some() {
        let detail = "disallowed on this kind of request";
        let shown = review["spec"]["nonResourceAttributes"].clone();
        errors.push(FieldError::invalid("spec.nonResourceAttributes", shown, detail));
    }
    check(kind, errors)?;
    let given = text(review, &["metadata", "namespace"]);
    if !given.is_empty() && given != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(answer(ctx, &subject(review), review))
}

fn check(kind: &Kind, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(kind.group, kind.kind, "", &errors))
    }
}

fn attribute_errors(review: &Object) -> Vec<FieldError> {
    let (resource, path) = (
        map(review, &["spec", "resourceAttributes"]),
        map(review, &["spec", "nonResourceAttributes"]),
    );
    let mut errors = Vec::new();
    match (resource, path) {
        (Some(_), Some(path)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            let shown = Value::Object(path.clone());
            errors.push(FieldError::invalid("spec.nonResourceAttributes", shown, detail));
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", Value::Null, detail));
        }
        _ => {}
    }
    for field in ["fieldSelector", "labelSelector"] {
        if let Some(selector) = resource.and_then(|attributes| map(attributes, &[field])) {
            errors.extend(selector_errors(selector, &format!("spec.resourceAttributes.{field}")));
        }
    }
    errors
}

fn selector_errors(selector: &Object, path: &str) -> Vec<FieldError> {
    let raw = !text(selector, &["rawSelector"]).is_empty();
    let requirements = items(selector, &["requirements"]);
    let mut errors = Vec::new();
    match (raw, requirements.is_empty()) {
        (true, false) => {
            let detail = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid(
                format!("{path}.rawSelector"),
                text(selector, &["rawSelector"]),
                detail,
            ));
        }
        (false, true) => {
            let detail = "when labelSelector is specified, requirements or rawSelector is required";
            let detail = if path.ends_with("fieldSelector") {
                "when fieldSelector is specified, requirements or rawSelector is required"
            } else {
                detail
            };
            errors.push(FieldError::required(format!("{path}.requirements"), detail));
        }
        _ => {}
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let Some(requirement) = requirement.as_object() else {
            continue;
        };
        let path = format!("{path}.requirements[{index}]");
        if text(requirement, &["key"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.key"), "must be specified"));
        }
        let values = items(requirement, &["values"]);
        match text(requirement, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                format!("{path}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
    }
    errors
}

fn subject_errors(review: &Object) -> Option<FieldError> {
    let nobody = text(review, &["spec", "user"]).is_empty() && items(review, &["spec", "groups"]).is_empty();
    let detail = "at least one of user or group must be specified";
    nobody.then(|| FieldError::invalid("spec.user", text(review, &["spec", "user"]), detail))
}

/// A question has no name: nothing is kept under it.
fn metadata_errors(review: &Object, namespaced: bool) -> Option<FieldError> {
    let metadata = map(review, &["metadata"])?;
    let known =
        |field: &str| field == "managedFields" || field == "creationTimestamp" || (namespaced && field == "namespace");
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    let bad = metadata.iter().any(|(field, value)| !known(field) && !empty(value));
    let detail = if namespaced {
        "must be empty except for namespace"
    } else {
        "must be empty"
    };
    bad.then(|| FieldError::invalid("metadata", Value::Object(metadata.clone()), detail))
}

fn subject(review: &Object) -> User {
    let mut user = User {
        name: owned(review, &["spec", "user"]),
        uid: owned(review, &["spec", "uid"]),
        groups: strings(items(review, &["spec", "groups"])),
        ..User::default()
    };
    for (key, values) in map(review, &["spec", "extra"]).into_iter().flatten() {
        let values = values.as_array().map_or(&[][..], Vec::as_slice);
        user.extra.insert(key.clone(), strings(values));
    }
    user
}

/// What the review asks for, as a request.
fn asked(review: &Object) -> RequestInfo {
    let Some(attributes) = map(review, &["spec", "resourceAttributes"]) else {
        return RequestInfo {
            verb: owned(review, &["spec", "nonResourceAttributes", "verb"]),
            path: owned(review, &["spec", "nonResourceAttributes", "path"]),
            ..RequestInfo::default()
        };
    };
    let part = |field: &str| owned(attributes, &[field]);
    RequestInfo {
        is_resource_request: true,
        verb: part("verb"),
        api_group: part("group"),
        api_version: part("version"),
        namespace: part("namespace"),
        resource: part("resource"),
        subresource: part("subresource"),
        name: part("name"),
        selected_fields: selected_fields(attributes),
        ..RequestInfo::default()
    }
}

/// Fields that the question restricts to one value.
fn selected_fields(attributes: &Object) -> Vec<(String, String)> {
    let requirements = items(attributes, &["fieldSelector", "requirements"]).iter();
    requirements
        .filter_map(Value::as_object)
        .filter(|requirement| text(requirement, &["operator"]) == "In")
        .filter_map(|requirement| match items(requirement, &["values"]) {
            [value] => Some((owned(requirement, &["key"]), value.as_str()?.to_owned())),
            _ => None,
        })
        .collect()
}

fn answer(ctx: &Context, user: &User, review: &Object) -> Value {
    match ctx.server.authorizer.decide(user, &asked(review)) {
        Decision::Allowed(reason) => {
            let reason = reason.to_string();
            if reason.is_empty() {
                json!({"allowed": true})
            } else {
                json!({"allowed": true, "reason": reason})
            }
        }
        Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
        // What the authorizers found missing on the way.
        Decision::NoOpinion(reason) => match reason.strip_prefix("RBAC: ") {
            Some(error) => json!({"allowed": false, "reason": reason, "evaluationError": error}),
            None => json!({"allowed": false, "reason": reason}),
        },
    }
}
