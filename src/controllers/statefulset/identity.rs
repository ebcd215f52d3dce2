//! What makes a pod the one of its ordinal: names, labels, claims, volumes
//! (upstream: the first half of `stateful_set_utils.go`).

use crate::controllers::history::REVISION_LABEL;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt;
use std::ops::Range;

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The name of the set and the ordinal in the name of a pod.
pub fn parse(pod_name: &str) -> Option<(&str, i32)> {
    let (parent, digits) = pod_name.rsplit_once('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((parent, digits.parse().ok().filter(|_| is_number)?))
}

pub fn ordinal(pod: &Pod) -> Option<i32> {
    parse(pod.metadata.name.as_deref()?).map(|(_, ordinal)| ordinal)
}

/// Only pods of such names are the set's.
pub fn is_member(set: &str, pod: &Pod) -> bool {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    parse(name).is_some_and(|(parent, _)| parent == set)
}

/// The ordinals that there should be.
pub fn ordinals(set: &StatefulSet) -> Range<i32> {
    let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
    let start = start.unwrap_or(0);
    start..start.saturating_add(replicas(set))
}

pub fn replicas(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.volume_claim_templates.as_deref().unwrap_or_default()
}

/// The names of the claims of an ordinal.
pub fn claim_names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = String> {
    templates(set)
        .iter()
        .map(move |template| claim_name(template, set, ordinal))
}

/// The claims of an ordinal as they are created.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(template, set, ordinal));
        claim.metadata.namespace = set.namespace();
        let labels = set.spec.selector.match_labels.clone().unwrap_or_default();
        claim.labels_mut().extend(labels);
        claim.status = None;
        claim
    };
    templates(set).iter().map(claim).collect()
}

/// Whether a name is that of a claim of the set.
pub fn owns_claim_name(set: &StatefulSet, claim: &str) -> bool {
    let Some((parent, _)) = parse(claim) else {
        return false;
    };
    let set_name = set.name_any();
    templates(set).iter().any(|template| {
        let rest = parent.strip_prefix(&*template.name_any());
        rest.and_then(|rest| rest.strip_prefix('-')) == Some(&set_name)
    })
}

/// Its labels say who it is.
pub fn identity_matches(set: &StatefulSet, pod: &Pod) -> bool {
    let name = pod.name_any();
    is_member(&set.name_any(), pod)
        && ordinal(pod).is_some_and(|ordinal| pod_name(set, ordinal) == name)
        && pod.labels().get(POD_NAME_LABEL) == Some(&name)
}

/// It uses the claims of its ordinal.
pub fn storage_matches(set: &StatefulSet, pod: &Pod) -> bool {
    let Some(ordinal) = ordinal(pod) else { return false };
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let volumes = volumes.unwrap_or_default();
    templates(set).iter().all(|template| {
        let volume = volumes.iter().rfind(|volume| volume.name == template.name_any());
        let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
        claim.is_some_and(|claim| claim.claim_name == claim_name(template, set, ordinal))
    })
}

pub fn set_identity(pod: &mut Pod, ordinal: i32) {
    let name = pod.name_any();
    let labels = pod.labels_mut();
    labels.insert(POD_NAME_LABEL.to_owned(), name);
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
}

/// Volumes of the templates' names become the claims of the ordinal.
pub fn set_storage(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let spec = pod.spec.get_or_insert_default();
    let claims = templates(set).iter().map(|template| Volume {
        name: template.name_any(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(template, set, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    });
    let is_claim = |volume: &Volume| templates(set).iter().any(|template| template.name_any() == volume.name);
    let others = spec.volumes.take().unwrap_or_default();
    let others = others.into_iter().filter(|volume| !is_claim(volume));
    let volumes: Vec<Volume> = claims.chain(others).collect();
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
}

/// Makes the pod of an ordinal from one that was made of the template.
pub fn dress(set: &StatefulSet, pod: &mut Pod, ordinal: i32, revision: &str) {
    let name = pod_name(set, ordinal);
    pod.metadata.name = Some(name.clone());
    pod.metadata.namespace = set.namespace();
    set_identity(pod, ordinal);
    pod.labels_mut().insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.service_name.clone().filter(|service| !service.is_empty());
    set_storage(set, pod, ordinal);
}

/// The revision that a pod was made from.
pub fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(REVISION_LABEL))
        .map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "u"},
            "spec": {
                "replicas": 2, "serviceName": "svc", "ordinals": {"start": 3},
                "selector": {"matchLabels": {"app": "w"}},
                "template": {"spec": {"containers": []}},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"k": "v"}}, "status": {"phase": "Pending"}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn names_tell_set_and_ordinal() {
        assert_eq!(parse("web-0"), Some(("web", 0)));
        assert_eq!(parse("a-b-12"), Some(("a-b", 12)));
        for name in ["web", "web-", "web-x", "web-+1", "web-99999999999"] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(ordinals(&set()), 3..5);
        assert!(owns_claim_name(&set(), "data-web-7"));
        for other in ["data-webs-7", "data-web", "datas-web-7", "data-x-web-7"] {
            assert!(!owns_claim_name(&set(), other), "{other}");
        }
    }

    #[test]
    fn a_dressed_pod_matches() {
        let set = set();
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "web-", "labels": {"app": "w"}},
            "spec": {"containers": [], "volumes": [{"name": "data", "emptyDir": {}}, {"name": "own", "emptyDir": {}}]},
        }))
        .unwrap();
        dress(&set, &mut pod, 4, "web-r");
        assert_eq!(
            serde_json::to_value(&pod).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "web-4", "generateName": "web-", "namespace": "a", "labels": {
                    "app": "w", "apps.kubernetes.io/pod-index": "4", "controller-revision-hash": "web-r",
                    "statefulset.kubernetes.io/pod-name": "web-4",
                }},
                "spec": {
                    "containers": [], "hostname": "web-4", "subdomain": "svc",
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-4"}},
                        {"name": "own", "emptyDir": {}},
                    ],
                },
            })
        );
        assert!(identity_matches(&set, &pod) && storage_matches(&set, &pod));
        assert_eq!(revision_of(&pod), "web-r");
        pod.labels_mut().remove(POD_NAME_LABEL);
        assert!(!identity_matches(&set, &pod));
        pod.spec.as_mut().unwrap().volumes = None;
        assert!(!storage_matches(&set, &pod));
    }

    #[test]
    fn claims_carry_the_labels_of_template_and_selector() {
        let claims = claims(&set(), 3);
        assert_eq!(
            serde_json::to_value(&claims[0].metadata).unwrap(),
            json!({"name": "data-web-3", "namespace": "a", "labels": {"app": "w", "k": "v"}})
        );
        assert_eq!(claims[0].status, None);
    }
}
