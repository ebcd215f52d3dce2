//! Columns of pods (upstream: `printPod` in `pkg/printers/internalversion/printers.go`).

use super::{age, column, name_column, since, wide};
use crate::registry::json::{at, boolean, integer, items, map, number, objects, text};
use crate::registry::projection::Parts::{self, All, Only};
use crate::registry::strategy::{Column, Object};
use serde_json::{Value, json};

pub fn columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Ready", "string"),
        column("Status", "string"),
        column("Restarts", "string"),
        column("Age", "string"),
        wide("IP", "string"),
        wide("Node", "string"),
        wide("Nominated Node", "string"),
        wide("Readiness Gates", "string"),
    ]
}

/// What [`cells`] and [`row_conditions`] look at.
pub const READ: Parts = {
    const STATUSES: Parts = Only(&[
        ("name", All),
        ("ready", All),
        ("started", All),
        ("restartCount", All),
        ("state", All),
        ("lastState", All),
    ]);
    Only(&[
        (
            "metadata",
            Only(&[("name", All), ("creationTimestamp", All), ("deletionTimestamp", All)]),
        ),
        (
            "spec",
            Only(&[
                ("nodeName", All),
                ("readinessGates", All),
                ("initContainers", Only(&[("name", All), ("restartPolicy", All)])),
                ("containers", Only(&[])),
            ]),
        ),
        (
            "status",
            Only(&[
                ("phase", All),
                ("reason", All),
                ("nominatedNodeName", All),
                ("podIPs", All),
                ("conditions", Only(&[("type", All), ("status", All), ("reason", All)])),
                ("initContainerStatuses", STATUSES),
                ("containerStatuses", STATUSES),
            ]),
        ),
    ])
};

pub fn cells(pod: &Object, now: i64) -> Vec<Value> {
    let summary = Summary::of(pod);
    let or_none = |text: &str| json!(if text.is_empty() { "<none>" } else { text });
    let ip = objects(pod, &["status", "podIPs"])
        .next()
        .map_or("", |(_, ip)| text(ip, &["ip"]));
    vec![
        json!(text(pod, &["metadata", "name"])),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.status),
        json!(summary.restarts_text(now)),
        json!(age(pod, now)),
        or_none(ip),
        or_none(text(pod, &["spec", "nodeName"])),
        or_none(text(pod, &["status", "nominatedNodeName"])),
        json!(readiness_gates(pod)),
    ]
}

/// Finished pods carry a condition by which clients can hide their rows.
pub fn row_conditions(pod: &Object) -> Option<Value> {
    let (reason, message) = match text(pod, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

/// What the columns Ready, Status and Restarts are made from.
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    /// When a container last ended before it was restarted, RFC 3339.
    last_restart: String,
}

impl Summary {
    fn of(pod: &Object) -> Self {
        let sidecars: Vec<&str> = objects(pod, &["spec", "initContainers"])
            .filter(|(_, container)| text(container, &["restartPolicy"]) == "Always")
            .map(|(_, container)| text(container, &["name"]))
            .collect();
        let mut summary = Self {
            ready: 0,
            total: items(pod, &["spec", "containers"]).len() + sidecars.len(),
            status: initial_status(pod),
            restarts: 0,
            last_restart: String::new(),
        };
        let initializing = summary.add_init_containers(pod, &sidecars);
        if !initializing || condition(pod, "Initialized") == Some("True") {
            summary.keep_only_sidecar_restarts(pod, &sidecars);
            summary.add_containers(pod);
        }
        if !text(pod, &["metadata", "deletionTimestamp"]).is_empty() {
            if text(pod, &["status", "reason"]) == "NodeLost" {
                summary.status = "Unknown".to_owned();
            } else if !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    fn add_restarts(&mut self, status: &Object) {
        self.restarts += number(status, &["restartCount"]);
        // RFC 3339 in UTC with whole seconds sorts as text.
        let finished = text(status, &["lastState", "terminated", "finishedAt"]);
        if finished > self.last_restart.as_str() {
            self.last_restart = finished.to_owned();
        }
    }

    /// Goes through init containers up to the first that is not done, and says whether there is one.
    fn add_init_containers(&mut self, pod: &Object, sidecars: &[&str]) -> bool {
        let count = items(pod, &["spec", "initContainers"]).len();
        for (index, status) in objects(pod, &["status", "initContainerStatuses"]) {
            self.add_restarts(status);
            let terminated = map(status, &["state", "terminated"]);
            if terminated.is_some_and(|terminated| number(terminated, &["exitCode"]) == 0) {
                continue;
            }
            if sidecars.contains(&text(status, &["name"])) && boolean(status, &["started"]) {
                if boolean(status, &["ready"]) {
                    self.ready += 1;
                }
                continue;
            }
            if let Some(terminated) = terminated {
                self.status = format!("Init:{}", ending(terminated));
                return true;
            }
            self.status = match text(status, &["state", "waiting", "reason"]) {
                "" | "PodInitializing" => format!("Init:{index}/{count}"),
                reason => format!("Init:{reason}"),
            };
            return true;
        }
        false
    }

    /// Once initialised, only containers that still run are counted.
    fn keep_only_sidecar_restarts(&mut self, pod: &Object, sidecars: &[&str]) {
        self.restarts = 0;
        self.last_restart.clear();
        for (_, status) in objects(pod, &["status", "initContainerStatuses"]) {
            if sidecars.contains(&text(status, &["name"])) {
                self.add_restarts(status);
            }
        }
    }

    fn add_containers(&mut self, pod: &Object) {
        let mut running = false;
        let mut failed: Option<String> = None;
        let statuses: Vec<&Object> = objects(pod, &["status", "containerStatuses"])
            .map(|(_, status)| status)
            .collect();
        // From the last to the first: the first container's reason wins.
        for status in statuses.into_iter().rev() {
            self.add_restarts(status);
            let waiting = text(status, &["state", "waiting", "reason"]);
            let terminated = map(status, &["state", "terminated"]);
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if let Some(terminated) = terminated {
                self.status = ending(terminated);
                if number(terminated, &["exitCode"]) != 0 {
                    failed = Some(self.status.clone());
                }
            } else if boolean(status, &["ready"]) && at(status, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" {
            if running {
                let ready = condition(pod, "Ready") == Some("True");
                self.status = if ready { "Running" } else { "NotReady" }.to_owned();
            } else if let Some(failed) = failed {
                self.status = failed;
            }
        }
    }

    fn restarts_text(&self, now: i64) -> String {
        if self.restarts == 0 || self.last_restart.is_empty() {
            return self.restarts.to_string();
        }
        format!("{} ({} ago)", self.restarts, since(&self.last_restart, now))
    }
}

/// Phase, reason, or that gates hold the pod back.
fn initial_status(pod: &Object) -> String {
    let gated = objects(pod, &["status", "conditions"]).any(|(_, condition)| {
        text(condition, &["type"]) == "PodScheduled" && text(condition, &["reason"]) == "SchedulingGated"
    });
    if gated {
        return "SchedulingGated".to_owned();
    }
    match text(pod, &["status", "reason"]) {
        "" => text(pod, &["status", "phase"]).to_owned(),
        reason => reason.to_owned(),
    }
}

/// Reason of a terminated container, else its signal or exit code.
fn ending(terminated: &Object) -> String {
    match (text(terminated, &["reason"]), number(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", integer(terminated, &["exitCode"]).unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn condition<'a>(pod: &'a Object, kind: &str) -> Option<&'a str> {
    objects(pod, &["status", "conditions"])
        .find(|(_, condition)| text(condition, &["type"]) == kind)
        .map(|(_, condition)| text(condition, &["status"]))
}

fn readiness_gates(pod: &Object) -> String {
    let gates = items(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = objects(pod, &["spec", "readinessGates"])
        .filter(|(_, gate)| condition(pod, text(gate, &["conditionType"])) == Some("True"))
        .count();
    format!("{open}/{}", gates.len())
}
