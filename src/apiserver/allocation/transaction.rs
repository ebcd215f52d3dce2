//! What one request took and will release (upstream: `transaction.go`).
//!
//! Whoever holds it says how the write went: `commit` releases what the Service no longer has, `settle` gives back
//! what a failed write took. If neither is said, because the request was dropped, it settles by itself.

use super::cluster_ips::{Owner, Refusal as IpRefusal};
use super::node_ports::{NodePorts, Refusal as PortRefusal};
use super::{Allocators, SERVICES};
use crate::apiserver::error::ApiError;
use crate::registry::json::{number, text};
use crate::registry::network::Family;
use crate::registry::strategies::service::{node_ports, spec_texts};
use crate::registry::strategy::Object;
use crate::storage::{Draft, Index, Key, Operation, Storage};
use std::net::IpAddr;
use std::sync::Arc;

/// The stored objects of a resource.
pub fn stored(storage: &Storage, resource: &str) -> impl Iterator<Item = Object> + use<> {
    let entries = storage
        .list(resource, None, None)
        .map(|list| list.entries)
        .unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| serde_json::from_slice(&entry.bytes).ok())
}

/// Node ports and health check port of a Service.
pub fn all_ports(service: &Object) -> Vec<i64> {
    let mut ports = node_ports(service);
    ports.push(number(service, &["spec", "healthCheckNodePort"]));
    ports.retain(|port| *port != 0);
    ports
}

pub struct Transaction {
    allocators: Arc<Allocators>,
    dry_run: bool,
    taken: Taken,
    released_ips: Vec<String>,
    released_ports: Vec<i64>,
}

/// What is to be given back unless the Service has it in the end.
#[derive(Clone, Default)]
struct Taken {
    owner: Owner,
    ips: Vec<String>,
    ports: Vec<i64>,
}

impl Transaction {
    pub(super) fn new(allocators: &Arc<Allocators>, dry_run: bool) -> Self {
        Self {
            allocators: allocators.clone(),
            dry_run,
            taken: Taken::default(),
            released_ips: Vec::new(),
            released_ports: Vec::new(),
        }
    }

    pub(super) fn owner(&mut self, service: &Object) {
        self.taken.owner = Owner::of(service);
    }

    pub(super) async fn take_ip(&mut self, ip: &str) -> Result<Result<(), IpRefusal>, ApiError> {
        let Ok(address) = ip.parse::<IpAddr>() else {
            return Ok(Err(IpRefusal::OutOfRange));
        };
        if self.dry_run {
            let usable = self.allocators.is_usable(address);
            return Ok(if usable { Ok(()) } else { Err(IpRefusal::OutOfRange) });
        }
        // Noted before it is tried: if the request is dropped meanwhile, it may have been taken.
        self.taken.ips.push(address.to_string());
        let result = self.allocators.take(address, &self.taken.owner).await;
        if !matches!(result, Ok(Ok(()))) {
            self.taken.ips.pop();
        }
        result
    }

    pub(super) async fn take_any_ip(&mut self, family: Family) -> Result<Result<String, IpRefusal>, ApiError> {
        if self.dry_run {
            // No address is looked for; upstream shows the range's own.
            let ranges = self.allocators.current_ranges();
            let range = ranges.iter().find(|range| range.family() == family);
            let base = range.map(|range| crate::registry::network::address(family, range.base()).to_string());
            return Ok(base.ok_or(IpRefusal::Full));
        }
        let taken = self.allocators.take_any(family, &self.taken.owner).await?;
        Ok(taken.map(|ip| {
            self.taken.ips.push(ip.to_string());
            ip.to_string()
        }))
    }

    pub(super) fn take_port(&mut self, ports: &NodePorts, port: i64) -> Result<(), PortRefusal> {
        if self.dry_run {
            ports.would_take(port)?;
            if self.taken.ports.contains(&port) {
                return Err(PortRefusal::Allocated);
            }
        } else {
            ports.take(port)?;
        }
        self.taken.ports.push(port);
        Ok(())
    }

    pub(super) fn take_any_port(&mut self, ports: &NodePorts) -> Result<i64, PortRefusal> {
        let port = if self.dry_run {
            NodePorts::guess(&self.taken.ports)
        } else {
            ports.take_any()?
        };
        self.taken.ports.push(port);
        Ok(port)
    }

    /// To be released when the Service is written.
    pub(super) fn release_ips<'a>(&mut self, ips: impl IntoIterator<Item = &'a str>) {
        self.released_ips.extend(ips.into_iter().map(str::to_owned));
    }

    pub(super) fn release_ports(&mut self, ports: impl IntoIterator<Item = i64>) {
        self.released_ports.extend(ports.into_iter().filter(|port| *port != 0));
    }

    /// The Service was written: it keeps what was taken, and what it no longer has is free.
    pub async fn commit(mut self) {
        let taken = std::mem::take(&mut self.taken);
        if self.dry_run {
            return;
        }
        self.allocators
            .node_ports
            .free(std::mem::take(&mut self.released_ports));
        for ip in std::mem::take(&mut self.released_ips) {
            self.allocators.release(&ip, &taken.owner).await;
        }
    }

    /// A generated name was taken, and the Service is tried under another.
    pub async fn rename(&mut self, name: &str) {
        if self.taken.owner.name != name && !self.dry_run {
            name.clone_into(&mut self.taken.owner.name);
            for ip in &self.taken.ips {
                self.allocators.rename(ip, &self.taken.owner).await;
            }
        }
    }

    /// The Service was not written, or nobody knows: what it does not have is given back.
    pub async fn settle(mut self) {
        let taken = std::mem::take(&mut self.taken);
        if !self.dry_run {
            settle(&self.allocators, taken).await;
        }
    }

    pub(super) async fn settle_on_error(&mut self, done: Result<(), ApiError>) -> Result<(), ApiError> {
        if done.is_err() {
            let taken = std::mem::take(&mut self.taken);
            if !self.dry_run {
                settle(&self.allocators, taken).await;
            }
        }
        done
    }
}

async fn settle(allocators: &Arc<Allocators>, taken: Taken) {
    if taken.ips.is_empty() && taken.ports.is_empty() {
        return;
    }
    let Owner { namespace, name } = &taken.owner;
    // The write may still wait for its turn. What is refused here stands behind it, so when this is answered, that is
    // decided.
    let barrier = Operation::Delete {
        key: Key::new(SERVICES, namespace, ""),
        expected: u64::MAX,
        draft: Draft::new(&Object::new(), Index::default()),
    };
    let _refused = allocators.storage.write(barrier).await;
    let entry = allocators.storage.get(SERVICES, namespace, name);
    let service: Object = entry
        .and_then(|entry| serde_json::from_slice(&entry.bytes).ok())
        .unwrap_or_default();
    let (ips, ports) = (spec_texts(&service, "clusterIPs"), all_ports(&service));
    for ip in taken.ips.iter().filter(|ip| !ips.contains(&ip.as_str())) {
        allocators.release(ip, &taken.owner).await;
    }
    let unused = taken.ports.iter().copied().filter(|port| !ports.contains(port));
    allocators.node_ports.free(unused);
    tracing::debug!(
        namespace,
        name,
        uid = text(&service, &["metadata", "uid"]),
        "gave back what a Service did not get"
    );
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        if self.dry_run || (taken.ips.is_empty() && taken.ports.is_empty()) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let allocators = self.allocators.clone();
            runtime.spawn(async move { settle(&allocators, taken).await });
        }
    }
}
