//! Columns of RBAC, policy, scheduling, autoscaling and runtime classes
//! (upstream: `pkg/printers/internalversion/printers.go`).

use super::{age, column, name_column, wide};
use crate::registry::json::{at, boolean, integer, map, number, objects, text};
use crate::registry::strategies::Printer;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

fn name(object: &Object) -> Value {
    json!(text(object, &["metadata", "name"]))
}

pub const ROLE_BINDING: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Role", "string"),
            column("Age", "string"),
            wide("Users", "string"),
            wide("Groups", "string"),
            wide("ServiceAccounts", "string"),
        ]
    },
    cells: |binding, now| {
        let role = format!(
            "{}/{}",
            text(binding, &["roleRef", "kind"]),
            text(binding, &["roleRef", "name"])
        );
        let subjects = |kind: &str| {
            let found: Vec<String> = objects(binding, &["subjects"])
                .filter(|(_, subject)| text(subject, &["kind"]) == kind)
                .map(|(_, subject)| match kind {
                    "ServiceAccount" => format!("{}/{}", text(subject, &["namespace"]), text(subject, &["name"])),
                    _ => text(subject, &["name"]).to_owned(),
                })
                .collect();
            json!(found.join(", "))
        };
        vec![
            name(binding),
            json!(role),
            json!(age(binding, now)),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

/// A number or a percentage.
fn int_or_string(value: Option<&Value>, otherwise: &str) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => otherwise.to_owned(),
    }
}

pub const POD_DISRUPTION_BUDGET: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Min Available", "string"),
            column("Max Unavailable", "string"),
            column("Allowed Disruptions", "integer"),
            column("Age", "string"),
        ]
    },
    cells: |budget, now| {
        vec![
            name(budget),
            json!(int_or_string(at(budget, &["spec", "minAvailable"]), "N/A")),
            json!(int_or_string(at(budget, &["spec", "maxUnavailable"]), "N/A")),
            json!(number(budget, &["status", "disruptionsAllowed"])),
            json!(age(budget, now)),
        ]
    },
};

pub const PRIORITY_CLASS: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Value", "integer"),
            column("Global-Default", "boolean"),
            column("Age", "string"),
            column("PreemptionPolicy", "string"),
        ]
    },
    cells: |class, now| {
        vec![
            name(class),
            json!(number(class, &["value"])),
            json!(boolean(class, &["globalDefault"])),
            json!(age(class, now)),
            json!(text(class, &["preemptionPolicy"])),
        ]
    },
};

pub const RUNTIME_CLASS: Printer = Printer {
    columns: || vec![name_column(), column("Handler", "string"), column("Age", "string")],
    cells: |class, now| vec![name(class), json!(text(class, &["handler"])), json!(age(class, now))],
};

pub const HORIZONTAL_POD_AUTOSCALER: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Reference", "string"),
            column("Targets", "string"),
            column("MinPods", "string"),
            column("MaxPods", "string"),
            column("Replicas", "string"),
            column("Age", "string"),
        ]
    },
    cells: |autoscaler, now| {
        let target = |field: &str| text(autoscaler, &["spec", "scaleTargetRef", field]);
        let minimum = integer(autoscaler, &["spec", "minReplicas"]);
        vec![
            name(autoscaler),
            json!(format!("{}/{}", target("kind"), target("name"))),
            json!(metrics(autoscaler)),
            json!(minimum.map_or_else(|| "<unset>".to_owned(), |minimum| minimum.to_string())),
            json!(number(autoscaler, &["spec", "maxReplicas"])),
            json!(number(autoscaler, &["status", "currentReplicas"])),
            json!(age(autoscaler, now)),
        ]
    },
};

/// `current/target` of the first two metrics.
fn metrics(autoscaler: &Object) -> String {
    const SHOWN_MAX: usize = 2;
    let all: Vec<String> = objects(autoscaler, &["spec", "metrics"])
        .map(|(index, metric)| {
            let current = objects(autoscaler, &["status", "currentMetrics"])
                .nth(index)
                .map(|(_, current)| current);
            metric_text(metric, current)
        })
        .collect();
    match all.len() {
        0 => "<none>".to_owned(),
        count if count > SHOWN_MAX => format!("{} + {} more...", all[..SHOWN_MAX].join(", "), count - SHOWN_MAX),
        _ => all.join(", "),
    }
}

fn metric_text(metric: &Object, current: Option<&Object>) -> String {
    let kind = text(metric, &["type"]);
    let (field, prefix) = match kind {
        "Resource" => ("resource", format!("{}: ", text(metric, &["resource", "name"]))),
        "ContainerResource" => (
            "containerResource",
            format!("{}: ", text(metric, &["containerResource", "name"])),
        ),
        "Pods" => ("pods", String::new()),
        "Object" => ("object", String::new()),
        "External" => ("external", String::new()),
        _ => return "<unknown type>".to_owned(),
    };
    let value = |from: Option<&Object>, field: &str| {
        from.and_then(|from| from.get(field))
            .map(|value| int_or_string(Some(value), ""))
    };
    let target = map(metric, &[field, "target"]);
    let now = current.and_then(|current| map(current, &[field, "current"]));
    let unknown = || "<unknown>".to_owned();
    let is_resource = prefix.ends_with(": ");
    if let Some(average) = value(target, "averageValue") {
        let suffix = if matches!(kind, "Object" | "External") {
            " (avg)"
        } else {
            ""
        };
        let now = value(now, "averageValue").unwrap_or_else(unknown);
        return format!("{prefix}{now}/{average}{suffix}");
    }
    if is_resource {
        let target = value(target, "averageUtilization").map_or_else(|| "<auto>".to_owned(), |value| value + "%");
        let now = value(now, "averageUtilization").map_or_else(unknown, |value| value + "%");
        return format!("{prefix}{now}/{target}");
    }
    format!(
        "{}/{}",
        value(now, "value").unwrap_or_else(unknown),
        value(target, "value").unwrap_or_default()
    )
}
