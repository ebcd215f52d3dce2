//! When pods have to leave because of the NoExecute taints of their devices. Pure.

use crate::client::placement::tolerates_device;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, DeviceTaintRuleSpec, DeviceToleration, ResourceClaim,
};

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

pub fn is_reserved_for(claim: &ResourceClaim, pod: &Pod) -> bool {
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

/// When whoever uses the device has to leave; None: it may stay.
pub fn leaves_at(taints: &[DeviceTaint], tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let driving = taints.iter().filter(|taint| taint.effect == "NoExecute");
    driving.filter_map(|taint| leaves_for(taint, tolerations)).min()
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
            let parsed: Vec<DeviceTaint> = serde_json::from_value(taints.clone()).unwrap();
            let borne: Vec<DeviceToleration> = serde_json::from_value(tolerations.clone()).unwrap();
            assert_eq!(leaves_at(&parsed, &borne), expected, "{taints} {tolerations}");
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
