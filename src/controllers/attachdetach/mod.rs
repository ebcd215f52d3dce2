//! Keeps the attachments of CSI drivers' volumes to nodes, and the lists of them in the nodes' status
//! (upstream: `pkg/controller/volume/attachdetach`). The drivers' own programs do the attaching.

mod memory;
mod plan;
#[cfg(test)]
mod random;

use super::Context;
use super::claims::{claim_name, claim_words, is_bound_to, volume_name, volumes};
use super::pods::{is_finished, node_name};
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use memory::Memory;
use parking_lot::Mutex;
use plan::{Observed, Source, Volume, plan, volume};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAME: &str = "attachdetach-controller";
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
#[error("{verb} for node {node}: {source}")]
struct Error {
    verb: &'static str,
    node: String,
    source: kube::Error,
}

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    pods_on: Index<Pod>,
    attachments: Informer<VolumeAttachment>,
    attachments_on: Index<VolumeAttachment>,
    attachments_of: Index<VolumeAttachment>,
    recorder: Recorder,
    memory: Arc<Mutex<Memory>>,
}

/// What a node says that it has mounted.
fn in_use(node: &Node) -> Vec<String> {
    let status = node.status.as_ref();
    let volumes = status.and_then(|status| status.volumes_in_use.clone());
    volumes.unwrap_or_default()
}

fn volume_word(attachment: &VolumeAttachment) -> Vec<String> {
    attachment
        .spec
        .source
        .persistent_volume_name
        .clone()
        .into_iter()
        .collect()
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let informers = &ctx.informers;
    let (pods, attachments) = (informers.of::<Pod>(), informers.of::<VolumeAttachment>());
    let controller = Controller {
        client: ctx.client(NAME),
        nodes: informers.of(),
        claims: informers.of(),
        volumes: informers.of(),
        drivers: informers.of(),
        pods_on: pods.index(|pod| {
            node_name(pod)
                .map(str::to_owned)
                .filter(|_| !claim_words(pod).is_empty())
                .into_iter()
                .collect()
        }),
        attachments: attachments.clone(),
        attachments_on: attachments.index(|attachment| vec![attachment.spec.node_name.clone()]),
        attachments_of: attachments.index(volume_word),
        recorder: ctx.recorder_as(NAME, "attachdetach-controller"),
        memory: Arc::default(),
    };
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("attachdetach");
    controller.subscribe(&queue, &pods, &attachments);
    let synced = async {
        tokio::join!(
            pods.synced(),
            attachments.synced(),
            controller.nodes.synced(),
            controller.claims.synced(),
            controller.volumes.synced(),
            controller.drivers.synced(),
        );
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    queue
        .run(WORKERS, &ctx.shutdown, |node| controller.sync(node.name))
        .await;
}

impl Controller {
    fn subscribe(&self, queue: &WorkQueue<ObjectKey>, pods: &Informer<Pod>, attachments: &Informer<VolumeAttachment>) {
        let added = queue.clone();
        let state = |pod: &Arc<Pod>| (node_name(pod).map(str::to_owned), is_finished(pod), pod.uid());
        pods.on_change(move |change: &Change<Pod>| {
            let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if state(old) == state(new));
            let concerned = change.each().filter(|pod| !same && !claim_words(pod).is_empty());
            concerned
                .filter_map(|pod| node_name(pod).map(str::to_owned))
                .for_each(|node| added.add(ObjectKey::new("", node)));
        });
        let (added, of_volume) = (queue.clone(), self.attachments_of.clone());
        attachments.on_change(move |change: &Change<VolumeAttachment>| {
            for attachment in change.each() {
                added.add(ObjectKey::new("", &attachment.spec.node_name));
            }
            if change.new.is_none() {
                // Another node may have waited for it.
                let volumes = change.old.iter().flat_map(|attachment| volume_word(attachment));
                let others = volumes.flat_map(|volume| of_volume.get(&volume));
                others.for_each(|attachment| added.add(ObjectKey::new("", &attachment.spec.node_name)));
            }
        });
        let by_claim = pods.index(claim_words);
        let added = queue.clone();
        self.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
            let named = |claim: &Arc<PersistentVolumeClaim>| volume_name(claim).map(str::to_owned);
            let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if named(old) == named(new));
            let Some(claim) = change.object().filter(|_| !same) else {
                return;
            };
            let pods = by_claim.get(&ObjectKey::of(&**claim).to_string());
            pods.iter()
                .filter_map(|pod| node_name(pod).map(str::to_owned))
                .for_each(|node| added.add(ObjectKey::new("", node)));
        });
        let (added, memory) = (queue.clone(), Arc::clone(&self.memory));
        self.nodes.on_change(move |change: &Change<Node>| {
            if let Some(node) = change.object() {
                let left = if change.new.is_none() { in_use(node) } else { Vec::new() };
                memory.lock().note_gone(&node.name_any(), left);
            }
            let taints = |node: &Arc<Node>| node.spec.as_ref().and_then(|spec| spec.taints.clone());
            let state = |node: &Arc<Node>| (in_use(node), taints(node), plan::is_ready(node));
            let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if state(old) == state(new));
            let node = change.object().filter(|_| !same);
            node.into_iter().for_each(|node| added.add(ObjectKey::of(&**node)));
        });
    }

    /// The volumes of a pod that need an attachment.
    fn volumes_of(&self, pod: &Pod) -> Vec<Volume> {
        let namespace = pod.namespace().unwrap_or_default();
        let claims = volumes(pod).iter().filter_map(|volume| claim_name(pod, volume));
        let bound = claims.filter_map(|name| {
            let claim = self.claims.get(&namespace, &name)?;
            let found = self.volumes.get("", volume_name(&claim)?)?;
            is_bound_to(&found, &claim).then(|| volume(&found)).flatten()
        });
        bound.filter(|volume| self.needs_attachment(volume)).collect()
    }

    fn needs_attachment(&self, volume: &Volume) -> bool {
        let driver = self.drivers.get("", &volume.driver);
        driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
    }

    async fn sync(&self, name: String) -> Result<Next, Error> {
        let failed = |verb: &'static str| {
            let node = name.clone();
            move |source| Error { verb, node, source }
        };
        // What was attached to a node that is no more is to be free again.
        let node = self.nodes.get("", &name);
        let in_use = match &node {
            Some(node) => in_use(node),
            None => self.memory.lock().left_in_use(&name),
        };
        let pods = self.pods_on.get(&name);
        let running: Vec<(&Arc<Pod>, Vec<Volume>)> = pods
            .iter()
            .filter(|pod| !is_finished(pod) && node.is_some())
            .map(|pod| (pod, self.volumes_of(pod)))
            .collect();
        let mut wanted: Vec<Volume> = running.iter().flat_map(|(_, volumes)| volumes.clone()).collect();
        wanted.sort();
        wanted.dedup();
        let attachments = self.attachments_on.get(&name);
        let mut plan = plan(&Observed {
            name: &name,
            node: node.as_deref(),
            in_use: &in_use,
            wanted: &wanted,
            attachments: &attachments,
            source_of: &|attachment| {
                let Some(name) = &attachment.spec.source.persistent_volume_name else {
                    return Source::Other;
                };
                match self.volumes.get("", name) {
                    Some(found) => volume(&found).map_or(Source::Other, Source::Volume),
                    None => Source::Gone,
                }
            },
            is_elsewhere: &|volume| {
                let attachments = self.attachments_of.get(&volume.name);
                attachments.iter().any(|attachment| attachment.spec.node_name != name)
            },
            is_overdue: &|attachment| self.memory.lock().is_overdue(&name, attachment, Instant::now()),
        });
        plan.share(|volumes| self.memory.lock().give(&name, volumes));
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let given = self.memory.lock().given(&name, &plan.exclusive);
        for (attachment, volume) in given {
            // It may have been made, and not be shown yet.
            if !attachments.iter().any(|shown| shown.name_any() == attachment) {
                let made = api.get_opt(&attachment).await;
                if let Some(made) = made.map_err(failed("reading an attachment"))? {
                    let revision = made.metadata.resource_version.unwrap_or_default();
                    if self.attachments.seen(&revision).await {
                        self.memory.lock().settle(&volume);
                    }
                    return Ok(Next::After(Duration::from_millis(1)));
                }
            }
            self.memory.lock().settle(&volume);
        }
        let look_again = self.memory.lock().note_leaving(&name, &plan.leaving, Instant::now());
        let tell = |volume: &str, level, reason: &'static str, message: String| {
            let users = running
                .iter()
                .filter(|(_, volumes)| volumes.iter().any(|one| one.name == volume));
            users.for_each(|(pod, _)| self.recorder.event(&***pod, level, reason, message.clone()));
        };
        // A node is told that a volume goes before it goes.
        if let (Some(attached), Some(node)) = (plan.attached, &node) {
            let held = node.status.as_ref().and_then(|status| status.volumes_attached.clone());
            let held = held.unwrap_or_default();
            let new = wanted.iter().filter(|volume| {
                let unique = plan::unique_name(volume);
                attached.iter().any(|one| one.name == unique) && held.iter().all(|one| one.name != unique)
            });
            for volume in new {
                let message = format!("AttachVolume.Attach succeeded for volume \"{}\" ", volume.name);
                tell(&volume.name, Level::Normal, "SuccessfulAttachVolume", message);
            }
            let api: Api<Node> = Api::all(self.client.clone());
            let change = json!({"status": {"volumesAttached": attached}});
            let written = api
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(change))
                .await;
            written.map_err(failed("writing the status"))?;
        }
        for attachment in &plan.delete {
            match api.delete(attachment, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(source) => return Err(failed("deleting an attachment")(source)),
            }
        }
        for attachment in &plan.create {
            match api.create(&PostParams::default(), attachment).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(source) => return Err(failed("creating an attachment")(source)),
            }
        }
        let errors = plan.failed.into_iter().map(|(volume, why)| {
            let message = format!("AttachVolume.Attach failed for volume \"{volume}\" : {why}");
            (volume, message)
        });
        let mut said: BTreeMap<String, String> = errors.collect();
        said.extend(plan.blocked.iter().map(|volume| (volume.clone(), String::new())));
        for (volume, message) in self.memory.lock().news(&name, said) {
            if message.is_empty() {
                self.tell_who_blocks(&volume, &name, &running);
            } else {
                tell(&volume, Level::Warning, "FailedAttachVolume", message);
            }
        }
        // Who is blocked is looked at again when an attachment goes; that of another node leads here by its volume.
        Ok(match look_again {
            _ if !plan.blocked.is_empty() => Next::Retry,
            Some(time) => Next::After(time),
            None => Next::Done,
        })
    }

    /// Tells the pods that wait for a volume which others have it, of other namespaces only how many.
    fn tell_who_blocks(&self, volume: &str, node: &str, waiting: &[(&Arc<Pod>, Vec<Volume>)]) {
        let elsewhere = self.attachments_of.get(volume).into_iter();
        let elsewhere = elsewhere.filter(|attachment| attachment.spec.node_name != node);
        let there = elsewhere.flat_map(|attachment| self.pods_on.get(&attachment.spec.node_name));
        let uses = |pod: &Pod| self.volumes_of(pod).iter().any(|one| one.name == volume);
        let holders: Vec<Arc<Pod>> = there.filter(|pod| !is_finished(pod) && uses(pod)).collect();
        let blocked = waiting
            .iter()
            .filter(|(_, volumes)| volumes.iter().any(|one| one.name == volume));
        for (pod, _) in blocked {
            let message = format!(
                "Multi-Attach error for volume \"{volume}\" {}",
                plan::who_blocks(pod.metadata.namespace.as_deref(), &holders)
            );
            self.recorder
                .event(&***pod, Level::Warning, "FailedAttachVolume", message);
        }
    }
}
