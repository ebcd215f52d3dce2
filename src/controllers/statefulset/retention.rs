//! Who owns a claim, so that it goes when its set or its pod goes
//! (upstream: `isClaimOwnerUpToDate` and its neighbours in `stateful_set_utils.go`).

use super::identity;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

const DELETE: &str = "Delete";

/// Whether claims go with the set, and with a pod that is scaled away.
struct Policy {
    when_deleted: bool,
    when_scaled: bool,
}

impl Policy {
    fn of(set: &StatefulSet) -> Self {
        let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
        let is_delete = |policy: Option<&String>| policy.is_some_and(|policy| policy == DELETE);
        Self {
            when_deleted: is_delete(policy.and_then(|policy| policy.when_deleted.as_ref())),
            when_scaled: is_delete(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }
}

fn owners(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or_default()
}

/// It names an object of that kind and name, be it this one or one before it.
fn names<K: Resource<DynamicType = ()>>(owner: &OwnerReference, object: &K) -> bool {
    owner.api_version == K::api_version(&()) && owner.kind == K::kind(&()) && owner.name == object.name_any()
}

fn is<K: Resource>(owner: &OwnerReference, object: &K) -> bool {
    Some(&owner.uid) == object.meta().uid.as_ref()
}

fn is_owned_by<K: Resource>(claim: &PersistentVolumeClaim, object: &K) -> bool {
    owners(claim).iter().any(|owner| is(owner, object))
}

/// Owned by one of the object's name that is gone.
fn is_left_behind<K: Resource<DynamicType = ()>>(claim: &PersistentVolumeClaim, object: &K) -> bool {
    let named = owners(claim).iter().find(|owner| names(owner, object));
    named.is_some_and(|owner| !is(owner, object))
}

/// Somebody else controls a claim that the policy is about.
fn is_controlled_by_another(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    let policy = Policy::of(set);
    (policy.when_deleted || policy.when_scaled)
        && owners(claim).iter().any(|owner| {
            if names(owner, set) {
                !is(owner, set)
            } else if names(owner, pod) {
                !is(owner, pod)
            } else {
                owner.controller == Some(true)
            }
        })
}

/// Whether the set and the pod should own the claim.
fn should_own(set: &StatefulSet, pod: &Pod) -> (bool, bool) {
    let policy = Policy::of(set);
    let is_scaled_away = identity::ordinal(pod).is_some_and(|ordinal| !identity::ordinals(set).contains(&ordinal));
    let by_pod = policy.when_scaled && is_scaled_away;
    (policy.when_deleted && !by_pod, by_pod)
}

/// The claim's owners are as the policy wants them, or are none of the set's business.
pub fn is_up_to_date(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    if is_left_behind(claim, set) || is_left_behind(claim, pod) {
        return true;
    }
    let owned = (is_owned_by(claim, set), is_owned_by(claim, pod));
    if is_controlled_by_another(claim, set, pod) {
        return owned == (false, false);
    }
    let ours = owners(claim).iter().filter(|owner| is(owner, set) || is(owner, pod));
    ours.into_iter().all(|owner| owner.controller == Some(true)) && owned == should_own(set, pod)
}

/// The claim's owners as the policy wants them.
pub fn owners_wanted(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> Vec<OwnerReference> {
    let others = owners(claim)
        .iter()
        .filter(|owner| !names(owner, set) && !names(owner, pod));
    let mut wanted: Vec<OwnerReference> = others.cloned().collect();
    if is_controlled_by_another(claim, set, pod) {
        return wanted;
    }
    let (by_set, by_pod) = should_own(set, pod);
    if by_set {
        wanted.extend(controller(set));
    }
    if by_pod {
        wanted.extend(controller(pod));
    }
    wanted
}

fn controller<K: Resource<DynamicType = ()>>(object: &K) -> Option<OwnerReference> {
    Some(OwnerReference {
        block_owner_deletion: Some(true),
        ..object.controller_owner_ref(&())?
    })
}

/// A pod of this name that is gone still owns the claim, which will go after it: the pod must wait for that.
pub fn blocks_creation(claim: &PersistentVolumeClaim, set: &StatefulSet, pod_name: &str) -> bool {
    Policy::of(set).when_scaled
        && owners(claim)
            .iter()
            .any(|owner| owner.api_version == "v1" && owner.kind == "Pod" && owner.name == pod_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(when_deleted: &str, when_scaled: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "set"},
            "spec": {
                "replicas": 2, "selector": {}, "template": {},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": when_scaled},
            },
        }))
        .unwrap()
    }

    fn pod(ordinal: i32) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": format!("web-{ordinal}"), "uid": "pod"}})).unwrap()
    }

    fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        let api_version = if kind == "Pod" { "v1" } else { "apps/v1" };
        json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": controller,
            "blockOwnerDeletion": true})
    }

    fn claim(owners: &[Value]) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data-web-0", "ownerReferences": owners}})).unwrap()
    }

    /// Uids after the correction, or none if there is nothing to correct.
    fn corrected(owners: &[Value], set: &StatefulSet, ordinal: i32) -> Option<Vec<String>> {
        let mut claim = claim(owners);
        let pod = pod(ordinal);
        if is_up_to_date(&claim, set, &pod) {
            return None;
        }
        let wanted = owners_wanted(&claim, set, &pod);
        let uids = wanted.iter().map(|owner| owner.uid.clone()).collect();
        claim.metadata.owner_references = Some(wanted);
        assert!(is_up_to_date(&claim, set, &pod), "a correction is made once: {claim:?}");
        Some(uids)
    }

    #[test]
    fn owners_follow_the_policy() {
        let (by_set, by_pod) = (
            owner("StatefulSet", "web", "set", true),
            owner("Pod", "web-5", "pod", true),
        );
        for (when_deleted, when_scaled, living, scaled) in [
            ("Retain", "Retain", vec![], vec![]),
            ("Delete", "Retain", vec!["set"], vec!["set"]),
            ("Retain", "Delete", vec![], vec!["pod"]),
            ("Delete", "Delete", vec!["set"], vec!["pod"]),
        ] {
            let set = set(when_deleted, when_scaled);
            for (ordinal, wanted) in [(0, living), (5, scaled)] {
                for owners in [
                    vec![],
                    vec![by_set.clone()],
                    vec![by_pod.clone()],
                    vec![by_set.clone(), by_pod.clone()],
                ] {
                    let of_this_pod: Vec<Value> = owners
                        .into_iter()
                        .map(|mut owner| {
                            if owner["kind"] == "Pod" {
                                owner["name"] = json!(format!("web-{ordinal}"));
                            }
                            owner
                        })
                        .collect();
                    let uids: Vec<&str> = of_this_pod.iter().filter_map(|owner| owner["uid"].as_str()).collect();
                    let expected = (uids != wanted).then(|| wanted.iter().map(|uid| (*uid).to_owned()).collect());
                    assert_eq!(
                        corrected(&of_this_pod, &set, ordinal),
                        expected,
                        "{when_deleted} {when_scaled} {ordinal} {uids:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_others_own_is_left_to_them() {
        let set = set("Delete", "Delete");
        let another = owner("Cache", "c", "other", true);
        assert_eq!(corrected(std::slice::from_ref(&another), &set, 0), None);
        let ours = owner("StatefulSet", "web", "set", true);
        let both = [another, ours];
        assert_eq!(corrected(&both, &set, 0), Some(vec!["other".to_owned()]));
        let left_behind = owner("StatefulSet", "web", "an earlier one", true);
        assert_eq!(corrected(&[left_behind], &set, 0), None);
        let not_controlling = owner("StatefulSet", "web", "set", false);
        assert_eq!(corrected(&[not_controlling], &set, 0), Some(vec!["set".to_owned()]));
    }

    #[test]
    fn a_claim_that_goes_with_an_earlier_pod_blocks() {
        let of_earlier = claim(&[owner("Pod", "web-0", "earlier", true)]);
        assert!(blocks_creation(&of_earlier, &set("Retain", "Delete"), "web-0"));
        assert!(!blocks_creation(&of_earlier, &set("Retain", "Delete"), "web-1"));
        assert!(!blocks_creation(&of_earlier, &set("Delete", "Retain"), "web-0"));
    }
}
