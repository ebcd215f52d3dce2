//! What Services get that must be theirs alone: cluster IPs and node ports (upstream:
//! `pkg/registry/core/service/storage`, its `alloc.go` and `transaction.go`).
//!
//! An address is taken by creating the IPAddress object of its name, which only one request can do; node ports are
//! taken in memory, where they are counted anew from the stored Services at every start. Both are taken before the
//! Service is written, and given back if it is not.

mod cluster_ips;
mod node_ports;
mod transaction;

pub use transaction::Transaction;

use super::context::Context;
use super::error::ApiError;
use crate::registry::field::FieldError;
use crate::registry::json::{at, boolean, child_or_new, children, number, objects, text};
use crate::registry::network::{Cidr, Family};
use crate::registry::strategies::service::{families, needs_cluster_ip, needs_health_check, needs_node_ports};
use crate::registry::strategies::service::{is_headless, node_ports as ports_of, spec_texts};
use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, Registry};
use crate::storage::Storage;
use node_ports::{NodePorts, Refusal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

const SERVICES: &str = "services";
/// The range that Services of a cluster have addresses from, unless it is configured otherwise.
pub const SERVICE_RANGE: &str = "10.43.0.0/16";
/// Upstream's ports of nodes.
pub const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The allocators of one server.
pub struct Allocators {
    storage: Arc<Storage>,
    registry: Arc<Registry>,
    /// The configured ranges, one per family, the default family's first.
    ranges: Vec<Cidr>,
    node_ports: NodePorts,
}

impl Allocators {
    /// Counts the ports of the stored Services.
    pub fn new(
        storage: Arc<Storage>,
        registry: Arc<Registry>,
        ranges: Vec<Cidr>,
        ports: RangeInclusive<u16>,
    ) -> Arc<Self> {
        let node_ports = NodePorts::new(ports);
        for service in transaction::stored(&storage, SERVICES) {
            node_ports.seize(transaction::all_ports(&service));
        }
        Arc::new(Self {
            storage,
            registry,
            ranges,
            node_ports,
        })
    }

    fn families(&self) -> Vec<Family> {
        self.ranges.iter().map(Cidr::family).collect()
    }

    /// The ranges that the ServiceCIDR `kubernetes` is made of.
    pub fn ranges(&self) -> &[Cidr] {
        &self.ranges
    }
}

fn is_service(kind: &Kind) -> bool {
    kind.storage_resource == SERVICES
}

/// Before a new Service is checked and written: gives it what it lacks. Nothing happens to other kinds.
pub async fn begin_create(
    ctx: &Context,
    kind: &Kind,
    object: &mut Object,
    dry_run: bool,
) -> Result<Transaction, ApiError> {
    let allocators = &ctx.server.allocators;
    let mut transaction = Transaction::new(allocators, dry_run);
    if is_service(kind) {
        transaction.owner(object);
        let done = create(allocators, &mut transaction, kind, object).await;
        transaction.settle_on_error(done).await?;
    }
    Ok(transaction)
}

/// The same before a changed Service is checked and written; what it no longer has is released when it is.
pub async fn begin_update(
    ctx: &Context,
    kind: &Kind,
    object: &mut Object,
    old: &Object,
    target: Target,
    dry_run: bool,
) -> Result<Transaction, ApiError> {
    let allocators = &ctx.server.allocators;
    let mut transaction = Transaction::new(allocators, dry_run);
    if is_service(kind) && target == Target::Main {
        transaction.owner(object);
        let done = update(allocators, &mut transaction, kind, object, old).await;
        transaction.settle_on_error(done).await?;
    }
    Ok(transaction)
}

/// After a Service is gone: everything it had is free again.
pub async fn after_delete(ctx: &Context, kind: &Kind, object: &Object) {
    if !is_service(kind) {
        return;
    }
    let allocators = &ctx.server.allocators;
    let mut transaction = Transaction::new(allocators, false);
    transaction.owner(object);
    if needs_cluster_ip(object) && !is_headless(object) {
        transaction.release_ips(spec_texts(object, "clusterIPs"));
    }
    transaction.release_ports(transaction::all_ports(object));
    transaction.commit().await;
}

fn invalid(kind: &Kind, object: &Object, errors: &[FieldError]) -> ApiError {
    ApiError::invalid(kind.group, kind.kind, text(object, &["metadata", "name"]), errors)
}

async fn create(
    allocators: &Allocators,
    transaction: &mut Transaction,
    kind: &Kind,
    object: &mut Object,
) -> Result<(), ApiError> {
    families::init(object, None, &allocators.families()).map_err(|errors| invalid(kind, object, &errors))?;
    take_ips(transaction, kind, object).await?;
    if needs_node_ports(object) {
        take_ports(allocators, transaction, kind, object)?;
    }
    if needs_health_check(object) {
        take_health_check_port(allocators, transaction, object)?;
    }
    Ok(())
}

async fn update(
    allocators: &Allocators,
    transaction: &mut Transaction,
    kind: &Kind,
    object: &mut Object,
    old: &Object,
) -> Result<(), ApiError> {
    let settled = families::is_settled(object, Some(old));
    families::init(object, Some(old), &allocators.families()).map_err(|errors| invalid(kind, object, &errors))?;
    if !settled {
        update_ips(transaction, kind, object, old).await?;
    }
    let (had_ports, has_ports) = (needs_node_ports(old), needs_node_ports(object));
    if had_ports && !has_ports {
        transaction.release_ports(ports_of(old));
    }
    if has_ports {
        update_ports(allocators, transaction, kind, object, old)?;
    }
    match (needs_health_check(old), needs_health_check(object)) {
        (false, true) => take_health_check_port(allocators, transaction, object)?,
        (true, false) => transaction.release_ports([number(old, &["spec", "healthCheckNodePort"])]),
        _ => {}
    }
    Ok(())
}

/// An address of each family, requested or any.
async fn take_ips(transaction: &mut Transaction, kind: &Kind, object: &mut Object) -> Result<(), ApiError> {
    if !needs_cluster_ip(object) || is_headless(object) {
        return Ok(());
    }
    let count = spec_texts(object, "ipFamilies").len();
    for index in 0..count {
        take_ip(transaction, kind, object, index).await?;
    }
    Ok(())
}

/// The address of the family at `index`.
async fn take_ip(
    transaction: &mut Transaction,
    kind: &Kind,
    object: &mut Object,
    index: usize,
) -> Result<(), ApiError> {
    let wanted = spec_texts(object, "clusterIPs").get(index).map(ToString::to_string);
    let ip = match wanted.filter(|ip| !ip.is_empty()) {
        Some(ip) => {
            let taken = transaction.take_ip(&ip).await?;
            if let Err(refusal) = taken {
                let detail = format!("failed to allocate IP {ip}: {refusal}");
                let shown = json!(spec_texts(object, "clusterIPs"));
                return Err(invalid(
                    kind,
                    object,
                    &[FieldError::invalid("spec.clusterIPs", shown, &detail)],
                ));
            }
            ip
        }
        None => {
            let family = spec_texts(object, "ipFamilies")
                .get(index)
                .and_then(|name| Family::from_name(name));
            let taken = transaction.take_any_ip(family.unwrap_or(Family::V4)).await?;
            taken.map_err(|refusal| ApiError::internal(format_args!("failed to allocate a serviceIP: {refusal}")))?
        }
    };
    let spec = child_or_new(object, "spec");
    if index == 0 {
        spec.insert("clusterIP".into(), json!(ip));
    }
    let list = spec.entry("clusterIPs").or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        match list.get_mut(index) {
            Some(slot) => *slot = json!(ip),
            None => list.push(json!(ip)),
        }
    }
    Ok(())
}

async fn update_ips(
    transaction: &mut Transaction,
    kind: &Kind,
    object: &mut Object,
    old: &Object,
) -> Result<(), ApiError> {
    match (needs_cluster_ip(old), needs_cluster_ip(object)) {
        (false, true) => return take_ips(transaction, kind, object).await,
        (false, false) => return Ok(()),
        _ if is_headless(old) => return Ok(()),
        (true, false) => {
            transaction.release_ips(spec_texts(old, "clusterIPs"));
            return Ok(());
        }
        (true, true) => {}
    }
    let (before, now) = (
        spec_texts(old, "ipFamilies").len(),
        spec_texts(object, "ipFamilies").len(),
    );
    if before == 1 && now == 2 {
        take_ip(transaction, kind, object, 1).await?;
    }
    if before == 2 && now == 1 {
        transaction.release_ips(spec_texts(old, "clusterIPs").into_iter().skip(1));
    }
    Ok(())
}

/// Load balancers may do without node ports; what is asked for by number is always given.
fn gives_ports(object: &Object) -> bool {
    match text(object, &["spec", "type"]) {
        "NodePort" => true,
        "LoadBalancer" => boolean(object, &["spec", "allocateLoadBalancerNodePorts"]),
        _ => false,
    }
}

fn port_error(kind: &Kind, object: &Object, index: usize, port: i64, refusal: &Refusal) -> ApiError {
    let path = format!("spec.ports[{index}].nodePort");
    let error = FieldError::invalid(path, port, &refusal.to_string());
    invalid(kind, object, &[error])
}

fn any_port(allocators: &Allocators, transaction: &mut Transaction) -> Result<i64, ApiError> {
    let port = transaction.take_any_port(&allocators.node_ports);
    port.map_err(|refusal| ApiError::internal(format_args!("failed to allocate a nodePort: {refusal}")))
}

/// The node ports of a new Service. Ports of one number but different protocols share a node port.
fn take_ports(
    allocators: &Allocators,
    transaction: &mut Transaction,
    kind: &Kind,
    object: &mut Object,
) -> Result<(), ApiError> {
    let ports: Vec<(i64, i64)> = ports(object);
    let mut given: BTreeMap<i64, i64> = BTreeMap::new();
    let mut result = Vec::with_capacity(ports.len());
    for (index, (port, wanted)) in ports.iter().copied().enumerate() {
        if wanted == 0 && !gives_ports(object) {
            result.push(0);
            continue;
        }
        let mut node_port = wanted;
        match given.get(&port).copied() {
            None => {
                let requested = ports.iter().find(|(other, node)| *other == port && *node != 0);
                node_port = match requested {
                    Some((_, requested)) => transaction
                        .take_port(&allocators.node_ports, *requested)
                        .map(|()| *requested)
                        .map_err(|refusal| port_error(kind, object, index, *requested, &refusal))?,
                    None => any_port(allocators, transaction)?,
                };
                given.insert(port, node_port);
            }
            Some(shared) if wanted == 0 => node_port = shared,
            Some(shared) if wanted != shared => transaction
                .take_port(&allocators.node_ports, wanted)
                .map_err(|refusal| port_error(kind, object, index, wanted, &refusal))?,
            Some(_) => {}
        }
        result.push(node_port);
    }
    set_ports(object, &result);
    Ok(())
}

fn update_ports(
    allocators: &Allocators,
    transaction: &mut Transaction,
    kind: &Kind,
    object: &mut Object,
    old: &Object,
) -> Result<(), ApiError> {
    let mut kept: BTreeSet<i64> = ports_of(old).into_iter().collect();
    let mut pairs = BTreeSet::new();
    let mut result = Vec::new();
    let protocols: Vec<String> = objects(object, &["spec", "ports"])
        .map(|(_, port)| text(port, &["protocol"]).to_owned())
        .collect();
    for (index, ((_, wanted), protocol)) in ports(object).into_iter().zip(protocols).enumerate() {
        let node_port = match wanted {
            0 if !gives_ports(object) => 0,
            0 => any_port(allocators, transaction)?,
            wanted => {
                if kept.insert(wanted) {
                    transaction
                        .take_port(&allocators.node_ports, wanted)
                        .map_err(|refusal| port_error(kind, object, index, wanted, &refusal))?;
                }
                wanted
            }
        };
        if node_port != 0 && !pairs.insert((protocol.clone(), node_port)) {
            return Err(ApiError::unclassified(format!(
                "duplicate nodePort: {{{protocol} {node_port}}}"
            )));
        }
        result.push(node_port);
    }
    transaction.release_ports(ports_of(old).into_iter().filter(|port| !result.contains(port)));
    set_ports(object, &result);
    Ok(())
}

/// Port and node port of each port.
fn ports(object: &Object) -> Vec<(i64, i64)> {
    objects(object, &["spec", "ports"])
        .map(|(_, port)| (number(port, &["port"]), number(port, &["nodePort"])))
        .collect()
}

fn set_ports(object: &mut Object, node_ports: &[i64]) {
    let spec = child_or_new(object, "spec");
    for (port, node_port) in children(spec, "ports").zip(node_ports) {
        if *node_port != 0 {
            port.insert("nodePort".into(), json!(node_port));
        }
    }
}

fn take_health_check_port(
    allocators: &Allocators,
    transaction: &mut Transaction,
    object: &mut Object,
) -> Result<(), ApiError> {
    let wanted = at(object, &["spec", "healthCheckNodePort"])
        .and_then(Value::as_i64)
        .unwrap_or(0);
    if wanted != 0 {
        return transaction
            .take_port(&allocators.node_ports, wanted)
            .map_err(|refusal| {
                ApiError::internal(format_args!(
                    "failed to allocate requested HealthCheck NodePort {wanted}: {refusal}"
                ))
            });
    }
    let port = transaction.take_any_port(&allocators.node_ports).map_err(|refusal| {
        ApiError::internal(format_args!("failed to allocate a HealthCheck NodePort 0: {refusal}"))
    })?;
    child_or_new(object, "spec").insert("healthCheckNodePort".into(), json!(port));
    Ok(())
}
