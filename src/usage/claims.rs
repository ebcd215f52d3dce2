//! What claims use: for storage, per class, and for devices (upstream: `persistent_volume_claims.go` and
//! `resource_claims.go` in `pkg/quota/v1/evaluator/core`).

use super::pods::{self, DEVICE_CLASS, REQUESTS};
use super::{Amounts, Measured, count_name, fits};
use crate::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ScopedResourceSelectorRequirement};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICES_OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// Marks the claims that are made for pods that ask for devices by the names of extended resources.
pub const EXTENDED_CLAIM: &str = "resource.kubernetes.io/extended-resource-claim";
/// As many devices as one claim may be given: what "all" is charged with.
const DEVICES_MAX: i64 = 32;

pub(super) fn tracks_storage(resource: &str) -> bool {
    let of_class = |resource: &str| [CLAIMS, STORAGE].contains(&resource);
    of_class(resource)
        || resource
            .rfind(OF_CLASS)
            .is_some_and(|at| of_class(&resource[at + OF_CLASS.len()..]))
}

/// Whether the claim was made for a pod that asks for extended resources.
pub fn is_extended_claim(claim: &ResourceClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.get(EXTENDED_CLAIM).is_some_and(|value| value == "true"))
}

pub(super) fn tracks_devices(resource: &str) -> bool {
    resource.ends_with(DEVICES_OF_CLASS) || pods::tracks_class(resource)
}

impl Measured for PersistentVolumeClaim {
    fn usage(&self, _now: jiff::Timestamp) -> Amounts {
        let mut usage = Amounts::default();
        usage.count(CLAIMS, 1);
        usage.count(&count_name("", CLAIMS), 1);
        let class = class(self);
        if !class.is_empty() {
            usage.count(&format!("{class}{OF_CLASS}{CLAIMS}"), 1);
        }
        if let Some(size) = size(self) {
            usage.set(STORAGE, size);
            if !class.is_empty() {
                usage.set(&format!("{class}{OF_CLASS}{STORAGE}"), size);
            }
        }
        usage
    }

    fn is_in(&self, scope: &ScopedResourceSelectorRequirement) -> bool {
        scope.scope_name == "VolumeAttributesClass" && fits(scope, &attributes_classes(self))
    }

    fn scope_facts(&self) -> Vec<String> {
        attributes_classes(self).into_iter().map(str::to_owned).collect()
    }
}

/// The class, by its old annotation if there is one.
fn class(claim: &PersistentVolumeClaim) -> &str {
    let annotations = claim.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"));
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated.or(named).map_or("", String::as_str)
}

/// What is asked for, or what is being given if that is more. In whole bytes.
fn size(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let storage = |list: Option<&BTreeMap<String, ApiQuantity>>| -> Option<Quantity> {
        let size: Quantity = list?.get("storage")?.0.parse().ok()?;
        Some(if size.is_integer() {
            size
        } else {
            Quantity::from_units(size.value(), size.format())
        })
    };
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let asked = storage(resources.and_then(|resources| resources.requests.as_ref()))?;
    let status = claim.status.as_ref();
    let given = storage(status.and_then(|status| status.allocated_resources.as_ref()));
    Some(given.map_or(asked, |given| asked.max(given)))
}

/// The classes that the claim has, wants, or is on its way to, each once.
fn attributes_classes(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let named = [
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status
            .and_then(|status| status.modify_volume_status.as_ref())
            .and_then(|modify| modify.target_volume_attributes_class_name.as_deref()),
    ];
    let mut names: Vec<&str> = named.into_iter().flatten().filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Measured for ResourceClaim {
    /// Of alternatives each class is charged with the most that any of them takes.
    fn usage(&self, _now: jiff::Timestamp) -> Amounts {
        let mut usage = Amounts::default();
        usage.count(&count_name("resource.k8s.io", "resourceclaims"), 1);
        // The pod was charged for it itself.
        let is_extended = is_extended_claim(self);
        let mut add = |class: &str, number: i64| {
            let number = Quantity::from_units(number, Format::DecimalSi);
            let mut more = Amounts::default();
            more.set(&format!("{class}{DEVICES_OF_CLASS}"), number);
            if !is_extended {
                more.set(&format!("{REQUESTS}{DEVICE_CLASS}{class}"), number);
            }
            usage.add(&more);
        };
        let number = |mode: Option<&str>, count: Option<i64>| match mode {
            Some("All") => DEVICES_MAX,
            _ => count.unwrap_or(1),
        };
        let devices = self.spec.as_ref().and_then(|spec| spec.devices.as_ref());
        for request in devices.iter().flat_map(|devices| devices.requests.iter().flatten()) {
            let mut worst: BTreeMap<&str, i64> = BTreeMap::new();
            for one in request.first_available.iter().flatten() {
                let number = number(one.allocation_mode.as_deref(), one.count);
                let most = worst.entry(&one.device_class_name).or_default();
                *most = number.max(*most);
            }
            for (class, number) in worst {
                add(class, number);
            }
            if let Some(one) = &request.exactly {
                add(
                    &one.device_class_name,
                    number(one.allocation_mode.as_deref(), one.count),
                );
            }
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(value: Value) -> PersistentVolumeClaim {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn storage_counts_for_its_class_too() {
        let plain = claim(json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}));
        let now = jiff::Timestamp::UNIX_EPOCH;
        assert_eq!(
            plain.usage(now).to_string(),
            "count/persistentvolumeclaims=1,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        let gold = claim(json!({
            "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}}}));
        assert_eq!(
            gold.usage(now).to_string(),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=2Gi,persistentvolumeclaims=1,requests.storage=2Gi"
        );
        let odd = claim(json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}}));
        assert_eq!(odd.usage(now).get(STORAGE).unwrap().to_string(), "2");
    }

    #[test]
    fn attributes_classes_are_a_scope() {
        let scope = |operator: &str, values: &[&str]| ScopedResourceSelectorRequirement {
            scope_name: "VolumeAttributesClass".into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let changing = claim(json!({"spec": {"volumeAttributesClassName": "fast"},
            "status": {"currentVolumeAttributesClassName": "slow"}}));
        assert!(changing.is_in(&scope("In", &["fast"])) && changing.is_in(&scope("In", &["slow"])));
        assert!(changing.is_in(&scope("Exists", &[])) && !changing.is_in(&scope("DoesNotExist", &[])));
        assert!(claim(json!({})).is_in(&scope("DoesNotExist", &[])));
    }

    #[test]
    fn devices_by_class() {
        let mut claim: ResourceClaim = serde_json::from_value(json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}},
            {"name": "b", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}},
            {"name": "c", "firstAvailable": [
                {"name": "x", "deviceClassName": "nic", "count": 3}, {"name": "y", "deviceClassName": "nic"}]},
        ]}}}))
        .unwrap();
        assert_eq!(
            claim.usage(jiff::Timestamp::UNIX_EPOCH).to_string(),
            "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=34,\
             nic.deviceclass.resource.k8s.io/devices=3,requests.deviceclass.resource.kubernetes.io/gpu=34,\
             requests.deviceclass.resource.kubernetes.io/nic=3"
        );
        claim.metadata.annotations = Some([(EXTENDED_CLAIM.to_owned(), "true".to_owned())].into());
        assert_eq!(
            claim.usage(jiff::Timestamp::UNIX_EPOCH).to_string(),
            "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=34,\
             nic.deviceclass.resource.k8s.io/devices=3"
        );
    }
}
