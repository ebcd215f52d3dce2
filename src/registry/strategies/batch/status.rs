//! What the status of a Job may say, and how it may change (upstream: `ValidateJobUpdateStatus`, with the options that
//! `pkg/registry/batch/job/strategy.go` works out of what has changed).

use super::job::is_indexed;
use super::policies::{count_indexes, wrong};
use crate::registry::field::FieldError;
use crate::registry::json::{at, boolean, integer, items, map, number, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::non_negative;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const CONDITIONS: &str = "status.conditions";

/// One job and what its conditions say.
struct View<'a> {
    job: &'a Object,
    complete: bool,
    failed: bool,
    failure_target: bool,
    criteria_met: bool,
}

impl<'a> View<'a> {
    fn of(job: &'a Object) -> Self {
        let holds = |kind: &str| {
            objects(job, &["status", "conditions"])
                .any(|(_, condition)| text(condition, &["type"]) == kind && text(condition, &["status"]) == "True")
        };
        Self {
            job,
            complete: holds("Complete"),
            failed: holds("Failed"),
            failure_target: holds("FailureTarget"),
            criteria_met: holds("SuccessCriteriaMet"),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }

    fn status(&self, field: &str) -> Option<&'a Value> {
        at(self.job, &["status", field]).filter(|value| !value.is_null())
    }

    fn count(&self, field: &str) -> i64 {
        number(self.job, &["status", field])
    }

    fn time(&self, field: &str) -> Option<&'a str> {
        self.status(field)
            .and_then(Value::as_str)
            .filter(|time| !time.is_empty())
    }

    fn uncounted(&self) -> usize {
        ["succeeded", "failed"]
            .iter()
            .map(|list| items(self.job, &["status", "uncountedTerminatedPods", list]).len())
            .sum()
    }
}

fn shown(path: &str, value: Option<&Value>, detail: &str) -> FieldError {
    FieldError::invalid(path, value.cloned().unwrap_or_default(), detail)
}

/// A write of the status: each rule is only for what the write changes, so that older jobs can still be written.
pub fn update(job: &Object, old: &Object) -> Vec<FieldError> {
    let (new, before) = (View::of(job), View::of(old));
    let mut errors = counts(&new);
    errors.extend(ends(&new, &before));
    errors.extend(while_finished(&new, &before));
    errors.extend(indexes(&new, &before));
    let changed = |field: &str| new.status(field) != before.status(field);
    if (changed("ready") || changed("active")) && new.count("ready") > new.count("active") {
        let detail = "cannot set more ready pods than active";
        errors.push(FieldError::invalid("status.ready", new.count("ready"), detail));
    }
    errors.extend(criteria(&new));
    errors.extend(never_back(&new, &before));
    errors
}

fn counts(new: &View<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.extend(non_negative(new.status(field), &format!("status.{field}")));
    }
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        let uids = items(new.job, &["status", "uncountedTerminatedPods", list]);
        for (index, uid) in uids.iter().enumerate() {
            let (uid, path) = (
                uid.as_str().unwrap_or_default(),
                format!("status.uncountedTerminatedPods.{list}[{index}]"),
            );
            if uid.is_empty() {
                errors.push(FieldError::invalid(path, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(path, uid));
            }
        }
    }
    errors
}

/// How a job ends, and when.
fn ends(new: &View<'_>, before: &View<'_>) -> Vec<FieldError> {
    let complete = new.complete != before.complete;
    let failed = new.failed != before.failed;
    let target = new.failure_target != before.failure_target;
    let completion = new.status("completionTime") != before.status("completionTime");
    let start = new.status("startTime") != before.status("startTime");
    let path = "status.completionTime";
    let mut errors = Vec::new();
    if (complete || failed) && new.complete && new.failed {
        errors.push(wrong(CONDITIONS, "cannot set Complete=True and Failed=true conditions"));
    }
    if (complete || target) && new.complete && new.failure_target {
        errors.push(wrong(
            CONDITIONS,
            "cannot set Complete=True and FailureTarget=true conditions",
        ));
    }
    let ended = new.time("completionTime");
    if complete || completion {
        if ended.is_some() && !new.complete {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            errors.push(shown(path, new.status("completionTime"), detail));
        }
        if ended.is_none() && new.complete {
            errors.push(FieldError::required(
                path,
                "completionTime is required for Complete jobs",
            ));
        }
    }
    if (start || completion)
        && let (Some(ended), Some(started)) = (ended, new.time("startTime"))
        // Times of Kubernetes are all of one form, whose order is that of its texts.
        && ended < started
    {
        let detail = "completionTime cannot be set before startTime";
        errors.push(shown(path, new.status("completionTime"), detail));
    }
    if (failed || target) && new.failed && !new.failure_target {
        let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
        errors.push(wrong(CONDITIONS, detail));
    }
    if (complete || new.criteria_met != before.criteria_met) && new.complete && !new.criteria_met {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        errors.push(wrong(CONDITIONS, detail));
    }
    errors
}

/// What a finished job cannot have.
fn while_finished(new: &View<'_>, before: &View<'_>) -> Vec<FieldError> {
    if !new.finished() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let finished = !before.finished();
    let changed = |field: &str| finished || new.status(field) != before.status(field);
    if changed("active") && new.count("active") > 0 {
        let detail = "active>0 is invalid for finished job";
        errors.push(FieldError::invalid("status.active", new.count("active"), detail));
    }
    if changed("startTime") && new.time("startTime").is_none() {
        let detail = "startTime is required for finished job";
        errors.push(FieldError::required("status.startTime", detail));
    }
    if changed("uncountedTerminatedPods") && new.uncounted() > 0 {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        let list = |name: &str| items(new.job, &["status", "uncountedTerminatedPods", name]).to_vec();
        // The value is upstream's internal form, whose members are named as in Go.
        let value = serde_json::json!({"Succeeded": list("succeeded"), "Failed": list("failed")});
        errors.push(FieldError::invalid("status.uncountedTerminatedPods", value, detail));
    }
    if changed("terminating") && new.count("terminating") > 0 {
        let detail = "terminating>0 is invalid for finished job";
        errors.push(FieldError::invalid(
            "status.terminating",
            new.count("terminating"),
            detail,
        ));
    }
    errors
}

/// The numbers of pods that have succeeded and failed.
fn indexes(new: &View<'_>, before: &View<'_>) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(new.job, &["spec"]).unwrap_or(&empty);
    let completions = integer(spec, &["completions"]);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    let changed = |field: &str| new.status(field) != before.status(field);
    let (done, failed) = (
        new.status("completedIndexes")
            .and_then(Value::as_str)
            .unwrap_or_default(),
        new.status("failedIndexes").and_then(Value::as_str),
    );
    let (done_path, failed_path) = ("status.completedIndexes", "status.failedIndexes");
    let mut errors = Vec::new();
    let problem = |field: &str, text: &str| {
        let problem = count_indexes(text, completions?).err()?;
        let detail = format!("error parsing {field}: {problem}");
        Some(FieldError::invalid(format!("status.{field}"), text, &detail))
    };
    if changed("completedIndexes") {
        errors.extend(problem("completedIndexes", done));
    }
    if let Some(failed) = failed.filter(|_| changed("failedIndexes") && per_index) {
        errors.extend(problem("failedIndexes", failed));
    }
    if changed("completedIndexes") && !done.is_empty() && !is_indexed(spec) {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(done_path, done, detail));
    }
    let Some(failed) = failed else { return errors };
    if changed("failedIndexes") && !per_index {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(failed_path, failed, detail));
    }
    if changed("failedIndexes") || changed("completedIndexes") {
        let both = intervals(failed).find_map(|(low, high)| {
            let overlap = intervals(done).find(|(first, last)| low <= *last && *first <= high)?;
            Some(low.max(overlap.0))
        });
        if let Some(index) = both.filter(|_| completions.is_some()) {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.push(FieldError::invalid(failed_path, failed, &detail));
        }
    }
    errors
}

fn intervals(text: &str) -> impl Iterator<Item = (i64, i64)> {
    text.split(',').filter_map(|part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some((low.parse().ok()?, high.parse().ok()?))
    })
}

/// Whether enough has succeeded to end the job.
fn criteria(new: &View<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if new.criteria_met && new.failed {
        let detail = "cannot set SuccessCriteriaMet=True and Failed=true conditions";
        errors.push(wrong(CONDITIONS, detail));
    }
    if new.criteria_met && new.failure_target {
        let detail = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions";
        errors.push(wrong(CONDITIONS, detail));
    }
    let policy = at(new.job, &["spec", "successPolicy"]).is_some();
    if policy && new.complete && !new.criteria_met {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        errors.push(wrong(CONDITIONS, detail));
    }
    errors
}

/// What has been said cannot be taken back.
fn never_back(new: &View<'_>, before: &View<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, was, is) in [
        ("Failed", before.failed, new.failed),
        ("Complete", before.complete, new.complete),
        ("FailureTarget", before.failure_target, new.failure_target),
    ] {
        if was && !is {
            let detail = format!("cannot disable the terminal {name}=True condition");
            errors.push(wrong(CONDITIONS, &detail));
        }
    }
    let empty = Map::new();
    let spec = map(new.job, &["spec"]).unwrap_or(&empty);
    // Jobs of as many pods as completions can be scaled down.
    let elastic = is_indexed(spec) && spec.get("completions") == spec.get("parallelism");
    for (field, fixed) in [("failed", true), ("succeeded", !elastic)] {
        if fixed && new.count(field) < before.count(field) {
            let detail = format!("cannot decrease the {field} counter");
            errors.push(FieldError::invalid(
                format!("status.{field}"),
                new.count(field),
                &detail,
            ));
        }
    }
    let (ended, was_ended) = (new.time("completionTime"), before.time("completionTime"));
    if ended.is_some() && was_ended.is_some() && ended != was_ended {
        let detail = "completionTime cannot be mutated";
        errors.push(shown("status.completionTime", new.status("completionTime"), detail));
    }
    let started = before.time("startTime");
    if started.is_some() && started != new.time("startTime") && !boolean(spec, &["suspend"]) {
        let detail = "startTime cannot be removed for unsuspended job";
        errors.push(FieldError::required("status.startTime", detail));
    }
    if before.criteria_met && !new.criteria_met {
        let detail = "cannot disable the SuccessCriteriaMet=True condition";
        errors.push(wrong(CONDITIONS, detail));
    }
    if before.complete && !before.criteria_met && new.criteria_met {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.push(wrong(CONDITIONS, detail));
    }
    errors
}
