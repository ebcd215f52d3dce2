//! NodeDeclaredFeatureValidator (upstream: `plugin/pkg/admission/nodedeclaredfeatures`,
//! `k8s.io/component-helpers/nodedeclaredfeatures`): a pod on a node may be changed only in ways that the node says it
//! can follow.

use super::{Operation, Subject, stored_node};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::json::{at, items, number, objects, text};
use crate::registry::strategy::Object;
use serde_json::Value;

const POD_RESOURCES: &str = "InPlacePodLevelResourcesVerticalScaling";
const INIT_CONTAINERS: &str = "InPlacePodVerticalScalingInitContainers";
const MEMORY_VOLUMES: &str = "InPlacePodVerticalScalingMemoryBackedVolumes";

pub fn validate(ctx: &Context, subject: &Subject<'_>, pod: &Object) -> Result<(), ApiError> {
    let Some((node, old)) = changed_on_node(subject, pod).filter(|_| matches!(subject.subresource, "" | "resize"))
    else {
        return Ok(());
    };
    let wanted = wanted(pod, old);
    if wanted.is_empty() {
        return Ok(());
    }
    let node_object = node_of(ctx, subject, node)?;
    missing(&wanted, node, &node_object).map_or(Ok(()), |why| {
        Err(ApiError::forbidden(subject.kind, &subject.name, &why))
    })
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

/// What a node must know for the change, by name.
fn wanted(pod: &Object, old: &Object) -> Vec<&'static str> {
    let mut features = Vec::new();
    if at(pod, &["spec", "resources"]) != at(old, &["spec", "resources"]) {
        features.push(POD_RESOURCES);
    }
    // Sidecars run beside the others and need nothing special.
    let resources = |pod: &Object| -> Vec<Option<Value>> {
        objects(pod, &["spec", "initContainers"])
            .filter(|(_, container)| text(container, &["restartPolicy"]) != "Always")
            .map(|(_, container)| container.get("resources").cloned())
            .collect()
    };
    if resources(pod) != resources(old) {
        features.push(INIT_CONTAINERS);
    }
    let limits = |pod: &Object| -> Vec<Option<Value>> {
        objects(pod, &["spec", "volumes"])
            .filter(|(_, volume)| text(volume, &["emptyDir", "medium"]) == "Memory")
            .map(|(_, volume)| at(volume, &["emptyDir", "sizeLimit"]).cloned())
            .collect()
    };
    if limits(pod) != limits(old) {
        features.push(MEMORY_VOLUMES);
    }
    features
}

fn missing(wanted: &[&str], name: &str, node: &Object) -> Option<String> {
    let declared = items(node, &["status", "declaredFeatures"]);
    let absent = |feature: &&&str| !declared.iter().any(|one| one.as_str() == Some(**feature));
    let missing: Vec<&str> = wanted.iter().filter(absent).copied().collect();
    (!missing.is_empty()).then(|| {
        let missing = missing.join(", ");
        format!("pod update requires features {missing} which are not available on node {name:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_that_a_node_must_know() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let old = object(json!({"spec": {
            "initContainers": [{"name": "i", "resources": {}}, {"name": "s", "restartPolicy": "Always", "resources": {}}],
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}}));
        let more = json!({"requests": {"cpu": "2"}});
        for (path, value, expected) in [
            ("/spec/containers", json!([{"name": "c", "resources": more}]), ""),
            ("/spec/initContainers/1/resources", more.clone(), ""),
            (
                "/spec/resources",
                more.clone(),
                "pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"n\"",
            ),
            (
                "/spec/initContainers/0/resources",
                more.clone(),
                "pod update requires features InPlacePodVerticalScalingInitContainers which are not available on node \"n\"",
            ),
            (
                "/spec/volumes/0/emptyDir/sizeLimit",
                json!("2Mi"),
                "pod update requires features InPlacePodVerticalScalingMemoryBackedVolumes which are not available on \
                 node \"n\"",
            ),
        ] {
            let mut pod = json!(old);
            let (parent, field) = path.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[field] = value;
            let wanted = wanted(&object(pod), &old);
            let why = missing(&wanted, "n", &Object::new()).unwrap_or_default();
            assert_eq!(why, expected, "{path}");
            let able = object(json!({"status": {"declaredFeatures": wanted}}));
            assert_eq!(missing(&wanted, "n", &able), None);
        }
    }
}
