//! Runs pods to completion for Jobs (upstream: `pkg/controller/job`).
//!
//! - [`plan`]: which pods come and go, and when a Job ends.
//! - [`track`]: what is counted, and when.
//! - [`indexes`], [`policies`], [`back_off`], [`template`], [`pod`]: their parts.
//! - [`conditions`]: also what other controllers ask of a Job.

mod back_off;
pub mod conditions;
mod indexes;
mod plan;
mod pod;
mod policies;
#[cfg(test)]
mod runs;
mod template;
#[cfg(test)]
mod tests;
mod track;

use super::expectations::{Expectations, WAIT_MAX};
use super::ownership::{self, Claim, claim, controller_of, controller_ref};
use super::pods::{PodControl, is_namespace_terminating, is_ready};
use super::{Context, slow_start};
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use back_off::BackOff;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use plan::{Done, Moves, Observed, decide};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use template::NewPod;
use track::{Account, Notice, account};

const NAME: &str = "job-controller";
/// The value of spec.managedBy that names this controller.
const MANAGER: &str = "kubernetes.io/job-controller";
const WORKERS: usize = 5;
/// Calls about one Job's pods at once.
const CALLS_MAX: usize = 64;
/// Changes of many pods are looked at together (upstream waits a second).
const BATCH: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("claiming the pods of job {job}: {source}")]
    Claim { job: ObjectKey, source: kube::Error },
    #[error("creating pods of job {job}: {source}")]
    Create { job: ObjectKey, source: kube::Error },
    #[error("deleting pods of job {job}: {source}")]
    Delete { job: ObjectKey, source: kube::Error },
    #[error("taking the finalizer from pods of job {job}: {source}")]
    Untrack { job: ObjectKey, source: kube::Error },
    #[error("writing the status of job {job}: {source}")]
    Status { job: ObjectKey, source: kube::Error },
    #[error("taking the finalizer from pod {pod}: {source}")]
    Stray { pod: ObjectKey, source: kube::Error },
}

struct Controller {
    client: Client,
    recorder: Recorder,
    control: PodControl,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    /// Pods without a controller, by namespace.
    orphans: Index<Pod>,
    expectations: Expectations,
    /// By the Job's uid.
    back_offs: Mutex<HashMap<String, BackOff>>,
    queue: WorkQueue<ObjectKey>,
    /// Pods with the finalizer whose Job is gone or over.
    strays: WorkQueue<ObjectKey>,
}

/// Runs until `shutdown`.
pub async fn run(context: &Context) {
    let (client, recorder) = (context.client(NAME), context.recorder(NAME));
    let pods = context.informers.of::<Pod>();
    let controller = Arc::new(Controller {
        control: PodControl::new(client.clone(), recorder.clone()),
        jobs: context.informers.of::<Job>(),
        orphans: ownership::orphans(&pods),
        pods,
        client,
        recorder,
        expectations: Expectations::default(),
        back_offs: Mutex::default(),
        queue: WorkQueue::new("job"),
        strays: WorkQueue::new("job_orphan_pod"),
    });
    let this = Arc::clone(&controller);
    controller.jobs.on_change(move |change| this.job_changed(change));
    let this = Arc::clone(&controller);
    controller.pods.on_change(move |change| this.pod_changed(change));
    let synced = async { tokio::join!(controller.jobs.synced(), controller.pods.synced()) };
    if !context.caught_up(synced).await {
        return;
    }
    let this = &controller;
    tokio::join!(
        this.queue.run(WORKERS, &context.shutdown, |key| this.sync(key)),
        this.strays.run(1, &context.shutdown, |key| this.release_stray(key)),
    );
}

impl Controller {
    fn job_changed(&self, change: &Change<Job>) {
        let Some(job) = change.object() else { return };
        let key = ObjectKey::of(&**job);
        match (&change.old, &change.new) {
            // Our own status, or a label.
            (Some(old), Some(new)) if old.metadata.generation == new.metadata.generation => {
                self.queue.add_after(key, BATCH);
            }
            _ => self.queue.add(key),
        }
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        if change.new.is_none() || conditions::finished(job).is_some() {
            self.back_offs.lock().remove(uid);
            let tracked = self
                .pods
                .controlled_by(uid)
                .into_iter()
                .filter(|pod| pod::is_tracked(pod));
            tracked.for_each(|pod| self.strays.add(ObjectKey::of(&*pod)));
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        for pod in change.each() {
            let Some(owner) = controller_of(&pod.metadata) else {
                continue;
            };
            if let Some(job) = self
                .job_of(pod, owner)
                .filter(|job| conditions::finished(job).is_none())
            {
                self.queue.add_after(ObjectKey::of(&*job), BATCH);
            } else if is_job(owner) && change.new.is_some() && pod::is_tracked(pod) {
                self.strays.add(ObjectKey::of(&**pod));
            }
        }
        let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&pod.metadata).is_none()) else {
            return;
        };
        if pod::is_tracked(pod) {
            self.strays.add(ObjectKey::of(&**pod));
        }
        let owner_or_labels = |pod: &Arc<Pod>| (controller_of(&pod.metadata).cloned(), pod.metadata.labels.clone());
        if change.old.as_ref().map(owner_or_labels) != Some(owner_or_labels(pod)) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for job in self.jobs.in_namespace(namespace) {
                if claims(&job, pod) == Claim::Adopt {
                    self.queue.add_after(ObjectKey::of(&*job), BATCH);
                }
            }
        }
    }

    fn job_of(&self, pod: &Pod, owner: &OwnerReference) -> Option<Arc<Job>> {
        if !is_job(owner) {
            return None;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let job = self.jobs.get(namespace, &owner.name)?;
        (job.metadata.uid.as_ref() == Some(&owner.uid)).then_some(job)
    }

    fn pod_api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(job) = self.jobs.get_key(&key) else {
            self.expectations.forget(&key);
            return Ok(Next::Done);
        };
        if is_managed_by_another(&job) || conditions::finished(&job).is_some() {
            return Ok(Next::Done);
        }
        let mode = job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref());
        if !matches!(mode, None | Some("NonIndexed" | "Indexed")) {
            let message = "Skipped Job sync because completion mode is unknown";
            self.recorder
                .event(&*job, Level::Warning, "UnknownCompletionMode", message);
            return Ok(Next::Done);
        }
        if !self.expectations.fulfilled(&key, &self.pods) {
            return Ok(Next::After(WAIT_MAX));
        }
        let failed = |source| Error::Claim {
            job: key.clone(),
            source,
        };
        let pods = self.claim(&key, &job).await.map_err(failed)?;
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let decision = decide(Observed {
            job: &job,
            pods: &pods,
            back_off: self.back_offs.lock().get(&uid).copied().unwrap_or_default(),
            now: Timestamp::now(),
        });
        let again = decision.again;
        let (done, failure) = self.perform(&key, &job, &decision.moves).await;
        let account = account(decision, done);
        match self.record(&key, &job, account).await {
            // It is the cache that was behind, or the Job is gone.
            Err(Error::Status {
                source: kube::Error::Api(status),
                ..
            }) if matches!(status.code, 404 | 409) => return Ok(Next::Retry),
            other => other?,
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let again = again.map(|again| again.unsigned_abs().max(BATCH));
        Ok(again.map_or(Next::Done, Next::After))
    }

    /// The Job's pods: takes in those that match and belong to nobody, lets go of those that match no more.
    async fn claim(&self, key: &ObjectKey, job: &Job) -> kube::Result<Vec<Arc<Pod>>> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let api = self.pod_api(&key.namespace);
        let mut pods = Vec::new();
        for pod in self.pods.controlled_by(uid) {
            match claims(job, &pod) {
                Claim::Release => {
                    let released = ownership::release_tracked(&api, &*pod, uid, pod::FINALIZER).await?;
                    released.inspect(|pod| self.expectations.written(key, pod));
                }
                // Also one that matches no more, of a Job that is going.
                _ => pods.push(pod),
            }
        }
        let orphans = self.orphans.get(&key.namespace).into_iter();
        let adoptable: Vec<Arc<Pod>> = orphans.filter(|pod| claims(job, pod) == Claim::Adopt).collect();
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        if adoptable.is_empty() || !ownership::may_adopt(&jobs, job).await? {
            return Ok(pods);
        }
        let owner = controller_ref(job);
        for pod in adoptable {
            if let Some(pod) = ownership::adopt_tracked(&api, &*pod, &owner, pod::FINALIZER).await? {
                self.expectations.written(key, &pod);
                pods.push(Arc::new(pod));
            }
        }
        Ok(pods)
    }

    async fn perform(&self, key: &ObjectKey, job: &Job, moves: &Moves) -> (Done, Option<Error>) {
        let mut done = Done::default();
        let mut failure = None;
        let deletions = moves
            .delete
            .iter()
            .cloned()
            .map(|pod| async move { (is_ready(&pod), self.delete(key, job, &pod, moves.uncounted).await) });
        let mut deletions = stream::iter(deletions).buffer_unordered(CALLS_MAX);
        while let Some((ready, result)) = deletions.next().await {
            match result {
                Ok(()) => {
                    done.deleted += 1;
                    done.deleted_ready += i32::from(ready);
                }
                Err(source) => {
                    let job = key.clone();
                    failure = Some(Error::Delete { job, source });
                }
            }
        }
        let create = |new: NewPod| async move {
            let created = self.control.create(job, &template::pod_of(job, &new)).await?;
            self.expectations.written(key, &created);
            Ok(())
        };
        let outcome = slow_start::run(moves.create.iter().cloned(), create).await;
        done.created = i32::try_from(outcome.done).unwrap_or(i32::MAX);
        let serious = |error: &kube::Error| !is_namespace_terminating(error);
        if let Some(source) = outcome.failures.into_iter().find(serious) {
            let job = key.clone();
            failure = Some(Error::Create { job, source });
        }
        (done, failure)
    }

    async fn delete(&self, key: &ObjectKey, job: &Job, pod: &Pod, uncounted: bool) -> kube::Result<()> {
        if uncounted && pod::is_tracked(pod) {
            self.untrack(key, pod).await?;
        }
        if self.control.delete(job, pod).await? {
            self.expectations.deleted(key, pod);
        }
        Ok(())
    }

    /// Takes the finalizer from `pod`, if it is there.
    async fn untrack(&self, key: &ObjectKey, pod: &Pod) -> kube::Result<()> {
        if let Some(pod) = remove_finalizer(&self.pod_api(&key.namespace), pod).await? {
            self.expectations.written(key, &pod);
        }
        Ok(())
    }

    /// Stores the status, frees the pods that it names, and stores what that counts.
    async fn record(&self, key: &ObjectKey, job: &Arc<Job>, mut account: Account) -> Result<(), Error> {
        let mut stored = Arc::clone(job);
        if stored.status.as_ref() != Some(&account.status) {
            stored = self.write_status(key, &stored, &account.status).await?;
            let uid = job.metadata.uid.clone().unwrap_or_default();
            self.back_offs.lock().insert(uid, account.back_off);
        }
        self.tell(&stored, std::mem::take(&mut account.notices));
        let calls = account.untrack.iter().cloned();
        let calls = calls.map(|pod| async move { (self.untrack(key, &pod).await, pod) });
        let mut calls = stream::iter(calls).buffer_unordered(CALLS_MAX);
        let (mut untracked, mut failure) = (HashSet::new(), None);
        while let Some((result, pod)) = calls.next().await {
            match result {
                Ok(()) => {
                    untracked.insert(pod::uid(&pod).to_owned());
                }
                Err(source) => failure = Some(source),
            }
        }
        drop(calls);
        let notices = account.settle(&untracked);
        if stored.status.as_ref() != Some(&account.status) {
            stored = self.write_status(key, &stored, &account.status).await?;
            self.tell(&stored, notices);
        }
        if !Arc::ptr_eq(&stored, job) {
            let version = stored.metadata.resource_version.as_deref();
            self.jobs.seen(version.unwrap_or_default()).await;
        }
        match failure {
            Some(source) => Err(Error::Untrack {
                job: key.clone(),
                source,
            }),
            None => Ok(()),
        }
    }

    async fn write_status(&self, key: &ObjectKey, job: &Job, status: &JobStatus) -> Result<Arc<Job>, Error> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut job = job.clone();
        job.status = Some(status.clone());
        let written = api.replace_status(&key.name, &PostParams::default(), &job).await;
        written.map(Arc::new).map_err(|source| Error::Status {
            job: key.clone(),
            source,
        })
    }

    fn tell(&self, job: &Job, notices: Vec<Notice>) {
        for notice in notices {
            let level = if notice.warning { Level::Warning } else { Level::Normal };
            self.recorder.event(job, level, notice.reason, notice.message);
        }
    }

    /// Takes the finalizer from a pod that no Job counts any more.
    async fn release_stray(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.pods.get_key(&key).filter(|pod| pod::is_tracked(pod)) else {
            return Ok(Next::Done);
        };
        let failed = |source| Error::Stray {
            pod: key.clone(),
            source,
        };
        if let Some(owner) = controller_of(&pod.metadata) {
            if !is_job(owner) {
                return Ok(Next::Done);
            }
            // The cache of Jobs may be behind that of pods.
            let jobs: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
            let job = jobs.get_opt(&owner.name).await.map_err(failed)?;
            let job = job.filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid));
            if job.is_some_and(|job| is_managed_by_another(&job) || conditions::finished(&job).is_none()) {
                return Ok(Next::Done);
            }
        }
        remove_finalizer(&self.pod_api(&key.namespace), &pod)
            .await
            .map_err(failed)?;
        Ok(Next::Done)
    }
}

fn is_job(owner: &OwnerReference) -> bool {
    owner.kind == "Job" && owner.api_version == "batch/v1"
}

fn is_managed_by_another(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGER)
}

fn claims(job: &Job, pod: &Pod) -> Claim {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    claim(&job.metadata, &ownership::selector(selector), &pod.metadata)
}

/// The pod without the finalizer; None if it is gone.
async fn remove_finalizer(api: &Api<Pod>, pod: &Pod) -> kube::Result<Option<Pod>> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {
        "uid": pod.metadata.uid,
        "$deleteFromPrimitiveList/finalizers": [pod::FINALIZER],
    }});
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Ok(Some(pod)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}
