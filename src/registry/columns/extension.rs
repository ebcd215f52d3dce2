//! Columns of admissionregistration.k8s.io, apiextensions.k8s.io, flowcontrol.apiserver.k8s.io and resource.k8s.io
//! (upstream: `pkg/printers/internalversion/printers.go`).

use super::{age, column, join, name_column, or_text, selector_text, wide};
use crate::registry::json::{at, boolean, is_set, items, map, number, objects, text};
use crate::registry::strategies::Printer;
use crate::registry::strategy::{Column, Object};
use serde_json::{Value, json};

fn name(object: &Object) -> Value {
    json!(text(object, &["metadata", "name"]))
}

pub const WEBHOOKS: Printer = Printer {
    columns: || vec![name_column(), column("Webhooks", "integer"), column("Age", "string")],
    cells: |webhooks, now| {
        vec![
            name(webhooks),
            json!(items(webhooks, &["webhooks"]).len()),
            json!(age(webhooks, now)),
        ]
    },
};

fn policy_columns(count: &'static str) -> Vec<Column> {
    vec![
        name_column(),
        column(count, "integer"),
        column("ParamKind", "string"),
        column("Age", "string"),
    ]
}

fn policy_cells(policy: &Object, list: &str, now: i64) -> Vec<Value> {
    let kind = map(policy, &["spec", "paramKind"]).map_or_else(
        || "<unset>".to_owned(),
        |kind| format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
    );
    vec![
        name(policy),
        json!(items(policy, &["spec", list]).len()),
        json!(kind),
        json!(age(policy, now)),
    ]
}

pub const VALIDATING_POLICY: Printer = Printer {
    columns: || policy_columns("Validations"),
    cells: |policy, now| policy_cells(policy, "validations", now),
};

pub const MUTATING_POLICY: Printer = Printer {
    columns: || policy_columns("Mutations"),
    cells: |policy, now| policy_cells(policy, "mutations", now),
};

pub const POLICY_BINDING: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("PolicyName", "string"),
            column("ParamRef", "string"),
            column("Age", "string"),
        ]
    },
    cells: |binding, now| {
        let reference = map(binding, &["spec", "paramRef"]).map(|reference| {
            match (text(reference, &["namespace"]), text(reference, &["name"])) {
                (_, "") => selector_text(at(reference, &["selector"])),
                ("", name) => format!("*/{name}"),
                (namespace, name) => format!("{namespace}/{name}"),
            }
        });
        vec![
            name(binding),
            json!(text(binding, &["spec", "policyName"])),
            json!(reference.unwrap_or_else(|| "<unset>".to_owned())),
            json!(age(binding, now)),
        ]
    },
};

pub const DEFINITION: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Scope", "string"),
            column("Versions", "string"),
            column("Created At", "date"),
            wide("Group", "string"),
            wide("Kind", "string"),
            wide("ShortNames", "string"),
            wide("Established", "boolean"),
        ]
    },
    cells: |definition, _now| {
        let spec = |path: &[&str]| json!(text(definition, &[&["spec"], path].concat()));
        let mut versions: Vec<String> = objects(definition, &["spec", "versions"])
            .map(|(_, version)| version)
            .filter(|version| boolean(version, &["served"]))
            .map(|version| {
                let storage = if boolean(version, &["storage"]) {
                    "(storage)"
                } else {
                    ""
                };
                format!("{}{storage}", text(version, &["name"]))
            })
            .collect();
        versions.sort_unstable();
        let established = objects(definition, &["status", "conditions"]).any(|(_, condition)| {
            text(condition, &["type"]) == "Established" && text(condition, &["status"]) == "True"
        });
        vec![
            name(definition),
            spec(&["scope"]),
            json!(versions.join(",")),
            json!(text(definition, &["metadata", "creationTimestamp"])),
            spec(&["group"]),
            spec(&["names", "kind"]),
            json!(join(items(definition, &["spec", "names", "shortNames"]))),
            json!(established),
        ]
    },
};

pub const FLOW_SCHEMA: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("PriorityLevel", "string"),
            column("MatchingPrecedence", "string"),
            column("DistinguisherMethod", "string"),
            column("Age", "string"),
            column("MissingPL", "string"),
        ]
    },
    cells: |schema, now| {
        let dangling = objects(schema, &["status", "conditions"])
            .find(|(_, condition)| text(condition, &["type"]) == "Dangling")
            .map_or("?", |(_, condition)| text(condition, &["status"]));
        vec![
            name(schema),
            json!(text(schema, &["spec", "priorityLevelConfiguration", "name"])),
            json!(number(schema, &["spec", "matchingPrecedence"])),
            json!(or_text(
                text(schema, &["spec", "distinguisherMethod", "type"]),
                "<none>"
            )),
            json!(age(schema, now)),
            json!(dangling),
        ]
    },
};

pub const PRIORITY_LEVEL: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Type", "string"),
            column("NominalConcurrencyShares", "string"),
            column("Queues", "string"),
            column("HandSize", "string"),
            column("QueueLengthLimit", "string"),
            column("Age", "string"),
        ]
    },
    cells: |level, now| {
        let limited = |path: &[&str]| {
            let path = [&["spec", "limited"], path].concat();
            at(level, &path).cloned().unwrap_or_else(|| json!("<none>"))
        };
        let queuing = |field: &str| limited(&["limitResponse", "queuing", field]);
        vec![
            name(level),
            json!(text(level, &["spec", "type"])),
            limited(&["nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            json!(age(level, now)),
        ]
    },
};

/// Name and age: device classes and claim templates.
pub const NAME_AND_AGE: Printer = Printer {
    columns: || vec![name_column(), column("Age", "string")],
    cells: |object, now| vec![name(object), json!(age(object, now))],
};

pub const RESOURCE_CLAIM: Printer = Printer {
    columns: || vec![name_column(), column("State", "string"), column("Age", "string")],
    cells: |claim, now| {
        let mut states = Vec::new();
        if !text(claim, &["metadata", "deletionTimestamp"]).is_empty() {
            states.push("deleted");
        }
        let status = map(claim, &["status"]);
        let allocated = status.is_some_and(|status| is_set(status, "allocation"));
        states.push(if allocated { "allocated" } else { "pending" });
        if status.is_some_and(|status| is_set(status, "reservedFor")) {
            states.push("reserved");
        }
        vec![name(claim), json!(states.join(",")), json!(age(claim, now))]
    },
};

pub const RESOURCE_SLICE: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Node", "string"),
            column("Driver", "string"),
            column("Pool", "string"),
            column("Age", "string"),
        ]
    },
    cells: |slice, now| {
        vec![
            name(slice),
            json!(text(slice, &["spec", "nodeName"])),
            json!(text(slice, &["spec", "driver"])),
            json!(text(slice, &["spec", "pool", "name"])),
            json!(age(slice, now)),
        ]
    },
};
