//! What claims use: for storage, per class, and for devices (upstream: `persistent_volume_claims.go` and
//! `resource_claims.go` in `pkg/quota/v1/evaluator/core`).

use super::pods::{self, DEVICE_CLASS, REQUESTS};
use super::{Amounts, Measured, count_name, fits};
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ScopedResourceSelectorRequirement};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    resource.ends_with(DEVICES_OF_CLASS) || pods::tracks_extended(resource)
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

/// Device classes by name, and the extended resource that each stands for, if it names one.
pub type DeviceClasses = BTreeMap<String, Option<String>>;

/// A claim for devices, with what decides by which names it is charged.
pub struct DeviceClaim {
    claim: Arc<ResourceClaim>,
    classes: Arc<DeviceClasses>,
    /// The pod that it was made for, which is charged for what it asks for by the name of an extended resource.
    pod: Option<Arc<Pod>>,
}

impl DeviceClaim {
    /// `pod` finds a pod of the claim's namespace by name, `others` tells the claims of that namespace. Both are asked
    /// only about claims for extended resources.
    pub fn new(
        claim: Arc<ResourceClaim>,
        classes: Arc<DeviceClasses>,
        pod: impl FnOnce(&str) -> Option<Arc<Pod>>,
        others: impl FnOnce() -> Vec<Arc<ResourceClaim>>,
    ) -> Self {
        let pod = pod_of_extended(&claim).and_then(|(name, uid)| {
            let pod = pod(name).filter(|pod| pod.metadata.uid.as_deref() == Some(uid))?;
            let status = pod.status.as_ref();
            let is_its_claim = match status.and_then(|status| status.extended_resource_claim_status.as_ref()) {
                Some(told) => Some(&told.resource_claim_name) == claim.metadata.name.as_ref(),
                None => is_first(&claim, uid, &others()),
            };
            is_its_claim.then_some(pod)
        });
        Self { claim, classes, pod }
    }
}

/// Name and uid of the pod for whose extended resources a claim was made.
fn pod_of_extended(claim: &ResourceClaim) -> Option<(&str, &str)> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
    let owner = owner.filter(|owner| is_extended_claim(claim) && owner.kind == "Pod" && owner.api_version == "v1");
    owner.map(|owner| (owner.name.as_str(), owner.uid.as_str()))
}

/// Of several claims of one pod only the first is what the pod was charged for.
fn is_first(claim: &ResourceClaim, uid: &str, others: &[Arc<ResourceClaim>]) -> bool {
    let age = |claim: &ResourceClaim| {
        let created = claim.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, claim.metadata.name.clone())
    };
    let own = others
        .iter()
        .filter(|other| pod_of_extended(other).is_some_and(|(_, owner)| owner == uid));
    own.into_iter().all(|other| age(other) >= age(claim))
}

/// The most devices that a claim may be given, by class. Of alternatives the one counts that takes most of a class.
fn devices(claim: &ResourceClaim) -> BTreeMap<&str, i64> {
    let number = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("All") => DEVICES_MAX,
        _ => count.unwrap_or(1),
    };
    let mut by_class: BTreeMap<&str, i64> = BTreeMap::new();
    let devices = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
    for request in devices.iter().flat_map(|devices| devices.requests.iter().flatten()) {
        let mut worst: BTreeMap<&str, i64> = BTreeMap::new();
        for one in request.first_available.iter().flatten() {
            let number = number(one.allocation_mode.as_deref(), one.count);
            let most = worst.entry(&one.device_class_name).or_default();
            *most = number.max(*most);
        }
        if let Some(one) = &request.exactly {
            let number = number(one.allocation_mode.as_deref(), one.count);
            worst.insert(&one.device_class_name, number);
        }
        for (class, number) in worst {
            let sum = by_class.entry(class).or_default();
            *sum = sum.saturating_add(number);
        }
    }
    by_class
}

impl Measured for DeviceClaim {
    /// By class, and as if the devices were asked for by the names of extended resources: the class's own, and the one
    /// that it stands for. The pod has been charged for what it asks for by such names itself.
    fn usage(&self, now: jiff::Timestamp) -> Amounts {
        let mut usage = Amounts::default();
        usage.count(&count_name("resource.k8s.io", "resourceclaims"), 1);
        let mut extended = Amounts::default();
        for (class, number) in devices(&self.claim) {
            usage.count(&format!("{class}{DEVICES_OF_CLASS}"), number);
            if let Some(resource) = self.classes.get(class) {
                let mut names = Amounts::default();
                names.count(&format!("{REQUESTS}{DEVICE_CLASS}{class}"), number);
                if let Some(resource) = resource {
                    names.count(&format!("{REQUESTS}{resource}"), number);
                }
                extended.add(&names);
            }
        }
        let of_pod = self.pod.as_ref().map(|pod| pod.usage(now)).unwrap_or_default();
        let rest = extended.beyond(&of_pod);
        usage.add(&rest.only(|name| rest.get(name).is_some_and(|amount| !amount.is_zero())));
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

    /// The classes `gpu`, which stands for `example.com/gpu`, and `nic`.
    fn classes() -> Arc<DeviceClasses> {
        Arc::new(BTreeMap::from([
            ("gpu".to_owned(), Some("example.com/gpu".to_owned())),
            ("nic".to_owned(), None),
        ]))
    }

    fn devices_of(value: Value) -> Arc<ResourceClaim> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn devices_by_class_and_as_extended_resources() {
        let claim = devices_of(json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}},
            {"name": "b", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}},
            {"name": "c", "firstAvailable": [
                {"name": "x", "deviceClassName": "nic", "count": 3}, {"name": "y", "deviceClassName": "nic"}]},
            {"name": "d", "exactly": {"deviceClassName": "gone"}},
        ]}}}));
        let claim = DeviceClaim::new(claim, classes(), |_| panic!("nobody's"), || panic!("alone"));
        assert_eq!(
            claim.usage(jiff::Timestamp::UNIX_EPOCH).to_string(),
            "count/resourceclaims.resource.k8s.io=1,gone.deviceclass.resource.k8s.io/devices=1,\
             gpu.deviceclass.resource.k8s.io/devices=34,nic.deviceclass.resource.k8s.io/devices=3,\
             requests.deviceclass.resource.kubernetes.io/gpu=34,requests.deviceclass.resource.kubernetes.io/nic=3,\
             requests.example.com/gpu=34"
        );
    }

    #[test]
    fn a_pod_is_charged_itself_for_what_it_asks_for_by_name() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        let of = |name: &str, created: &str| {
            json!({
                "metadata": {"name": name, "creationTimestamp": created, "ownerReferences": [owner],
                    "annotations": {EXTENDED_CLAIM: "true"}},
                "spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}}]}}})
        };
        let claim = of("m", "2026-01-01T00:00:01Z");
        let but = |path: &str, value: Value| {
            let mut claim = claim.clone();
            *claim.pointer_mut(path).unwrap() = value;
            claim
        };
        let pod = |resource: &str, number: &str, status: Value| {
            json!({"metadata": {"name": "p", "uid": "u"}, "status": status, "spec": {"containers": [
                {"name": "c", "resources": {"requests": {resource: number}}}]}})
        };
        let asks = pod("example.com/gpu", "2", json!({}));
        let told = |name: &str| {
            let status = json!({"extendedResourceClaimStatus": {"resourceClaimName": name, "requestMappings": []}});
            pod("example.com/gpu", "2", status)
        };
        let (class, resource) = (
            "requests.deviceclass.resource.kubernetes.io/gpu",
            "requests.example.com/gpu",
        );
        let (implied, both) = (format!(",{class}=2"), format!(",{class}=2,{resource}=2"));
        for (what, claim, pod, others, expected) in [
            ("by its resource", claim.clone(), asks.clone(), vec![], implied.clone()),
            (
                "by its class",
                claim.clone(),
                pod("deviceclass.resource.kubernetes.io/gpu", "2", json!({})),
                vec![],
                format!(",{resource}=2"),
            ),
            (
                "for less",
                claim.clone(),
                pod("example.com/gpu", "1", json!({})),
                vec![],
                format!(",{class}=2,{resource}=1"),
            ),
            (
                "ended",
                claim.clone(),
                pod("example.com/gpu", "2", json!({"phase": "Failed"})),
                vec![],
                both.clone(),
            ),
            ("its claim", claim.clone(), told("m"), vec![], implied.clone()),
            ("another is its claim", claim.clone(), told("n"), vec![], both.clone()),
            (
                "of another pod",
                but("/metadata/ownerReferences/0/uid", json!("v")),
                asks.clone(),
                vec![],
                both.clone(),
            ),
            (
                "of no pod",
                but("/metadata/ownerReferences/0/kind", json!("Job")),
                asks.clone(),
                vec![],
                both.clone(),
            ),
            (
                "not for extended resources",
                but("/metadata/annotations", json!({})),
                asks.clone(),
                vec![],
                both.clone(),
            ),
            (
                "the first",
                claim.clone(),
                asks.clone(),
                vec![claim.clone(), of("n", "2026-01-01T00:00:01Z")],
                implied,
            ),
            (
                "an older one",
                claim.clone(),
                asks.clone(),
                vec![of("n", "2026-01-01T00:00:00Z")],
                both.clone(),
            ),
            (
                "one before it",
                claim.clone(),
                asks,
                vec![of("l", "2026-01-01T00:00:01Z")],
                both,
            ),
        ] {
            let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
            let claim = DeviceClaim::new(
                devices_of(claim),
                classes(),
                |name| Some(pod).filter(|_| name == "p"),
                || others.into_iter().map(devices_of).collect(),
            );
            assert_eq!(
                claim.usage(jiff::Timestamp::UNIX_EPOCH).to_string(),
                format!("count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=2{expected}"),
                "{what}"
            );
        }
    }
}
