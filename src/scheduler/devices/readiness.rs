//! Whether the devices of a claim are ready, where drivers say so by conditions before a pod is bound
//! (upstream: `isClaimReadyForBinding`, `isClaimTimeout` of `dynamicresources`). Pure.

use super::taken::results;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// Whether any of its devices has to be waited for.
pub fn has_conditions(claim: &ResourceClaim) -> bool {
    let conditions = results(claim).filter_map(|result| result.binding_conditions.as_ref());
    conditions.into_iter().any(|conditions| !conditions.is_empty())
}

/// Err: a device will not become ready, in words.
pub fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(status) = claim.status.as_ref().filter(|status| status.allocation.is_some()) else {
        return Ok(false);
    };
    for result in results(claim) {
        let needed = result.binding_conditions.as_deref().unwrap_or_default();
        if needed.is_empty() {
            continue;
        }
        let mut said = status.devices.iter().flatten();
        let device = said.find(|device| {
            device.device == result.device && device.driver == result.driver && device.pool == result.pool
        });
        let Some(device) = device else { return Ok(false) };
        let find = |name: &String| {
            let mut conditions = device.conditions.iter().flatten();
            conditions.find(|condition: &&Condition| condition.type_ == *name && condition.status == "True")
        };
        let failures = result.binding_failure_conditions.as_deref().unwrap_or_default();
        if let Some(failed) = failures.iter().find_map(find) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "claim {name} binding failed: reason={}, message={:?}",
                failed.reason, failed.message
            ));
        }
        if !needed.iter().all(|name| find(name).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether nobody waits for the devices any more.
pub fn is_given_up(claim: &ResourceClaim, patience: Duration, now: Timestamp) -> bool {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let since = allocation.and_then(|allocation| allocation.allocation_timestamp.as_ref());
    has_conditions(claim) && since.is_some_and(|since| since.0 + patience < now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(conditions: Value) -> ResourceClaim {
        serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}, "status": {
            "allocation": {"allocationTimestamp": "2024-01-01T00:00:00Z", "devices": {"results": [
                {"request": "r", "driver": "d", "pool": "p", "device": "x"},
                {"request": "r", "driver": "d", "pool": "p", "device": "y", "bindingConditions": ["Attached", "Warm"],
                 "bindingFailureConditions": ["Broken"]}]}},
            "devices": conditions}}))
        .unwrap()
    }

    #[test]
    fn situations() {
        let device = |conditions: &[(&str, &str)]| {
            let conditions: Vec<Value> = conditions
                .iter()
                .map(|(name, status)| {
                    json!({"type": name, "status": status, "reason": "Why", "message": "so",
                        "lastTransitionTime": "2024-01-01T00:00:00Z"})
                })
                .collect();
            json!([{"driver": "d", "pool": "p", "device": "y", "conditions": conditions}])
        };
        let failed = "claim c binding failed: reason=Why, message=\"so\"".to_owned();
        for (devices, expected) in [
            (json!([]), Ok(false)),
            (device(&[("Attached", "True")]), Ok(false)),
            (device(&[("Attached", "True"), ("Warm", "False")]), Ok(false)),
            (device(&[("Attached", "True"), ("Warm", "True")]), Ok(true)),
            (
                device(&[("Attached", "True"), ("Warm", "True"), ("Broken", "True")]),
                Err(failed),
            ),
        ] {
            assert_eq!(is_ready(&claim(devices.clone())), expected, "{devices}");
        }
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (one, patience) = (claim(json!([])), Duration::from_secs(600));
        assert!(!is_given_up(&one, patience, at("2024-01-01T00:09:59Z")));
        assert!(is_given_up(&one, patience, at("2024-01-01T00:10:01Z")));
        assert!(has_conditions(&one));
    }
}
