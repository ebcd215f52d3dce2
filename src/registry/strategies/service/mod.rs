//! Services (upstream: `pkg/registry/core/service/strategy.go`, `SetDefaults_Service`).
//!
//! - `validate.rs`: what a Service may be, `update.rs`: what an update may change and what it keeps.
//! - `families.rs`: which IP families it gets. Addresses and node ports themselves are given out by
//!   `apiserver/allocation`, which looks at all Services.

pub mod families;
mod update;
mod validate;

use crate::registry::columns::core::SERVICE;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_label};
use crate::registry::json::{
    at, child, child_or_new, children, default_text, default_to, is_set, items, map, number, text,
};
use crate::registry::strategy::{Column, Object, Strategy, Target, default_prepare_for_update};
use serde_json::{Value, json};

const AFFINITY_SECONDS: i64 = 10_800;

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
        let is_load_balancer = text(object, &["spec", "type"]) == "LoadBalancer";
        if let Some(spec) = child(object, "spec") {
            default_spec(spec);
        }
        let balancer = child_or_new(child_or_new(object, "status"), "loadBalancer");
        for ingress in children(balancer, "ingress").filter(|_| is_load_balancer) {
            if is_set(ingress, "ip") {
                default_to(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.insert("status".into(), json!({"loadBalancer": {}}));
        update::normalize_cluster_ips(object, None);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
        if target == Target::Main {
            update::patch_allocated_values(object, old);
            update::normalize_cluster_ips(object, Some(old));
            update::drop_type_dependent_fields(object, old);
        }
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        validate::service(object, None)
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        match target {
            Target::Main => {
                let mut errors = update::validate(object, old);
                errors.extend(validate::service(object, Some(old)));
                errors
            }
            Target::Status => validate::load_balancer_status(object, old),
            Target::Subresource(_) => Vec::new(),
        }
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = warnings(object);
        if let Some(old) = old {
            let known = self::warnings(old);
            warnings.retain(|warning| !known.contains(warning));
        }
        warnings
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
        "ClientIP" if at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_none() => {
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
    if externally_accessible(spec) {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    let kind = text(spec, &["type"]).to_owned();
    if matches!(kind.as_str(), "ClusterIP" | "LoadBalancer" | "NodePort") {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Traffic from outside of the cluster can reach the Service of this spec.
fn externally_accessible(spec: &Object) -> bool {
    match text(spec, &["type"]) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => is_set(spec, "externalIPs"),
        _ => false,
    }
}

fn kind(service: &Object) -> &str {
    text(service, &["spec", "type"])
}

/// Only an external name has no address; `None` counts as one.
pub fn needs_cluster_ip(service: &Object) -> bool {
    matches!(kind(service), "ClusterIP" | "LoadBalancer" | "NodePort")
}

pub fn needs_node_ports(service: &Object) -> bool {
    matches!(kind(service), "LoadBalancer" | "NodePort")
}

/// A load balancer that sends to the nodes of the endpoints asks the nodes which those are.
pub fn needs_health_check(service: &Object) -> bool {
    kind(service) == "LoadBalancer" && text(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

/// Its only address is `None`.
pub fn is_headless(service: &Object) -> bool {
    matches!(items(service, &["spec", "clusterIPs"]), [only] if only == "None")
}

/// The texts of a list of the spec.
pub fn spec_texts<'a>(service: &'a Object, field: &str) -> Vec<&'a str> {
    items(service, &["spec", field])
        .iter()
        .map(|item| item.as_str().unwrap_or_default())
        .collect()
}

/// Every node port in the spec's ports, in their order.
pub fn node_ports(service: &Object) -> Vec<i64> {
    let ports = items(service, &["spec", "ports"]).iter().filter_map(Value::as_object);
    ports
        .map(|port| number(port, &["nodePort"]))
        .filter(|port| *port != 0)
        .collect()
}

/// Upstream's own (`pkg/api/service/warnings.go`).
fn warnings(service: &Object) -> Vec<String> {
    let empty = Object::new();
    let spec = map(service, &["spec"]).unwrap_or(&empty);
    let mut warnings = Vec::new();
    if is_headless(service) {
        for (field, shown) in [("loadBalancerIP", "loadBalancerIP"), ("externalIPs", "externalIPs")] {
            if is_set(spec, field) {
                warnings.push(format!("spec.{shown} is ignored for headless services"));
            }
        }
        if text(spec, &["sessionAffinity"]) != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    if is_set(spec, "externalIPs") && kind(service) == "ExternalName" {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if is_set(spec, "externalName") && kind(service) != "ExternalName" {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    warnings
}
