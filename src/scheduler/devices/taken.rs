//! What of devices is allocated already (upstream: `structured/internal/allocatedstate.go`, `dynamicresources/allocateddevices.go`).

use super::DeviceId;
use crate::quantity::Quantity;
use crate::scheduler::objects::Objects;
use k8s_openapi::api::resource::v1::{DeviceRequestAllocationResult, ResourceClaim};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Amounts by the name of a capacity.
pub type Amounts = BTreeMap<String, Quantity>;

#[derive(Debug, Default)]
pub struct Taken {
    /// Devices that somebody has for himself.
    pub whole: HashSet<DeviceId>,
    /// What of devices that several share is consumed.
    pub shares: HashMap<DeviceId, Amounts>,
}

impl Taken {
    /// By all claims, as decided; administrators' access takes nothing.
    pub fn of(objects: &Objects) -> Self {
        let mut taken = Self::default();
        let assumed = &objects.assumed.allocations;
        let is_assumed = |claim: &ResourceClaim| {
            let uid = claim.metadata.uid.as_deref().unwrap_or_default();
            assumed.contains_key(uid)
        };
        let stored = objects.resource_claims.all().filter(|claim| !is_assumed(claim));
        for claim in stored.chain(assumed.values().map(|assumed| &assumed.claim)) {
            taken.add(claim);
        }
        taken
    }

    fn add(&mut self, claim: &ResourceClaim) {
        for result in results(claim).filter(|result| result.admin_access != Some(true)) {
            let id = (result.driver.clone(), result.pool.clone(), result.device.clone());
            if result.share_id.is_none() {
                self.whole.insert(id);
                continue;
            }
            let share = self.shares.entry(id).or_default();
            for (name, amount) in result.consumed_capacity.iter().flatten() {
                add(share, name, amount.0.parse().unwrap_or(Quantity::ZERO));
            }
        }
    }

    /// Whether somebody has it, or a share of it.
    pub fn is_used(&self, id: &DeviceId) -> bool {
        self.whole.contains(id) || self.shares.contains_key(id)
    }
}

pub fn results(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let status = claim.status.as_ref();
    let allocation = status.and_then(|status| status.allocation.as_ref()?.devices.as_ref());
    allocation
        .into_iter()
        .flat_map(|devices| devices.results.iter().flatten())
}

pub fn add(amounts: &mut Amounts, name: &str, amount: Quantity) {
    match amounts.get_mut(name) {
        Some(sum) => *sum = sum.plus(amount),
        None => {
            amounts.insert(name.to_owned(), amount);
        }
    }
}
