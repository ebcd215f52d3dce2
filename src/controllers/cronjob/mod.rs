//! Starts Jobs by the clock for CronJobs (upstream: `pkg/controller/cronjob`).
//!
//! - [`times`]: when one is due.
//! - [`plan`]: what is done then.

mod plan;
#[cfg(test)]
mod tests;
mod times;

use super::Context;
use super::ownership::controller_of;
use super::pods::{is_namespace_terminating, message_of};
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use plan::{Observed, Plan, Start, add_active, drop_active, is_active, outdated};
use std::collections::HashSet;
use std::sync::Arc;

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 5;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading what belongs to cron job {cron_job}: {source}")]
    Read { cron_job: ObjectKey, source: kube::Error },
    #[error("starting a job of cron job {cron_job}: {source}")]
    Start { cron_job: ObjectKey, source: kube::Error },
    #[error("replacing a job of cron job {cron_job}: {source}")]
    Replace { cron_job: ObjectKey, source: kube::Error },
    #[error("writing the status of cron job {cron_job}: {source}")]
    Status { cron_job: ObjectKey, source: kube::Error },
}

struct Controller {
    client: Client,
    recorder: Recorder,
    cron_jobs: Informer<CronJob>,
    jobs: Informer<Job>,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until `shutdown`.
pub async fn run(context: &Context) {
    let controller = Arc::new(Controller {
        client: context.client(NAME),
        recorder: context.recorder(NAME),
        cron_jobs: context.informers.of::<CronJob>(),
        jobs: context.informers.of::<Job>(),
        queue: WorkQueue::new("cronjob"),
    });
    let this = Arc::clone(&controller);
    controller
        .cron_jobs
        .on_change(move |change| this.cron_job_changed(change));
    let this = Arc::clone(&controller);
    controller.jobs.on_change(move |change| this.job_changed(change));
    let synced = async { tokio::join!(controller.cron_jobs.synced(), controller.jobs.synced()) };
    if !context.caught_up(synced).await {
        return;
    }
    let this = &controller;
    this.queue.run(WORKERS, &context.shutdown, |key| this.sync(key)).await;
}

impl Controller {
    fn cron_job_changed(&self, change: &Change<CronJob>) {
        let Some(cron_job) = change.object() else { return };
        let key = ObjectKey::of(&**cron_job);
        let clock = |cron_job: &Arc<CronJob>| {
            let spec = &cron_job.spec;
            (spec.schedule.clone(), spec.time_zone.clone())
        };
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && clock(old) != clock(new)
        {
            // What the new schedule would have started before it was there is not made up for.
            let next = times::schedule(new).ok();
            let next = next.and_then(|schedule| times::until_next(new, &schedule, Timestamp::now()));
            if let Some(next) = next {
                self.queue.add_after(key, next.unsigned_abs());
                return;
            }
        }
        self.queue.add(key);
    }

    fn job_changed(&self, change: &Change<Job>) {
        for job in change.each() {
            let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob");
            if let Some(owner) = owner {
                let namespace = job.metadata.namespace.clone().unwrap_or_default();
                self.queue.add(ObjectKey::new(namespace, owner.name.clone()));
            }
        }
    }

    fn job_api(&self, key: &ObjectKey) -> Api<Job> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(cached) = self.cron_jobs.get_key(&key) else {
            return Ok(Next::Done);
        };
        let failed = |source| Error::Read {
            cron_job: key.clone(),
            source,
        };
        let jobs = self
            .jobs
            .controlled_by(cached.metadata.uid.as_deref().unwrap_or_default());
        let Some(mut cron_job) = self.up_to_date(&key, &cached, &jobs).await.map_err(failed)? else {
            return Ok(Next::Done);
        };
        for job in outdated(&cron_job, &jobs) {
            let status = cron_job.status.get_or_insert_default();
            // What could not be deleted comes again with the next sync.
            let _ = self.delete(&cached, &key, &job, status).await;
        }
        let gone = self.gone(&key, &cron_job, &jobs).await.map_err(failed)?;
        let Plan {
            mut status,
            notices,
            start,
            again,
        } = plan::plan(Observed {
            cron_job: &cron_job,
            jobs: &jobs,
            gone: &gone,
            now: Timestamp::now(),
        });
        for (level, reason, message) in notices {
            self.recorder.event(&*cached, level, reason, message);
        }
        let started = match start {
            Some(start) => self.start(&key, &cached, start, &mut status).await,
            None => Ok(()),
        };
        if cached.status.clone().unwrap_or_default() != status {
            let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
            cron_job.status = Some(status);
            match api.replace_status(&key.name, &PostParams::default(), &cron_job).await {
                Ok(written) => {
                    let version = written.metadata.resource_version.unwrap_or_default();
                    self.cron_jobs.seen(&version).await;
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(Next::Retry),
                Err(source) => {
                    let cron_job = key.clone();
                    return Err(Error::Status { cron_job, source });
                }
            }
        }
        started?;
        Ok(again.map_or(Next::Done, |again| Next::After(again.unsigned_abs())))
    }

    /// The CronJob, read anew if a Job that runs is not on its list: the cache may be behind. None if it is gone.
    async fn up_to_date(&self, key: &ObjectKey, cached: &CronJob, jobs: &[Arc<Job>]) -> kube::Result<Option<CronJob>> {
        let none = CronJobStatus::default();
        let status = cached.status.as_ref().unwrap_or(&none);
        let is_news = |job: &Arc<Job>| super::job::conditions::finished(job).is_none() && !is_active(status, job);
        if !jobs.iter().any(is_news) {
            return Ok(Some(cached.clone()));
        }
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
        let live = api.get_opt(&key.name).await?;
        Ok(live.filter(|live| live.metadata.uid == cached.metadata.uid))
    }

    /// Those of the active Jobs that are neither in the cache nor at the API server.
    async fn gone(&self, key: &ObjectKey, cron_job: &CronJob, jobs: &[Arc<Job>]) -> kube::Result<HashSet<String>> {
        let known: HashSet<&str> = jobs.iter().filter_map(|job| job.metadata.uid.as_deref()).collect();
        let active = cron_job.status.iter().flat_map(|status| status.active.iter().flatten());
        let mut gone = HashSet::new();
        for reference in active {
            let (Some(uid), Some(name)) = (&reference.uid, &reference.name) else {
                continue;
            };
            if known.contains(uid.as_str()) {
                continue;
            }
            let live = self.job_api(key).get_opt(name).await?;
            if live.is_none_or(|live| live.metadata.uid.as_ref() != Some(uid)) {
                gone.insert(uid.clone());
            }
        }
        Ok(gone)
    }

    async fn delete(
        &self,
        cron_job: &CronJob,
        key: &ObjectKey,
        job: &Job,
        status: &mut CronJobStatus,
    ) -> kube::Result<()> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        match self.job_api(key).delete(name, &DeleteParams::background()).await {
            Ok(_) => {
                drop_active(status, job.metadata.uid.as_ref());
                let message = format!("Deleted job {name}");
                self.recorder
                    .event(cron_job, Level::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            // It is deleted already, and the cache does not show it yet.
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            Err(error) => {
                let message = format!("Deleted job: {}", message_of(&error));
                self.recorder.event(cron_job, Level::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Starts the Job and puts it into `status`.
    async fn start(
        &self,
        key: &ObjectKey,
        cron_job: &CronJob,
        start: Start,
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let api = self.job_api(key);
        for reference in &start.replaces {
            let failed = |source| Error::Replace {
                cron_job: key.clone(),
                source,
            };
            let name = reference.name.as_deref().unwrap_or_default();
            match api.get_opt(name).await {
                Ok(Some(job)) => self.delete(cron_job, key, &job, status).await.map_err(failed)?,
                Ok(None) => drop_active(status, reference.uid.as_ref()),
                Err(error) => {
                    let message = format!("Get job: {}", message_of(&error));
                    self.recorder.event(cron_job, Level::Warning, "FailedGet", message);
                    return Err(failed(error));
                }
            }
        }
        let failed = |source| Error::Start {
            cron_job: key.clone(),
            source,
        };
        let job = match api.create(&PostParams::default(), &start.job).await {
            Ok(job) => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Created job {name}");
                self.recorder
                    .event(cron_job, Level::Normal, "SuccessfulCreate", message);
                job
            }
            // Made before the status could be written, or by somebody else.
            Err(kube::Error::Api(error)) if error.is_already_exists() => {
                let name = start.job.metadata.name.as_deref().unwrap_or_default();
                let Some(job) = api.get_opt(name).await.map_err(failed)? else {
                    return Ok(());
                };
                let ours = controller_of(&job.metadata).map(|owner| &owner.uid) == cron_job.metadata.uid.as_ref();
                if !ours || is_active(status, &job) {
                    return Ok(());
                }
                job
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating job: {}", message_of(&error));
                    self.recorder.event(cron_job, Level::Warning, "FailedCreate", message);
                }
                return Err(failed(error));
            }
        };
        add_active(status, &job, start.at);
        let version = job.metadata.resource_version.as_deref().unwrap_or_default();
        self.jobs.seen(version).await;
        Ok(())
    }
}
