//! The conditions of a Job (upstream: `ensureJobConditionStatus`, `pkg/controller/job/util`).

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";
/// Decided, but there are pods to be counted or waited for before the Job has failed.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// The same for success.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub const SUSPENDED: &str = "Suspended";

pub fn condition(type_: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    JobCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        reason: text(reason),
        message: text(message),
    }
}

/// The condition of that type, if it holds.
pub fn holds<'a>(conditions: &'a [JobCondition], type_: &str) -> Option<&'a JobCondition> {
    let mut conditions = conditions.iter();
    conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Puts `condition` in its place and says whether that changed anything. One that never held is not written as false.
pub fn ensure(conditions: &mut Vec<JobCondition>, condition: JobCondition) -> bool {
    let what = |condition: &JobCondition| {
        let JobCondition {
            status,
            reason,
            message,
            ..
        } = condition.clone();
        (status, reason, message)
    };
    match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        Some(known) if what(known) == what(&condition) => false,
        Some(known) => {
            *known = condition;
            true
        }
        None if condition.status == "False" => false,
        None => {
            conditions.push(condition);
            true
        }
    }
}

/// The condition by which `job` is over: Complete or Failed.
pub fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let mut conditions = conditions.iter();
    conditions.find(|condition| matches!(condition.type_.as_str(), COMPLETE | FAILED) && condition.status == "True")
}
