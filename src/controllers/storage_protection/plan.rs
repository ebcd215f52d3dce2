//! Whether an object's protection is put on, kept or taken off; what uses what. Pure.

use crate::controllers::claims::{claim_name, is_made_for, is_scheduled, volume_phase, volumes};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protection {
    Right,
    /// It was made before anybody protected it.
    Missing,
    /// It is going: the protection is taken off once nothing uses it.
    Going,
}

pub fn protection(meta: &ObjectMeta, finalizer: &str) -> Protection {
    let has = meta.finalizers.iter().flatten().any(|one| one == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => Protection::Going,
        (false, false) => Protection::Missing,
        _ => Protection::Right,
    }
}

/// Whether a pod hinders its claim from going. One that is on no node yet does not: the node would not start it.
pub fn pod_uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.name_any();
    is_scheduled(pod)
        && volumes(pod).iter().any(|volume| {
            let ours = claim_name(pod, volume).is_some_and(|used| used == name);
            ours && (volume.persistent_volume_claim.is_some() || (!is_shut_down(pod) && is_made_for(claim, pod)))
        })
}

/// The node is done with the pod, or it was deleted by force. Its own claims may then go before it.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

pub fn is_volume_used(volume: &PersistentVolume) -> bool {
    volume_phase(volume) == "Bound"
}

/// The attributes' classes that a claim has, wants, or is on its way to.
pub fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let spec = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let target = status.and_then(|status| {
        let modify = status.modify_volume_status.as_ref()?;
        modify.target_volume_attributes_class_name.clone()
    });
    let mut classes: Vec<String> = [spec, current, target]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
        .collect();
    classes.sort();
    classes.dedup();
    classes
}

pub fn class_of_volume(volume: &PersistentVolume) -> Option<String> {
    let spec = volume.spec.as_ref()?;
    spec.volume_attributes_class_name
        .clone()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn protection_comes_and_goes() {
        let (f, at) = ("x/f", "2026-01-01T00:00:00Z");
        for (meta, expected) in [
            (json!({}), Protection::Missing),
            (json!({"finalizers": ["other"]}), Protection::Missing),
            (json!({"finalizers": ["other", f]}), Protection::Right),
            (json!({"finalizers": [f], "deletionTimestamp": at}), Protection::Going),
            (
                json!({"finalizers": ["other"], "deletionTimestamp": at}),
                Protection::Right,
            ),
        ] {
            assert_eq!(
                protection(&serde_json::from_value(meta.clone()).unwrap(), f),
                expected,
                "{meta}"
            );
        }
    }

    #[test]
    fn pods_on_nodes_use_their_claims() {
        let claim = |owner: &str| -> PersistentVolumeClaim {
            let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true}]);
            serde_json::from_value(json!({"metadata": {"name": "p-data", "namespace": "a", "ownerReferences": owners}}))
                .unwrap()
        };
        let pod = |node: &str, volume: Value, more: Value| -> Pod {
            let mut meta = json!({"name": "p", "namespace": "a", "uid": "u"});
            for (key, value) in more.as_object().unwrap() {
                meta[key] = value.clone();
            }
            let mut volume = volume;
            volume["name"] = json!("data");
            serde_json::from_value(
                json!({"metadata": meta, "spec": {"nodeName": node, "containers": [], "volumes": [volume]}}),
            )
            .unwrap()
        };
        let named = json!({"persistentVolumeClaim": {"claimName": "p-data"}});
        let ephemeral = json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        let shut = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        for (pod, claim, expected) in [
            (pod("n", named.clone(), json!({})), claim("x"), true),
            (pod("", named.clone(), json!({})), claim("x"), false),
            (
                pod("n", json!({"persistentVolumeClaim": {"claimName": "other"}}), json!({})),
                claim("x"),
                false,
            ),
            (pod("n", named, shut.clone()), claim("x"), true),
            (pod("n", ephemeral.clone(), json!({})), claim("u"), true),
            (pod("n", ephemeral.clone(), json!({})), claim("x"), false),
            (pod("n", ephemeral, shut), claim("u"), false),
        ] {
            assert_eq!(pod_uses(&pod, &claim), expected, "{pod:?}");
        }
    }

    #[test]
    fn a_claim_has_up_to_three_classes() {
        let claim = serde_json::from_value(json!({
            "spec": {"volumeAttributesClassName": "b"},
            "status": {"currentVolumeAttributesClassName": "a",
                "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "b"}},
        }))
        .unwrap();
        assert_eq!(classes_of_claim(&claim), ["a", "b"]);
    }
}
