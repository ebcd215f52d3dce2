//! NodeDeclaredFeatureValidator (upstream: `plugin/pkg/admission/nodedeclaredfeatures`): a pod on a node may be changed
//! only in ways that the node says it can follow.

use super::{Operation, Subject, stored_node};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::declared_features::{missing, needed_to_become};
use crate::registry::json::{items, number, text};
use crate::registry::strategy::Object;
use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::Value;

pub fn validate(ctx: &Context, subject: &Subject<'_>, pod: &Object) -> Result<(), ApiError> {
    let Some((node, old)) = changed_on_node(subject, pod).filter(|_| matches!(subject.subresource, "" | "resize"))
    else {
        return Ok(());
    };
    let needed = needed_to_become(&spec(old)?, &spec(pod)?);
    if needed.is_empty() {
        return Ok(());
    }
    let node_object = node_of(ctx, subject, node)?;
    problem(&needed, node, &node_object).map_or(Ok(()), |why| {
        Err(ApiError::forbidden(subject.kind, &subject.name, &why))
    })
}

fn spec(pod: &Object) -> Result<PodSpec, ApiError> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    PodSpec::deserialize(spec).map_err(|error| ApiError::bad_request(format!("failed to convert pod: {error}")))
}

/// The node of a pod of which something else is wanted now, and the pod as it was.
pub(super) fn changed_on_node<'a>(subject: &Subject<'a>, pod: &'a Object) -> Option<(&'a str, &'a Object)> {
    let is_pod = subject.kind.group.is_empty() && subject.kind.resource == "pods";
    let old = subject
        .old
        .filter(|_| is_pod && subject.operation == Operation::Update)?;
    let node = text(pod, &["spec", "nodeName"]);
    let generation = |pod| number(pod, &["metadata", "generation"]);
    (!node.is_empty() && generation(pod) != generation(old)).then_some((node, old))
}

pub(super) fn node_of(ctx: &Context, subject: &Subject<'_>, name: &str) -> Result<Object, ApiError> {
    let missing = || ApiError::forbidden(subject.kind, &subject.name, &format!("node {name:?} not found"));
    stored_node(ctx, name)?.ok_or_else(missing)
}

fn problem(needed: &[&'static str], name: &str, node: &Object) -> Option<String> {
    let declared = items(node, &["status", "declaredFeatures"]).iter();
    let declared: Vec<String> = declared.filter_map(|one| Some(one.as_str()?.to_owned())).collect();
    let missing = missing(needed, &declared);
    (!missing.is_empty()).then(|| {
        let missing = missing.join(", ");
        format!("pod update requires features {missing} which are not available on node {name:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declared_features::{INIT_CONTAINER_RESIZE, POD_RESIZE};
    use serde_json::json;

    #[test]
    fn a_node_must_declare_all() {
        let needed = [POD_RESIZE, INIT_CONTAINER_RESIZE];
        for (declared, expected) in [
            (
                json!([]),
                "pod update requires features InPlacePodLevelResourcesVerticalScaling, \
                 InPlacePodVerticalScalingInitContainers which are not available on node \"n\"",
            ),
            (
                json!([POD_RESIZE]),
                "pod update requires features InPlacePodVerticalScalingInitContainers which are not available on node \"n\"",
            ),
            (json!(needed), ""),
        ] {
            let node = json!({"status": {"declaredFeatures": declared}});
            let why = problem(&needed, "n", node.as_object().unwrap());
            assert_eq!(why.unwrap_or_default(), expected, "{declared}");
        }
    }
}
