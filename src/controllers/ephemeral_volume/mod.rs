//! Makes the claims of pods' ephemeral volumes (upstream: `pkg/controller/volume/ephemeral`). They go with their pods.

mod plan;

use super::Context;
use super::claims::claim_words;
use super::pods::{is_namespace_terminating, message_of};
use crate::client::ObjectKey;
use crate::client::events::Level;
use crate::client::informer::Change;
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use plan::{is_concerned, missing};

const NAME: &str = "ephemeral-volume-controller";
const WORKERS: usize = 5;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("creating the claim of volume {volume} of pod {pod}: {source}")]
    Create {
        volume: String,
        pod: ObjectKey,
        source: kube::Error,
    },
    #[error("pod {pod}, ephemeral volume {volume}: {reason}")]
    Foreign {
        volume: String,
        pod: ObjectKey,
        reason: String,
    },
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let client = ctx.client(NAME);
    let recorder = ctx.recorder_as(NAME, "ephemeral_volume");
    let (pods, claims) = (ctx.informers.of::<Pod>(), ctx.informers.of::<PersistentVolumeClaim>());
    let by_claim = pods.index(claim_words);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("ephemeral_volume");
    let added = queue.clone();
    pods.on_change(move |change: &Change<Pod>| {
        let concerned = change.new.iter().filter(|pod| is_concerned(pod));
        concerned.for_each(|pod| added.add(ObjectKey::of(&**pod)));
    });
    let added = queue.clone();
    claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
        // Somebody deleted it: it is made again.
        let gone = change.old.iter().filter(|_| change.new.is_none());
        let pods = gone.flat_map(|claim| by_claim.get(&ObjectKey::of(&**claim).to_string()));
        pods.filter(|pod| is_concerned(pod))
            .for_each(|pod| added.add(ObjectKey::of(&*pod)));
    });
    let synced = async {
        tokio::join!(pods.synced(), claims.synced());
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    let work = |key: ObjectKey| {
        let (client, recorder, pods, claims) = (&client, &recorder, &pods, &claims);
        async move {
            let Some(pod) = pods.get_key(&key) else {
                return Ok(Next::Done);
            };
            let tell = |volume: &str, reason: &str| {
                let message = format!("ephemeral volume {volume}: {reason}");
                recorder.event(&*pod, Level::Warning, "FailedBinding", message);
            };
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.namespace);
            let (wanted, problem) = missing(&pod, |name| claims.get(&key.namespace, name));
            for (volume, claim) in wanted {
                match api.create(&PostParams::default(), &claim).await {
                    Ok(_) => {}
                    Err(error) if is_namespace_terminating(&error) => return Ok(Next::Done),
                    // The cache is behind: the next look says whose it is.
                    Err(kube::Error::Api(status)) if status.is_already_exists() => return Ok(Next::Retry),
                    Err(source) => {
                        let reason = format!("create PVC {}: {}", claim.name_any(), message_of(&source));
                        tell(&volume, &reason);
                        let pod = key;
                        return Err(Error::Create { volume, pod, source });
                    }
                }
            }
            match problem {
                None => Ok(Next::Done),
                Some(problem) => {
                    tell(&problem.volume, &problem.reason);
                    Err(Error::Foreign {
                        volume: problem.volume,
                        pod: key,
                        reason: problem.reason,
                    })
                }
            }
        }
    };
    queue.run(WORKERS, &ctx.shutdown, work).await;
}
