//! Cluster IPs: an address is taken by creating the IPAddress object that has its name
//! (upstream: `pkg/registry/core/service/ipallocator`).

use super::Allocators;
use super::transaction::stored;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::{metadata, ownership};
use crate::registry::index_of;
use crate::registry::json::{items, objects, text};
use crate::registry::network::{Cidr, Family, address, number};
use crate::registry::strategies::service::{is_headless, needs_cluster_ip, spec_texts};
use crate::registry::strategy::Object;
use crate::storage::{Draft, Entry, Key, Operation, StorageError};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const IP_ADDRESSES: &str = "ipaddresses.networking.k8s.io";
const SERVICE_CIDRS: &str = "servicecidrs.networking.k8s.io";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// How many addresses of a range are looked at before it counts as full; a /64 has too many to try.
const ATTEMPTS_MAX: u128 = 1 << 20;

/// Why an address cannot be had, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    Allocated,
    #[error("the provided network does not match the current range")]
    OutOfRange,
}

/// The Service that an address is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
}

impl Allocators {
    /// The ranges of the ServiceCIDRs that are ready, or the configured ones while there are none.
    pub(super) fn current_ranges(&self) -> Vec<Cidr> {
        let objects: Vec<Object> = stored(&self.storage, SERVICE_CIDRS).collect();
        if objects.is_empty() {
            return self.ranges.clone();
        }
        let ready = objects.iter().filter(|object| is_ready(object));
        let texts = ready.flat_map(|object| items(object, &["spec", "cidrs"]));
        texts.filter_map(Value::as_str).filter_map(Cidr::parse).collect()
    }

    /// Takes the address that is asked for.
    pub(super) async fn take(&self, ip: IpAddr, owner: &Owner) -> Result<Result<(), Refusal>, ApiError> {
        if self.is_usable(ip) {
            self.create(ip, owner).await
        } else {
            Ok(Err(Refusal::OutOfRange))
        }
    }

    /// Whether some range has the address for Services.
    pub(super) fn is_usable(&self, ip: IpAddr) -> bool {
        let family = Family::of(ip);
        self.current_ranges().iter().any(|range| {
            let (first, last) = range.usable();
            range.family() == family && (first..=last).contains(&number(ip))
        })
    }

    /// Takes any address of the family: of the upper part while there is one, since users choose from the lower part.
    pub(super) async fn take_any(&self, family: Family, owner: &Owner) -> Result<Result<IpAddr, Refusal>, ApiError> {
        for range in self.current_ranges().iter().filter(|range| range.family() == family) {
            let (first, last) = range.usable();
            let reserved = first.saturating_add(reserved(range));
            for (low, high) in [(reserved, last), (first, reserved.saturating_sub(1))] {
                if low > high {
                    continue;
                }
                let start = rand::rng().random_range(low..=high);
                for candidate in (start..=high).chain(low..start).take(ATTEMPTS_MAX as usize) {
                    let ip = address(family, candidate);
                    if self.storage.get(IP_ADDRESSES, "", &ip.to_string()).is_none()
                        && self.create(ip, owner).await?.is_ok()
                    {
                        return Ok(Ok(ip));
                    }
                }
            }
        }
        Ok(Err(Refusal::Full))
    }

    async fn create(&self, ip: IpAddr, owner: &Owner) -> Result<Result<(), Refusal>, ApiError> {
        let Some(kind) = self.registry.lookup_storage(IP_ADDRESSES) else {
            return Err(ApiError::internal("the kind IPAddress is not served"));
        };
        let mut object = ip_address(ip, owner);
        ownership::by_server(&kind, None, &mut object);
        let object = metadata::canonical(object);
        let draft = Draft::new(&object, index_of(&kind, &object));
        let key = Key::new(IP_ADDRESSES, "", &ip.to_string());
        match self.storage.write(Operation::Create { key, draft }).await {
            Ok(_) => Ok(Ok(())),
            Err(StorageError::AlreadyExists(_)) => Ok(Err(Refusal::Allocated)),
            Err(error) => Err(ApiError::from_storage(error, &kind)),
        }
    }

    /// Makes the address of a Service that has a new name name it.
    pub(super) async fn rename(&self, ip: &str, owner: &Owner) {
        let Some((entry, mut object)) = self.entry(ip) else {
            return;
        };
        let old = object.clone();
        object.insert("spec".into(), json!({ "parentRef": parent(owner) }));
        if let Some(kind) = self.registry.lookup_storage(IP_ADDRESSES) {
            ownership::by_server(&kind, Some(&old), &mut object);
        }
        let draft = Draft::new(&object, entry.index.clone());
        let (key, expected) = (entry.key.clone(), entry.revision);
        if let Err(error) = self.storage.write(Operation::Update { key, expected, draft }).await {
            tracing::warn!(ip, %error, "an IP address names a Service by a name that it did not get");
        }
    }

    /// Frees an address if it is the owner's.
    pub(super) async fn release(&self, ip: &str, owner: &Owner) {
        let Some((entry, object)) = self.entry(ip) else { return };
        if owner_of(&object).as_ref() != Some(owner) {
            return;
        }
        let draft = Draft::new(&object, entry.index.clone());
        let (key, expected) = (entry.key.clone(), entry.revision);
        if let Err(error) = self.storage.write(Operation::Delete { key, expected, draft }).await {
            tracing::warn!(ip, %error, "an IP address that no Service has could not be freed");
        }
    }

    fn entry(&self, ip: &str) -> Option<(Arc<Entry>, Object)> {
        let entry = self.storage.get(IP_ADDRESSES, "", ip)?;
        let object = serde_json::from_slice(&entry.bytes).ok()?;
        Some((entry, object))
    }

    /// Puts right what a crash between two writes left: addresses that no Service has are freed, and addresses that a
    /// Service has without an object get one.
    pub async fn recover(&self) {
        let mut owned = BTreeMap::new();
        for service in stored(&self.storage, super::SERVICES) {
            if needs_cluster_ip(&service) && !is_headless(&service) {
                let owner = Owner::of(&service);
                for ip in spec_texts(&service, "clusterIPs") {
                    owned.insert(ip.to_owned(), owner.clone());
                }
            }
        }
        for object in stored(&self.storage, IP_ADDRESSES) {
            let name = text(&object, &["metadata", "name"]).to_owned();
            let ours = text(&object, &["metadata", "labels", MANAGED_BY_LABEL]) == MANAGER;
            match (owned.remove(&name), owner_of(&object)) {
                (None, Some(owner)) if ours => self.release(&name, &owner).await,
                _ => {}
            }
        }
        for (ip, owner) in owned {
            if let Ok(ip) = ip.parse()
                && let Err(error) = self.create(ip, &owner).await
            {
                tracing::warn!(%ip, %error, "an IP address of a Service could not be taken");
            }
        }
    }
}

impl Owner {
    pub fn of(service: &Object) -> Self {
        Self {
            namespace: text(service, &["metadata", "namespace"]).to_owned(),
            name: text(service, &["metadata", "name"]).to_owned(),
        }
    }
}

fn is_ready(range: &Object) -> bool {
    let conditions: Vec<&Object> = objects(range, &["status", "conditions"])
        .map(|(_, item)| item)
        .collect();
    let ready = conditions
        .iter()
        .find(|condition| text(condition, &["type"]) == "Ready");
    text(range, &["metadata", "deletionTimestamp"]).is_empty()
        && ready.is_none_or(|condition| text(condition, &["status"]) == "True")
}

fn parent(owner: &Owner) -> Value {
    json!({"resource": "services", "namespace": owner.namespace, "name": owner.name})
}

/// The Service that an IPAddress is for.
fn owner_of(object: &Object) -> Option<Owner> {
    let part = |field: &str| text(object, &["spec", "parentRef", field]);
    (part("group").is_empty() && part("resource") == "services").then(|| Owner {
        namespace: part("namespace").to_owned(),
        name: part("name").to_owned(),
    })
}

fn ip_address(ip: IpAddr, owner: &Owner) -> Object {
    let uid = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "uid": uid.to_string(),
            "creationTimestamp": metadata::timestamp(jiff::Timestamp::now()),
            "labels": {FAMILY_LABEL: Family::of(ip).name(), MANAGED_BY_LABEL: MANAGER},
        },
        "spec": {"parentRef": parent(owner)},
    });
    match object {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// How many of the first addresses are left to those who ask for one.
fn reserved(range: &Cidr) -> u128 {
    let (first, last) = range.usable();
    let size = last.saturating_sub(first).saturating_add(1);
    if size < 16 { 0 } else { (size / 16).clamp(16, 256) }
}
