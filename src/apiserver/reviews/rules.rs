//! SelfSubjectRulesReview: what may I do in a namespace
//! (upstream: `pkg/registry/authorization/selfsubjectrulesreview`).

use crate::apiserver::authorization::rule::Rule;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::json::text;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

pub fn status(ctx: &Context, review: &Object) -> Result<Value, ApiError> {
    let namespace = text(review, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let held = ctx.server.authorizer.rules_for(&ctx.user, namespace);
    let (resources, paths): (Vec<&Rule>, Vec<&Rule>) =
        held.rules.iter().partition(|rule| rule.non_resource_urls.is_empty());
    let resources: Vec<Value> = resources.into_iter().map(resource_rule).collect();
    let paths: Vec<Value> = paths
        .into_iter()
        .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
        .collect();
    let mut status = Object::new();
    status.insert("resourceRules".into(), json!(resources));
    status.insert("nonResourceRules".into(), json!(paths));
    status.insert("incomplete".into(), json!(!held.errors.is_empty()));
    if !held.errors.is_empty() {
        status.insert("evaluationError".into(), json!(held.errors.join(", ")));
    }
    Ok(Value::Object(status))
}

fn resource_rule(rule: &Rule) -> Value {
    let mut value = Object::new();
    value.insert("verbs".into(), json!(rule.verbs));
    for (field, list) in [
        ("apiGroups", &rule.api_groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.resource_names),
    ] {
        if !list.is_empty() {
            value.insert(field.into(), json!(list));
        }
    }
    Value::Object(value)
}
