//! Endpoints and EndpointSlices (upstream: `pkg/apis/core/validation`, `pkg/apis/discovery`).

use super::Stored;
use super::pod::validate::invalid;
use crate::registry::columns::core::ENDPOINTS;
use crate::registry::columns::network::ENDPOINT_SLICE;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key, label_value, port_number};
use crate::registry::json::{children, default_text, default_to, integer, is_set, items, map, objects, text};
use crate::registry::network::{Family, canonical_ip, endpoint_ip, legacy_ip};
use crate::registry::strategy::Object;
use crate::registry::validation::{immutable, labels};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
const TOPOLOGY_MAX: usize = 16;

/// The strategy of Endpoints.
pub fn endpoints() -> Stored {
    Stored::new(ENDPOINTS)
        .defaults(default_endpoints)
        .rules(validate_endpoints)
        .upsert()
}

/// The strategy of EndpointSlices.
pub fn endpoint_slice() -> Stored {
    Stored::new(ENDPOINT_SLICE)
        .generation()
        .defaults(default_slice)
        .rules(validate_slice)
        .update_rules(|slice, old| {
            Vec::from_iter(immutable(
                slice.get("addressType"),
                old.get("addressType"),
                "addressType",
            ))
        })
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

fn validate_slice(slice: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kinds = ["FQDN", "IPv4", "IPv6"];
    let kind = text(slice, &["addressType"]);
    if kind.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported("addressType", kind, &kinds));
    }
    let count = items(slice, &["endpoints"]).len();
    if count > ENDPOINTS_MAX {
        errors.push(FieldError::too_many("endpoints", count, ENDPOINTS_MAX));
        return errors;
    }
    for (index, endpoint) in objects(slice, &["endpoints"]) {
        errors.extend(endpoint_errors(endpoint, kind, &format!("endpoints[{index}]")));
    }
    let count = items(slice, &["ports"]).len();
    if count > PORTS_MAX {
        errors.push(FieldError::too_many("ports", count, PORTS_MAX));
        return errors;
    }
    let mut names = BTreeSet::new();
    for (index, port) in objects(slice, &["ports"]) {
        let path = format!("ports[{index}]");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            errors.extend(invalid(&format!("{path}.name"), name, &dns1123_label(name, false)));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        if let Some(number) = integer(port, &["port"]) {
            for problem in port_number(number) {
                errors.push(FieldError::invalid(format!("{path}.port"), number, &problem));
            }
        }
        errors.extend(port_errors(port, &path, &format!("{path}.protocol")));
    }
    errors
}

fn endpoint_errors(endpoint: &Object, kind: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (addresses_path, addresses) = (format!("{path}.addresses"), items(endpoint, &["addresses"]));
    if addresses.is_empty() {
        errors.push(FieldError::required(
            addresses_path.as_str(),
            "must contain at least 1 address",
        ));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(
            addresses_path.as_str(),
            addresses.len(),
            ADDRESSES_MAX,
        ));
    }
    for (index, address) in addresses.iter().enumerate() {
        let (path, address) = (
            format!("{addresses_path}[{index}]"),
            address.as_str().unwrap_or_default(),
        );
        let family = address.parse::<IpAddr>().map(Family::of).ok();
        match (kind, family) {
            ("FQDN", _) => errors.extend(fully_qualified(address, &path)),
            ("IPv4", Some(Family::V6)) => {
                errors.push(FieldError::invalid(path.as_str(), address, "must be an IPv4 address"));
            }
            ("IPv6", Some(Family::V4)) => {
                errors.push(FieldError::invalid(path.as_str(), address, "must be an IPv6 address"));
            }
            ("IPv4" | "IPv6", _) => {
                let problems = canonical_ip(&path, address);
                errors.extend(if problems.is_empty() {
                    endpoint_ip(&path, address)
                } else {
                    problems
                });
            }
            _ => {}
        }
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
            errors.push(FieldError::too_many(path.as_str(), count, HINTS_MAX));
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
