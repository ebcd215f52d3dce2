//! Endpoints and EndpointSlices (upstream: `pkg/apis/core/validation`, `pkg/apis/discovery`).

use super::Stored;
use super::pod::validate::invalid;
use crate::managed_by;
use crate::registry::columns::core::ENDPOINTS;
use crate::registry::columns::network::ENDPOINT_SLICE;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key, label_value, port_number};
use crate::registry::json::{children, default_text, default_to, integer, is_set, items, map, objects, text};
use crate::registry::network::{Family, canonical_ip, endpoint_ip, ip_warning, legacy_ip};
use crate::registry::strategy::Object;
use crate::registry::validation::labels;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
/// It has a field of its own.
const ZONE: &str = "topology.kubernetes.io/zone";
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
const TOPOLOGY_MAX: usize = 16;
/// The label of who writes Endpoints, and of who writes slices: our own controllers write addresses as they should be.
const ENDPOINTS_WRITER: (&str, &[&str]) = (managed_by::ENDPOINTS, &[managed_by::ENDPOINT_CONTROLLER]);
const SLICES_WRITER: (&str, &[&str]) = (
    managed_by::ENDPOINT_SLICES,
    &[
        managed_by::ENDPOINT_SLICE_CONTROLLER,
        managed_by::ENDPOINT_SLICE_MIRRORING_CONTROLLER,
    ],
);

/// The strategy of Endpoints.
pub fn endpoints() -> Stored {
    Stored::new(ENDPOINTS)
        .defaults(default_endpoints)
        .create_rules(validate_endpoints)
        .update_rules(|endpoints, old| {
            // Older versions took what is wrong today.
            let same = items(old, &["subsets"]) == items(endpoints, &["subsets"]);
            if same {
                Vec::new()
            } else {
                validate_endpoints(endpoints)
            }
        })
        .field_warnings(endpoints_warnings)
        .upsert()
}

/// The strategy of EndpointSlices.
pub fn endpoint_slice() -> Stored {
    Stored::new(ENDPOINT_SLICE)
        .generation()
        .defaults(default_slice)
        .create_rules(|slice| slice_rules(slice, None))
        .update_rules(|slice, old| slice_rules(slice, Some(old)))
        .declared(slice_declared)
        .field_warnings(slice_warnings)
}

fn default_endpoints(endpoints: &mut Object) {
    for subset in children(endpoints, "subsets") {
        for port in children(subset, "ports") {
            default_text(port, "protocol", "TCP");
        }
    }
}

fn default_slice(slice: &mut Object) {
    for port in children(slice, "ports") {
        default_to(port, "name", "");
        default_text(port, "protocol", "TCP");
    }
}

fn port_errors(port: &Object, path: &str, protocol_path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let protocol = text(port, &["protocol"]);
    if protocol.is_empty() {
        errors.push(FieldError::required(protocol_path, ""));
    } else if !PROTOCOLS.contains(&protocol) {
        errors.push(FieldError::not_supported(protocol_path, protocol, &PROTOCOLS));
    }
    if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
        errors.extend(invalid(&format!("{path}.appProtocol"), protocol, &label_key(protocol)));
    }
    errors
}

fn validate_endpoints(endpoints: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, subset) in objects(endpoints, &["subsets"]) {
        let path = format!("subsets[{index}]");
        if !is_set(subset, "addresses") && !is_set(subset, "notReadyAddresses") {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(path.as_str(), detail));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (index, address) in objects(subset, &[list]) {
                let path = format!("{path}.{list}[{index}]");
                let (ip, field) = (text(address, &["ip"]), format!("{path}.ip"));
                errors.extend(legacy_ip(&field, ip, &[]));
                let hostname = text(address, &["hostname"]);
                if !hostname.is_empty() {
                    errors.extend(invalid(
                        &format!("{path}.hostname"),
                        hostname,
                        &dns1123_label(hostname, false),
                    ));
                }
                if let Some(node) = address.get("nodeName").and_then(Value::as_str) {
                    errors.extend(invalid(
                        &format!("{path}.nodeName"),
                        node,
                        &dns1123_subdomain(node, false),
                    ));
                }
                errors.extend(endpoint_ip(&field, ip));
            }
        }
        let several = items(subset, &["ports"]).len() > 1;
        for (index, port) in objects(subset, &["ports"]) {
            let path = format!("{path}.ports[{index}]");
            match text(port, &["name"]) {
                "" if several => errors.push(FieldError::required(format!("{path}.name"), "")),
                "" => {}
                name => errors.extend(invalid(&format!("{path}.name"), name, &dns1123_label(name, false))),
            }
            let number = integer(port, &["port"]).unwrap_or_default();
            for problem in port_number(number) {
                errors.push(FieldError::invalid(format!("{path}.port"), number, &problem));
            }
            errors.extend(port_errors(port, &path, &format!("{path}.protocol")));
        }
    }
    errors
}

fn is_written_by(object: &Object, (label, writers): (&str, &[&str])) -> bool {
    writers.contains(&text(object, &["metadata", "labels", label]))
}

fn endpoints_warnings(endpoints: &Object) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_written_by(endpoints, ENDPOINTS_WRITER) {
        return warnings;
    }
    for (index, subset) in objects(endpoints, &["subsets"]) {
        for list in ["addresses", "notReadyAddresses"] {
            for (at, address) in objects(subset, &[list]) {
                let path = format!("subsets[{index}].{list}[{at}].ip");
                warnings.extend(ip_warning(&path, text(address, &["ip"])));
            }
        }
    }
    warnings
}

fn slice_warnings(slice: &Object) -> Vec<String> {
    let mut warnings = Vec::new();
    if text(slice, &["addressType"]) == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    if is_written_by(slice, SLICES_WRITER) {
        return warnings;
    }
    for (index, endpoint) in objects(slice, &["endpoints"]) {
        for (at, address) in items(endpoint, &["addresses"]).iter().enumerate() {
            let path = format!("endpoints[{index}].addresses[{at}]");
            warnings.extend(ip_warning(&path, address.as_str().unwrap_or_default()));
        }
    }
    warnings
}

/// Endpoints that an update leaves as they are may be wrong: older versions took more.
fn slice_rules(slice: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let count = items(slice, &["ports"]).len();
    if count > PORTS_MAX {
        errors.push(FieldError::too_many("ports", count, PORTS_MAX));
    } else {
        errors.extend(slice_ports(slice));
    }
    let endpoints = items(slice, &["endpoints"]);
    if old.is_some_and(|old| items(old, &["endpoints"]) == endpoints) {
        return errors;
    }
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
        return errors;
    }
    let kind = text(slice, &["addressType"]);
    for (index, endpoint) in objects(slice, &["endpoints"]) {
        errors.extend(endpoint_errors(endpoint, kind, &format!("endpoints[{index}]")));
    }
    errors
}

fn slice_ports(slice: &Object) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    for (index, port) in objects(slice, &["ports"]) {
        let path = format!("ports[{index}]");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            errors.extend(invalid(&format!("{path}.name"), name, &dns1123_label(name, false)));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        errors.extend(port_errors(port, &path, &format!("{path}.protocol")));
    }
    errors
}

/// The kind of addresses and how many an endpoint has, as upstream's type asks for them.
fn slice_declared(slice: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (path, kind) = ("addressType", text(slice, &["addressType"]));
    let before = old.map(|old| text(old, &["addressType"]));
    if before != Some(kind) {
        if kind.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        errors.extend(before.map(|_| FieldError::fixed(path)));
        if errors.is_empty() && !ADDRESS_TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(path, kind, &ADDRESS_TYPES));
        }
    }
    if old.is_some_and(|old| items(old, &["endpoints"]) == items(slice, &["endpoints"])) {
        return errors;
    }
    for (index, endpoint) in objects(slice, &["endpoints"]) {
        let (path, count) = (
            format!("endpoints[{index}].addresses"),
            items(endpoint, &["addresses"]).len(),
        );
        if count == 0 {
            errors.push(FieldError::required(path, ""));
        } else if count > ADDRESSES_MAX {
            errors.push(FieldError::too_many(path, count, ADDRESSES_MAX));
        }
    }
    errors
}

fn endpoint_errors(endpoint: &Object, kind: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses_path = format!("{path}.addresses");
    for (index, address) in items(endpoint, &["addresses"]).iter().enumerate() {
        let (path, address) = (
            format!("{addresses_path}[{index}]"),
            address.as_str().unwrap_or_default(),
        );
        let (wanted, problems) = match kind {
            "FQDN" => {
                errors.extend(fully_qualified(address, &path));
                continue;
            }
            "IPv4" => (Family::V4, legacy_ip(&path, address, &[])),
            "IPv6" => (Family::V6, canonical_ip(&path, address)),
            _ => continue,
        };
        if !problems.is_empty() {
            errors.extend(problems);
            continue;
        }
        if address.parse::<IpAddr>().map(Family::of) != Ok(wanted) {
            let detail = format!("must be an {} address", wanted.name());
            errors.push(FieldError::invalid(addresses_path.as_str(), address, &detail));
        }
        errors.extend(endpoint_ip(&path, address));
    }
    if let Some(node) = endpoint.get("nodeName").and_then(Value::as_str) {
        errors.extend(invalid(
            &format!("{path}.nodeName"),
            node,
            &dns1123_subdomain(node, false),
        ));
    }
    if let Some(topology) = map(endpoint, &["deprecatedTopology"]) {
        if topology.len() > TOPOLOGY_MAX {
            let path = format!("{path}.deprecatedTopology");
            errors.push(FieldError::too_many(path, topology.len(), TOPOLOGY_MAX));
        }
        errors.extend(labels(topology, &format!("{path}.deprecatedTopology")));
        if topology.contains_key(ZONE) {
            let path = format!("{path}.deprecatedTopology[{ZONE}]");
            let detail = "reserved key was not removed in conversion";
            errors.push(FieldError::internal(path, detail));
        }
    }
    if let Some(hostname) = endpoint.get("hostname").and_then(Value::as_str) {
        errors.extend(invalid(
            &format!("{path}.hostname"),
            hostname,
            &dns1123_label(hostname, false),
        ));
    }
    for list in ["forZones", "forNodes"] {
        let (path, count) = (format!("{path}.hints.{list}"), items(endpoint, &["hints", list]).len());
        if count > HINTS_MAX {
            errors.push(FieldError::too_many(path, count, HINTS_MAX));
            break;
        }
        let mut seen = BTreeSet::new();
        for (index, hint) in objects(endpoint, &["hints", list]) {
            let (path, name) = (format!("{path}[{index}].name"), text(hint, &["name"]));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(path.as_str(), name));
            }
            let problems = if list == "forZones" {
                label_value(name)
            } else {
                dns1123_subdomain(name, false)
            };
            errors.extend(invalid(&path, name, &problems));
        }
    }
    errors
}

fn fully_qualified(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let errors = invalid(path, name, &dns1123_subdomain(name, false));
    if errors.is_empty() && name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        return vec![FieldError::invalid(path, name, detail)];
    }
    errors
}
