//! Jobs and CronJobs (upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation`,
//! `pkg/registry/batch/job/strategy.go`).

use super::stored::Stored;
use super::workloads::{template_defaults, template_errors};
use crate::registry::columns::workloads as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::{at, boolean, child, child_or_new, default_text, default_to, is_set, map, text};
use crate::registry::strategy::{Column, Object, Strategy, Target};
use crate::registry::validation::{immutable, non_negative};
use serde_json::{Map, Value, json};

/// Job names are made of the CronJob's and eleven characters.
const CRON_JOB_NAME_MAX: usize = 52;
const BACKOFF_LIMIT: i64 = 6;
const NOT_ATTENDED: &str = "jobs are stored, but no controller acts on them yet";

/// The strategy of Jobs: selector and labels carry the uid, so they are made when the job is created.
pub struct JobStrategy;

impl Strategy for JobStrategy {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Object) {
        let labels = map(object, &["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
            let metadata = child_or_new(object, "metadata");
            if !is_set(metadata, "labels") {
                metadata.insert("labels".into(), Value::Object(labels));
            }
        }
        default_job(child_or_new(object, "spec"));
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.insert("status".into(), json!({}));
        if !boolean(object, &["spec", "manualSelector"]) {
            generate_selector(object);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let empty = Map::new();
        let mut errors = job_spec(map(object, &["spec"]).unwrap_or(&empty), "spec");
        if !boolean(object, &["spec", "manualSelector"]) && map(object, &["spec", "selector"]).is_none() {
            errors.push(FieldError::required("spec.selector", ""));
        }
        errors
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        if target != Target::Main {
            return Vec::new();
        }
        let suspended = boolean(old, &["spec", "suspend"]) && text(old, &["status", "startTime"]).is_empty();
        let fixed = ["completionMode", "selector", "template"];
        let fixed = fixed.iter().filter(|field| **field != "template" || !suspended);
        fixed
            .filter_map(|field| {
                let path = ["spec", *field];
                immutable(at(object, &path), at(old, &path), &format!("spec.{field}"))
            })
            .collect()
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.get("spec") != object.get("spec"));
        changed.then(|| NOT_ATTENDED.to_owned()).into_iter().collect()
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let succeeded = crate::registry::json::number(object, &["status", "succeeded"]);
        vec![("status.successful", succeeded.to_string())]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label {field:?} not supported for Job")
    }

    fn columns(&self) -> Vec<Column> {
        (printers::JOB.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (printers::JOB.cells)(object, now)
    }
}

/// The strategy of CronJobs.
pub fn cron_job() -> Stored {
    Stored::new(printers::CRON_JOB)
        .generation()
        .named(cron_job_name)
        .defaults(default_cron_job)
        .rules(validate_cron_job)
        .status(|| json!({}))
        .unattended("cron jobs are stored, but no controller acts on them yet")
}

fn cron_job_name(name: &str, is_prefix: bool) -> Vec<String> {
    let mut problems = dns1123_subdomain(name, is_prefix);
    if name.len() > CRON_JOB_NAME_MAX {
        problems.push(format!("must be no more than {CRON_JOB_NAME_MAX} characters"));
    }
    problems
}

fn default_job(spec: &mut Object) {
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".into(), json!(1));
    }
    default_to(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    default_to(
        spec,
        "backoffLimit",
        if per_index { i64::from(i32::MAX) } else { BACKOFF_LIMIT },
    );
    default_text(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    default_to(spec, "manualSelector", false);
    let failure_policy = spec.contains_key("podFailurePolicy");
    default_text(
        spec,
        "podReplacementPolicy",
        if failure_policy {
            "Failed"
        } else {
            "TerminatingOrFailed"
        },
    );
    template_defaults(spec);
}

fn default_cron_job(cron_job: &mut Object) {
    let spec = child_or_new(cron_job, "spec");
    default_text(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    // The template's job gets its own defaults when it is made; only its pods' are filled in here.
    if let Some(job) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
        template_defaults(job);
    }
}

/// Labels that tell a job's pods from all others.
fn generate_selector(job: &mut Object) {
    let name = text(job, &["metadata", "name"]).to_owned();
    let uid = text(job, &["metadata", "uid"]).to_owned();
    let spec = child_or_new(job, "spec");
    let labels = child_or_new(child_or_new(child_or_new(spec, "template"), "metadata"), "labels");
    for prefix in ["", "batch.kubernetes.io/"] {
        labels
            .entry(format!("{prefix}controller-uid"))
            .or_insert_with(|| json!(uid));
        labels.entry(format!("{prefix}job-name")).or_insert_with(|| json!(name));
    }
    let selector = child_or_new(child_or_new(spec, "selector"), "matchLabels");
    selector
        .entry("batch.kubernetes.io/controller-uid")
        .or_insert_with(|| json!(uid));
}

fn job_spec(spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        errors.extend(non_negative(spec.get(field), &format!("{path}.{field}")));
    }
    errors.extend(template_errors(spec, &format!("{path}.template")));
    let policies = ["OnFailure", "Never"];
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    if !policies.contains(&policy) {
        let path = format!("{path}.template.spec.restartPolicy");
        // Upstream asks for a value where the default stands, since Always makes no job.
        errors.push(match policy {
            "" | "Always" => FieldError::required(path, "valid values: \"OnFailure\", \"Never\""),
            other => FieldError::not_supported(path, other, &policies),
        });
    }
    errors
}

fn validate_cron_job(cron_job: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(cron_job, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let schedule = text(spec, &["schedule"]);
    if schedule.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
        let found = schedule.split_whitespace().count();
        let detail = format!("expected exactly 5 fields, found {found}: [{schedule}]");
        errors.push(FieldError::invalid("spec.schedule", schedule, &detail));
    }
    match text(spec, &["concurrencyPolicy"]) {
        "Allow" | "Forbid" | "Replace" => {}
        "" => errors.push(FieldError::required("spec.concurrencyPolicy", "")),
        other => {
            let values = ["Allow", "Forbid", "Replace"];
            errors.push(FieldError::not_supported("spec.concurrencyPolicy", other, &values));
        }
    }
    for field in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        errors.extend(non_negative(spec.get(field), &format!("spec.{field}")));
    }
    let job = map(spec, &["jobTemplate", "spec"]).unwrap_or(&empty);
    errors.extend(job_spec(job, "spec.jobTemplate.spec"));
    errors
}
