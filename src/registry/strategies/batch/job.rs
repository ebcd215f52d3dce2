//! What a Job may be and what an update of it may change (upstream: `ValidateJob`, `ValidateJobUpdate`).

use super::policies;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_label;
use crate::registry::json::{at, boolean, integer, map, number, restore, text, texts};
use crate::registry::strategies::pod::validate::{label_selector, supported};
use crate::registry::strategies::workloads::{selector_misses, template_errors};
use crate::registry::strategy::Object;
use crate::registry::validation::{domain_path, immutable, non_negative};
use serde_json::{Map, Value, json};

const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
const MANY_COMPLETIONS_BOUND: i64 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;

pub fn is_indexed(spec: &Object) -> bool {
    text(spec, &["completionMode"]) == "Indexed"
}

pub fn validate(job: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(job, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    errors.extend(generated_selector(job, spec));
    errors.extend(job_spec(spec, "spec"));
    match map(spec, &["selector"]) {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            errors.extend(label_selector(selector, "spec.selector"));
            errors.extend(selector_misses(spec, selector));
        }
    }
    let completions = number(spec, &["completions"]);
    if is_indexed(spec) && completions > 0 {
        // The name of the last pod.
        let name = text(job, &["metadata", "name"]);
        let pod = format!("{name}-{}", completions - 1);
        if !dns1123_label(&pod, false).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {pod}");
            errors.push(FieldError::invalid("metadata.name", name, &detail));
        }
    }
    errors
}

/// What the server puts into labels and selector must not contradict what the user has there.
fn generated_selector(job: &Object, spec: &Object) -> Vec<FieldError> {
    if boolean(spec, &["manualSelector"]) || !spec.contains_key("selector") {
        return Vec::new();
    }
    let (uid, name) = (text(job, &["metadata", "uid"]), text(job, &["metadata", "name"]));
    let mut errors = Vec::new();
    if uid.is_empty() {
        errors.push(FieldError::required("metadata.uid", ""));
    }
    let labels = map(spec, &["template", "metadata", "labels"]);
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (key, value) in expected {
        let path = format!("spec.template.metadata.labels[{key}]");
        let detail = format!("must be '{value}'");
        match labels.and_then(|labels| labels.get(key)) {
            None => errors.push(FieldError::required(path, &detail)),
            Some(found) if found != value => {
                let shown = Value::Object(labels.cloned().unwrap_or_default());
                errors.push(FieldError::invalid(path, shown, &detail));
            }
            Some(_) => {}
        }
    }
    let selector = map(spec, &["selector"]);
    let selects = texts(spec, &["selector", "matchLabels"]).all(|pair| expected.contains(&pair))
        && at(spec, &["selector", "matchExpressions"]).is_none();
    if !selects {
        let shown = Value::Object(selector.cloned().unwrap_or_default());
        errors.push(FieldError::invalid(
            "spec.selector",
            shown,
            "`selector` not auto-generated",
        ));
    }
    errors
}

/// The spec of a Job, also in the template of a CronJob.
pub fn job_spec(spec: &Object, path: &str) -> Vec<FieldError> {
    let at_field = |field: &str| format!("{path}.{field}");
    let mut errors = Vec::new();
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.extend(non_negative(spec.get(field), &at_field(field)));
    }
    if spec.contains_key("maxFailedIndexes") && !spec.contains_key("backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(at_field("backoffLimitPerIndex"), detail));
    }
    if let Some(manager) = at(spec, &["managedBy"]).and_then(Value::as_str) {
        errors.extend(domain_path(manager, &at_field("managedBy")));
        if manager.len() > MANAGED_BY_BYTES_MAX {
            errors.push(FieldError::too_long(at_field("managedBy"), MANAGED_BY_BYTES_MAX));
        }
    }
    errors.extend(supported(spec, "completionMode", &["NonIndexed", "Indexed"], path));
    errors.extend(indexes(spec, path));
    errors.extend(policies::failure(spec, &at_field("podFailurePolicy")));
    errors.extend(policies::success(spec, &at_field("successPolicy")));
    let replacements: &[&str] = if spec.contains_key("podFailurePolicy") {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    errors.extend(supported(spec, "podReplacementPolicy", replacements, path));
    errors.extend(template_errors(spec, &at_field("template")));
    let restarts = ["OnFailure", "Never"];
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    let path = at_field("template.spec.restartPolicy");
    match policy {
        // The default makes no job, so upstream asks for a value where it stands.
        "" | "Always" => errors.push(FieldError::required(path, "valid values: \"OnFailure\", \"Never\"")),
        other if !restarts.contains(&other) => errors.push(FieldError::not_supported(path, other, &restarts)),
        "OnFailure" if spec.contains_key("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(path, policy, detail));
        }
        _ => {}
    }
    errors
}

/// Pods with a number each: how many there may be, and how many may fail.
fn indexes(spec: &Object, path: &str) -> Vec<FieldError> {
    let value = |field: &str| integer(spec, &[field]);
    let at_field = |field: &str| format!("{path}.{field}");
    let mut errors = Vec::new();
    if !is_indexed(spec) {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = value(field) {
                errors.push(FieldError::invalid(
                    at_field(field),
                    value,
                    "requires indexed completion mode",
                ));
            }
        }
        return errors;
    }
    let Some(completions) = value("completions") else {
        let detail = "when completion mode is Indexed";
        errors.push(FieldError::required(at_field("completions"), detail));
        return errors;
    };
    let parallelism = value("parallelism").unwrap_or_default();
    if parallelism > INDEXED_PARALLELISM_MAX {
        let detail = format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
        errors.push(FieldError::invalid(at_field("parallelism"), parallelism, &detail));
    }
    let (failed, per_index) = (value("maxFailedIndexes"), value("backoffLimitPerIndex"));
    if let Some(failed) = failed {
        if failed > completions {
            let detail = "must be less than or equal to completions";
            errors.push(FieldError::invalid(at_field("maxFailedIndexes"), failed, detail));
        }
        if failed > FAILED_INDEXES_MAX {
            let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
            errors.push(FieldError::invalid(at_field("maxFailedIndexes"), failed, &detail));
        }
    }
    if per_index.is_some() && completions > MANY_COMPLETIONS {
        let detail = format!(
            "must be less than or equal to {MANY_COMPLETIONS_BOUND} when completions are above {MANY_COMPLETIONS} and \
             used with backoff limit per index"
        );
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            errors.push(FieldError::required(at_field("maxFailedIndexes"), &detail));
        }
        for (field, value) in [("parallelism", Some(parallelism)), ("maxFailedIndexes", failed)] {
            if let Some(value) = value.filter(|value| *value > MANY_COMPLETIONS_BOUND) {
                errors.push(FieldError::invalid(at_field(field), value, &detail));
            }
        }
    }
    errors
}

/// What of the pods of a suspended Job, which has none yet, may change.
const OF_SUSPENDED: [&str; 4] = ["nodeSelector", "tolerations", "affinity", "schedulingGates"];

pub fn update(job: &Object, old: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = |object| map(object, &["spec"]).unwrap_or(&empty);
    let (new, before) = (spec(job), spec(old));
    let mut errors = Vec::new();
    if new.get("completions") != before.get("completions") {
        let shown = new.get("completions").cloned().unwrap_or_default();
        if !is_indexed(new) {
            errors.extend(immutable(
                new.get("completions"),
                before.get("completions"),
                "spec.completions",
            ));
        } else if new.get("completions") != new.get("parallelism") {
            let detail = "can only be modified in tandem with spec.parallelism";
            errors.push(FieldError::invalid("spec.completions", shown, detail));
        }
    }
    errors.extend(immutable(new.get("selector"), before.get("selector"), "spec.selector"));
    errors.extend(template(new, before, old));
    for field in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        errors.extend(immutable(new.get(field), before.get(field), &format!("spec.{field}")));
    }
    errors
}

fn template(new: &Object, before: &Object, old: &Object) -> Option<FieldError> {
    let mut masked = map(new, &["template"]).cloned().unwrap_or_default();
    let stored = map(before, &["template"]).cloned().unwrap_or_default();
    let suspended = boolean(before, &["suspend"]) && text(old, &["status", "startTime"]).is_empty();
    if suspended {
        for (part, fields) in [
            ("metadata", &["labels", "annotations"][..]),
            ("spec", &OF_SUSPENDED[..]),
        ] {
            let from = map(&stored, &[part]).cloned().unwrap_or_default();
            let to = crate::registry::json::child_or_new(&mut masked, part);
            fields.iter().for_each(|field| restore(to, &from, field));
        }
    }
    let shown = json!(map(new, &["template"]));
    (masked != stored).then(|| {
        let detail = crate::registry::validation::IMMUTABLE;
        FieldError::invalid("spec.template", shown, detail)
    })
}
