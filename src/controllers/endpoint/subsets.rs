//! The one form of an Endpoints' subsets: addresses that offer the same ports stand together, everything in order and
//! nothing twice (upstream: `pkg/api/v1/endpoints`), and no more of them than fit. Pure.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};
use std::collections::BTreeMap;

/// No Endpoints gets more addresses.
pub const CAPACITY: usize = 1000;

/// Name, number, protocol, application protocol; None where there are no ports at all.
type PortKey = Option<(String, i32, String, Option<String>)>;
/// Address and the target's uid.
type AddressKey = (String, Option<String>);

/// The addresses of a subset, and whether they are ready: those that are come first.
pub fn addresses_of(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let others = subset.not_ready_addresses.iter().flatten();
    ready.chain(others.map(|address| (address, false)))
}

/// Puts subsets into that form. An address that is once not ready is not ready.
pub fn repack(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<AddressKey, EndpointAddress> = BTreeMap::new();
    let mut at_ports: BTreeMap<PortKey, BTreeMap<AddressKey, bool>> = BTreeMap::new();
    for subset in subsets {
        for (address, ready) in addresses_of(subset) {
            let target = address.target_ref.as_ref();
            let key = (address.ip.clone(), target.and_then(|target| target.uid.clone()));
            addresses.entry(key.clone()).or_insert_with(|| address.clone());
            let ports = subset.ports.as_deref().unwrap_or_default();
            let mut keys: Vec<PortKey> = ports.iter().map(|port| Some(port_key(port))).collect();
            if keys.is_empty() {
                keys.push(None);
            }
            for port in keys {
                let all = at_ports.entry(port).or_default();
                all.entry(key.clone()).and_modify(|was| *was &= ready).or_insert(ready);
            }
        }
    }
    let mut by_addresses: BTreeMap<Vec<(AddressKey, bool)>, Vec<EndpointPort>> = BTreeMap::new();
    for (port, all) in at_ports {
        let ports = by_addresses.entry(all.into_iter().collect()).or_default();
        ports.extend(port.map(from_key));
    }
    let subset = |(all, ports): (Vec<(AddressKey, bool)>, Vec<EndpointPort>)| {
        let of = |wanted: bool| -> Option<Vec<EndpointAddress>> {
            let keys = all.iter().filter(|(_, ready)| *ready == wanted);
            let list: Vec<_> = keys.filter_map(|(key, _)| addresses.get(key).cloned()).collect();
            (!list.is_empty()).then_some(list)
        };
        EndpointSubset {
            addresses: of(true),
            not_ready_addresses: of(false),
            ports: (!ports.is_empty()).then_some(ports),
        }
    };
    by_addresses.into_iter().map(subset).collect()
}

fn port_key(port: &EndpointPort) -> (String, i32, String, Option<String>) {
    (
        port.name.clone().unwrap_or_default(),
        port.port,
        port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port.app_protocol.clone(),
    )
}

fn from_key((name, port, protocol, app_protocol): (String, i32, String, Option<String>)) -> EndpointPort {
    EndpointPort {
        name: (!name.is_empty()).then_some(name),
        port,
        protocol: Some(protocol),
        app_protocol,
    }
}

/// Ready and not ready addresses.
fn count(subsets: &[EndpointSubset]) -> (usize, usize) {
    let length = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let counts = subsets.iter();
    counts.fold((0, 0), |(ready, not_ready), subset| {
        (
            ready + length(&subset.addresses),
            not_ready + length(&subset.not_ready_addresses),
        )
    })
}

pub fn is_over_capacity(subsets: &[EndpointSubset]) -> bool {
    let (ready, not_ready) = count(subsets);
    ready + not_ready > CAPACITY
}

/// Leaves as many as fit, ready ones first, each subset in proportion to its size. True if any had to go.
pub fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    if !is_over_capacity(subsets) {
        return false;
    }
    let (ready, not_ready) = count(subsets);
    let ready_too_many = ready > CAPACITY;
    let (room, total) = if ready_too_many {
        (CAPACITY, ready)
    } else {
        (CAPACITY - ready, not_ready)
    };
    let mut left = room;
    for subset in subsets {
        if ready_too_many {
            subset.not_ready_addresses = None;
        }
        let list = if ready_too_many {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        let Some(addresses) = list else { continue };
        // Rounded up, so that the last subset gets what is left.
        let share = (addresses.len() * room).div_ceil(total);
        addresses.truncate(share.min(left));
        left -= addresses.len();
        if addresses.is_empty() {
            *list = None;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn subsets(value: Value) -> Vec<EndpointSubset> {
        serde_json::from_value(value).unwrap()
    }

    fn port(name: &str, number: i32) -> Value {
        json!({"name": name, "port": number, "protocol": "TCP"})
    }

    #[test]
    fn addresses_with_the_same_ports_stand_together() {
        let (a, b, c) = (
            json!({"ip": "10.0.0.1"}),
            json!({"ip": "10.0.0.2"}),
            json!({"ip": "10.0.0.3"}),
        );
        let table = [
            (
                json!([
                    {"addresses": [b], "ports": [port("x", 1)]}, {"addresses": [a], "ports": [port("x", 1)]},
                    {"addresses": [b], "ports": [port("y", 2)]}, {"addresses": [a], "ports": [port("y", 2)]},
                ]),
                json!([{"addresses": [a, b], "ports": [port("x", 1), port("y", 2)]}]),
            ),
            (
                json!([
                    {"addresses": [a], "ports": [port("x", 1)]},
                    {"notReadyAddresses": [b], "ports": [port("x", 1)]},
                    {"addresses": [c], "ports": [port("x", 2)]},
                ]),
                json!([
                    {"addresses": [a], "notReadyAddresses": [b], "ports": [port("x", 1)]},
                    {"addresses": [c], "ports": [port("x", 2)]},
                ]),
            ),
            (
                json!([{"addresses": [a], "ports": [port("x", 1)]}, {"notReadyAddresses": [a], "ports": [port("x", 1)]}]),
                json!([{"notReadyAddresses": [a], "ports": [port("x", 1)]}]),
            ),
            (
                json!([{"addresses": [b]}, {"addresses": [a]}]),
                json!([{"addresses": [a, b]}]),
            ),
        ];
        for (before, after) in table {
            let packed = repack(&subsets(before.clone()));
            assert_eq!(packed, subsets(after), "{before}");
            assert_eq!(repack(&packed), packed);
        }
    }

    #[test]
    fn too_many_addresses_are_cut_in_proportion_and_ready_ones_stay() {
        let many = |range: std::ops::Range<usize>| -> Vec<Value> {
            range
                .map(|number| json!({"ip": format!("10.{}.{}.1", number / 250, number % 250)}))
                .collect()
        };
        let lengths = |subsets: &[EndpointSubset]| -> Vec<(usize, usize)> {
            subsets
                .iter()
                .map(|subset| count(std::slice::from_ref(subset)))
                .collect()
        };
        let mut fits = subsets(json!([{"addresses": many(0..1000)}]));
        assert!(!truncate(&mut fits) && lengths(&fits) == [(1000, 0)]);
        let mut ready = subsets(json!([
            {"addresses": many(0..900), "notReadyAddresses": many(5000..5010)}, {"addresses": many(1000..1600)}]));
        assert!(truncate(&mut ready));
        assert_eq!(lengths(&ready), [(600, 0), (400, 0)]);
        let mut mixed = subsets(json!([
            {"addresses": many(0..600), "notReadyAddresses": many(1000..1700)}, {"notReadyAddresses": many(2000..2100)}]));
        assert!(truncate(&mut mixed));
        assert_eq!(lengths(&mixed), [(600, 350), (0, 50)]);
    }
}
