//! OwnerReferencesPermissionEnforcement (upstream: `plugin/pkg/admission/gc`): who gives an object an owner decides on
//! its end, so they must be allowed to delete it; and who makes it block its owner's deletion must be allowed to hold
//! the owner by finalizers. Off unless it is asked for, as upstream.

use super::{Operation, Subject};
use crate::apiserver::authorization::Decision;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::apiserver::request::RequestInfo;
use crate::registry::strategy::Object;
use serde_json::Value;

pub const NAME: &str = "OwnerReferencesPermissionEnforcement";

pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let kind = subject.kind;
    let writes = matches!(subject.operation, Operation::Create | Operation::Update);
    let status_of_pod = kind.group.is_empty() && kind.resource == "pods" && subject.subresource == "status";
    if !writes || status_of_pod || !ctx.server.enables_admission(NAME) {
        return Ok(());
    }
    let (new, old) = (owners(object), subject.old.map(owners).unwrap_or_default());
    if new == old {
        return Ok(());
    }
    let deletion = RequestInfo {
        is_resource_request: true,
        verb: "delete".to_owned(),
        namespace: ctx.key_namespace(kind).to_owned(),
        api_group: kind.group.to_owned(),
        api_version: kind.version.to_owned(),
        resource: kind.resource.to_owned(),
        subresource: subject.subresource.to_owned(),
        name: subject.name.clone(),
        ..RequestInfo::default()
    };
    let refuse = |why: String| Err(ApiError::forbidden(kind, &subject.name, &why));
    if let Decision::NoOpinion(reason) = ctx.server.authorizer.decide(&ctx.user, &deletion) {
        return refuse(format!(
            "cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"
        ));
    }
    for owner in new.iter().filter(|owner| newly_blocks(owner, old)) {
        let field = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind_of_owner) = (field("apiVersion"), field("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let Some(known) = ctx.server.registry.lookup_kind(group, version, kind_of_owner) else {
            return refuse(format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion \
                 {api_version} Kind {kind_of_owner}: no matches for kind {kind_of_owner:?} in version {api_version:?}"
            ));
        };
        let hold = RequestInfo {
            is_resource_request: true,
            verb: "update".to_owned(),
            namespace: match known.namespaced() {
                true => ctx.key_namespace(kind).to_owned(),
                false => String::new(),
            },
            api_group: group.to_owned(),
            api_version: version.to_owned(),
            resource: known.resource.to_owned(),
            subresource: "finalizers".to_owned(),
            name: field("name").to_owned(),
            ..RequestInfo::default()
        };
        if let Decision::NoOpinion(reason) = ctx.server.authorizer.decide(&ctx.user, &hold) {
            return refuse(format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers \
                 on: {reason}, <nil>"
            ));
        }
    }
    Ok(())
}

fn owners(object: &Object) -> &[Value] {
    let owners = metadata::of(object).get("ownerReferences").and_then(Value::as_array);
    owners.map(Vec::as_slice).unwrap_or_default()
}

fn blocks(owner: &Value) -> bool {
    owner.get("blockOwnerDeletion") == Some(&Value::Bool(true))
}

fn newly_blocks(owner: &Value, old: &[Value]) -> bool {
    let before = old.iter().rev().find(|before| before.get("uid") == owner.get("uid"));
    blocks(owner) && !before.is_some_and(blocks)
}
