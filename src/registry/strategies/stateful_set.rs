//! StatefulSets (upstream: `SetDefaults_StatefulSet`, `ValidateStatefulSet`).

use super::pod::validate::{annotations as pod_annotations, invalid, label_selector};
use super::volumes::default_claim;
use super::workloads::{REVISION_HISTORY, empty_selector, runs_on, selector_misses, template_defaults, workload};
use super::{Stored, int_or_percent, workload_status};
use crate::registry::columns::workloads::STATEFUL_SET;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_label;
use crate::registry::json::{at, child_or_new, children, default_text, default_to, map, text};
use crate::registry::strategy::Object;
use crate::registry::validation::{annotations, labels, non_negative};
use serde_json::{Map, Value, json};

/// What of the spec may change.
const UPDATABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub fn stateful_set() -> Stored {
    workload(STATEFUL_SET)
        .named(dns1123_label)
        .defaults(defaults)
        .rules(validate)
        .update_rules(update)
        .status_rules(workload_status::stateful_set)
        .status(|| json!({"replicas": 0, "availableReplicas": 0}))
}

fn defaults(set: &mut Object) {
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
        default_claim(child_or_new(claim, "spec"));
        default_text(child_or_new(claim, "status"), "phase", "Pending");
    }
    template_defaults(spec);
}

fn validate(set: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(set, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    match text(spec, &["podManagementPolicy"]) {
        "" => errors.push(FieldError::required("spec.podManagementPolicy", "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid("spec.podManagementPolicy", other, detail));
        }
    }
    errors.extend(update_strategy(spec));
    for field in ["whenDeleted", "whenScaled"] {
        let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        let policies = ["Delete", "Retain"];
        let policy = text(spec, &["persistentVolumeClaimRetentionPolicy", field]);
        if !policies.contains(&policy) {
            errors.push(FieldError::not_supported(path, policy, &policies));
        }
    }
    errors.extend(non_negative(spec.get("replicas"), "spec.replicas"));
    errors.extend(non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds"));
    errors.extend(non_negative(at(spec, &["ordinals", "start"]), "spec.ordinals.start"));
    errors.extend(non_negative(
        spec.get("revisionHistoryLimit"),
        "spec.revisionHistoryLimit",
    ));
    let service = text(spec, &["serviceName"]);
    if !service.is_empty() {
        errors.extend(invalid("spec.serviceName", service, &dns1123_label(service, false)));
    }
    match map(spec, &["selector"]) {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            errors.extend(label_selector(selector, "spec.selector"));
            errors.extend(empty_selector(selector, "statefulset"));
            errors.extend(selector_misses(spec, selector));
        }
    }
    // Volumes come from the claim templates, so upstream looks no further into the pods' spec.
    if let Some(template) = map(spec, &["template"]) {
        if let Some(found) = map(template, &["metadata", "labels"]) {
            errors.extend(labels(found, "spec.template.labels"));
        }
        let found = map(template, &["metadata", "annotations"]);
        if let Some(found) = found {
            errors.extend(annotations(found, "spec.template.annotations"));
        }
        let pod = map(template, &["spec"]).unwrap_or(&empty);
        errors.extend(pod_annotations::of_pod(found, pod, "spec.template.annotations"));
    }
    errors.extend(runs_on(spec, "StatefulSet"));
    errors
}

fn update_strategy(spec: &Object) -> Vec<FieldError> {
    let path = "spec.updateStrategy";
    let strategy = map(spec, &["updateStrategy"]);
    let rolling = map(spec, &["updateStrategy", "rollingUpdate"]);
    let mut errors = Vec::new();
    match (text(spec, &["updateStrategy", "type"]), rolling) {
        ("", _) => errors.push(FieldError::required(path, "")),
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(
                format!("{path}.rollingUpdate"),
                rolling.clone(),
                detail,
            ));
        }
        ("RollingUpdate", Some(rolling)) => {
            let at = |field: &str| format!("{path}.rollingUpdate.{field}");
            errors.extend(non_negative(rolling.get("partition"), &at("partition")));
            if let Some(unavailable) = rolling.get("maxUnavailable") {
                let field = at("maxUnavailable");
                errors.extend(int_or_percent::positive(Some(unavailable), &field));
                if int_or_percent::is_zero(Some(unavailable)) {
                    errors.push(FieldError::invalid(field.as_str(), unavailable.clone(), "cannot be 0"));
                }
                errors.extend(int_or_percent::at_most_all(Some(unavailable), &field));
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => {
            let shown = strategy.cloned().map(Value::Object).unwrap_or_default();
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(path, shown, detail));
        }
    }
    errors
}

fn update(set: &Object, old: &Object) -> Vec<FieldError> {
    let fixed = |object: &Object| {
        let mut spec = map(object, &["spec"]).cloned().unwrap_or_default();
        UPDATABLE.iter().for_each(|field| {
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
