//! Endpoints and EndpointSlices (upstream: `pkg/apis/core/validation`, `pkg/apis/discovery`).

use super::Stored;
use super::pod::validate::invalid;
use crate::registry::columns::core::ENDPOINTS;
use crate::registry::columns::network::ENDPOINT_SLICE;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_subdomain, ip_address, label_key, port_number};
use crate::registry::json::{children, default_text, default_to, integer, is_set, items, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;

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

fn port_errors(port: &Object, path: &str, name_required: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name_required && text(port, &["name"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    if let Some(number) = integer(port, &["port"]) {
        let path = format!("{path}.port");
        errors.extend(
            port_number(number)
                .iter()
                .map(|problem| FieldError::invalid(path.as_str(), number, problem)),
        );
    }
    let protocol = text(port, &["protocol"]);
    if !PROTOCOLS.contains(&protocol) {
        errors.push(FieldError::not_supported(
            format!("{path}.protocol"),
            protocol,
            &PROTOCOLS,
        ));
    }
    errors
}

fn validate_endpoints(endpoints: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, subset) in objects(endpoints, &["subsets"]) {
        let path = format!("subsets[{index}]");
        if !is_set(subset, "addresses") && !is_set(subset, "notReadyAddresses") {
            errors.push(FieldError::required(
                path.as_str(),
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (address_index, address) in objects(subset, &[list]) {
                let ip = text(address, &["ip"]);
                errors.extend(invalid(
                    &format!("{path}.{list}[{address_index}].ip"),
                    ip,
                    &ip_address(ip),
                ));
            }
        }
        let several = items(subset, &["ports"]).len() > 1;
        for (port_index, port) in objects(subset, &["ports"]) {
            errors.extend(port_errors(port, &format!("{path}.ports[{port_index}]"), several));
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
    }
    for (index, endpoint) in objects(slice, &["endpoints"]) {
        let path = format!("endpoints[{index}].addresses");
        let addresses = items(endpoint, &["addresses"]);
        if addresses.is_empty() {
            errors.push(FieldError::required(path.as_str(), "must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(FieldError::too_many(path.as_str(), addresses.len(), ADDRESSES_MAX));
        }
        for (address_index, address) in addresses.iter().enumerate() {
            let address = address.as_str().unwrap_or_default();
            let problems = match (kind, address.parse::<std::net::IpAddr>()) {
                ("FQDN", _) => dns1123_subdomain(address, false),
                ("IPv4", Ok(std::net::IpAddr::V6(_))) => vec!["must be an IPv4 address".to_owned()],
                ("IPv6", Ok(std::net::IpAddr::V4(_))) => vec!["must be an IPv6 address".to_owned()],
                ("IPv4" | "IPv6", Err(_)) => ip_address(address),
                _ => Vec::new(),
            };
            errors.extend(invalid(&format!("{path}[{address_index}]"), address, &problems));
        }
    }
    for (index, port) in objects(slice, &["ports"]) {
        let path = format!("ports[{index}]");
        errors.extend(port_errors(port, &path, false));
        let protocol = text(port, &["appProtocol"]);
        if !protocol.is_empty() {
            errors.extend(invalid(&format!("{path}.appProtocol"), protocol, &label_key(protocol)));
        }
    }
    errors
}
