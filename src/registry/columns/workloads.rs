//! Columns of workloads (upstream: `pkg/printers/internalversion/printers.go`).

use super::{
    age, column, human_duration, join_texts, map_text, name_column, or_text, seconds_of, selector_text, since, wide,
};
use crate::registry::json::{at, boolean, integer, items, map, number, objects, text};
use crate::registry::strategies::Printer;
use crate::registry::strategy::{Column, Object};
use serde_json::{Value, json};

fn name(object: &Object) -> Value {
    json!(text(object, &["metadata", "name"]))
}

/// Names and images of the containers of the pod template at `path`.
fn containers(object: &Object, path: &[&str]) -> [Value; 2] {
    let path = [path, &["spec", "containers"]].concat();
    let part = |field: &str| {
        json!(join_texts(
            objects(object, &path).map(|(_, container)| text(container, &[field]))
        ))
    };
    [part("name"), part("image")]
}

/// The columns that every workload ends with.
fn wide_columns() -> [Column; 3] {
    [
        wide("Containers", "string"),
        wide("Images", "string"),
        wide("Selector", "string"),
    ]
}

fn with_wide(columns: Vec<Column>) -> Vec<Column> {
    columns.into_iter().chain(wide_columns()).collect()
}

/// The cells of `wide_columns`, for a template at spec.template and a label selector.
fn with_wide_cells(object: &Object, mut cells: Vec<Value>) -> Vec<Value> {
    cells.extend(containers(object, &["spec", "template"]));
    cells.push(json!(selector_text(at(object, &["spec", "selector"]))));
    cells
}

/// Desired, current and ready replicas.
fn replica_columns() -> Vec<Column> {
    with_wide(vec![
        name_column(),
        column("Desired", "integer"),
        column("Current", "integer"),
        column("Ready", "integer"),
        column("Age", "string"),
    ])
}

fn replica_cells(set: &Object, now: i64) -> Vec<Value> {
    vec![
        name(set),
        json!(number(set, &["spec", "replicas"])),
        json!(number(set, &["status", "replicas"])),
        json!(number(set, &["status", "readyReplicas"])),
        json!(age(set, now)),
    ]
}

pub const REPLICA_SET: Printer = Printer {
    columns: replica_columns,
    cells: |set, now| with_wide_cells(set, replica_cells(set, now)),
};

pub const REPLICATION_CONTROLLER: Printer = Printer {
    columns: replica_columns,
    cells: |controller, now| {
        let mut cells = replica_cells(controller, now);
        cells.extend(containers(controller, &["spec", "template"]));
        cells.push(json!(map_text(map(controller, &["spec", "selector"]))));
        cells
    },
};

/// `ready/desired`.
fn ready(object: &Object) -> String {
    format!(
        "{}/{}",
        number(object, &["status", "readyReplicas"]),
        number(object, &["spec", "replicas"])
    )
}

pub const DEPLOYMENT: Printer = Printer {
    columns: || {
        with_wide(vec![
            name_column(),
            column("Ready", "string"),
            column("Up-to-date", "string"),
            column("Available", "string"),
            column("Age", "string"),
        ])
    },
    cells: |deployment, now| {
        let cells = vec![
            name(deployment),
            json!(ready(deployment)),
            json!(number(deployment, &["status", "updatedReplicas"])),
            json!(number(deployment, &["status", "availableReplicas"])),
            json!(age(deployment, now)),
        ];
        with_wide_cells(deployment, cells)
    },
};

pub const STATEFUL_SET: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Ready", "string"),
            column("Age", "string"),
            wide("Containers", "string"),
            wide("Images", "string"),
        ]
    },
    cells: |set, now| {
        let mut cells = vec![name(set), json!(ready(set)), json!(age(set, now))];
        cells.extend(containers(set, &["spec", "template"]));
        cells
    },
};

pub const DAEMON_SET: Printer = Printer {
    columns: || {
        with_wide(vec![
            name_column(),
            column("Desired", "integer"),
            column("Current", "integer"),
            column("Ready", "integer"),
            column("Up-to-date", "integer"),
            column("Available", "integer"),
            column("Node Selector", "string"),
            column("Age", "string"),
        ])
    },
    cells: |set, now| {
        let count = |field: &str| json!(number(set, &["status", field]));
        let cells = vec![
            name(set),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            json!(map_text(map(set, &["spec", "template", "spec", "nodeSelector"]))),
            json!(age(set, now)),
        ];
        with_wide_cells(set, cells)
    },
};

pub const CONTROLLER_REVISION: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Controller", "string"),
            column("Revision", "string"),
            column("Age", "string"),
        ]
    },
    cells: |revision, now| {
        let owner = objects(revision, &["metadata", "ownerReferences"])
            .find(|(_, owner)| boolean(owner, &["controller"]))
            .map(|(_, owner)| {
                let group = text(owner, &["apiVersion"])
                    .split_once('/')
                    .map_or("", |(group, _)| group);
                let kind = text(owner, &["kind"]).to_lowercase();
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", text(owner, &["name"]))
            });
        vec![
            name(revision),
            json!(owner.unwrap_or_else(|| "<none>".to_owned())),
            json!(number(revision, &["revision"])),
            json!(age(revision, now)),
        ]
    },
};

pub const POD_TEMPLATE: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Containers", "string"),
            column("Images", "string"),
            column("Pod Labels", "string"),
        ]
    },
    cells: |template, _now| {
        let mut cells = vec![name(template)];
        cells.extend(containers(template, &["template"]));
        cells.push(json!(map_text(map(template, &["template", "metadata", "labels"]))));
        cells
    },
};

pub const JOB: Printer = Printer {
    columns: || {
        with_wide(vec![
            name_column(),
            column("Status", "string"),
            column("Completions", "string"),
            column("Duration", "string"),
            column("Age", "string"),
        ])
    },
    cells: |job, now| {
        let cells = vec![
            name(job),
            json!(job_status(job)),
            json!(completions(job)),
            json!(job_duration(job, now)),
            json!(age(job, now)),
        ];
        with_wide_cells(job, cells)
    },
};

fn job_status(job: &Object) -> &'static str {
    let holds = |kind: &str| {
        objects(job, &["status", "conditions"])
            .any(|(_, condition)| text(condition, &["type"]) == kind && text(condition, &["status"]) == "True")
    };
    if let Some(end) = ["Complete", "Failed"].into_iter().find(|kind| holds(kind)) {
        return end;
    }
    if !text(job, &["metadata", "deletionTimestamp"]).is_empty() {
        return "Terminating";
    }
    ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
        .into_iter()
        .find(|kind| holds(kind))
        .unwrap_or("Running")
}

fn completions(job: &Object) -> String {
    let succeeded = number(job, &["status", "succeeded"]);
    match (
        integer(job, &["spec", "completions"]),
        number(job, &["spec", "parallelism"]),
    ) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn job_duration(job: &Object, now: i64) -> String {
    let Some(start) = seconds_of(text(job, &["status", "startTime"])) else {
        return String::new();
    };
    let end = seconds_of(text(job, &["status", "completionTime"])).unwrap_or(now);
    human_duration(end - start)
}

pub const CRON_JOB: Printer = Printer {
    columns: || {
        with_wide(vec![
            name_column(),
            column("Schedule", "string"),
            column("Timezone", "string"),
            column("Suspend", "boolean"),
            column("Active", "integer"),
            column("Last Schedule", "string"),
            column("Age", "string"),
        ])
    },
    cells: |cron_job, now| {
        let suspend = match at(cron_job, &["spec", "suspend"]).and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = match text(cron_job, &["status", "lastScheduleTime"]) {
            "" => "<none>".to_owned(),
            time => since(time, now),
        };
        let mut cells = vec![
            name(cron_job),
            json!(text(cron_job, &["spec", "schedule"])),
            json!(or_text(text(cron_job, &["spec", "timeZone"]), "<none>")),
            json!(suspend),
            json!(items(cron_job, &["status", "active"]).len()),
            json!(last),
            json!(age(cron_job, now)),
        ];
        cells.extend(containers(cron_job, &["spec", "jobTemplate", "spec", "template"]));
        cells.push(json!(selector_text(at(
            cron_job,
            &["spec", "jobTemplate", "spec", "selector"]
        ))));
        cells
    },
};
