//! Kinds with few rules of their own: networking, policy, scheduling, quotas, autoscaling, admission, flow control,
//! devices (upstream: the defaults and validation of `pkg/apis/{networking,policy,scheduling,…}`).

use super::pod::validate::{container_resources, invalid, label_selector, supported, tolerations};
use super::{Stored, autoscaling, conditions, devices, int_or_percent, networking};
use crate::registry::columns::{extension, network, policy};
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_label;
use crate::registry::json::{
    at, child, child_or_new, children, default_text, is_set, items, map, number, objects, text,
};
use crate::registry::strategy::Object;
use crate::registry::validation::{immutable, labels, non_negative};
use serde_json::{Value, json};

/// User-defined priorities stay below those of the system's own classes.
const PRIORITY_MAX: i64 = 1_000_000_000;
/// Names that only the system gives to priority classes begin so.
const SYSTEM_PREFIX: &str = "system-";
/// The priority classes that every cluster has, with their values (upstream: `pkg/apis/scheduling/v1/helpers.go`).
pub const SYSTEM_PRIORITY_CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];
const NO_DEVICES: &str = "the scheduler gives devices to claims, but the node agent does not prepare them yet";

pub fn ingress() -> Stored {
    Stored::new(network::INGRESS)
        .generation()
        .rules(networking::ingress)
        .create_rules(networking::ingress_create)
        .status_rules(networking::ingress_status)
        .status(|| json!({"loadBalancer": {}}))
        .unattended("no controller of this server acts on ingresses, one that is installed may")
}

pub fn ingress_class() -> Stored {
    Stored::new(network::INGRESS_CLASS)
        .generation()
        .defaults(|class| {
            if let Some(parameters) = child(class, "spec").and_then(|spec| child(spec, "parameters")) {
                default_text(parameters, "scope", "Cluster");
            }
        })
        .rules(networking::ingress_class)
        .update_rules(|new, old| {
            let controller = |class| at(class, &["spec", "controller"]);
            Vec::from_iter(immutable(controller(new), controller(old), "spec.controller"))
        })
        .unattended("no controller of this server acts on ingress classes, one that is installed may")
}

pub fn network_policy() -> Stored {
    Stored::new(network::NETWORK_POLICY)
        .generation()
        .defaults(default_network_policy)
        .rules(networking::network_policy)
        .unattended("network policies are not enforced by this server")
}

pub fn service_cidr() -> Stored {
    Stored::new(network::SERVICE_CIDR)
        .rules(networking::service_cidr)
        .update_rules(networking::service_cidr_update)
        .status(|| json!({}))
}

pub fn ip_address() -> Stored {
    Stored::new(network::IP_ADDRESS)
        .named(networking::ip_address_name)
        .rules(networking::ip_address)
        .declared(networking::ip_address_declared)
}

pub fn pod_disruption_budget() -> Stored {
    Stored::new(policy::POD_DISRUPTION_BUDGET)
        .generation()
        .conditional()
        .rules(disruption_budget)
        .status_rules(|budget, _| disruption_budget_status(budget))
        .status(|| json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}))
}

pub fn priority_class() -> Stored {
    Stored::new(policy::PRIORITY_CLASS)
        .generation()
        .defaults(|class| default_text(class, "preemptionPolicy", "PreemptLowerPriority"))
        .create_rules(|class| {
            let (name, value) = (text(class, &["metadata", "name"]), number(class, &["value"]));
            let mut errors = Vec::new();
            if name.starts_with(SYSTEM_PREFIX) {
                let global = class.get("globalDefault") == Some(&Value::Bool(true));
                if let Some(problem) = system_class_problem(name, value, global) {
                    let detail = format!(
                        "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {problem}"
                    );
                    errors.push(FieldError::forbidden("metadata.name", &detail));
                }
            } else if value > PRIORITY_MAX {
                let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
                errors.push(FieldError::forbidden("value", &detail));
            }
            let (policies, policy) = (["PreemptLowerPriority", "Never"], text(class, &["preemptionPolicy"]));
            if !policies.contains(&policy) {
                errors.push(FieldError::not_supported("preemptionPolicy", policy, &policies));
            }
            errors
        })
        .undeletable(|class| {
            let name = text(class, &["metadata", "name"]);
            let known = SYSTEM_PRIORITY_CLASSES.iter().any(|(system, _)| *system == name);
            known.then(|| "this is a system priority class and cannot be deleted".to_owned())
        })
        .update_rules(|new, old| {
            let detail = "may not be changed in an update.";
            let mut errors = Vec::new();
            if number(new, &["value"]) != number(old, &["value"]) {
                errors.push(FieldError::forbidden("value", detail));
            }
            errors.extend(immutable(
                new.get("preemptionPolicy"),
                old.get("preemptionPolicy"),
                "preemptionPolicy",
            ));
            errors
        })
}

/// Why a class of the system's does not look like it should; None if it does.
fn system_class_problem(name: &str, value: i64, global: bool) -> Option<String> {
    match SYSTEM_PRIORITY_CLASSES.iter().find(|(system, _)| *system == name) {
        Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
        Some(_) if global => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
        None => Some(format!("{name} is not a known system priority class")),
    }
}

pub fn runtime_class() -> Stored {
    Stored::new(policy::RUNTIME_CLASS)
        .conditional()
        .upsert()
        .create_rules(runtime_class_rules)
        .declared(|class, old| {
            let (path, handler) = ("handler", text(class, &["handler"]));
            let before = old.map(|old| text(old, &["handler"]));
            if before == Some(handler) {
                return Vec::new();
            }
            let mut errors = Vec::from_iter(before.map(|_| FieldError::fixed(path)));
            if handler.is_empty() {
                errors.push(FieldError::required(path, ""));
            }
            if errors.is_empty() {
                errors = invalid(path, handler, &dns1123_label(handler, false));
            }
            errors
        })
}

fn runtime_class_rules(class: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(fixed) = map(class, &["overhead", "podFixed"]) {
        // Upstream looks at them as at the limits of a container, and names them so.
        let limits = Object::from_iter([("limits".to_owned(), Value::Object(fixed.clone()))]);
        errors.extend(container_resources(&limits, "overhead"));
    }
    if let Some(selector) = map(class, &["scheduling", "nodeSelector"]) {
        errors.extend(labels(selector, "scheduling.nodeSelector"));
    }
    let tolerated = items(class, &["scheduling", "tolerations"]);
    errors.extend(tolerations(tolerated, "scheduling.tolerations"));
    let mut seen = Vec::new();
    for (index, toleration) in objects(class, &["scheduling", "tolerations"]) {
        let part = |field: &str| text(toleration, &[field]);
        let key = [part("key"), part("operator"), part("value"), part("effect")];
        if seen.contains(&key) {
            // The value is upstream's internal form of it, whose members are named as in Go.
            let value = json!({
                "Key": key[0],
                "Operator": key[1],
                "Value": key[2],
                "Effect": key[3],
                "TolerationSeconds": toleration.get("tolerationSeconds"),
            });
            errors.push(FieldError::duplicate(format!("scheduling.tolerations[{index}]"), value));
        }
        seen.push(key);
    }
    errors
}

pub fn horizontal_pod_autoscaler() -> Stored {
    Stored::new(policy::HORIZONTAL_POD_AUTOSCALER)
        .defaults(autoscaling::defaults)
        .rules(autoscaling::validate)
        .create_rules(|autoscaler| autoscaling::target_group(autoscaler, None))
        .update_rules(|new, old| autoscaling::target_group(new, Some(old)))
        .declared(autoscaling::declared)
        .status_rules(|autoscaler, _| counts(autoscaler, &["currentReplicas", "desiredReplicas"]))
        .status(|| json!({"currentMetrics": null, "desiredReplicas": 0}))
}

pub fn device_class() -> Stored {
    Stored::new(extension::NAME_AND_AGE)
        .generation()
        .returns_deleted()
        .rules(devices::class)
        .unattended(NO_DEVICES)
}

pub fn resource_claim() -> Stored {
    Stored::new(extension::RESOURCE_CLAIM)
        .returns_deleted()
        .defaults(devices::claim_defaults)
        .drops(devices::drop_from_claim)
        .rules(devices::claim)
        .update_rules(devices::fixed_spec)
        .status_rules(devices::status)
        .status(|| json!({}))
        .unattended(NO_DEVICES)
}

pub fn resource_claim_template() -> Stored {
    Stored::new(extension::NAME_AND_AGE)
        .returns_deleted()
        .defaults(devices::template_defaults)
        .drops(devices::drop_from_template)
        .rules(devices::template)
        .update_rules(devices::fixed_spec)
        .unattended(NO_DEVICES)
}

pub fn resource_slice() -> Stored {
    Stored::new(extension::RESOURCE_SLICE)
        .generation()
        .returns_deleted()
        .defaults(devices::slice_defaults)
        .drops(devices::drop_from_slice)
        .rules(devices::slice)
        .update_rules(devices::slice_update)
        .fields(&["spec.nodeName", "spec.driver"], |slice| {
            vec![
                ("spec.nodeName", text(slice, &["spec", "nodeName"]).to_owned()),
                ("spec.driver", text(slice, &["spec", "driver"]).to_owned()),
            ]
        })
        .unattended(NO_DEVICES)
}

fn default_network_policy(policy: &mut Object) {
    let spec = child_or_new(policy, "spec");
    for direction in ["ingress", "egress"] {
        for rule in children(spec, direction) {
            for port in children(rule, "ports") {
                default_text(port, "protocol", "TCP");
            }
        }
    }
    if !is_set(spec, "policyTypes") {
        let egress = is_set(spec, "egress");
        let types = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        spec.insert("policyTypes".into(), types);
    }
}

fn disruption_budget(budget: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = map(budget, &["spec"]) else {
        return errors;
    };
    if spec.contains_key("minAvailable") && spec.contains_key("maxUnavailable") {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        // The value is upstream's internal form of the spec, whose members are named as in Go.
        let field = |name: &str| spec.get(name).cloned().unwrap_or_default();
        let value = json!({
            "MinAvailable": field("minAvailable"),
            "Selector": field("selector"),
            "MaxUnavailable": field("maxUnavailable"),
            "UnhealthyPodEvictionPolicy": field("unhealthyPodEvictionPolicy"),
        });
        errors.push(FieldError::invalid("spec", value, detail));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let (value, path) = (spec.get(field), format!("spec.{field}"));
        errors.extend(int_or_percent::positive(value, &path));
        errors.extend(int_or_percent::at_most_all(value, &path));
    }
    if let Some(selector) = map(spec, &["selector"]) {
        errors.extend(label_selector(selector, "spec.selector"));
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    errors.extend(supported(spec, "unhealthyPodEvictionPolicy", &policies, "spec"));
    errors
}

fn disruption_budget_status(budget: &Object) -> Vec<FieldError> {
    let mut errors = map(budget, &["status"]).map_or_else(Vec::new, |status| conditions::validate(status, "status"));
    let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    errors.extend(counts(budget, &fields));
    errors
}

/// Numbers of the status that are not below zero.
fn counts(object: &Object, fields: &[&str]) -> Vec<FieldError> {
    let check = |field: &&str| non_negative(at(object, &["status", field]), &format!("status.{field}"));
    fields.iter().filter_map(check).collect()
}
