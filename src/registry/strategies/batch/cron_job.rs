//! CronJobs (upstream: `SetDefaults_CronJob`, `ValidateCronJob`).

use super::job::job_spec;
use crate::registry::columns::workloads::CRON_JOB;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::{at, boolean, child, child_or_new, default_text, default_to, map, text};
use crate::registry::strategies::Stored;
use crate::registry::strategies::pod::validate::one_of;
use crate::registry::strategies::workloads::template_defaults;
use crate::registry::strategy::Object;
use crate::registry::validation::non_negative;
use crate::schedule;
use serde_json::{Map, Value, json};

/// Job names are made of the CronJob's and eleven characters.
const NAME_MAX: usize = 52;

/// The strategy of CronJobs.
pub fn cron_job() -> Stored {
    Stored::new(CRON_JOB)
        .generation()
        .named(name)
        .defaults(defaults)
        .rules(validate)
        .create_rules(|cron_job| zone_in_schedule(cron_job, None))
        .update_rules(|cron_job, old| zone_in_schedule(cron_job, Some(old)))
        .field_warnings(warnings)
        .status(|| json!({}))
}

fn name(name: &str, is_prefix: bool) -> Vec<String> {
    let mut problems = dns1123_subdomain(name, is_prefix);
    if name.len() > NAME_MAX {
        problems.push(format!("must be no more than {NAME_MAX} characters"));
    }
    problems
}

fn defaults(cron_job: &mut Object) {
    let spec = child_or_new(cron_job, "spec");
    default_text(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    // The template's job gets its own defaults when it is made; only its pods' are filled in here.
    if let Some(job) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
        super::policies::default(job);
        template_defaults(job);
    }
}

fn schedule_of(cron_job: &Object) -> &str {
    text(cron_job, &["spec", "schedule"])
}

/// The zone has a field of its own; schedules that name one are left over from before.
fn zone_in_schedule(cron_job: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let schedule = schedule_of(cron_job);
    let allowed = old.is_some_and(|old| schedule_of(old).contains("TZ"));
    let has_field = at(cron_job, &["spec", "timeZone"]).is_some();
    let detail = match (schedule.contains("TZ"), allowed) {
        (true, false) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        (true, true) if has_field => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        _ => return Vec::new(),
    };
    vec![FieldError::invalid("spec.schedule", schedule, detail)]
}

fn validate(cron_job: &Object) -> Vec<FieldError> {
    let empty = Map::new();
    let spec = map(cron_job, &["spec"]).unwrap_or(&empty);
    let mut errors = Vec::new();
    let schedule = text(spec, &["schedule"]);
    if schedule.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    } else if let Some(problem) = schedule::problem(schedule) {
        errors.push(FieldError::invalid("spec.schedule", schedule, &problem));
    }
    errors.extend(non_negative(
        spec.get("startingDeadlineSeconds"),
        "spec.startingDeadlineSeconds",
    ));
    if let Some(zone) = at(spec, &["timeZone"]).and_then(Value::as_str) {
        errors.extend(time_zone(zone));
    }
    errors.extend(one_of(
        spec,
        "concurrencyPolicy",
        &["Allow", "Forbid", "Replace"],
        "spec",
    ));
    let path = "spec.jobTemplate.spec";
    let job = map(spec, &["jobTemplate", "spec"]).unwrap_or(&empty);
    errors.extend(job_spec(job, path));
    if let Some(selector) = map(job, &["selector"]) {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(
            format!("{path}.selector"),
            selector.clone(),
            detail,
        ));
    }
    if boolean(job, &["manualSelector"]) {
        let path = format!("{path}.manualSelector");
        errors.push(FieldError::not_supported(path, true, &["nil", "false"]));
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.extend(non_negative(spec.get(field), &format!("spec.{field}")));
    }
    errors
}

fn time_zone(zone: &str) -> Option<FieldError> {
    let detail = if zone.is_empty() {
        "timeZone must be nil or non-empty string".to_owned()
    } else if zone.eq_ignore_ascii_case("local") {
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
    } else if !schedule::is_zone(zone) {
        format!("unknown time zone {zone}")
    } else {
        return None;
    };
    Some(FieldError::invalid("spec.timeZone", zone, &detail))
}

fn warnings(cron_job: &Object) -> Vec<String> {
    let schedule = schedule_of(cron_job);
    if schedule.contains("TZ") {
        let text = "cannot use TZ or CRON_TZ in spec.schedule, use spec.timeZone instead; this may become an error in \
            a future release";
        return vec![format!("spec.schedule: {text}")];
    }
    Vec::new()
}
