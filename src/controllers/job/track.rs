//! What a Job's status says, and what of its pods is counted (upstream: `trackJobStatusAndRemoveFinalizers`). Pure.
//!
//! No pod is counted twice and none is missed, whatever stops in between: a pod that ended is first noted by uid in
//! status.uncountedTerminatedPods, then its finalizer is removed, and only when that is gone is the uid taken from the
//! list and the counter raised, in one write. Pods with an index are counted by their index.

use super::back_off::BackOff;
use super::conditions::{self, condition, ensure, holds};
use super::indexes::Indexes;
use super::plan::{Decision, Done, uids};
use super::pod;
use crate::controllers::pods::phase;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashSet;
use std::sync::Arc;

/// Keeps the list of uids in the status below 20 KiB or so.
const UNCOUNTED_MAX: usize = 500;

/// Something to tell people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

impl Notice {
    fn new(warning: bool, reason: &str, message: &str) -> Self {
        Self {
            warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// The second decision of a sync: the status that must be stored, and then the pods whose finalizer may go.
#[derive(Clone, Debug)]
pub struct Account {
    pub status: JobStatus,
    pub untrack: Vec<Arc<Pod>>,
    pub notices: Vec<Notice>,
    pub back_off: BackOff,
    completions: Option<i32>,
    /// Uids of the pods that have the finalizer.
    tracked: HashSet<String>,
    /// The condition that ends the Job, once all is counted.
    end: Option<JobCondition>,
    /// There was not room for all pods that ended.
    is_full: bool,
    now: Timestamp,
}

/// Empty and zero are not written, as upstream.
fn set<T: PartialEq + Default>(field: &mut Option<T>, value: T) {
    *field = (value != T::default()).then_some(value);
}

/// What the status says after the moves of `decision` went as `done` says.
pub fn account(mut decision: Decision<'_>, done: Done) -> Account {
    let now = decision.observed.now;
    let mut notices = Vec::new();
    let active = decision.active + done.created - done.deleted;
    decision.terminating += done.deleted;
    decision.ready -= done.deleted_ready;
    if decision.end.is_some() {
        // What could not be deleted is still to be counted.
        if done.deleted != decision.active {
            decision.end = None;
        }
    } else {
        decide_success(&mut decision, active);
        if decision.managed && decision.end.is_none() {
            suspend_or_resume(&mut decision, &mut notices);
        }
    }
    set(&mut decision.status.active, active);
    decision.status.ready = Some(decision.ready);
    decision.status.terminating = Some(decision.terminating);

    let tracked = decision.observed.pods.iter().filter(|pod| pod::is_tracked(pod));
    let mut account = Account {
        tracked: tracked.map(|pod| pod::uid(pod).to_owned()).collect(),
        status: JobStatus::default(),
        untrack: Vec::new(),
        notices,
        back_off: decision.back_off,
        completions: decision.observed.spec().completions,
        end: None,
        is_full: false,
        now,
    };
    account.status = std::mem::take(&mut decision.status);
    account.count();
    account.note_ended(&decision);
    account.decide_end(decision.end);
    account
}

fn decide_success(decision: &mut Decision<'_>, active: i32) {
    let enough = match decision.observed.spec().completions {
        None => decision.succeeded > 0,
        Some(completions) => decision.succeeded >= completions,
    };
    if enough && active == 0 {
        let (type_, reason, message) = (
            conditions::SUCCESS_CRITERIA_MET,
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        );
        decision.end = Some(condition(type_, "True", reason, message, decision.observed.now));
    }
}

fn suspend_or_resume(decision: &mut Decision<'_>, notices: &mut Vec<Notice>) {
    let now = decision.observed.now;
    let all = decision.status.conditions.get_or_insert_default();
    if decision.observed.spec().suspend == Some(true) {
        let suspended = condition(conditions::SUSPENDED, "True", "JobSuspended", "Job suspended", now);
        if ensure(all, suspended) {
            notices.push(Notice::new(false, "Suspended", "Job suspended"));
        }
        // The deadline counts from when it is resumed.
        decision.status.start_time = None;
    } else {
        let resumed = condition(conditions::SUSPENDED, "False", "JobResumed", "Job resumed", now);
        if ensure(all, resumed) {
            notices.push(Notice::new(false, "Resumed", "Job resumed"));
            decision.status.start_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        }
    }
    if all_empty(decision) {
        decision.status.conditions = None;
    }
}

fn all_empty(decision: &Decision<'_>) -> bool {
    decision.status.conditions.as_ref().is_some_and(Vec::is_empty)
}

impl Account {
    /// Counts the noted pods that have no finalizer any more.
    fn count(&mut self) {
        let Some(uncounted) = &mut self.status.uncounted_terminated_pods else {
            return;
        };
        for (list, counter) in [
            (&mut uncounted.succeeded, &mut self.status.succeeded),
            (&mut uncounted.failed, &mut self.status.failed),
        ] {
            let before = list.take().unwrap_or_default();
            let noted = before.len();
            let left: Vec<String> = before.into_iter().filter(|uid| self.tracked.contains(uid)).collect();
            let counted = i32::try_from(noted - left.len()).unwrap_or(i32::MAX);
            set(counter, counter.unwrap_or(0).saturating_add(counted));
            set(list, left);
        }
    }

    /// Notes the pods that ended, and which of them may go then.
    fn note_ended(&mut self, decision: &Decision<'_>) {
        let observed = decision.observed;
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        let noted_succeeded: HashSet<String> = owned(uids(uncounted.succeeded.as_ref()));
        let noted_failed: HashSet<String> = owned(uids(uncounted.failed.as_ref()));
        let (mut succeeded, mut failed) = (
            uncounted.succeeded.take().unwrap_or_default(),
            uncounted.failed.take().unwrap_or_default(),
        );
        let mut pods: Vec<&Arc<Pod>> = observed.pods.iter().filter(|pod| pod::is_tracked(pod)).collect();
        if observed.is_indexed() {
            pods.sort_by_key(|pod| pod::index(pod));
        }
        let ends_badly = decision
            .end
            .as_ref()
            .is_some_and(|end| end.type_ != conditions::SUCCESS_CRITERIA_MET);
        let mut indexes = Vec::new();
        for pod in pods {
            let is_failed = observed.is_failed(pod);
            if !may_go(decision, pod, is_failed) {
                continue;
            }
            self.untrack.push(Arc::clone(pod));
            let uid = pod::uid(pod);
            let has_place = !observed.is_indexed() || observed.index(pod).is_some();
            if phase(pod) == "Succeeded" && !noted_failed.contains(uid) {
                if observed.is_indexed() {
                    indexes.extend(observed.index(pod).filter(|index| !decision.recorded.contains(*index)));
                } else if !noted_succeeded.contains(uid) {
                    succeeded.push(uid.to_owned());
                }
            } else if (is_failed || ends_badly)
                && !noted_failed.contains(uid)
                && has_place
                && observed.judge(pod).counts()
            {
                failed.push(uid.to_owned());
            }
            if indexes.len() + succeeded.len() + failed.len() >= UNCOUNTED_MAX {
                self.is_full = true;
                break;
            }
        }
        set(&mut uncounted.succeeded, succeeded);
        set(&mut uncounted.failed, failed);
        if observed.is_indexed() {
            // Only what its pod's finalizer is removed for: the rest is on its way when that is.
            let new: Indexes = indexes.into_iter().collect();
            let completed = decision.recorded.union(&new);
            set(&mut self.status.succeeded, completed.len());
            set(&mut self.status.completed_indexes, completed.to_string());
            self.status.failed_indexes = decision.failed_indexes.as_ref().map(Indexes::to_string);
        }
    }

    /// Writes what is decided, which comes before the end itself.
    fn decide_end(&mut self, end: Option<JobCondition>) {
        let Some(end) = end else { return };
        let all = self.status.conditions.get_or_insert_default();
        let last = match end.type_.as_str() {
            conditions::FAILURE_TARGET => {
                ensure(all, end.clone());
                conditions::FAILED
            }
            conditions::SUCCESS_CRITERIA_MET => {
                if holds(all, conditions::SUCCESS_CRITERIA_MET).is_none() {
                    ensure(all, end.clone());
                }
                conditions::COMPLETE
            }
            _ => conditions::FAILED,
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (reason, message) = (text(&end.reason), text(&end.message));
        self.end = Some(condition(last, "True", &reason, &message, self.now));
    }

    /// The third decision: with the finalizers of `untracked` gone their pods are counted, and the Job may end. The
    /// notices are to be told once the status is stored.
    pub fn settle(&mut self, untracked: &HashSet<String>) -> Vec<Notice> {
        self.tracked.retain(|uid| !untracked.contains(uid));
        self.count();
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let all_counted = uncounted.is_none_or(|pods| pods.succeeded.is_none() && pods.failed.is_none());
        let all_free = self.untrack.iter().all(|pod| untracked.contains(pod::uid(pod)));
        if self.is_full || !all_counted || !all_free || self.status.terminating.unwrap_or(0) > 0 {
            return Vec::new();
        }
        let Some(end) = self.end.take() else { return Vec::new() };
        ensure(self.status.conditions.get_or_insert_default(), end.clone());
        if end.type_ != conditions::COMPLETE {
            let text = |text: Option<String>| text.unwrap_or_default();
            return vec![Notice::new(true, &text(end.reason), &text(end.message))];
        }
        self.status.completion_time = end.last_transition_time;
        let mut notices = Vec::new();
        let too_many = self
            .completions
            .is_some_and(|wanted| self.status.succeeded.unwrap_or(0) > wanted);
        if too_many {
            let message = "Too many succeeded pods running after completion count reached";
            notices.push(Notice::new(true, "TooManySucceededPods", message));
        }
        notices.push(Notice::new(false, "Completed", "Job completed"));
        notices
    }
}

fn owned(uids: HashSet<&str>) -> HashSet<String> {
    uids.into_iter().map(str::to_owned).collect()
}

/// Whether the finalizer of `pod` may be removed.
fn may_go(decision: &Decision<'_>, pod: &Pod, is_failed: bool) -> bool {
    let job_ends = decision.end.is_some() || decision.observed.job.metadata.deletion_timestamp.is_some();
    if job_ends || phase(pod) == "Succeeded" {
        return true;
    }
    let waits = || {
        let waiting = pod::index(pod).and_then(|index| decision.delayed.get(&index));
        waiting.is_some_and(|waiting| pod::uid(waiting) == pod::uid(pod))
    };
    is_failed && !waits()
}
