//! Ingresses, their classes, network policies, and the ranges and addresses of Services
//! (upstream: `pkg/apis/networking/validation`).

use std::net::IpAddr;

use super::pod::validate::{invalid, label_selector, one_of, supported};
use crate::registry::field::FieldError;
use crate::registry::formats::{
    dns1035_label, dns1123_label, dns1123_subdomain, path_segment, port_name, port_number, regex_error,
};
use crate::registry::json::{at, integer, is_set, items, map, number, objects, text};
use crate::registry::network::{Cidr, Family, canonical_cidr, canonical_ip_problems, legacy_cidr, legacy_ip};
use crate::registry::strategy::Object;
use crate::registry::validation::{IMMUTABLE, domain_path};
use serde_json::{Value, json};

const CONTROLLER_BYTES_MAX: usize = 250;
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const WILDCARD: &str = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

pub fn ingress(ingress: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(ingress, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    if !spec.contains_key("defaultBackend") && !is_set(spec, "rules") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(
            "spec",
            spec.get("rules").cloned().unwrap_or_default(),
            detail,
        ));
    }
    if let Some(found) = map(spec, &["defaultBackend"]) {
        errors.extend(backend(found, "spec.defaultBackend"));
    }
    for (index, rule) in objects(spec, &["rules"]) {
        let path = format!("spec.rules[{index}]");
        let name = text(rule, &["host"]);
        if !name.is_empty() {
            errors.extend(host(name, &format!("{path}.host")));
        }
        let Some(http) = map(rule, &["http"]) else { continue };
        if items(http, &["paths"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.http.paths"), ""));
        }
        for (index, item) in objects(http, &["paths"]) {
            errors.extend(http_path(item, &format!("{path}.http.paths[{index}]")));
        }
    }
    for (index, tls) in objects(spec, &["tls"]) {
        let path = format!("spec.tls[{index}]");
        for (index, name) in items(tls, &["hosts"]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            errors.extend(invalid(&format!("{path}.hosts[{index}]"), name, &host_name(name)));
        }
        let secret = text(tls, &["secretName"]);
        if !secret.is_empty() {
            errors.extend(invalid(
                &format!("{path}.secretName"),
                secret,
                &dns1123_subdomain(secret, false),
            ));
        }
    }
    if let Some(class) = at(spec, &["ingressClassName"]).and_then(Value::as_str) {
        errors.extend(invalid(
            "spec.ingressClassName",
            class,
            &dns1123_subdomain(class, false),
        ));
    }
    errors
}

/// The class stands in the field, or, as it did before, in an annotation.
pub fn ingress_create(ingress: &Object) -> Vec<FieldError> {
    let annotation = at(ingress, &["metadata", "annotations", CLASS_ANNOTATION]).and_then(Value::as_str);
    let field = at(ingress, &["spec", "ingressClassName"]).and_then(Value::as_str);
    match annotation {
        Some(class) if field.is_some_and(|field| field != class) => {
            let detail = "must match `ingressClassName` when both are specified";
            vec![FieldError::invalid(
                format!("annotations.{CLASS_ANNOTATION}"),
                class,
                detail,
            )]
        }
        _ => Vec::new(),
    }
}

pub fn ingress_status(ingress: &Object, old: &Object) -> Vec<FieldError> {
    let list = ["status", "loadBalancer", "ingress"];
    let known: Vec<&str> = objects(old, &list).map(|(_, point)| text(point, &["ip"])).collect();
    let mut errors = Vec::new();
    for (index, point) in objects(ingress, &list) {
        let path = format!("status.loadBalancer.ingress[{index}]");
        let (ip, name) = (text(point, &["ip"]), text(point, &["hostname"]));
        if !ip.is_empty() {
            errors.extend(legacy_ip(&format!("{path}.ip"), ip, &known));
        }
        if !name.is_empty() {
            let path = format!("{path}.hostname");
            errors.extend(invalid(&path, name, &dns1123_subdomain(name, false)));
            if name.parse::<IpAddr>().is_ok() {
                errors.push(FieldError::invalid(path, name, "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}

fn host(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.parse::<IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path, name, "must be a DNS name, not an IP address"));
    }
    errors.extend(invalid(path, name, &host_name(name)));
    errors
}

/// A name in DNS, or all names one level below one.
fn host_name(name: &str) -> Vec<String> {
    if !name.contains('*') {
        return dns1123_subdomain(name, false);
    }
    if name
        .strip_prefix("*.")
        .is_some_and(|rest| dns1123_subdomain(rest, false).is_empty())
    {
        return Vec::new();
    }
    let sentence = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
        consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    vec![regex_error(sentence, WILDCARD, &["*.example.com"])]
}

fn http_path(item: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (field, target) = (format!("{path}.path"), text(item, &["path"]));
    let absolute = target.starts_with('/');
    let mut wrong = |detail: &str| errors.push(FieldError::invalid(field.as_str(), target, detail));
    match at(item, &["pathType"]).and_then(Value::as_str) {
        None => errors.push(FieldError::required(
            format!("{path}.pathType"),
            "pathType must be specified",
        )),
        Some("Exact" | "Prefix") => {
            if !absolute {
                wrong("must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"]
                .iter()
                .filter(|part| target.contains(**part))
            {
                wrong(&format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| target.ends_with(**end)) {
                wrong(&format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !target.is_empty() && !absolute {
                wrong("must be an absolute path");
            }
        }
        Some(other) => {
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(format!("{path}.pathType"), other, &types));
        }
    }
    let empty = Object::new();
    let target = map(item, &["backend"]).unwrap_or(&empty);
    errors.extend(backend(target, &format!("{path}.backend")));
    errors
}

/// A Service's port, or some other object.
fn backend(backend: &Object, path: &str) -> Vec<FieldError> {
    let (resource, service) = (map(backend, &["resource"]), map(backend, &["service"]));
    let mut errors = Vec::new();
    match (resource, service) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(
                path,
                "",
                "cannot set both resource and service backends",
            ));
        }
        (None, None) => {
            errors.push(FieldError::invalid(path, "", "resource or service backend is required"));
        }
        (Some(resource), None) => errors.extend(typed(resource, &format!("{path}.resource"))),
        (None, Some(service)) => {
            let at = |field: &str| format!("{path}.service.{field}");
            match text(service, &["name"]) {
                "" => errors.push(FieldError::required(at("name"), "")),
                name if dns1123_label(name, false).is_empty() => {}
                name => errors.extend(invalid(&at("name"), name, &dns1035_label(name, false))),
            }
            let (name, port) = (text(service, &["port", "name"]), number(service, &["port", "number"]));
            match (name, port) {
                ("", 0) => {
                    errors.push(FieldError::required(path, "port name or number is required"));
                }
                ("", port) => {
                    for problem in port_number(port) {
                        errors.push(FieldError::invalid(at("port.number"), port, &problem));
                    }
                }
                (name, 0) => errors.extend(invalid(&at("port.name"), name, &port_name(name))),
                _ => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
            }
        }
    }
    errors
}

/// Group, kind and name of an object.
fn typed(reference: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(group) = at(reference, &["apiGroup"]).and_then(Value::as_str) {
        let problems = dns1123_subdomain(group, false);
        errors.extend(invalid(&format!("{path}.apiGroup"), group, &problems));
    }
    errors.extend(segment(reference, "kind", path));
    errors.extend(segment(reference, "name", path));
    errors
}

/// A required part of a reference that can stand in a URL.
fn segment(object: &Object, field: &str, path: &str) -> Vec<FieldError> {
    let (path, value) = (format!("{path}.{field}"), text(object, &[field]));
    if value.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    invalid(&path, value, &path_segment(value, false))
}

pub fn ingress_class(class: &Object) -> Vec<FieldError> {
    let controller = text(class, &["spec", "controller"]);
    let mut errors = Vec::new();
    if controller.len() > CONTROLLER_BYTES_MAX {
        errors.push(FieldError::too_long("spec.controller", CONTROLLER_BYTES_MAX));
    }
    errors.extend(domain_path(controller, "spec.controller"));
    let Some(parameters) = map(class, &["spec", "parameters"]) else {
        return errors;
    };
    let path = "spec.parameters";
    errors.extend(typed(parameters, path));
    errors.extend(one_of(parameters, "scope", &["Cluster", "Namespace"], path));
    let namespace = at(parameters, &["namespace"]).and_then(Value::as_str);
    match (text(parameters, &["scope"]), namespace) {
        ("Namespace", None) => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required(format!("{path}.namespace"), detail));
        }
        ("Namespace", Some(name)) => {
            errors.extend(invalid(&format!("{path}.namespace"), name, &dns1123_label(name, false)));
        }
        ("Cluster", Some(_)) => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden(format!("{path}.namespace"), detail));
        }
        _ => {}
    }
    errors
}

pub fn network_policy(policy: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(policy, &["spec"]).unwrap_or(&empty);
    let selector = map(spec, &["podSelector"]);
    let mut errors = selector.map_or_else(Vec::new, |selector| label_selector(selector, "spec.podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in objects(spec, &[direction]) {
            let path = format!("spec.{direction}[{index}]");
            for (index, port) in objects(rule, &["ports"]) {
                errors.extend(policy_port(port, &format!("{path}.ports[{index}]")));
            }
            for (index, peer) in objects(rule, &[peers]) {
                errors.extend(policy_peer(peer, &format!("{path}.{peers}[{index}]")));
            }
        }
    }
    let types = items(spec, &["policyTypes"]);
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid("spec.policyTypes", types.to_vec(), detail));
        return errors;
    }
    for (index, kind) in types.iter().enumerate() {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            let path = format!("spec.policyTypes[{index}]");
            errors.push(FieldError::not_supported(path, kind.clone(), &["Ingress", "Egress"]));
        }
    }
    errors
}

fn policy_port(port: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(supported(port, "protocol", &["TCP", "UDP", "SCTP"], path));
    let (field, end) = (format!("{path}.port"), integer(port, &["endPort"]));
    let end_path = format!("{path}.endPort");
    match port.get("port") {
        Some(Value::String(name)) => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(end_path, end, detail));
            }
            errors.extend(invalid(&field, name, &port_name(name)));
        }
        Some(value) => {
            let first = value.as_i64().unwrap_or_default();
            for problem in port_number(first) {
                errors.push(FieldError::invalid(field.as_str(), first, &problem));
            }
            if let Some(end) = end {
                if end < first {
                    let detail = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(end_path.as_str(), end, detail));
                }
                for problem in port_number(end) {
                    errors.push(FieldError::invalid(end_path.as_str(), end, &problem));
                }
            }
        }
        None => {
            let detail = "may not be specified when `port` is not specified";
            errors.extend(end.map(|end| FieldError::invalid(end_path, end, detail)));
        }
    }
    errors
}

fn policy_peer(peer: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = map(peer, &[field]) {
            count += 1;
            errors.extend(label_selector(selector, &format!("{path}.{field}")));
        }
    }
    if let Some(block) = map(peer, &["ipBlock"]) {
        errors.extend(ip_block(block, &format!("{path}.ipBlock")));
        if count > 0 {
            let detail = "may not specify both ipBlock and another peer";
            errors.push(FieldError::forbidden(path, detail));
        }
        count += 1;
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a peer"));
    }
    errors
}

fn ip_block(block: &Object, path: &str) -> Vec<FieldError> {
    let text = text(block, &["cidr"]);
    if text.is_empty() {
        return vec![FieldError::required(format!("{path}.cidr"), "")];
    }
    let mut errors = legacy_cidr(&format!("{path}.cidr"), text, &[]);
    let cidr = Cidr::parse(text);
    for (index, except) in items(block, &["except"]).iter().enumerate() {
        let path = format!("{path}.except[{index}]");
        let except = except.as_str().unwrap_or_default();
        let problems = legacy_cidr(&path, except, &[]);
        if problems.is_empty()
            && let (Some(cidr), Some(inner)) = (cidr, Cidr::parse(except))
            && (!cidr.covers(&inner) || inner.bits() <= cidr.bits())
        {
            errors.push(FieldError::invalid(path, except, "must be a strict subset of `cidr`"));
        }
        errors.extend(problems);
    }
    errors
}

pub fn service_cidr(range: &Object) -> Vec<FieldError> {
    let path = "spec.cidrs";
    let ranges: Vec<&str> = items(range, &["spec", "cidrs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut errors = Vec::new();
    match ranges.len() {
        0 => errors.push(FieldError::required(path, "at least one CIDR required")),
        3.. => {
            let shown = json!({"CIDRs": ranges});
            errors.push(FieldError::invalid(path, shown, "may only hold up to 2 values"));
            return errors;
        }
        _ => {}
    }
    for (index, range) in ranges.iter().enumerate() {
        errors.extend(canonical_cidr(&format!("{path}[{index}]"), range));
    }
    let families: Vec<Option<Family>> = ranges
        .iter()
        .map(|range| Cidr::parse(range).map(|range| range.family()))
        .collect();
    if let [Some(one), Some(other)] = families.as_slice()
        && one == other
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(path, json!(ranges), detail));
    }
    errors
}

/// A second range may come, the first stays.
pub fn service_cidr_update(range: &Object, old: &Object) -> Vec<FieldError> {
    let (new, before) = (items(range, &["spec", "cidrs"]), items(old, &["spec", "cidrs"]));
    if new.len() != before.len() && (before.len(), new.len()) != (1, 2) {
        return vec![FieldError::invalid("spec.cidrs", new.to_vec(), IMMUTABLE)];
    }
    let pairs = new.iter().zip(before).enumerate();
    pairs
        .filter(|(_, (new, before))| new != before)
        .map(|(index, (new, _))| FieldError::invalid(format!("spec.cidrs[{index}]"), new.clone(), IMMUTABLE))
        .collect()
}

/// The name of an IPAddress is the address.
pub fn ip_address_name(name: &str, _is_prefix: bool) -> Vec<String> {
    canonical_ip_problems(name)
}

pub fn ip_address(address: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(parent) = map(address, &["spec", "parentRef"]) else {
        return errors;
    };
    let group = text(parent, &["group"]);
    if !group.is_empty() {
        let problems = dns1123_subdomain(group, false);
        errors.extend(invalid("spec.parentRef.group", group, &problems));
    }
    for field in ["resource", "name", "namespace"] {
        let value = text(parent, &[field]);
        let problems = path_segment(value, false);
        errors.extend(invalid(&format!("spec.parentRef.{field}"), value, &problems));
    }
    errors
}

/// What an address says of its owner, as upstream's type asks for it.
pub fn ip_address_declared(address: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let path = "spec.parentRef";
    let parent = at(address, &["spec", "parentRef"]);
    let before = old.map(|old| at(old, &["spec", "parentRef"]));
    if before == Some(parent) {
        return Vec::new();
    }
    let mut errors = Vec::from_iter(parent.is_none().then(|| FieldError::required(path, "")));
    errors.extend(before.map(|_| FieldError::fixed(path)));
    if !errors.is_empty() {
        return errors;
    }
    let missing = ["resource", "name"]
        .into_iter()
        .filter(|field| text(address, &["spec", "parentRef", field]).is_empty());
    missing
        .map(|field| FieldError::required(format!("{path}.{field}"), ""))
        .collect()
}
