//! When pods have to leave because of the NoExecute taints of their devices. Pure.

use crate::client::placement::tolerates_device;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, DeviceTaintRule, DeviceTaintRuleSpec, DeviceToleration, ResourceClaim,
    ResourceSlice,
};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The devices that a claim has.
pub fn devices(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let status = claim.status.as_ref();
    let allocation = status.and_then(|status| status.allocation.as_ref()?.devices.as_ref());
    allocation
        .into_iter()
        .flat_map(|devices| devices.results.iter().flatten())
}

/// The names of a pod's claims that are there.
pub fn claim_names(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let made = status
        .and_then(|status| status.resource_claim_statuses.as_deref())
        .unwrap_or_default();
    let extended = status.and_then(|status| status.extended_resource_claim_status.as_ref());
    let asked = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let names = asked.filter_map(|claim| {
        let by_template = || {
            made.iter()
                .find(|made| made.name == claim.name)?
                .resource_claim_name
                .clone()
        };
        claim.resource_claim_name.clone().or_else(by_template)
    });
    names
        .chain(extended.map(|extended| extended.resource_claim_name.clone()))
        .collect()
}

fn is_reserved_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    let users = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref());
    let mut users = users.unwrap_or_default().iter();
    users.any(|user| Some(&user.uid) == pod.metadata.uid.as_ref())
}

/// Whether a rule taints a device. One without a selector is for nothing.
pub fn is_for(rule: &DeviceTaintRuleSpec, driver: &str, pool: &str, device: &str) -> bool {
    let meets = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    rule.device_selector.as_ref().is_some_and(|selector| {
        meets(&selector.driver, driver) && meets(&selector.pool, pool) && meets(&selector.device, device)
    })
}

/// What a pod's stay depends on.
pub struct Observed<'a> {
    /// A claim of the pod's namespace.
    pub claim: &'a dyn Fn(&str) -> Option<Arc<ResourceClaim>>,
    /// The slices of a driver's pool.
    pub slices: &'a dyn Fn(&str, &str) -> Vec<Arc<ResourceSlice>>,
    pub rules: &'a [Arc<DeviceTaintRule>],
}

/// The rules that drive a pod away: names by uid.
pub type Rules = BTreeMap<String, String>;

/// When a pod has to leave its devices, and because of which rules; None: it may stay.
pub fn leaves(pod: &Pod, observed: &Observed<'_>) -> Option<(Timestamp, Rules)> {
    let claims = claim_names(pod).into_iter().filter_map(|name| (observed.claim)(&name));
    let (mut first, mut because) = (None, Rules::new());
    for claim in claims.filter(|claim| is_reserved_for(claim, pod)) {
        for one in devices(&claim) {
            let tolerations = one.tolerations.as_deref().unwrap_or_default();
            let mut drives = |taint: &DeviceTaint| {
                let leaves = Some(taint)
                    .filter(|taint| taint.effect == "NoExecute")
                    .and_then(|taint| leaves_for(taint, tolerations));
                first = first.into_iter().chain(leaves).min();
                leaves.is_some()
            };
            for slice in newest(&(observed.slices)(&one.driver, &one.pool)) {
                let device = slice
                    .spec
                    .devices
                    .iter()
                    .flatten()
                    .filter(|each| each.name == one.device);
                device
                    .flat_map(|device| device.taints.iter().flatten())
                    .for_each(|taint| {
                        drives(taint);
                    });
            }
            for rule in observed.rules {
                if is_for(&rule.spec, &one.driver, &one.pool, &one.device) && drives(&rule.spec.taint) {
                    because.insert(rule.uid().unwrap_or_default(), rule.name_any());
                }
            }
        }
    }
    first.map(|at| (at, because))
}

/// The slices of a pool that are of its newest generation.
pub fn newest(slices: &[Arc<ResourceSlice>]) -> impl Iterator<Item = &Arc<ResourceSlice>> {
    let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
    slices
        .iter()
        .filter(move |slice| Some(slice.spec.pool.generation) == newest)
}

fn leaves_for(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let since = taint.time_added.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let bearing = tolerations
        .iter()
        .filter(|toleration| tolerates_device(toleration, taint));
    let bearing: Vec<Option<i64>> = bearing.map(|toleration| toleration.toleration_seconds).collect();
    if bearing.is_empty() {
        return Some(since);
    }
    // Whoever bears it for ever, and never for a time only.
    let seconds = bearing.into_iter().flatten().min()?;
    let end = since.checked_add(SignedDuration::from_secs(seconds.max(0)));
    Some(end.unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parsed<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn situations() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let sick = json!({"key": "sick", "effect": "NoExecute", "timeAdded": "2024-01-01T00:00:00Z"});
        let old = json!({"key": "old", "effect": "NoExecute", "timeAdded": "2024-01-01T00:05:00Z"});
        let soft = json!({"key": "sick", "effect": "NoSchedule", "timeAdded": "2024-01-01T00:00:00Z"});
        let bears = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        for (taints, tolerations, expected) in [
            (json!([]), json!([]), None),
            (json!([soft]), json!([]), None),
            (json!([sick]), json!([]), at("2024-01-01T00:00:00Z")),
            (
                json!([sick]),
                json!([bears("other", json!(null))]),
                at("2024-01-01T00:00:00Z"),
            ),
            (json!([sick]), json!([bears("sick", json!(null))]), None),
            (
                json!([sick]),
                json!([bears("sick", json!(60))]),
                at("2024-01-01T00:01:00Z"),
            ),
            (
                json!([sick]),
                json!([bears("sick", json!(60)), bears("sick", json!(30))]),
                at("2024-01-01T00:00:30Z"),
            ),
            (
                json!([sick, old]),
                json!([bears("sick", json!(600)), bears("old", json!(60))]),
                at("2024-01-01T00:06:00Z"),
            ),
            (
                json!([sick, old]),
                json!([bears("sick", json!(null))]),
                at("2024-01-01T00:05:00Z"),
            ),
        ] {
            let pod = parsed(json!({"metadata": {"uid": "u"},
                "spec": {"containers": [], "resourceClaims": [{"name": "c", "resourceClaimName": "c"}]}}));
            let device = json!({"request": "r", "driver": "d", "pool": "p", "device": "x", "tolerations": tolerations});
            let claim: Arc<ResourceClaim> = Arc::new(parsed(json!({"spec": {}, "status": {
                "allocation": {"devices": {"results": [device]}}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}})));
            let slice = |generation: i64, taints: &Value| -> Arc<ResourceSlice> {
                Arc::new(parsed(
                    json!({"spec": {"driver": "d", "nodeName": "n", "devices": [{"name": "x", "taints": taints}],
                    "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1}}}),
                ))
            };
            let rules: Vec<Arc<DeviceTaintRule>> = taints.as_array().unwrap().iter().enumerate().map(|(number, taint)| {
                let name = format!("r{number}");
                Arc::new(parsed(json!({"metadata": {"name": name, "uid": name}, "spec": {"deviceSelector": {"driver": "d"}, "taint": taint}})))
            }).collect();
            // The same taint drives whether the device has it, or a rule gives it; what an old slice says does not count.
            let old = json!([{"key": "before", "effect": "NoExecute", "timeAdded": "2023-01-01T00:00:00Z"}]);
            for (slices, rules) in [(vec![slice(2, &taints), slice(1, &old)], &[][..]), (vec![], &rules)] {
                let observed = Observed {
                    claim: &|name| (name == "c").then(|| claim.clone()),
                    slices: &|_, _| slices.clone(),
                    rules,
                };
                let (at, because) = leaves(&pod, &observed).unzip();
                assert_eq!(at, expected, "{taints} {tolerations}");
                assert_eq!(
                    because.is_some_and(|rules| !rules.is_empty()),
                    at.is_some() && !rules.is_empty()
                );
            }
        }
    }

    #[test]
    fn what_rules_are_for() {
        for (selector, expected) in [
            (json!(null), false),
            (json!({}), true),
            (json!({"driver": "d"}), true),
            (json!({"driver": "d", "pool": "p", "device": "x"}), true),
            (json!({"driver": "d", "pool": "other"}), false),
            (json!({"device": "y"}), false),
        ] {
            let rule = json!({"deviceSelector": selector, "taint": {"key": "k", "effect": "NoExecute"}});
            let rule: DeviceTaintRuleSpec = serde_json::from_value(rule).unwrap();
            assert_eq!(is_for(&rule, "d", "p", "x"), expected, "{selector}");
        }
    }

    #[test]
    fn claims_of_pods() {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [], "resourceClaims": [
            {"name": "a", "resourceClaimName": "given"}, {"name": "b", "resourceClaimTemplateName": "t"},
            {"name": "c", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "made"}, {"name": "c"}],
                "extendedResourceClaimStatus": {"resourceClaimName": "extended", "requestMappings": []}}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(claim_names(&pod), ["given", "made", "extended"]);
        let claim = |uid: &str| -> ResourceClaim {
            let users = json!([{"resource": "pods", "name": "p", "uid": uid}]);
            serde_json::from_value(json!({"spec": {}, "status": {"reservedFor": users}})).unwrap()
        };
        assert!(is_reserved_for(&claim("u"), &pod) && !is_reserved_for(&claim("v"), &pod));
    }
}
