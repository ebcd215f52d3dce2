//! Deletes Jobs some time after they ended, if they ask for it (upstream: `pkg/controller/ttlafterfinished`).

mod plan;

use super::Context;
use crate::client::work_queue::{Next, WorkQueue};
use crate::client::{self, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, DeleteParams};
use plan::time_left;
use std::sync::Arc;

const NAME: &str = "ttl-after-finished-controller";
const WORKERS: usize = 5;

#[derive(Debug, thiserror::Error)]
#[error("cleaning up job {job}: {source}")]
struct Error {
    job: ObjectKey,
    source: kube::Error,
}

/// Runs until `shutdown`.
pub async fn run(context: &Context) {
    let (client, jobs) = (context.client(NAME), context.informers.of::<Job>());
    let queue = Arc::new(WorkQueue::new("ttl_jobs_to_delete"));
    let added = Arc::clone(&queue);
    jobs.on_change(move |change| {
        let job = change
            .new
            .as_ref()
            .filter(|job| time_left(job, Timestamp::now()).is_some());
        job.into_iter().for_each(|job| added.add(ObjectKey::of(&**job)));
    });
    if !context.caught_up(jobs.synced()).await {
        return;
    }
    let sync = |key: ObjectKey| {
        let (client, jobs) = (client.clone(), jobs.clone());
        async move {
            let failed = |source| Error {
                job: key.clone(),
                source,
            };
            let Some(left) = jobs.get_key(&key).and_then(|job| time_left(&job, Timestamp::now())) else {
                return Ok(Next::Done);
            };
            if left > SignedDuration::ZERO {
                return Ok(Next::After(left.unsigned_abs()));
            }
            // The time may have been changed meanwhile.
            let api: Api<Job> = Api::namespaced(client, &key.namespace);
            let live = api.get_opt(&key.name).await.map_err(failed)?;
            let Some((job, left)) = live.and_then(|job| time_left(&job, Timestamp::now()).map(|left| (job, left)))
            else {
                return Ok(Next::Done);
            };
            if left > SignedDuration::ZERO {
                return Ok(Next::After(left.unsigned_abs()));
            }
            let params = DeleteParams::foreground().preconditions(client::only(job.metadata.uid));
            match api.delete(&key.name, &params).await {
                Ok(_) => Ok(Next::Done),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Next::Done),
                Err(error) => Err(failed(error)),
            }
        }
    };
    queue.run(WORKERS, &context.shutdown, sync).await;
}
