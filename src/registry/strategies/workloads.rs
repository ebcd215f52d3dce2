//! Workloads: ReplicationController, ReplicaSet, Deployment, StatefulSet, DaemonSet and PodTemplate
//! (upstream: `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation`).

use super::pod::{defaults, validate};
use super::{Stored, stored::Printer};
use crate::registry::columns::workloads as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_label;
use crate::registry::json::{
    at, child, child_or_new, children, default_text, default_to, integer, is_set, map, number, text, texts,
};
use crate::registry::selector::LabelSelector;
use crate::registry::strategy::Object;
use crate::registry::validation::{annotations, immutable, labels, non_negative};
use serde_json::{Map, Value, json};

const REVISION_HISTORY: i64 = 10;
const PROGRESS_DEADLINE_SECONDS: i64 = 600;
/// What of a StatefulSet's spec may change.
const STATEFUL_SET_UPDATABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub fn deployment() -> Stored {
    workload(printers::DEPLOYMENT)
        .defaults(default_deployment)
        .rules(validate_deployment)
        .status(|| json!({}))
        .unattended("deployments are stored, but no controller acts on them yet")
}

pub fn replica_set() -> Stored {
    workload(printers::REPLICA_SET)
        .defaults(|set| {
            let spec = child_or_new(set, "spec");
            default_to(spec, "replicas", 1);
            template_defaults(spec);
        })
        // Upstream says "deployment" here, too.
        .rules(|set| controlled(set, "deployment"))
        .status(|| json!({"replicas": 0}))
        .unattended("replica sets are stored, but no controller acts on them yet")
}

pub fn replication_controller() -> Stored {
    workload(printers::REPLICATION_CONTROLLER)
        .defaults(default_replication_controller)
        .rules(validate_replication_controller)
        .update_rules(|_, _| Vec::new())
        .fields(&["status.replicas"], |controller| {
            vec![(
                "status.replicas",
                number(controller, &["status", "replicas"]).to_string(),
            )]
        })
        .unsupported(|field| format!("field label not supported: {field}"))
        .status(|| json!({"replicas": 0}))
        .unattended("replication controllers are stored, but no controller acts on them yet")
}

pub fn stateful_set() -> Stored {
    workload(printers::STATEFUL_SET)
        .named(dns1123_label)
        .defaults(default_stateful_set)
        .rules(|set| controlled(set, "statefulset"))
        .update_rules(stateful_set_update)
        .status(|| json!({"replicas": 0, "availableReplicas": 0}))
        .unattended("stateful sets are stored, but no controller acts on them yet")
}

pub fn daemon_set() -> Stored {
    workload(printers::DAEMON_SET)
        .defaults(default_daemon_set)
        .rules(|set| controlled(set, "daemonset"))
        .status(|| {
            json!({
                "currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0,
            })
        })
        .unattended("daemon sets are stored, but no controller acts on them yet")
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
        .update_rules(|new, old| Vec::from_iter(immutable(new.get("data"), old.get("data"), "data")))
}

fn workload(printer: Printer) -> Stored {
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

fn default_stateful_set(set: &mut Object) {
    let spec = child_or_new(set, "spec");
    default_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = child_or_new(spec, "updateStrategy");
    default_text(strategy, "type", "RollingUpdate");
    if text(strategy, &["type"]) == "RollingUpdate" {
        default_to(child_or_new(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = child_or_new(spec, "persistentVolumeClaimRetentionPolicy");
    default_text(retention, "whenDeleted", "Retain");
    default_text(retention, "whenScaled", "Retain");
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", REVISION_HISTORY);
    for claim in children(spec, "volumeClaimTemplates") {
        default_text(claim, "apiVersion", "v1");
        default_text(claim, "kind", "PersistentVolumeClaim");
        default_to(child_or_new(claim, "spec"), "volumeMode", "Filesystem");
        default_text(child_or_new(claim, "status"), "phase", "Pending");
    }
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
        errors.extend(labels(found, &format!("{path}.metadata.labels")));
    }
    if let Some(found) = map(template, &["metadata", "annotations"]) {
        errors.extend(annotations(found, &format!("{path}.metadata.annotations")));
    }
    let pod = map(template, &["spec"]).unwrap_or(&empty);
    errors.extend(validate::pod_spec(pod, &format!("{path}.spec"), false));
    if is_set(pod, "ephemeralContainers") {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(
            format!("{path}.spec.ephemeralContainers"),
            detail,
        ));
    }
    errors
}

/// Rules of what has replicas, a selector and a template whose pods run on.
fn controlled(object: &Object, kind: &str) -> Vec<FieldError> {
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
            if !is_set(selector, "matchLabels") && !is_set(selector, "matchExpressions") {
                let detail = format!("empty selector is invalid for {kind}");
                errors.push(FieldError::invalid("spec.selector", selector.clone(), &detail));
            }
            errors.extend(selector_misses(spec, selector));
        }
    }
    errors.extend(template_errors(spec, "spec.template"));
    let path = "spec.template.spec.restartPolicy";
    match text(spec, &["template", "spec", "restartPolicy"]) {
        "" | "Always" => {}
        other => errors.push(FieldError::not_supported(path, other, &["Always"])),
    }
    if integer(spec, &["template", "spec", "activeDeadlineSeconds"]).is_some() {
        let path = "spec.template.spec.activeDeadlineSeconds";
        errors.push(FieldError::forbidden(
            path,
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        ));
    }
    errors
}

/// The template's labels must be what the selector selects.
fn selector_misses(spec: &Object, selector: &Object) -> Option<FieldError> {
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
    let mut errors = controlled(deployment, "deployment");
    let strategy = ["spec", "strategy"];
    let rolling = at(deployment, &["spec", "strategy", "rollingUpdate"]);
    match text(deployment, &["spec", "strategy", "type"]) {
        "RollingUpdate" => {
            let zero = |field: &str| {
                let value = at(deployment, &[&strategy[..], &["rollingUpdate", field]].concat());
                matches!(value, Some(value) if *value == json!(0) || *value == json!("0%"))
            };
            if zero("maxUnavailable") && zero("maxSurge") {
                let shown = rolling
                    .and_then(|rolling| rolling.get("maxUnavailable"))
                    .cloned()
                    .unwrap_or_default();
                let path = "spec.strategy.rollingUpdate.maxUnavailable";
                errors.push(FieldError::invalid(path, shown, "may not be 0 when `maxSurge` is 0"));
            }
        }
        "Recreate" if rolling.is_some() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
        }
        "Recreate" => {}
        other => {
            errors.push(FieldError::not_supported(
                "spec.strategy.type",
                other,
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
    let deadline = integer(deployment, &["spec", "progressDeadlineSeconds"]);
    if let Some(deadline) = deadline {
        let path = "spec.progressDeadlineSeconds";
        errors.extend(non_negative(Some(&json!(deadline)), path));
        if deadline <= number(deployment, &["spec", "minReadySeconds"]) {
            errors.push(FieldError::invalid(
                path,
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
    }
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
    } else {
        errors.push(FieldError::required("spec.template", ""));
    }
    errors
}

fn stateful_set_update(set: &Object, old: &Object) -> Vec<FieldError> {
    let fixed = |object: &Object| {
        let mut spec = map(object, &["spec"]).cloned().unwrap_or_default();
        STATEFUL_SET_UPDATABLE.iter().for_each(|field| {
            spec.remove(*field);
        });
        spec
    };
    if fixed(set) == fixed(old) {
        return Vec::new();
    }
    let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
        'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' \
        are forbidden";
    vec![FieldError::forbidden("spec", detail)]
}
