//! What an update of a Service keeps, drops and may change (upstream: `patchAllocatedValues`, `normalizeClusterIPs`,
//! `dropTypeDependentFields`, `ValidateServiceUpdate`).

use super::validate::load_balancer_class;
use super::{externally_accessible, is_headless, needs_cluster_ip, needs_health_check, needs_node_ports, node_ports};
use super::{kind, spec_texts};
use crate::registry::field::FieldError;
use crate::registry::json::{at, child, children, items, map, number, restore, text};
use crate::registry::strategy::Object;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn spec(service: &Object) -> Object {
    map(service, &["spec"]).cloned().unwrap_or_default()
}

fn same(a: &Object, b: &Object, field: &str) -> bool {
    let value =
        |service| at(service, &["spec", field]).filter(|value| !matches!(value, Value::Array(a) if a.is_empty()));
    value(a) == value(b)
}

fn sorted_ports(service: &Object) -> BTreeSet<i64> {
    node_ports(service).into_iter().collect()
}

/// A client that does not know what was given out leaves it away, and keeps it.
pub fn patch_allocated_values(service: &mut Object, old: &Object) {
    let old_spec = spec(old);
    if needs_cluster_ip(old) && needs_cluster_ip(service) {
        let old_ip = text(&old_spec, &["clusterIP"]).to_owned();
        if let Some(spec) = child(service, "spec") {
            if text(spec, &["clusterIP"]).is_empty() {
                restore(spec, &old_spec, "clusterIP");
            }
            if items(spec, &["clusterIPs"]).is_empty() && text(spec, &["clusterIP"]) == old_ip {
                restore(spec, &old_spec, "clusterIPs");
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(service) {
        let old_ports = sorted_ports(old);
        let used: BTreeSet<i64> = sorted_ports(service).intersection(&old_ports).copied().collect();
        // By the name of the port; what else of it the user changed does not matter.
        let by_name: BTreeMap<String, i64> = items(&old_spec, &["ports"])
            .iter()
            .filter_map(Value::as_object)
            .map(|port| (text(port, &["name"]).to_owned(), number(port, &["nodePort"])))
            .collect();
        if let Some(spec) = child(service, "spec") {
            for port in children(spec, "ports").filter(|port| number(port, &["nodePort"]) == 0) {
                let known = by_name.get(text(port, &["name"])).copied().unwrap_or_default();
                if known != 0 && !used.contains(&known) {
                    port.insert("nodePort".into(), json!(known));
                }
            }
        }
    }
    if needs_health_check(old)
        && needs_health_check(service)
        && let Some(spec) = child(service, "spec").filter(|spec| number(spec, &["healthCheckNodePort"]) == 0)
    {
        restore(spec, &old_spec, "healthCheckNodePort");
    }
}

/// `clusterIP` is what older clients write, and the first of `clusterIPs`.
pub fn normalize_cluster_ips(service: &mut Object, old: Option<&Object>) {
    let ip = text(service, &["spec", "clusterIP"]).to_owned();
    let lacking = !ip.is_empty() && items(service, &["spec", "clusterIPs"]).is_empty();
    let changed = |old| text(old, &["spec", "clusterIP"]) != ip && same(old, service, "clusterIPs");
    let follow = lacking || old.is_some_and(changed);
    let Some(spec) = child(service, "spec").filter(|_| follow) else {
        return;
    };
    if ip.is_empty() {
        spec.remove("clusterIPs");
    } else {
        spec.insert("clusterIPs".into(), json!([ip]));
    }
}

/// Fields that the new type has no use for go, if they were filled in for the old one and the user left them alone.
pub fn drop_type_dependent_fields(service: &mut Object, old: &Object) {
    let mut gone: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(service) {
        if same(old, service, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            gone.extend(Some(field).filter(|field| same(old, service, field)));
        }
    }
    let no_node_ports =
        needs_node_ports(old) && !needs_node_ports(service) && sorted_ports(old) == sorted_ports(service);
    if needs_health_check(old) && !needs_health_check(service) && same(old, service, "healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(service) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            gone.extend(Some(field).filter(|field| same(old, service, field)));
        }
    }
    let accessible = |service| map(service, &["spec"]).is_some_and(externally_accessible);
    if accessible(old) && !accessible(service) && same(old, service, "externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    let Some(spec) = child(service, "spec") else { return };
    gone.iter().for_each(|field| {
        spec.remove(*field);
    });
    if no_node_ports {
        children(spec, "ports").for_each(|port| {
            port.remove("nodePort");
        });
    }
}

/// The rules that look at the stored Service; those for every Service come on top.
pub fn validate(service: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = cluster_ips(service, old);
    errors.extend(families(service, old));
    errors.extend(load_balancer_class(service, Some(old)));
    if needs_health_check(old) && needs_health_check(service) && !same(old, service, "healthCheckNodePort") {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
    errors
}

fn is_external(service: &Object, old: &Object) -> bool {
    kind(service) == "ExternalName" || kind(old) == "ExternalName"
}

fn list(service: &Object, field: &str) -> Value {
    json!(spec_texts(service, field))
}

/// Second addresses come and go, the first one stays.
fn cluster_ips(service: &Object, old: &Object) -> Vec<FieldError> {
    if is_external(service, old) || (is_headless(old) && is_headless(service)) {
        return Vec::new();
    }
    let fixed = |index: usize| {
        let path = format!("spec.clusterIPs[{index}]");
        FieldError::invalid(path, list(service, "clusterIPs"), "may not change once set")
    };
    let (new, before) = (spec_texts(service, "clusterIPs"), spec_texts(old, "clusterIPs"));
    let mut errors = Vec::new();
    if new.len() == before.len() {
        let changed = new.iter().zip(&before).enumerate();
        errors.extend(
            changed
                .filter(|(_, (new, old))| new != old)
                .map(|(index, _)| fixed(index)),
        );
        return errors;
    }
    let first_changed = matches!((new.first(), before.first()), (Some(new), Some(old)) if new != old);
    if before.len() > new.len() && new.is_empty() {
        let detail = "primary clusterIP can not be unset";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", json!([]), detail));
    }
    if first_changed {
        errors.push(fixed(0));
    }
    if before.len() > new.len() && new.len() == 1 {
        errors.extend(single_stack(
            service,
            "must be set to 'SingleStack' when releasing the secondary clusterIP",
        ));
    }
    errors
}

fn single_stack(service: &Object, detail: &str) -> Option<FieldError> {
    let policy = at(service, &["spec", "ipFamilyPolicy"]);
    let shown = policy.cloned().unwrap_or_default();
    let single = policy.is_some_and(|policy| policy == "SingleStack");
    (!single).then(|| FieldError::invalid("spec.ipFamilyPolicy", shown, detail))
}

fn families(service: &Object, old: &Object) -> Vec<FieldError> {
    if is_external(service, old) || is_headless(old) || is_headless(service) {
        return Vec::new();
    }
    let path = "spec.ipFamilies[0]";
    let (new, before) = (spec_texts(service, "ipFamilies"), spec_texts(old, "ipFamilies"));
    let mut errors = Vec::new();
    if new.len() == before.len() {
        for _ in new.iter().zip(&before).filter(|(new, old)| new != old) {
            errors.push(FieldError::invalid(
                path,
                list(service, "ipFamilies"),
                "may not change once set",
            ));
        }
        return errors;
    }
    if before.len() > new.len() && spec_texts(service, "clusterIPs").is_empty() {
        let detail = "primary ipFamily can not be unset";
        errors.push(FieldError::invalid(path, list(service, "ipFamilies"), detail));
    }
    if matches!((new.first(), before.first()), (Some(new), Some(old)) if new != old) {
        errors.push(FieldError::invalid(
            path,
            list(service, "clusterIPs"),
            "may not change once set",
        ));
    }
    if before.len() > new.len() && new.len() == 1 {
        errors.extend(single_stack(
            service,
            "must be set to 'SingleStack' when releasing the secondary ipFamily",
        ));
    }
    errors
}
