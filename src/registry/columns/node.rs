//! Columns of nodes (upstream: `printNode` in `pkg/printers/internalversion/printers.go`).

use super::{age, column, name_column, or_text, wide};
use crate::registry::json::{boolean, objects, text, texts};
use crate::registry::strategies::Printer;
use crate::registry::strategy::Object;
use serde_json::json;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

pub const NODE: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Status", "string"),
            column("Roles", "string"),
            column("Age", "string"),
            column("Version", "string"),
            wide("Internal-IP", "string"),
            wide("External-IP", "string"),
            wide("OS-Image", "string"),
            wide("Kernel-Version", "string"),
            wide("Container-Runtime", "string"),
        ]
    },
    cells: |node, now| {
        let info = |field: &str| json!(or_text(text(node, &["status", "nodeInfo", field]), "<unknown>"));
        vec![
            json!(text(node, &["metadata", "name"])),
            json!(status(node)),
            json!(roles(node)),
            json!(age(node, now)),
            json!(text(node, &["status", "nodeInfo", "kubeletVersion"])),
            json!(address(node, "InternalIP")),
            json!(address(node, "ExternalIP")),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    },
};

fn status(node: &Object) -> String {
    let ready = objects(node, &["status", "conditions"]).find(|(_, condition)| text(condition, &["type"]) == "Ready");
    let status = match ready.map(|(_, condition)| text(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if boolean(node, &["spec", "unschedulable"]) {
        format!("{status},SchedulingDisabled")
    } else {
        status.to_owned()
    }
}

fn roles(node: &Object) -> String {
    let mut roles: Vec<&str> = texts(node, &["metadata", "labels"])
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == ROLE && !value.is_empty() => Some(value),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or_text(&roles.join(","), "<none>").to_owned()
}

fn address<'a>(node: &'a Object, kind: &str) -> &'a str {
    objects(node, &["status", "addresses"])
        .find(|(_, address)| text(address, &["type"]) == kind)
        .map_or("<none>", |(_, address)| text(address, &["address"]))
}
