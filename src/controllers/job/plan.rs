//! What a Job needs now: pods to make, pods to delete, or its end (upstream: `syncJob` and `manageJob`). Pure.
//!
//! A sync has three decisions with calls between them: [`decide`] which pods come and go; from what came of that
//! [`super::track::account`] makes the status that must be stored before finalizers may be removed; and
//! [`super::track::Account::settle`] what is counted once they are.

use super::back_off::{self, BackOff};
use super::conditions::{self, condition, holds};
use super::indexes::Indexes;
use super::pod;
use super::policies::{self, Verdict, judge};
use super::template::NewPod;
use crate::controllers::pods::{deletion_order, is_active, is_finished, is_ready, is_terminating, phase};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// As many pods are made or deleted in one sync at most.
const PODS_PER_SYNC_MAX: usize = 500;

/// What a Job looks like; the pods are its own and show all that the controller wrote.
#[derive(Clone, Copy)]
pub struct Observed<'a> {
    pub job: &'a Job,
    pub pods: &'a [Arc<Pod>],
    pub back_off: BackOff,
    pub now: Timestamp,
}

impl<'a> Observed<'a> {
    pub fn spec(&self) -> &'a JobSpec {
        static NONE: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
        self.job.spec.as_ref().unwrap_or(&NONE)
    }

    pub fn is_indexed(&self) -> bool {
        self.spec().completion_mode.as_deref() == Some("Indexed")
    }

    /// The pod's index, if it is one of the Job's.
    pub fn index(&self, pod: &Pod) -> Option<i32> {
        let completions = self.spec().completions.unwrap_or(0);
        pod::index(pod).filter(|index| *index < completions)
    }

    pub fn has_limit_per_index(&self) -> bool {
        self.spec().backoff_limit_per_index.is_some()
    }

    /// Whether pods are replaced only once they have failed, and not when they begin to go.
    pub fn replaces_only_failed(&self) -> bool {
        self.spec().pod_failure_policy.is_some() || self.spec().pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// A pod that goes has failed, too: nobody may be left who would say so.
    pub fn is_failed(&self, pod: &Pod) -> bool {
        match phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => is_terminating(pod) && !self.replaces_only_failed(),
        }
    }

    pub fn judge(&self, pod: &Pod) -> Verdict {
        judge(self.spec().pod_failure_policy.as_ref(), pod)
    }

    fn is_suspended(&self) -> bool {
        self.spec().suspend == Some(true)
    }
}

/// What is to be done with pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    pub delete: Vec<Arc<Pod>>,
    /// The deleted ones are not to be counted: their finalizer goes first.
    pub uncounted: bool,
    pub create: Vec<NewPod>,
}

/// What came of the moves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Done {
    pub created: i32,
    pub deleted: i32,
    pub deleted_ready: i32,
}

/// The first decision of a sync and what it is based on.
pub struct Decision<'a> {
    pub observed: Observed<'a>,
    pub moves: Moves,
    /// When to look again though nothing changed.
    pub again: Option<SignedDuration>,
    /// The back-off, once what ended is on record.
    pub back_off: BackOff,
    pub(super) status: JobStatus,
    pub(super) active: i32,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    pub(super) succeeded: i32,
    /// The condition that ends the Job, if it is to end.
    pub(super) end: Option<JobCondition>,
    /// Whether the number of pods was seen to, so that being suspended or resumed is a fact.
    pub(super) managed: bool,
    /// The succeeded indexes on record, and with those of pods that are not counted yet.
    pub(super) recorded: Indexes,
    pub(super) completed: Indexes,
    pub(super) failed_indexes: Option<Indexes>,
    /// Failed pods whose finalizer stays until there is a replacement, which takes over their failures.
    pub(super) delayed: BTreeMap<i32, Arc<Pod>>,
}

/// Uids in a status.
pub(super) fn uids(uids: Option<&Vec<String>>) -> HashSet<&str> {
    uids.into_iter().flatten().map(String::as_str).collect()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Decides which pods come and go.
pub fn decide(observed: Observed<'_>) -> Decision<'_> {
    let (spec, now) = (observed.spec(), observed.now);
    let mut status = observed.job.status.clone().unwrap_or_default();
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default().clone();
    let (counting_succeeded, counting_failed) = (uids(uncounted.succeeded.as_ref()), uids(uncounted.failed.as_ref()));
    let active: Vec<&Arc<Pod>> = observed.pods.iter().filter(|pod| is_active(pod)).collect();
    let terminating = observed
        .pods
        .iter()
        .filter(|pod| is_terminating(pod) && !is_finished(pod));

    // What ended and is not on record yet.
    let is_new = |pod: &&Arc<Pod>| pod::is_tracked(pod) && (!observed.is_indexed() || observed.index(pod).is_some());
    let fresh = || observed.pods.iter().filter(is_new).map(|pod| &**pod);
    let succeeded: Vec<&Pod> = fresh()
        .filter(|pod| phase(pod) == "Succeeded" && !counting_succeeded.contains(pod::uid(pod)))
        // One that was noted as failed while it went stays that, even if it ends well after all.
        .filter(|pod| !counting_failed.contains(pod::uid(pod)))
        .collect();
    let failed: Vec<&Pod> = fresh()
        .filter(|pod| observed.is_failed(pod) && !counting_failed.contains(pod::uid(pod)))
        .collect();
    let counted_failed = failed.iter().filter(|pod| observed.judge(pod).counts()).count();
    let failures = status.failed.unwrap_or(0) + count(counted_failed + counting_failed.len());
    if status.start_time.is_none() && !observed.is_suspended() {
        status.start_time = Some(Time(now));
    }

    let mut decision = Decision {
        observed,
        moves: Moves::default(),
        again: None,
        back_off: observed.back_off.after(&succeeded, &failed),
        active: count(active.len()),
        ready: count(active.iter().filter(|pod| is_ready(pod)).count()),
        terminating: count(terminating.count()),
        succeeded: status.succeeded.unwrap_or(0) + count(succeeded.len() + counting_succeeded.len()),
        end: None,
        managed: false,
        recorded: Indexes::default(),
        completed: Indexes::default(),
        failed_indexes: None,
        delayed: BTreeMap::new(),
        status,
    };
    decision.end = decision.decided_end();
    if decision.end.is_none() {
        decision.end = decision.limit_passed(failures);
    }
    if observed.is_indexed() {
        decision.look_at_indexes(&active, spec.completions.unwrap_or(0));
    }
    if decision.end.is_some() {
        decision.moves.delete = active.into_iter().cloned().collect();
    } else if observed.job.metadata.deletion_timestamp.is_none() {
        decision.managed = true;
        decision.manage(&active);
    }
    decision
}

impl Decision<'_> {
    fn conditions(&self) -> &[JobCondition] {
        self.status.conditions.as_deref().unwrap_or_default()
    }

    /// An end that was decided before, or that a failed pod decides.
    fn decided_end(&self) -> Option<JobCondition> {
        let now = self.observed.now;
        if let Some(met) = holds(self.conditions(), conditions::SUCCESS_CRITERIA_MET) {
            return Some(met.clone());
        }
        if let Some(target) = holds(self.conditions(), conditions::FAILURE_TARGET) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (reason, message) = (text(&target.reason), text(&target.message));
            return Some(condition(conditions::FAILED, "True", &reason, &message, now));
        }
        let failed = self.observed.pods.iter().filter(|pod| self.observed.is_failed(pod));
        let fatal = failed
            .map(|pod| self.observed.judge(pod))
            .find_map(|verdict| match verdict {
                Verdict::FailJob { message } => Some(message),
                _ => None,
            })?;
        Some(condition(
            conditions::FAILURE_TARGET,
            "True",
            "PodFailurePolicy",
            &fatal,
            now,
        ))
    }

    fn failure(&self, reason: &str, message: &str) -> JobCondition {
        condition(conditions::FAILURE_TARGET, "True", reason, message, self.observed.now)
    }

    fn limit_passed(&mut self, failures: i32) -> Option<JobCondition> {
        let spec = self.observed.spec();
        let limit = spec.backoff_limit.unwrap_or(6);
        if failures > limit || self.restarts_pass(limit) {
            return Some(self.failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let start = self.status.start_time.as_ref().map(|start| start.0)?;
        let deadline = SignedDuration::from_secs(spec.active_deadline_seconds?);
        if self.observed.is_suspended() {
            return None;
        }
        let left = deadline - self.observed.now.duration_since(start);
        if left <= SignedDuration::ZERO {
            return Some(self.failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        self.again = Some(left);
        None
    }

    /// Where containers are restarted in place, that counts instead of failed pods.
    fn restarts_pass(&self, limit: i32) -> bool {
        let template = &self.observed.spec().template;
        if template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self
            .observed
            .pods
            .iter()
            .filter(|pod| matches!(phase(pod), "Running" | "Pending"));
        let statuses = running.filter_map(|pod| pod.status.as_ref());
        let containers = statuses.flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        let restarts: i32 = containers.map(|container| container.restart_count).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn look_at_indexes(&mut self, active: &[&Arc<Pod>], completions: i32) {
        let observed = self.observed;
        let parse = |text: Option<&String>| Indexes::parse(text.map_or("", String::as_str), completions);
        self.recorded = parse(self.status.completed_indexes.as_ref());
        let tracked = || observed.pods.iter().filter(|pod| pod::is_tracked(pod));
        let noted = self.status.uncounted_terminated_pods.as_ref();
        let noted_failed = uids(noted.and_then(|noted| noted.failed.as_ref()));
        let ended_well = |pod: &Pod| phase(pod) == "Succeeded" && !noted_failed.contains(pod::uid(pod));
        let succeeded = tracked().filter(|pod| ended_well(pod));
        let succeeded: Indexes = succeeded.filter_map(|pod| observed.index(pod)).collect();
        self.completed = self.recorded.union(&succeeded);
        self.succeeded = self.completed.len();
        if observed.has_limit_per_index() {
            let failed = tracked().filter(|pod| self.fails_its_index(pod));
            let failed: Indexes = failed.filter_map(|pod| observed.index(pod)).collect();
            let failed = failed.union(&parse(self.status.failed_indexes.as_ref()));
            if self.end.is_none() {
                self.end = self.too_many_failed_indexes(failed.len(), completions);
            }
            self.delayed = self.waiting_for_replacement(active, &failed);
            self.failed_indexes = Some(failed);
        }
        if self.end.is_none()
            && let Some(message) =
                policies::success(observed.spec().success_policy.as_ref(), completions, &self.completed)
        {
            let (type_, now) = (conditions::SUCCESS_CRITERIA_MET, observed.now);
            self.end = Some(condition(type_, "True", "SuccessPolicy", &message, now));
        }
    }

    fn fails_its_index(&self, pod: &Pod) -> bool {
        let limit = self.observed.spec().backoff_limit_per_index.unwrap_or(0);
        self.observed.is_failed(pod)
            && match self.observed.judge(pod) {
                Verdict::FailIndex => true,
                verdict => verdict.counts() && pod::failures_of_index(pod).counted >= limit,
            }
    }

    fn too_many_failed_indexes(&self, failed: i32, completions: i32) -> Option<JobCondition> {
        if self.observed.spec().max_failed_indexes.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(self.failure("MaxFailedIndexesExceeded", message));
        }
        let all_over = failed > 0 && failed + self.completed.len() >= completions;
        all_over.then(|| self.failure("FailedIndexes", "Job has failed indexes"))
    }

    /// The last failed pod of each index that is to have another.
    fn waiting_for_replacement(&self, active: &[&Arc<Pod>], failed: &Indexes) -> BTreeMap<i32, Arc<Pod>> {
        let observed = self.observed;
        let replaced: HashSet<i32> = active.iter().filter_map(|pod| pod::index(pod)).collect();
        let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        let candidates = observed
            .pods
            .iter()
            .filter(|pod| pod::is_tracked(pod) && observed.is_failed(pod));
        for pod in candidates {
            let Some(index) = observed.index(pod) else { continue };
            if self.completed.contains(index) || failed.contains(index) || replaced.contains(&index) {
                continue;
            }
            let age = |pod: &Pod| (pod::failures_of_index(pod).total(), back_off::finished_at(pod));
            let (failures, ended) = age(pod);
            let newer = last.get(&index).map(|known| age(known));
            if newer.is_none_or(|(known_failures, known_end)| known_failures <= failures && known_end <= ended) {
                last.insert(index, pod.clone());
            }
        }
        last
    }

    /// Sees to the number of pods: only deletes or only makes some in one sync.
    fn manage(&mut self, active: &[&Arc<Pod>]) {
        let observed = self.observed;
        let spec = observed.spec();
        if observed.is_suspended() {
            self.moves.delete = self.for_removal(active, active.len());
            self.moves.uncounted = true;
            return;
        }
        let parallelism = spec.parallelism.unwrap_or(1);
        let wanted = match spec.completions {
            // One success is enough; what runs by then may end.
            None if self.succeeded > 0 => self.active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).min(parallelism).max(0),
        };
        let excess = usize::try_from(self.active - wanted).unwrap_or(0);
        let mut delete = self.for_removal(active, excess);
        delete.truncate(PODS_PER_SYNC_MAX);
        if !delete.is_empty() {
            self.moves.delete = delete;
            self.moves.uncounted = true;
            return;
        }
        let still_there = if observed.replaces_only_failed() {
            self.terminating
        } else {
            0
        };
        let lacking = usize::try_from(wanted - still_there - self.active).unwrap_or(0);
        if lacking == 0 {
            return;
        }
        if !observed.has_limit_per_index() {
            let left = self.back_off.left(observed.now);
            if left > SignedDuration::ZERO {
                self.look_again(left);
                return;
            }
        }
        let lacking = lacking.min(PODS_PER_SYNC_MAX);
        self.moves.create = if observed.is_indexed() {
            self.new_indexes(active, lacking, spec.completions.unwrap_or(0))
        } else {
            let plain = NewPod {
                index: None,
                replaces: None,
            };
            vec![plain; lacking]
        };
    }

    fn look_again(&mut self, after: SignedDuration) {
        self.again = Some(self.again.map_or(after, |again| again.min(after)));
    }

    /// The pods of the first indexes that are without and whose back-off is over.
    fn new_indexes(&mut self, active: &[&Arc<Pod>], lacking: usize, completions: i32) -> Vec<NewPod> {
        let observed = self.observed;
        let busy: Indexes = active.iter().filter_map(|pod| pod::index(pod)).collect();
        let mut taken = self.completed.union(&busy);
        if observed.replaces_only_failed() {
            let going = observed
                .pods
                .iter()
                .filter(|pod| is_terminating(pod) && !is_finished(pod));
            taken = taken.union(&going.filter_map(|pod| pod::index(pod)).collect());
        }
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        let mut create = Vec::new();
        let mut shortest: Option<SignedDuration> = None;
        for index in taken.missing(lacking, completions) {
            let replaces = self.delayed.get(&index).cloned();
            let left = replaces
                .as_deref()
                .map(|failed| back_off::left_for(failed, observed.now));
            match left.filter(|left| *left > SignedDuration::ZERO) {
                Some(left) => shortest = Some(shortest.map_or(left, |shortest| shortest.min(left))),
                None => create.push(NewPod {
                    index: Some(index),
                    replaces,
                }),
            }
        }
        if let Some(left) = shortest {
            self.look_again(left);
        }
        create
    }

    /// Active pods that must go: those without a place among the indexes and all but one of each index, and so many
    /// more that they are `at_least` as many.
    fn for_removal(&self, active: &[&Arc<Pod>], at_least: usize) -> Vec<Arc<Pod>> {
        let now = self.observed.now;
        let mut ordered: Vec<Arc<Pod>> = active.iter().map(|pod| Arc::clone(pod)).collect();
        ordered.sort_by(|one, other| deletion_order((one, 0), (other, 0), now));
        let mut remove: Vec<Arc<Pod>> = Vec::new();
        if self.observed.is_indexed() {
            let mut last_of: BTreeMap<i32, usize> = BTreeMap::new();
            for (place, pod) in ordered.iter().enumerate() {
                if let Some(index) = self.observed.index(pod) {
                    last_of.insert(index, place);
                }
            }
            let keep: HashSet<usize> = last_of.into_values().collect();
            let mut place = 0;
            ordered.retain(|pod| {
                let kept = keep.contains(&place);
                place += 1;
                if !kept {
                    remove.push(pod.clone());
                }
                kept
            });
        }
        let more = at_least.saturating_sub(remove.len());
        remove.extend(ordered.into_iter().take(more));
        remove
    }
}
