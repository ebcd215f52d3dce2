//! Which devices claims get on a node (upstream: `dynamic-resource-allocation/structured`). Pure but for the expressions of
//! classes and requests, which the caller evaluates.
//!
//! - [`taken`]: what is allocated already; [`inventory`]: the pools, their shared counters, and what a node can reach.
//! - [`capacity`]: how much of a device a request consumes; [`search`]: devices for all claims of a pod.
//! - [`extended`]: extended resources that devices stand for.
//! - [`result`]: what is written into a claim; [`readiness`]: whether its devices are ready for the pod to be bound.
//!
//! Derived attributes are left out, which upstream has off, too.

mod capacity;
pub mod extended;
mod inventory;
pub mod readiness;
mod result;
mod search;
mod taken;

pub use inventory::Inventory;
pub use search::{Failure, allocate};
pub use taken::{Taken, results};

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, Device, DeviceRequest, DeviceSelector, DeviceSubRequest, DeviceToleration,
    ExactDeviceRequest, ResourceClaim,
};

/// Evaluates selectors of devices, which are CEL expressions.
pub trait Expressions: Send + Sync {
    /// Whether the expression holds for the device; Err in words for people.
    fn holds(&self, expression: &str, driver: &str, device: &Device) -> Result<bool, String>;
}

/// Driver, pool, device.
pub type DeviceId = (String, String, String);

/// One way to meet a request: itself, or one of its alternatives.
pub struct Way<'a> {
    /// With that of the alternative, as results name it.
    pub name: String,
    pub class: &'a str,
    pub selectors: &'a [DeviceSelector],
    pub tolerations: &'a [DeviceToleration],
    pub capacity: Option<&'a CapacityRequirements>,
    pub admin: bool,
    pub all: bool,
    pub count: usize,
    derived: bool,
}

fn exact(request: &DeviceRequest) -> Option<Way<'_>> {
    let exact: &ExactDeviceRequest = request.exactly.as_ref()?;
    Some(Way {
        name: request.name.clone(),
        class: &exact.device_class_name,
        selectors: exact.selectors.as_deref().unwrap_or_default(),
        tolerations: exact.tolerations.as_deref().unwrap_or_default(),
        capacity: exact.capacity.as_ref(),
        admin: exact.admin_access == Some(true),
        all: exact.allocation_mode.as_deref() == Some("All"),
        count: count(exact.count),
        derived: exact.derived_attributes.is_some(),
    })
}

fn alternative<'a>(request: &DeviceRequest, sub: &'a DeviceSubRequest) -> Way<'a> {
    Way {
        name: format!("{}/{}", request.name, sub.name),
        class: &sub.device_class_name,
        selectors: sub.selectors.as_deref().unwrap_or_default(),
        tolerations: sub.tolerations.as_deref().unwrap_or_default(),
        capacity: sub.capacity.as_ref(),
        admin: false,
        all: sub.allocation_mode.as_deref() == Some("All"),
        count: count(sub.count),
        derived: sub.derived_attributes.is_some(),
    }
}

fn count(count: Option<i64>) -> usize {
    usize::try_from(count.unwrap_or(1)).unwrap_or_default()
}

/// For each request of a claim the ways to meet it, the most wanted first.
pub fn requests(claim: &ResourceClaim) -> Vec<Vec<Way<'_>>> {
    let devices = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
    let requests = devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    let ways = requests.map(|request| {
        let subs = request.first_available.iter().flatten();
        let subs = subs.map(|sub| alternative(request, sub));
        exact(request).into_iter().chain(subs).collect()
    });
    ways.collect()
}

/// What the claim asks for that is not done here.
pub fn unsupported(claim: &ResourceClaim) -> Option<&'static str> {
    let derived = requests(claim).iter().flatten().any(|way| way.derived);
    derived.then_some("derived attributes of devices are not worked out")
}

/// `namespace/name`
pub fn key(claim: &ResourceClaim) -> String {
    let meta = &claim.metadata;
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&meta.namespace), part(&meta.name))
}
