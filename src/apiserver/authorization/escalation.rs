//! Nobody grants what they do not hold, unless they may `escalate` roles or `bind` the role
//! (upstream: `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased`).

use super::rbac::{GROUP, RoleRef};
use super::rule::{Rule, describe_missing, missing, quoted_list};
use super::{Authorizer, PRIVILEGED_GROUP};
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, Subject};
use crate::apiserver::request::{RequestInfo, User};
use crate::registry::Kind;
use crate::registry::json::{items, text};
use crate::registry::strategy::Object;

/// Looks at a role or binding that is about to be written; other kinds pass.
pub fn check(ctx: &Context, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<(), ApiError> {
    if kind.group != GROUP || ctx.user.groups.iter().any(|group| group == PRIVILEGED_GROUP) {
        return Ok(());
    }
    match kind.resource {
        "roles" | "clusterroles" => role(ctx, kind, old, new),
        "rolebindings" | "clusterrolebindings" => binding(ctx, kind, old, new),
        _ => Ok(()),
    }
}

fn role(ctx: &Context, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<(), ApiError> {
    if old.is_some_and(|old| only_bookkeeping(old, new)) || may(ctx, "escalate", kind.resource, &ctx.info.name) {
        return Ok(());
    }
    confirm(ctx, kind, new, &rules(new))?;
    let gathers = |role: &Object| role.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    if gathers(new) || old.is_some_and(gathers) {
        // It can gather anything, so whoever writes it must hold everything.
        let why = "must have cluster-admin privileges to use the aggregationRule";
        confirm(ctx, kind, new, &Rule::full_authority())
            .map_err(|_| ApiError::forbidden(kind, text(new, &["metadata", "name"]), why))?;
    }
    Ok(())
}

fn binding(ctx: &Context, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<(), ApiError> {
    let role = RoleRef {
        kind: text(new, &["roleRef", "kind"]).to_owned(),
        name: text(new, &["roleRef", "name"]).to_owned(),
    };
    let resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
    if old.is_some_and(|old| only_bookkeeping(old, new))
        || may(ctx, "escalate", kind.resource, &ctx.info.name)
        || may(ctx, "bind", resource, &role.name)
    {
        return Ok(());
    }
    let namespace = if kind.namespaced() {
        ctx.info.namespace.as_str()
    } else {
        ""
    };
    let subject = Subject { group: GROUP, resource };
    let Some(rules) = ctx.server.authorizer.rules_of(&role, namespace) else {
        return Err(ApiError::not_found(subject, &role.name));
    };
    confirm(ctx, kind, new, &rules)
}

/// Only what the collector of garbage writes has changed.
fn only_bookkeeping(old: &Object, new: &Object) -> bool {
    let stripped = |object: &Object| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    stripped(old) == stripped(new)
}

fn may(ctx: &Context, verb: &str, resource: &str, name: &str) -> bool {
    let info = RequestInfo {
        is_resource_request: true,
        verb: verb.to_owned(),
        api_group: GROUP.to_owned(),
        api_version: "*".to_owned(),
        namespace: ctx.info.namespace.clone(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    };
    ctx.server.authorizer.decide(&ctx.user, &info).is_allowed()
}

fn rules(role: &Object) -> Vec<Rule> {
    items(role, &["rules"])
        .iter()
        .filter_map(|rule| serde_json::from_value(rule.clone()).ok())
        .collect()
}

fn confirm(ctx: &Context, kind: &Kind, object: &Object, wanted: &[Rule]) -> Result<(), ApiError> {
    match objection(&ctx.server.authorizer, &ctx.user, &ctx.info.namespace, wanted) {
        None => Ok(()),
        Some(why) => Err(ApiError::forbidden(kind, text(object, &["metadata", "name"]), &why)),
    }
}

/// Upstream's text about what the user does not hold in the namespace.
fn objection(authorizer: &Authorizer, user: &User, namespace: &str, wanted: &[Rule]) -> Option<String> {
    let held = authorizer.rules_for(user, namespace);
    let rules: Vec<&Rule> = held.rules.iter().collect();
    let missing = missing(&rules, wanted);
    if missing.is_empty() {
        return None;
    }
    let mut text = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted_list(&user.groups),
        describe_missing(&missing).join("\n")
    );
    if !held.errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", held.errors.join(", ")));
    }
    Some(text)
}
