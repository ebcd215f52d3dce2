//! Services (upstream: `SetDefaults_Service`, `ValidateService`, `pkg/registry/core/service`).
//!
//! No cluster IP is allocated yet: what the client gives is kept, and a Warning says so.

use super::pod::validate::{invalid, one_of, port};
use crate::registry::columns::core::SERVICE;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_label, dns1123_subdomain, ip_address, label_key, port_number};
use crate::registry::json::{
    child, child_or_new, children, default_text, default_to, is_set, items, map, number, objects, restore, text,
};
use crate::registry::strategy::{Column, Object, Strategy, Target, default_prepare_for_update};
use crate::registry::validation::labels;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const KUBELET_PORT: i64 = 10_250;
const NOT_ROUTED: &str = "services are stored, but no cluster IP is allocated and nothing is routed yet";

/// The strategy of Services.
pub struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        // Names may start with a digit since 1.36; what else is wrong is said in the words of either rule.
        let problems = dns1123_label(name, is_prefix);
        if problems.is_empty() {
            problems
        } else {
            dns1035_label(name, is_prefix)
        }
    }

    fn default(&self, object: &mut Object) {
        if let Some(spec) = child(object, "spec") {
            default_spec(spec);
        }
        child_or_new(child_or_new(object, "status"), "loadBalancer");
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.insert("status".into(), json!({"loadBalancer": {}}));
        if let Some(spec) = child(object, "spec") {
            complete_cluster_ips(spec);
        }
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
        if target != Target::Main {
            return;
        }
        let empty = Object::new();
        let old_spec = map(old, &["spec"]).unwrap_or(&empty);
        let Some(spec) = child(object, "spec") else { return };
        let had_ip = text(old_spec, &["type"]) != "ExternalName" && text(spec, &["type"]) != "ExternalName";
        // A client that does not know the address leaves it out and keeps it.
        if had_ip && text(spec, &["clusterIP"]).is_empty() && items(spec, &["clusterIPs"]).is_empty() {
            restore(spec, old_spec, "clusterIP");
            restore(spec, old_spec, "clusterIPs");
        }
        complete_cluster_ips(spec);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        match map(object, &["spec"]) {
            Some(spec) => validate(spec),
            None => vec![FieldError::required("spec.ports", "")],
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        let (kind, old_kind) = (text(object, &["spec", "type"]), text(old, &["spec", "type"]));
        let (ip, old_ip) = (text(object, &["spec", "clusterIP"]), text(old, &["spec", "clusterIP"]));
        let external = kind == "ExternalName" || old_kind == "ExternalName";
        if target != Target::Main || external || old_ip.is_empty() || ip == old_ip {
            return Vec::new();
        }
        let shown = items(object, &["spec", "clusterIPs"]).to_vec();
        vec![FieldError::invalid(
            "spec.clusterIPs[0]",
            shown,
            "may not change once set",
        )]
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let spec = object.get("spec");
        let changed = old.is_none_or(|old| old.get("spec") != spec);
        let kind = text(object, &["spec", "type"]);
        if changed && kind != "ExternalName" && text(object, &["spec", "clusterIP"]) != "None" {
            vec![NOT_ROUTED.to_owned()]
        } else {
            Vec::new()
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![
            ("spec.clusterIP", text(object, &["spec", "clusterIP"]).to_owned()),
            ("spec.type", text(object, &["spec", "type"]).to_owned()),
        ]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        (SERVICE.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (SERVICE.cells)(object, now)
    }
}

fn default_spec(spec: &mut Object) {
    default_text(spec, "sessionAffinity", "None");
    match text(spec, &["sessionAffinity"]) {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" if number(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]) == 0 => {
            let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
            spec.insert("sessionAffinityConfig".into(), config);
        }
        _ => {}
    }
    default_text(spec, "type", "ClusterIP");
    for item in children(spec, "ports") {
        default_text(item, "protocol", "TCP");
        let unset = item
            .get("targetPort")
            .is_none_or(|target| *target == json!(0) || *target == json!(""));
        if unset {
            let number = number(item, &["port"]);
            item.insert("targetPort".into(), json!(number));
        }
    }
    let kind = text(spec, &["type"]).to_owned();
    let external_ips = !items(spec, &["externalIPs"]).is_empty();
    if matches!(kind.as_str(), "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && external_ips) {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// `clusterIP` is the first of `clusterIPs`; the families are those of one IPv4 stack.
fn complete_cluster_ips(spec: &mut Object) {
    if text(spec, &["type"]) == "ExternalName" {
        return;
    }
    let single = text(spec, &["clusterIP"]).to_owned();
    let first = items(spec, &["clusterIPs"])
        .first()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if first.is_empty() && !single.is_empty() {
        spec.insert("clusterIPs".into(), json!([single]));
    } else if single.is_empty() && !first.is_empty() {
        spec.insert("clusterIP".into(), json!(first));
    }
    let family = if text(spec, &["clusterIP"]).contains(':') {
        "IPv6"
    } else {
        "IPv4"
    };
    if items(spec, &["ipFamilies"]).is_empty() {
        spec.insert("ipFamilies".into(), json!([family]));
    }
    default_text(spec, "ipFamilyPolicy", "SingleStack");
}

fn validate(spec: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(spec, &["type"]);
    let headless = text(spec, &["clusterIP"]) == "None";
    if !is_set(spec, "ports") && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", &detail));
    }
    if kind == "ExternalName" {
        errors.extend(external_name(spec));
    }
    errors.extend(ports(spec, kind));
    if let Some(selector) = map(spec, &["selector"]) {
        errors.extend(labels(selector, "spec.selector"));
    }
    errors.extend(one_of(spec, "sessionAffinity", &["ClientIP", "None"], "spec"));
    if text(spec, &["sessionAffinity"]) == "ClientIP" {
        let seconds = number(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
        if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
            let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            errors.push(FieldError::invalid(path, seconds, &detail));
        }
    }
    errors.extend(addresses(spec, headless));
    errors.extend(one_of(spec, "type", &TYPES, "spec"));
    for (field, values) in [
        ("internalTrafficPolicy", ["Cluster", "Local"]),
        ("externalTrafficPolicy", ["Cluster", "Local"]),
    ] {
        if is_set(spec, field) {
            errors.extend(one_of(spec, field, &values, "spec"));
        }
    }
    errors
}

fn external_name(spec: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["clusterIPs", "clusterIP", "ipFamilies", "ipFamilyPolicy"] {
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

fn ports(spec: &Object, kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
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
        let (value, protocol) = (number(item, &["port"]), text(item, &["protocol"]));
        for problem in port_number(value) {
            errors.push(FieldError::invalid(format!("{path}.port"), value, &problem));
        }
        errors.extend(one_of(item, "protocol", &["SCTP", "TCP", "UDP"], &path));
        errors.extend(port(item.get("targetPort"), &format!("{path}.targetPort")));
        let app_protocol = text(item, &["appProtocol"]);
        if !app_protocol.is_empty() {
            errors.extend(invalid(
                &format!("{path}.appProtocol"),
                app_protocol,
                &label_key(app_protocol),
            ));
        }
        if kind == "LoadBalancer" && value == KUBELET_PORT {
            let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
            errors.push(FieldError::invalid(format!("{path}.port"), value, &detail));
        }
        let node_port = number(item, &["nodePort"]);
        if node_port != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            let detail = format!("may not be used when `type` is '{kind}'");
            errors.push(FieldError::forbidden(format!("{path}.nodePort"), &detail));
        } else if node_port != 0 && !node_ports.insert((protocol, node_port)) {
            errors.push(FieldError::duplicate(format!("{path}.nodePort"), node_port));
        }
        if !numbers.insert((protocol, value)) {
            errors.push(FieldError::duplicate(
                path,
                json!({"protocol": protocol, "port": value}),
            ));
        }
    }
    errors
}

fn addresses(spec: &Object, headless: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, address) in items(spec, &["clusterIPs"]).iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        let none = headless && index == 0;
        if !none && !address.is_empty() {
            errors.extend(invalid(
                &format!("spec.clusterIPs[{index}]"),
                address,
                &ip_address(address),
            ));
        }
    }
    let first = items(spec, &["clusterIPs"]).first().and_then(Value::as_str);
    if first.is_some_and(|first| first != text(spec, &["clusterIP"])) {
        let detail = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            items(spec, &["clusterIPs"]).to_vec(),
            detail,
        ));
    }
    for (index, address) in items(spec, &["externalIPs"]).iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        errors.extend(invalid(
            &format!("spec.externalIPs[{index}]"),
            address,
            &ip_address(address),
        ));
    }
    errors
}
