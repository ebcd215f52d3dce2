//! Rules for every Service (upstream: `validateService`, `ValidateServiceClusterIPsRelatedFields`,
//! `ValidateLoadBalancerStatus`).

use super::{externally_accessible, is_headless, kind, needs_health_check, spec_texts};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key, port_number};
use crate::registry::json::{at, is_set, items, map, number, objects, text};
use crate::registry::network::{Family, endpoint_ip, is_dual_stack, legacy_cidr, legacy_ip};
use crate::registry::strategies::pod::validate::{invalid, one_of, port};
use crate::registry::strategy::Object;
use crate::registry::validation::labels;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const AFFINITY_SECONDS_MAX: i64 = 86_400;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

pub fn service(service: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(service, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::from_iter(topology_annotations(service));
    let kind = kind(service);
    if !is_set(spec, "ports") && !is_headless(service) && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(service) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", &detail));
        }
        "ExternalName" => errors.extend(external_name(spec)),
        _ => {}
    }
    errors.extend(ports(spec));
    if let Some(selector) = map(spec, &["selector"]) {
        errors.extend(labels(selector, "spec.selector"));
    }
    errors.extend(session_affinity(spec));
    errors.extend(cluster_ips(service, old));
    let known = old.map(|old| spec_texts(old, "externalIPs")).unwrap_or_default();
    for (index, address) in spec_texts(service, "externalIPs").iter().enumerate() {
        let path = format!("spec.externalIPs[{index}]");
        let problems = legacy_ip(&path, address, &known);
        errors.extend(if problems.is_empty() {
            endpoint_ip(&path, address)
        } else {
            problems
        });
    }
    errors.extend(one_of(spec, "type", &TYPES, "spec"));
    errors.extend(port_conflicts(spec, kind));
    errors.extend(source_ranges(service, old));
    let allocates = at(spec, &["allocateLoadBalancerNodePorts"]).is_some();
    if allocates && kind != "LoadBalancer" {
        errors.push(FieldError::forbidden(
            "spec.allocateLoadBalancerNodePorts",
            ONLY_BALANCERS,
        ));
    }
    if !allocates && kind == "LoadBalancer" {
        errors.push(FieldError::required("allocateLoadBalancerNodePorts", ""));
    }
    errors.extend(load_balancer_class(service, None));
    errors.extend(traffic(service, spec));
    errors
}

fn topology_annotations(service: &Object) -> Option<FieldError> {
    let annotation = |name| at(service, &["metadata", "annotations", name]).and_then(Value::as_str);
    let (mode, hints) = (annotation(TOPOLOGY_MODE)?, annotation(TOPOLOGY_HINTS)?);
    let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
    let path = format!("metadata.annotations[{TOPOLOGY_MODE}]");
    (mode != hints).then(|| FieldError::invalid(path, mode, &detail))
}

fn external_name(spec: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if is_set(spec, field) {
            let detail = "may not be set for ExternalName services";
            errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
        }
    }
    let name = text(spec, &["externalName"]);
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.push(FieldError::required("spec.externalName", "")),
        name => errors.extend(invalid("spec.externalName", name, &dns1123_subdomain(name, false))),
    }
    errors
}

fn ports(spec: &Object) -> Vec<FieldError> {
    let (mut errors, mut names) = (Vec::new(), BTreeSet::new());
    let several = items(spec, &["ports"]).len() > 1;
    for (index, item) in objects(spec, &["ports"]) {
        let path = format!("spec.ports[{index}]");
        match text(item, &["name"]) {
            "" if several => errors.push(FieldError::required(format!("{path}.name"), "")),
            "" => {}
            name => {
                errors.extend(invalid(&format!("{path}.name"), name, &dns1123_label(name, false)));
                if !names.insert(name) {
                    errors.push(FieldError::duplicate(format!("{path}.name"), name));
                }
            }
        }
        let value = number(item, &["port"]);
        for problem in port_number(value) {
            errors.push(FieldError::invalid(format!("{path}.port"), value, &problem));
        }
        errors.extend(one_of(item, "protocol", &["SCTP", "TCP", "UDP"], &path));
        errors.extend(port(item.get("targetPort"), &format!("{path}.targetPort")));
        if let Some(protocol) = at(item, &["appProtocol"]).and_then(Value::as_str) {
            errors.extend(invalid(&format!("{path}.appProtocol"), protocol, &label_key(protocol)));
        }
    }
    errors
}

fn port_conflicts(spec: &Object, kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let node_port_path = |index: usize| format!("spec.ports[{index}].nodePort");
    let ports: Vec<(usize, &str, i64, i64)> = objects(spec, &["ports"])
        .map(|(index, port)| {
            (
                index,
                text(port, &["protocol"]),
                number(port, &["port"]),
                number(port, &["nodePort"]),
            )
        })
        .collect();
    for (index, _, _, node_port) in &ports {
        if *node_port != 0 && kind == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(node_port_path(*index), detail));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, protocol, _, node_port) in ports.iter().filter(|(.., node_port)| *node_port != 0) {
        if !seen.insert((protocol, node_port)) {
            errors.push(FieldError::duplicate(node_port_path(*index), *node_port));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, protocol, port, _) in &ports {
        if !seen.insert((protocol, port)) {
            // The value is upstream's internal port, of which two members are set.
            let shown = json!({
                "Name": "", "Protocol": protocol, "AppProtocol": null, "Port": port, "TargetPort": 0, "NodePort": 0,
            });
            errors.push(FieldError::duplicate(format!("spec.ports[{index}]"), shown));
        }
    }
    errors
}

fn session_affinity(spec: &Object) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(one_of(spec, "sessionAffinity", &["ClientIP", "None"], "spec"));
    let path = "spec.sessionAffinityConfig";
    let detail = "when session affinity type is ClientIP";
    let config = map(spec, &["sessionAffinityConfig"]);
    match (text(spec, &["sessionAffinity"]), config) {
        ("ClientIP", None) => errors.push(FieldError::required(path, detail)),
        ("ClientIP", Some(config)) => match map(config, &["clientIP"]) {
            None => errors.push(FieldError::required(format!("{path}.clientIP"), detail)),
            Some(client) => {
                let path = format!("{path}.clientIP.timeoutSeconds");
                match at(client, &["timeoutSeconds"]).and_then(Value::as_i64) {
                    None => errors.push(FieldError::required(path, detail)),
                    Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                        errors.push(FieldError::invalid(path, seconds, &detail));
                    }
                    Some(_) => {}
                }
            }
        },
        ("None", Some(_)) => {
            errors.push(FieldError::forbidden(
                path,
                "must not be set when session affinity is None",
            ));
        }
        _ => {}
    }
    errors
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`, which have to fit one another.
pub fn cluster_ips(service: &Object, old: Option<&Object>) -> Vec<FieldError> {
    if kind(service) == "ExternalName" {
        return Vec::new();
    }
    let path = "spec.clusterIPs";
    let (ip, ips) = (text(service, &["spec", "clusterIP"]), spec_texts(service, "clusterIPs"));
    let shown = || json!(ips);
    let mut errors = Vec::new();
    match (ip, ips.first()) {
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(path, shown(), detail));
        }
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(path, "")),
        (ip, Some(first)) if ip != *first => {
            errors.push(FieldError::invalid(path, shown(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    let families = spec_texts(service, "ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{index}]");
        if !FAMILIES.contains(family) {
            errors.push(FieldError::not_supported(path.as_str(), *family, &FAMILIES));
        }
        if !seen.insert(*family) {
            errors.push(FieldError::duplicate(path, *family));
        }
    }
    if let Some(policy) = at(service, &["spec", "ipFamilyPolicy"]).and_then(Value::as_str)
        && !FAMILY_POLICIES.contains(&policy)
    {
        errors.push(FieldError::not_supported(
            "spec.ipFamilyPolicy",
            policy,
            &FAMILY_POLICIES,
        ));
    }
    let known = old.map(|old| spec_texts(old, "clusterIPs")).unwrap_or_default();
    let mut bad = false;
    for (index, address) in ips.iter().enumerate() {
        if index == 0 && *address == "None" {
            if ips.len() > 1 {
                bad = true;
                errors.push(FieldError::invalid(
                    path,
                    shown(),
                    "'None' must be the first and only value",
                ));
            }
            continue;
        }
        let problems = legacy_ip(&format!("{path}[{index}]"), address, &known);
        bad |= !problems.is_empty();
        errors.extend(problems);
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(path, shown(), "may only hold up to 2 values"));
    }
    if bad {
        return errors;
    }
    if ips.len() > 1 && !is_dual_stack(ips.iter().copied()) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, shown(), detail));
    }
    if !is_headless(service) {
        for (index, (address, family)) in ips.iter().zip(&families).enumerate() {
            let found = address.parse().map(Family::of).ok();
            let expected = Family::from_name(family);
            if let (Some(found), Some(expected)) = (found, expected)
                && found != expected
            {
                let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
                errors.push(FieldError::invalid(format!("{path}[{index}]"), *address, &detail));
            }
        }
    }
    errors
}

fn source_ranges(service: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let is_balancer = kind(service) == "LoadBalancer";
    let ranges = spec_texts(service, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // The capital letter is upstream's.
        let path = "spec.LoadBalancerSourceRanges";
        if !is_balancer {
            errors.push(FieldError::forbidden(path, ONLY_BALANCERS));
        }
        let known = old
            .map(|old| spec_texts(old, "loadBalancerSourceRanges"))
            .unwrap_or_default();
        let known: Vec<&str> = known.iter().map(|range| range.trim()).collect();
        for (index, range) in ranges.iter().enumerate() {
            errors.extend(legacy_cidr(&format!("{path}[{index}]"), range.trim(), &known));
        }
        return errors;
    }
    let annotation = |service| at(service, &["metadata", "annotations", SOURCE_RANGES]).and_then(Value::as_str);
    if let Some(value) = annotation(service) {
        let path = format!("metadata.annotations[{SOURCE_RANGES}]");
        if !is_balancer {
            errors.push(FieldError::forbidden(path.as_str(), ONLY_BALANCERS));
        }
        if old.and_then(annotation) != Some(value) && !value.trim().is_empty() {
            for range in value.trim().split(',') {
                errors.extend(legacy_cidr(&path, range.trim(), &[]));
            }
        }
    }
    errors
}

/// With the stored Service also that the class does not change.
pub fn load_balancer_class(service: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let path = "spec.loadBalancerClass";
    let class = |service| at(service, &["spec", "loadBalancerClass"]);
    let is_balancer = kind(service) == "LoadBalancer";
    let mut errors = Vec::new();
    if let Some(old) = old
        && kind(old) == "LoadBalancer"
        && is_balancer
        && class(old) != class(service)
    {
        let shown = class(service).cloned().unwrap_or_default();
        errors.push(FieldError::invalid(path, shown, "may not change once set"));
    }
    match class(service).and_then(Value::as_str) {
        Some(name) if is_balancer => errors.extend(invalid(path, name, &label_key(name))),
        Some(_) => errors.push(FieldError::forbidden(path, ONLY_BALANCERS)),
        None => {}
    }
    errors
}

/// Traffic policies, health check and distribution.
fn traffic(service: &Object, spec: &Object) -> Vec<FieldError> {
    let policies = ["Cluster", "Local"];
    let mut errors = Vec::new();
    let external = text(spec, &["externalTrafficPolicy"]);
    if externally_accessible(spec) {
        errors.extend(one_of(spec, "externalTrafficPolicy", &policies, "spec"));
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", external, detail));
    }
    let path = "spec.healthCheckNodePort";
    match (needs_health_check(service), number(spec, &["healthCheckNodePort"])) {
        (false, 0) => {}
        (false, port) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(path, port, detail));
        }
        (true, 0) => errors.push(FieldError::required(path, "")),
        (true, port) => {
            for problem in port_number(port) {
                errors.push(FieldError::invalid(path, port, &problem));
            }
        }
    }
    let path = "spec.internalTrafficPolicy";
    match at(spec, &["internalTrafficPolicy"]).and_then(Value::as_str) {
        None if matches!(kind(service), "ClusterIP" | "LoadBalancer" | "NodePort") => {
            errors.push(FieldError::required(path, ""));
        }
        Some(policy) if !policies.contains(&policy) => {
            errors.push(FieldError::not_supported(path, policy, &policies));
        }
        _ => {}
    }
    if let Some(distribution) = at(spec, &["trafficDistribution"]).and_then(Value::as_str)
        && !DISTRIBUTIONS.contains(&distribution)
    {
        let path = "spec.trafficDistribution";
        errors.push(FieldError::not_supported(path, distribution, &DISTRIBUTIONS));
    }
    errors
}

/// The status that whoever runs load balancers writes.
pub fn load_balancer_status(service: &Object, old: &Object) -> Vec<FieldError> {
    let path = "status.loadBalancer.ingress";
    let list = ["status", "loadBalancer", "ingress"];
    if kind(service) != "LoadBalancer" && !items(service, &list).is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        return vec![FieldError::forbidden(path, detail)];
    }
    let known: Vec<&str> = objects(old, &list).map(|(_, ingress)| text(ingress, &["ip"])).collect();
    let mut errors = Vec::new();
    for (index, ingress) in objects(service, &list) {
        let at_field = |field: &str| format!("{path}[{index}].{field}");
        let (ip, hostname) = (text(ingress, &["ip"]), text(ingress, &["hostname"]));
        if !ip.is_empty() {
            errors.extend(legacy_ip(&at_field("ip"), ip, &known));
        }
        let modes = ["Proxy", "VIP"];
        match at(ingress, &["ipMode"]).and_then(Value::as_str) {
            None if !ip.is_empty() => {
                errors.push(FieldError::required(
                    at_field("ipMode"),
                    "must be specified when `ip` is set",
                ));
            }
            None => {}
            Some(_) if ip.is_empty() => {
                let detail = "may not be specified when `ip` is not set";
                errors.push(FieldError::forbidden(at_field("ipMode"), detail));
            }
            Some(mode) if !modes.contains(&mode) => {
                errors.push(FieldError::not_supported(at_field("ipMode"), mode, &modes));
            }
            Some(_) => {}
        }
        if !hostname.is_empty() {
            let path = at_field("hostname");
            errors.extend(invalid(&path, hostname, &dns1123_subdomain(hostname, false)));
            if hostname.parse::<std::net::IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(path, hostname, detail));
            }
        }
    }
    errors
}
