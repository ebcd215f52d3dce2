//! What plug-ins read besides nodes and pods: volumes, claims, classes, budgets, and whom pods belong to
//! (upstream: the scheduler's listers and its assume caches).

use super::devices::{Expressions, extended};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceTaintRule, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Objects of one kind by namespace and name; the empty namespace for those of the cluster.
#[derive(Debug)]
pub struct Table<K> {
    by_namespace: HashMap<String, BTreeMap<String, Arc<K>>>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            by_namespace: HashMap::new(),
        }
    }
}

impl<K> Table<K> {
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.by_namespace.get(namespace)?.get(name)
    }
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.by_namespace.get(namespace).into_iter().flat_map(BTreeMap::values)
    }
    pub fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.by_namespace.values().flat_map(BTreeMap::values)
    }
    /// Puts or removes; returns what was there.
    pub fn set(&mut self, namespace: &str, name: &str, object: Option<Arc<K>>) -> Option<Arc<K>> {
        match object {
            Some(object) => {
                let names = self.by_namespace.entry(namespace.to_owned()).or_default();
                names.insert(name.to_owned(), object)
            }
            None => {
                let names = self.by_namespace.get_mut(namespace)?;
                let old = names.remove(name);
                if names.is_empty() {
                    self.by_namespace.remove(namespace);
                }
                old
            }
        }
    }
}

#[derive(Default)]
pub struct Objects {
    pub claims: Table<PersistentVolumeClaim>,
    pub volumes: Table<PersistentVolume>,
    pub storage_classes: Table<StorageClass>,
    pub csi_nodes: Table<CSINode>,
    pub csi_drivers: Table<CSIDriver>,
    pub capacities: Table<CSIStorageCapacity>,
    pub attachments: Table<VolumeAttachment>,
    pub budgets: Table<PodDisruptionBudget>,
    pub services: Table<Service>,
    pub replication_controllers: Table<ReplicationController>,
    pub replica_sets: Table<ReplicaSet>,
    pub stateful_sets: Table<StatefulSet>,
    pub resource_claims: Table<ResourceClaim>,
    pub resource_slices: Table<ResourceSlice>,
    pub device_classes: Table<DeviceClass>,
    pub device_taint_rules: Table<DeviceTaintRule>,
    /// Evaluates selectors of devices.
    pub expressions: Option<Arc<dyn Expressions>>,
    /// What pods whose binding is under way are about to take.
    pub assumed: Assumed,
}

impl Objects {
    /// A claim was written with its devices. They are its own from now on, whatever becomes of the pod.
    pub fn allocated(&mut self, claim: Arc<ResourceClaim>) {
        let meta = claim.metadata.clone();
        let uid = meta.uid.unwrap_or_default();
        let allocation = Allocation {
            claim,
            is_written: true,
        };
        self.assumed.allocations.insert(uid.clone(), allocation);
        let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
        let shown = self.resource_claims.get(&namespace, &name).cloned();
        self.claim_is_shown(&uid, shown.as_deref());
    }

    /// The cache shows this of a claim, or that it is gone.
    pub fn claim_is_shown(&mut self, uid: &str, shown: Option<&ResourceClaim>) {
        let shown = shown.filter(|shown| shown.metadata.uid.as_deref() == Some(uid));
        let has_devices =
            |claim: &&ResourceClaim| claim.status.as_ref().is_some_and(|status| status.allocation.is_some());
        if let Some(pod) = shown.filter(has_devices).and_then(extended::owner) {
            self.assumed.allocations.remove(&extended::temporary_uid(pod));
        }
        if self.assumed.is_seen(uid, shown) {
            self.assumed.allocations.remove(uid);
        }
    }
}

/// Decisions about volumes and claims that the API does not show yet.
#[derive(Debug, Default)]
pub struct Assumed {
    /// Volumes that are being bound: name of the volume to `namespace/name` of the claim.
    pub volumes: HashMap<String, String>,
    /// Claims for which a node is being chosen, by `namespace/name`.
    pub nodes: HashMap<String, String>,
    /// Resource claims that are being allocated, by uid.
    pub allocations: HashMap<String, Allocation>,
}

/// A claim as it is with its devices.
#[derive(Debug)]
pub struct Allocation {
    pub claim: Arc<ResourceClaim>,
    /// The API has it; only the cache does not show it yet.
    pub is_written: bool,
}

impl Assumed {
    /// Whether the cache shows by now what was written of a claim.
    pub fn is_seen(&self, uid: &str, shown: Option<&ResourceClaim>) -> bool {
        let Some(allocation) = self.allocations.get(uid).filter(|allocation| allocation.is_written) else {
            return false;
        };
        let revision = |claim: &ResourceClaim| claim.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        shown.is_none_or(|shown| revision(shown) >= revision(&allocation.claim))
    }
}
