//! Workloads: ReplicationController, ReplicaSet, Deployment, DaemonSet, PodTemplate and ControllerRevision
//! (upstream: `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation`).

use super::pod::{defaults, validate};
use super::{Stored, int_or_percent, stored::Printer, workload_status};
use crate::registry::columns::workloads as printers;
use crate::registry::field::FieldError;
use crate::registry::json::{
    at, boolean, child, child_or_new, default_text, default_to, integer, is_set, map, number, objects, text, texts,
};
use crate::registry::selector::LabelSelector;
use crate::registry::strategy::{Dependents, Object};
use crate::registry::validation::{annotations, immutable, labels, non_negative};
use serde_json::{Map, Value, json};

pub const REVISION_HISTORY: i64 = 10;
const PROGRESS_DEADLINE_SECONDS: i64 = 600;
pub fn deployment() -> Stored {
    workload(printers::DEPLOYMENT)
        .defaults(default_deployment)
        .rules(validate_deployment)
        .status_rules(workload_status::deployment)
        .status(|| json!({}))
}

pub fn replica_set() -> Stored {
    workload(printers::REPLICA_SET)
        .defaults(|set| {
            let spec = child_or_new(set, "spec");
            default_to(spec, "replicas", 1);
            template_defaults(spec);
        })
        .rules(controlled)
        .status_rules(workload_status::replicas)
        .status(|| json!({"replicas": 0}))
}

pub fn replication_controller() -> Stored {
    workload(printers::REPLICATION_CONTROLLER)
        .defaults(default_replication_controller)
        .rules(validate_replication_controller)
        .status_rules(workload_status::replicas)
        .dependents(Dependents::Orphaned)
        .update_rules(|_, _| Vec::new())
        .fields(&["status.replicas"], |controller| {
            vec![(
                "status.replicas",
                number(controller, &["status", "replicas"]).to_string(),
            )]
        })
        .unsupported(|field| format!("field label not supported: {field}"))
        .status(|| json!({"replicas": 0}))
}

pub fn daemon_set() -> Stored {
    workload(printers::DAEMON_SET)
        .defaults(default_daemon_set)
        .rules(validate_daemon_set)
        .status_rules(workload_status::daemon_set)
        .status(|| {
            json!({
                "currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0,
            })
        })
}

pub fn pod_template() -> Stored {
    Stored::new(printers::POD_TEMPLATE)
        .generation()
        .returns_deleted()
        .defaults(template_defaults)
        .rules(|template| template_errors(template, "template"))
}

pub fn controller_revision() -> Stored {
    Stored::new(printers::CONTROLLER_REVISION)
        .rules(|revision| {
            let mut errors = Vec::new();
            if revision.get("data").is_none_or(Value::is_null) {
                errors.push(FieldError::required("data", "data is mandatory"));
            }
            errors.extend(non_negative(revision.get("revision"), "revision"));
            errors
        })
        .update_rules(|new, old| Vec::from_iter(immutable(new.get("data"), old.get("data"), "data")))
}

pub fn workload(printer: Printer) -> Stored {
    Stored::new(printer)
        .generation()
        .update_rules(|new, old| Vec::from_iter(immutable(selector_of(new), selector_of(old), "spec.selector")))
}

fn selector_of(object: &Object) -> Option<&Value> {
    at(object, &["spec", "selector"])
}

/// Defaults of the pod template in `spec`.
pub fn template_defaults(spec: &mut Object) {
    if let Some(pod) = child(spec, "template").and_then(|template| child(template, "spec")) {
        defaults::pod_spec(pod);
    }
}

fn default_deployment(deployment: &mut Object) {
    let spec = child_or_new(deployment, "spec");
    default_to(spec, "replicas", 1);
    let strategy = child_or_new(spec, "strategy");
    default_text(strategy, "type", "RollingUpdate");
    if text(strategy, &["type"]) == "RollingUpdate" {
        let rolling = child_or_new(strategy, "rollingUpdate");
        default_to(rolling, "maxUnavailable", "25%");
        default_to(rolling, "maxSurge", "25%");
    }
    default_to(spec, "revisionHistoryLimit", REVISION_HISTORY);
    default_to(spec, "progressDeadlineSeconds", PROGRESS_DEADLINE_SECONDS);
    template_defaults(spec);
}

fn default_daemon_set(set: &mut Object) {
    let spec = child_or_new(set, "spec");
    let strategy = child_or_new(spec, "updateStrategy");
    default_text(strategy, "type", "RollingUpdate");
    if text(strategy, &["type"]) == "RollingUpdate" {
        let rolling = child_or_new(strategy, "rollingUpdate");
        default_to(rolling, "maxUnavailable", 1);
        default_to(rolling, "maxSurge", 0);
    }
    default_to(spec, "revisionHistoryLimit", REVISION_HISTORY);
    template_defaults(spec);
}

fn default_replication_controller(controller: &mut Object) {
    let template_labels = map(controller, &["spec", "template", "metadata", "labels"]).cloned();
    if let Some(template_labels) = template_labels.filter(|labels| !labels.is_empty()) {
        let spec = child_or_new(controller, "spec");
        if !is_set(spec, "selector") {
            spec.insert("selector".into(), Value::Object(template_labels.clone()));
        }
        let metadata = child_or_new(controller, "metadata");
        if !is_set(metadata, "labels") {
            metadata.insert("labels".into(), Value::Object(template_labels));
        }
    }
    let spec = child_or_new(controller, "spec");
    default_to(spec, "replicas", 1);
    template_defaults(spec);
}

/// Rules of the pod template at `field` of `spec`.
pub fn template_errors(spec: &Object, path: &str) -> Vec<FieldError> {
    let field = path.rsplit('.').next().unwrap_or(path);
    let empty = Map::new();
    let template = map(spec, &[field]).unwrap_or(&empty);
    let mut errors = Vec::new();
    if let Some(found) = map(template, &["metadata", "labels"]) {
        errors.extend(labels(found, &format!("{path}.labels")));
    }
    if let Some(found) = map(template, &["metadata", "annotations"]) {
        errors.extend(annotations(found, &format!("{path}.annotations")));
    }
    let pod = map(template, &["spec"]).unwrap_or(&empty);
    let pod_annotations = map(template, &["metadata", "annotations"]);
    errors.extend(validate::annotations::of_pod(
        pod_annotations,
        pod,
        &format!("{path}.annotations"),
    ));
    errors.extend(validate::pod_spec(pod, &format!("{path}.spec"), None));
    errors.extend(validate::annotations::match_fields(
        pod_annotations,
        pod,
        &format!("{path}.spec"),
    ));
    if is_set(pod, "ephemeralContainers") {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(
            format!("{path}.spec.ephemeralContainers"),
            detail,
        ));
    }
    errors
}

/// Rules of what has replicas, a selector and a template whose pods run on: Deployments and ReplicaSets.
fn controlled(object: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(object, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        errors.extend(non_negative(spec.get(field), &format!("spec.{field}")));
    }
    match map(spec, &["selector"]) {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            errors.extend(validate::label_selector(selector, "spec.selector"));
            // Upstream says "deployment" of both.
            errors.extend(empty_selector(selector, "deployment"));
            errors.extend(selector_misses(spec, selector));
        }
    }
    errors.extend(template_errors(spec, "spec.template"));
    if number(spec, &["replicas"]) > 1 {
        errors.extend(writable_disks(spec));
    }
    errors.extend(runs_on(spec, "ReplicaSet"));
    errors
}

pub fn empty_selector(selector: &Object, kind: &str) -> Option<FieldError> {
    let empty = !is_set(selector, "matchLabels") && !is_set(selector, "matchExpressions");
    let detail = format!("empty selector is invalid for {kind}");
    empty.then(|| FieldError::invalid("spec.selector", selector.clone(), &detail))
}

/// Pods of these templates are started again for ever.
pub fn runs_on(spec: &Object, kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(spec, &["template", "spec", "restartPolicy"]) {
        "" | "Always" => {}
        other => {
            let path = "spec.template.spec.restartPolicy";
            errors.push(FieldError::not_supported(path, other, &["Always"]));
        }
    }
    if integer(spec, &["template", "spec", "activeDeadlineSeconds"]).is_some() {
        let path = "spec.template.spec.activeDeadlineSeconds";
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(path, &detail));
    }
    errors
}

/// Disks that only one machine can write.
fn writable_disks(spec: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, volume) in objects(spec, &["template", "spec", "volumes"]) {
        let disk = map(volume, &["gcePersistentDisk"]);
        if disk.is_some_and(|disk| !boolean(disk, &["readOnly"])) {
            let path = format!("spec.template.spec.volumes[{index}].gcePersistentDisk.readOnly");
            let detail = "must be read-only for replicated pods > 1; GCE PD can only be mounted on multiple machines if \
                it is read-only";
            errors.push(FieldError::invalid(path, false, detail));
        }
    }
    errors
}

/// The template's labels must be what the selector selects.
pub fn selector_misses(spec: &Object, selector: &Object) -> Option<FieldError> {
    let mut found: Vec<(String, String)> = texts(spec, &["template", "metadata", "labels"])
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    found.sort_unstable();
    let text = crate::registry::columns::selector_text(Some(&Value::Object(selector.clone())));
    // What cannot be parsed has been reported already.
    let parsed = LabelSelector::parse(if text == "<none>" { "" } else { &text }).ok()?;
    let shown = at(spec, &["template", "metadata", "labels"])
        .cloned()
        .unwrap_or_else(|| json!({}));
    (!parsed.matches_labels(&found)).then(|| {
        let detail = "`selector` does not match template `labels`";
        FieldError::invalid("spec.template.metadata.labels", shown, detail)
    })
}

fn validate_deployment(deployment: &Object) -> Vec<FieldError> {
    let mut errors = controlled(deployment);
    let path = "spec.strategy.rollingUpdate";
    let rolling = map(deployment, &["spec", "strategy", "rollingUpdate"]);
    match text(deployment, &["spec", "strategy", "type"]) {
        "RollingUpdate" => match rolling {
            None => {
                let detail = "this should be defaulted and never be nil";
                errors.push(FieldError::required(path, detail));
            }
            Some(rolling) => {
                let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
                let field = format!("{path}.maxUnavailable");
                errors.extend(int_or_percent::positive(unavailable, &field));
                errors.extend(int_or_percent::positive(surge, &format!("{path}.maxSurge")));
                if int_or_percent::is_zero(unavailable) && int_or_percent::is_zero(surge) {
                    let shown = unavailable.cloned().unwrap_or_default();
                    let detail = "may not be 0 when `maxSurge` is 0";
                    errors.push(FieldError::invalid(field.as_str(), shown, detail));
                }
                errors.extend(int_or_percent::at_most_all(unavailable, &field));
            }
        },
        "Recreate" if rolling.is_some() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(path, detail));
        }
        "Recreate" => {}
        other => {
            let types = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported("spec.strategy.type", other, &types));
        }
    }
    if let Some(deadline) = integer(deployment, &["spec", "progressDeadlineSeconds"]) {
        let path = "spec.progressDeadlineSeconds";
        errors.extend(non_negative(Some(&json!(deadline)), path));
        if deadline <= number(deployment, &["spec", "minReadySeconds"]) {
            let detail = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid(path, deadline, detail));
        }
    }
    errors
}

fn validate_daemon_set(set: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(set, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    match map(spec, &["selector"]) {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            errors.extend(validate::label_selector(selector, "spec.selector"));
            errors.extend(selector_misses(spec, selector));
            errors.extend(empty_selector(selector, "daemonset"));
        }
    }
    errors.extend(template_errors(spec, "spec.template"));
    errors.extend(writable_disks(spec));
    errors.extend(runs_on(spec, "DaemonSet"));
    errors.extend(non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds"));
    let path = "spec.updateStrategy.rollingUpdate";
    match (
        text(spec, &["updateStrategy", "type"]),
        map(spec, &["updateStrategy", "rollingUpdate"]),
    ) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(FieldError::required(path, "")),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            let (unavailable_path, surge_path) = (format!("{path}.maxUnavailable"), format!("{path}.maxSurge"));
            errors.extend(int_or_percent::positive(unavailable, &unavailable_path));
            errors.extend(int_or_percent::positive(surge, &surge_path));
            match (int_or_percent::is_zero(unavailable), int_or_percent::is_zero(surge)) {
                (false, false) => {
                    let shown = surge.cloned().unwrap_or_default();
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(surge_path.as_str(), shown, detail));
                }
                (true, true) => {
                    let detail = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(unavailable_path.as_str(), detail));
                }
                _ => {}
            }
            errors.extend(int_or_percent::at_most_all(unavailable, &unavailable_path));
            errors.extend(int_or_percent::at_most_all(surge, &surge_path));
        }
        (other, _) => {
            let types = ["RollingUpdate", "OnDelete"];
            errors.push(FieldError::not_supported("spec.updateStrategy.type", other, &types));
        }
    }
    errors.extend(non_negative(
        spec.get("revisionHistoryLimit"),
        "spec.revisionHistoryLimit",
    ));
    errors
}

fn validate_replication_controller(controller: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(controller, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    for field in ["replicas", "minReadySeconds"] {
        errors.extend(non_negative(spec.get(field), &format!("spec.{field}")));
    }
    let selector = map(spec, &["selector"]).filter(|selector| !selector.is_empty());
    match selector {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            let wrapped = json!({"matchLabels": selector});
            errors.extend(wrapped.as_object().and_then(|selector| selector_misses(spec, selector)));
        }
    }
    if is_set(spec, "template") {
        errors.extend(template_errors(spec, "spec.template"));
        errors.extend(runs_on(spec, "ReplicationController"));
    } else {
        errors.push(FieldError::required("spec.template", ""));
    }
    errors
}
