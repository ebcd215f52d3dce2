//! NamespaceLifecycle (upstream: `apiserver/pkg/admission/plugin/namespace/lifecycle`): nothing is created in a
//! namespace that is not there or is going, and the system's own namespaces stay.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, Subject as ErrorSubject};
use crate::apiserver::handlers::engine::metadata;
use crate::registry::strategy::Object;

const NAMESPACES: ErrorSubject<'static> = ErrorSubject {
    group: "",
    resource: "namespaces",
};
/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub fn admit(ctx: &Context, subject: &Subject<'_>, _object: &mut Object) -> Result<(), ApiError> {
    let kind = subject.kind;
    let is_namespace = kind.group.is_empty() && kind.resource == "namespaces";
    match subject.operation {
        Operation::Delete if is_namespace && IMMORTAL.contains(&subject.name.as_str()) => Err(ApiError::forbidden(
            NAMESPACES,
            &subject.name,
            "this namespace may not be deleted",
        )),
        Operation::Create if kind.namespaced() => check_namespace(ctx, subject),
        _ => Ok(()),
    }
}

fn check_namespace(ctx: &Context, subject: &Subject<'_>) -> Result<(), ApiError> {
    let namespace = &ctx.info.namespace;
    let entry = ctx
        .storage()
        .get(NAMESPACES.resource, "", namespace)
        .ok_or_else(|| ApiError::not_found(NAMESPACES, namespace))?;
    let object: Object = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    if metadata::of(&object).contains_key("deletionTimestamp") {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        return Err(ApiError::forbidden(subject.kind, &subject.name, &why).with_cause(
            "NamespaceTerminating",
            &cause,
            "metadata.namespace",
        ));
    }
    Ok(())
}
