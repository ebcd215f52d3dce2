//! What a CronJob needs now: Jobs to start and to delete, and what its status says (upstream: `syncCronJob`). Pure.

use super::times::{self, Due, Missed, due, until_next};
use crate::client::events::Level;
use crate::controllers::job::conditions;
use crate::controllers::ownership::controller_ref;
use crate::schedule::time_zone;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::collections::HashSet;
use std::sync::Arc;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What a CronJob looks like.
#[derive(Clone, Copy)]
pub struct Observed<'a> {
    pub cron_job: &'a CronJob,
    /// Its Jobs.
    pub jobs: &'a [Arc<Job>],
    /// Uids of active Jobs that the API server does not know any more.
    pub gone: &'a HashSet<String>,
    pub now: Timestamp,
}

pub type Notice = (Level, &'static str, String);

/// A Job that is to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub job: Job,
    pub at: Timestamp,
    /// Active ones that must go before.
    pub replaces: Vec<ObjectReference>,
}

#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub status: CronJobStatus,
    pub notices: Vec<Notice>,
    pub start: Option<Start>,
    /// When the next start is due.
    pub again: Option<SignedDuration>,
}

/// Finished Jobs that are more than are to be kept, oldest first.
pub fn outdated(cron_job: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let spec = &cron_job.spec;
    let mut outdated = Vec::new();
    for (type_, limit) in [
        (conditions::COMPLETE, spec.successful_jobs_history_limit),
        (conditions::FAILED, spec.failed_jobs_history_limit),
    ] {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
            continue;
        };
        let ended = |job: &&Arc<Job>| conditions::finished(job).is_some_and(|end| end.type_ == type_);
        let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(ended).collect();
        // One that has not started is the newest.
        ended.sort_by_key(|job| {
            let start = job
                .status
                .as_ref()
                .and_then(|status| status.start_time.as_ref())
                .map(|time| time.0);
            (start.is_none(), start, job.metadata.name.clone())
        });
        let surplus = ended.len().saturating_sub(limit);
        outdated.extend(ended.into_iter().take(surplus).cloned());
    }
    outdated
}

fn uid(job: &Job) -> Option<&String> {
    job.metadata.uid.as_ref()
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

pub fn is_active(status: &CronJobStatus, job: &Job) -> bool {
    status
        .active
        .iter()
        .flatten()
        .any(|active| active.uid.as_ref() == uid(job))
}

/// Takes a Job from the list of active ones.
pub fn drop_active(status: &mut CronJobStatus, uid: Option<&String>) {
    let mut active = status.active.take().unwrap_or_default();
    active.retain(|active| active.uid.as_ref() != uid);
    status.active = (!active.is_empty()).then_some(active);
}

/// Puts a Job that was started on the list.
pub fn add_active(status: &mut CronJobStatus, job: &Job, at: Timestamp) {
    status.active.get_or_insert_default().push(ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    });
    status.last_schedule_time = Some(Time(at));
}

/// Decides about starts and writes down what ended. The Jobs of [`outdated`] are no matter here.
pub fn plan(observed: Observed<'_>) -> Plan {
    let (cron_job, now) = (observed.cron_job, observed.now);
    let mut plan = Plan {
        status: cron_job.status.clone().unwrap_or_default(),
        ..Plan::default()
    };
    plan.see_jobs(observed);
    let spec = &cron_job.spec;
    if cron_job.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    if let Some(zone) = spec.time_zone.as_ref().filter(|zone| time_zone(zone).is_none()) {
        let message = format!("invalid timeZone: {zone:?}: unknown time zone {zone}");
        plan.warn("UnknownTimeZone", message);
        return plan;
    }
    if spec.suspend == Some(true) {
        return plan;
    }
    if spec.schedule.contains("TZ") {
        let message = format!(
            "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
            spec.schedule
        );
        plan.warn("UnsupportedSchedule", message);
    }
    let schedule = match times::schedule(cron_job) {
        Ok(schedule) => schedule,
        Err(problem) => {
            let message = format!("unparseable schedule: {:?} : {problem}", spec.schedule);
            plan.warn("UnparseableSchedule", message);
            return plan;
        }
    };
    let Due { latest, missed, .. } = match due(cron_job, &schedule, now, true) {
        Ok(due) => due,
        Err(never) => {
            plan.warn(
                "InvalidSchedule",
                format!("invalid schedule: {} : {never}", spec.schedule),
            );
            return plan;
        }
    };
    plan.again = until_next(cron_job, &schedule, now);
    let Some(at) = latest else { return plan };
    if missed == Missed::Many {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.warn("TooManyMissedTimes", message.to_owned());
    }
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| now.duration_since(at) > deadline) {
        let shown = at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000");
        plan.warn("MissSchedule", format!("Missed scheduled time to start a job: {shown}"));
        return plan;
    }
    let job = job_of(cron_job, spec, at);
    let is_started = plan.active().iter().any(|active| active.name == job.metadata.name);
    let last = plan.status.last_schedule_time.as_ref().map(|time| time.0);
    if is_started || last == Some(at) {
        return plan;
    }
    let policy = spec.concurrency_policy.as_deref().unwrap_or("Allow");
    if policy == "Forbid" && !plan.active().is_empty() {
        let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
        plan.notices
            .push((Level::Normal, "JobAlreadyActive", message.to_owned()));
        return plan;
    }
    let replaces = if policy == "Replace" {
        plan.active().to_vec()
    } else {
        Vec::new()
    };
    plan.start = Some(Start { job, at, replaces });
    // The next one after this start.
    let mut started = cron_job.clone();
    started.status.get_or_insert_default().last_schedule_time = Some(Time(at));
    plan.again = until_next(&started, &schedule, now);
    plan
}

impl Plan {
    fn warn(&mut self, reason: &'static str, message: String) {
        self.notices.push((Level::Warning, reason, message));
    }

    fn active(&self) -> &[ObjectReference] {
        self.status.active.as_deref().unwrap_or_default()
    }

    /// Which of the Jobs have ended, which are news, and which are gone.
    fn see_jobs(&mut self, observed: Observed<'_>) {
        for job in observed.jobs {
            let listed = is_active(&self.status, job);
            let Some(end) = conditions::finished(job) else {
                if !listed {
                    let message = format!("Saw a job that the controller did not create or forgot: {}", name(job));
                    self.warn("UnexpectedJob", message);
                }
                continue;
            };
            if listed {
                drop_active(&mut self.status, uid(job));
                let message = format!("Saw completed job: {}, condition: {}", name(job), end.type_);
                self.notices.push((Level::Normal, "SawCompletedJob", message));
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if end.type_ == conditions::COMPLETE && completed > self.status.last_successful_time {
                self.status.last_successful_time = completed;
            }
        }
        let gone: Vec<ObjectReference> = self
            .active()
            .iter()
            .filter(|active| active.uid.as_ref().is_some_and(|uid| observed.gone.contains(uid)))
            .cloned()
            .collect();
        for job in gone {
            let message = format!("Active job went missing: {}", job.name.clone().unwrap_or_default());
            self.notices.push((Level::Normal, "MissingJob", message));
            drop_active(&mut self.status, job.uid.as_ref());
        }
    }
}

/// The Job of the start at `at`. Its name is the same whoever makes it, so that it is made once.
fn job_of(cron_job: &CronJob, spec: &CronJobSpec, at: Timestamp) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    let zone = spec.time_zone.as_deref().and_then(time_zone).unwrap_or(TimeZone::UTC);
    let local = at.to_zoned(zone);
    let mut shown = local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    if local.time_zone() == &TimeZone::UTC {
        shown = local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    let mut annotations = template.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), shown);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", at.as_second() / 60)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}
