//! Lets volumes grow with their claims (upstream: `pkg/controller/volume/expand`). Those of the built-in class have room
//! at once; all others are left to who made them.

mod plan;

use super::Context;
use super::claims::volume_name;
use crate::client::ObjectKey;
use crate::client::events::Level;
use crate::client::informer::Change;
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use plan::{Step, is_asking, is_news, next_step};

const NAME: &str = "expand-controller";

#[derive(Debug, thiserror::Error)]
#[error("resizing the volume of claim {claim}: {source}")]
struct Error {
    claim: ObjectKey,
    source: kube::Error,
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let client = ctx.client(NAME);
    let recorder = ctx.recorder_as(NAME, "volume_expand");
    let (claims, volumes) = (
        ctx.informers.of::<PersistentVolumeClaim>(),
        ctx.informers.of::<PersistentVolume>(),
    );
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("volume_expand");
    let added = queue.clone();
    claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
        let asking = change.new.iter().filter(|claim| is_news(change.old.as_deref(), claim));
        asking.for_each(|claim| added.add(ObjectKey::of(&**claim)));
    });
    let synced = async {
        tokio::join!(claims.synced(), volumes.synced());
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    let work = |key: ObjectKey| {
        let (client, recorder, claims, volumes) = (&client, &recorder, &claims, &volumes);
        async move {
            let failed = |source: kube::Error| Error {
                claim: key.clone(),
                source,
            };
            loop {
                let Some(claim) = claims.get_key(&key).filter(|claim| is_asking(claim)) else {
                    return Ok::<_, Error>(Next::Done);
                };
                let Some(volume) = volume_name(&claim).and_then(|name| volumes.get("", name)) else {
                    return Ok(Next::Retry);
                };
                let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.namespace);
                let parameters = PostParams::default();
                match next_step(&claim, &volume, Timestamp::now()) {
                    Step::Done => return Ok(Next::Done),
                    Step::Unbound => return Ok(Next::Retry),
                    Step::External => {
                        let message = "waiting for an external controller to expand this PVC";
                        recorder.event(&*claim, Level::Normal, "ExternalExpanding", message);
                        return Ok(Next::Done);
                    }
                    Step::Begin(new) => {
                        let written = api.replace_status(&key.name, &parameters, &new).await.map_err(failed)?;
                        let message = format!("External resizer is resizing volume {}", volume.name_any());
                        recorder.event(&*claim, Level::Normal, "Resizing", message);
                        claims.seen(&written.resource_version().unwrap_or_default()).await;
                    }
                    Step::Volume(new) => {
                        let api: Api<PersistentVolume> = Api::all(client.clone());
                        let written = api.replace(&new.name_any(), &parameters, &new).await.map_err(failed)?;
                        volumes.seen(&written.resource_version().unwrap_or_default()).await;
                    }
                    Step::Finish(new) => {
                        api.replace_status(&key.name, &parameters, &new).await.map_err(failed)?;
                        recorder.event(
                            &*claim,
                            Level::Normal,
                            "VolumeResizeSuccessful",
                            "Resize volume succeeded",
                        );
                        return Ok(Next::Done);
                    }
                }
            }
        }
    };
    queue.run(2, &ctx.shutdown, work).await;
}
