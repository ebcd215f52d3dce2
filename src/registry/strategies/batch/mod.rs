//! Jobs and CronJobs (upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/registry/batch/{job,cronjob}/strategy.go`).
//!
//! - `job.rs`: what a Job may be and what an update may change, `policies.rs`: its policies for failure and success.
//! - `status.rs`: what the status of a Job may say. `cron_job.rs`: CronJobs.

pub mod cron_job;
mod job;
mod policies;
mod status;

pub use cron_job::cron_job;

use super::workloads::template_defaults;
use crate::registry::columns::workloads as printers;
use crate::registry::field::FieldError;
use crate::registry::json::{boolean, child_or_new, default_text, default_to, is_set, map, number, text};
use crate::registry::strategy::{Column, Dependents, Object, Strategy, Target, default_prepare_for_update};
use serde_json::{Value, json};

const BACKOFF_LIMIT: i64 = 6;

/// The strategy of Jobs: selector and labels carry the uid, so they are made when the job is created.
pub struct JobStrategy;

impl Strategy for JobStrategy {
    fn has_generation(&self) -> bool {
        true
    }

    /// What `batch/v1` has done from its first day.
    fn dependents(&self) -> Dependents {
        Dependents::Orphaned
    }

    fn delete_warning(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning",
        )
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

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        job::validate(object)
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        match target {
            Target::Main => job::update(object, old),
            Target::Status => status::update(object, old),
            Target::Subresource(_) => Vec::new(),
        }
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.get("spec") != object.get("spec"));
        let mut warnings = Vec::new();
        let indexed = text(object, &["spec", "completionMode"]) == "Indexed";
        let (completions, parallelism) = (
            number(object, &["spec", "completions"]),
            number(object, &["spec", "parallelism"]),
        );
        if changed && indexed && completions > 100_000 && parallelism > 10_000 {
            warnings.push(
                "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
                 Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
                    .to_owned(),
            );
        }
        warnings
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let succeeded = number(object, &["status", "succeeded"]);
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
    policies::default(spec);
    template_defaults(spec);
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
