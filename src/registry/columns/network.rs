//! Columns of discovery and networking (upstream: `pkg/printers/internalversion/printers.go`).

use super::core::load_balancer;
use super::{age, column, first_and_more, join, name_column, or_text, selector_text};
use crate::registry::json::{at, items, map, number, objects, text};
use crate::registry::strategies::Printer;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

fn name(object: &Object) -> Value {
    json!(text(object, &["metadata", "name"]))
}

pub const ENDPOINT_SLICE: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("AddressType", "string"),
            column("Ports", "string"),
            column("Endpoints", "string"),
            column("Age", "string"),
        ]
    },
    cells: |slice, now| {
        let ports: Vec<String> = objects(slice, &["ports"])
            .map(|(_, port)| match (number(port, &["port"]), text(port, &["name"])) {
                (0, "") => "*".to_owned(),
                (0, name) => name.to_owned(),
                (number, _) => number.to_string(),
            })
            .collect();
        let addresses: Vec<String> = objects(slice, &["endpoints"])
            .flat_map(|(_, endpoint)| items(endpoint, &["addresses"]).iter().filter_map(Value::as_str))
            .map(str::to_owned)
            .collect();
        vec![
            name(slice),
            json!(text(slice, &["addressType"])),
            json!(first_and_more(&ports, "<unset>")),
            json!(first_and_more(&addresses, "<unset>")),
            json!(age(slice, now)),
        ]
    },
};

pub const INGRESS: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Class", "string"),
            column("Hosts", "string"),
            column("Address", "string"),
            column("Ports", "string"),
            column("Age", "string"),
        ]
    },
    cells: |ingress, now| {
        let hosts: Vec<String> = objects(ingress, &["spec", "rules"])
            .map(|(_, rule)| or_text(text(rule, &["host"]), "*").to_owned())
            .collect();
        let tls = !items(ingress, &["spec", "tls"]).is_empty();
        vec![
            name(ingress),
            json!(or_text(text(ingress, &["spec", "ingressClassName"]), "<none>")),
            json!(first_and_more(&hosts, "*")),
            json!(load_balancer(ingress)),
            json!(if tls { "80, 443" } else { "80" }),
            json!(age(ingress, now)),
        ]
    },
};

pub const INGRESS_CLASS: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Controller", "string"),
            column("Parameters", "string"),
            column("Age", "string"),
        ]
    },
    cells: |class, now| {
        let parameters = map(class, &["spec", "parameters"]).map(|parameters| {
            let group = match text(parameters, &["apiGroup"]) {
                "" => String::new(),
                group => format!(".{group}"),
            };
            format!("{}{group}/{}", text(parameters, &["kind"]), text(parameters, &["name"]))
        });
        vec![
            name(class),
            json!(text(class, &["spec", "controller"])),
            json!(parameters.unwrap_or_else(|| "<none>".to_owned())),
            json!(age(class, now)),
        ]
    },
};

pub const NETWORK_POLICY: Printer = Printer {
    columns: || vec![name_column(), column("Pod-Selector", "string"), column("Age", "string")],
    cells: |policy, now| {
        let selector = selector_text(at(policy, &["spec", "podSelector"]));
        vec![name(policy), json!(selector), json!(age(policy, now))]
    },
};

pub const SERVICE_CIDR: Printer = Printer {
    columns: || vec![name_column(), column("CIDRs", "string"), column("Age", "string")],
    cells: |cidr, now| {
        vec![
            name(cidr),
            json!(join(items(cidr, &["spec", "cidrs"]))),
            json!(age(cidr, now)),
        ]
    },
};

pub const IP_ADDRESS: Printer = Printer {
    columns: || vec![name_column(), column("ParentRef", "string")],
    cells: |address, _now| {
        let parent = map(address, &["spec", "parentRef"]).map(|parent| {
            let part = |field: &str, before: &str| match text(parent, &[field]) {
                "" => String::new(),
                value => format!("{before}{value}"),
            };
            let parts = [
                part("resource", ""),
                part("group", "."),
                part("namespace", "/"),
                part("name", "/"),
            ];
            parts.concat().to_lowercase()
        });
        vec![name(address), json!(parent.unwrap_or_else(|| "<none>".to_owned()))]
    },
};
