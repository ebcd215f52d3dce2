//! Binds claims to volumes, makes volumes for claims of the built-in class, and reclaims volumes whose claim is gone
//! (upstream: `pkg/controller/volume/persistentvolume`).
//!
//! - [`matching`]: which volume fits a claim.
//! - [`plan`]: the next step for a claim or a volume.
//! - [`local_path`]: the volumes of the built-in class.
//!
//! One worker looks at claims and volumes in turn: so two claims are never offered the same volume, and what one look
//! has written the next one sees.

mod local_path;
mod matching;
mod plan;

use super::Context;
use super::claims::{
    BIND_COMPLETED, LOCAL_PATH, PROVISIONED_BY, SELECTED_NODE, claim_words, class_of_claim, class_of_volume,
    is_scheduled, volume_name, volume_phase,
};
use super::pods::message_of;
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use plan::{Decision, Notice, Step, World};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAME: &str = "persistent-volume-binder";
/// More writes than a binding takes.
const STEPS_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("writing {what} {key}: {source}")]
    Write {
        what: &'static str,
        key: ObjectKey,
        source: kube::Error,
    },
    #[error("deleting the data of volume {volume}: {reason}")]
    Data { volume: String, reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

struct Controller {
    client: Client,
    queue: WorkQueue<Key>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    /// Volumes that are free, by class, and volumes that refer to a claim.
    volumes_by: Index<PersistentVolume>,
    pods_by_claim: Index<Pod>,
    recorder: Recorder,
    /// What was last said about a claim that waits, by its uid: it is not said again.
    told: Arc<Mutex<HashMap<String, String>>>,
    directory: PathBuf,
}

fn free_word(class: &str) -> String {
    format!("free/{class}")
}

fn claim_word(claim: &ObjectKey) -> String {
    format!("claim/{claim}")
}

fn volume_words(volume: &PersistentVolume) -> Vec<String> {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match reference {
        Some(claim) => {
            let key = ObjectKey::new(
                claim.namespace.clone().unwrap_or_default(),
                claim.name.clone().unwrap_or_default(),
            );
            vec![claim_word(&key)]
        }
        None if volume_phase(volume) == "Available" => vec![free_word(class_of_volume(volume))],
        None => Vec::new(),
    }
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let informers = &ctx.informers;
    let (volumes, pods) = (informers.of::<PersistentVolume>(), informers.of::<Pod>());
    let controller = Controller {
        client: ctx.client(NAME),
        queue: WorkQueue::new("persistentvolume"),
        claims: informers.of(),
        volumes_by: volumes.index(volume_words),
        volumes,
        classes: informers.of(),
        nodes: informers.of(),
        pods_by_claim: pods.index(claim_words),
        recorder: ctx.recorder_as(NAME, "persistentvolume-controller"),
        told: Arc::default(),
        directory: ctx.volumes_directory.clone(),
    };
    controller.subscribe(&pods);
    let synced = async {
        tokio::join!(
            controller.claims.synced(),
            controller.volumes.synced(),
            controller.classes.synced(),
            controller.nodes.synced(),
            pods.synced(),
        );
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    let queue = controller.queue.clone();
    queue.run(1, &ctx.shutdown, |key| controller.work(key)).await;
}

impl Controller {
    fn subscribe(&self, pods: &Informer<Pod>) {
        let open = self.claims.index(|claim| {
            let open = !claim.annotations().contains_key(BIND_COMPLETED);
            open.then(|| class_of_claim(claim).unwrap_or_default().to_owned())
                .into_iter()
                .collect()
        });
        let naming = self
            .claims
            .index(|claim| volume_name(claim).map(str::to_owned).into_iter().collect());
        let (queue, volumes, told) = (self.queue.clone(), self.volumes_by.clone(), self.told.clone());
        self.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
            let Some(claim) = change.object() else { return };
            let key = ObjectKey::of(&**claim);
            for volume in volumes.get(&claim_word(&key)) {
                queue.add(Key::Volume(volume.name_any()));
            }
            if change.new.is_none() {
                told.lock().remove(&claim.uid().unwrap_or_default());
            }
            queue.add(Key::Claim(key));
        });
        let (queue, open_of) = (self.queue.clone(), open.clone());
        self.volumes.on_change(move |change: &Change<PersistentVolume>| {
            let Some(volume) = change.object() else { return };
            queue.add(Key::Volume(volume.name_any()));
            for claim in naming.get(&volume.name_any()) {
                queue.add(Key::Claim(ObjectKey::of(&*claim)));
            }
            let words = |volume: Option<&Arc<PersistentVolume>>| volume.map(|volume| volume_words(volume));
            let (before, now) = (words(change.old.as_ref()), words(change.new.as_ref()));
            if before == now {
                return;
            }
            let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            match reference {
                Some(claim) => queue.add(Key::Claim(ObjectKey::new(
                    claim.namespace.clone().unwrap_or_default(),
                    claim.name.clone().unwrap_or_default(),
                ))),
                None => {
                    for claim in open_of.get(class_of_volume(volume)) {
                        queue.add(Key::Claim(ObjectKey::of(&*claim)));
                    }
                }
            }
        });
        let queue = self.queue.clone();
        self.classes.on_change(move |change: &Change<StorageClass>| {
            let name = change.object().map(|class| class.name_any()).unwrap_or_default();
            for claim in open.get(&name).into_iter().chain(open.get("")) {
                queue.add(Key::Claim(ObjectKey::of(&*claim)));
            }
        });
        let queue = self.queue.clone();
        pods.on_change(move |change: &Change<Pod>| {
            // Who waits for a claim is told with the claim.
            let Some(pod) = change
                .new
                .as_ref()
                .filter(|pod| change.old.is_none() && !is_scheduled(pod))
            else {
                return;
            };
            let namespace = pod.namespace().unwrap_or_default();
            for word in claim_words(pod) {
                let name = word.split_once('/').map_or("", |(_, name)| name);
                queue.add(Key::Claim(ObjectKey::new(namespace.clone(), name)));
            }
        });
    }

    async fn work(&self, key: Key) -> Result<Next, Error> {
        for _ in 0..STEPS_MAX {
            let (claim, volume, decision) = match &key {
                Key::Claim(name) => {
                    let Some(claim) = self.claims.get_key(name) else {
                        return Ok(Next::Done);
                    };
                    let decision = self.look_at(&claim);
                    (Some(claim), None, decision)
                }
                Key::Volume(name) => {
                    let Some(volume) = self.volumes.get("", name) else {
                        return Ok(Next::Done);
                    };
                    let claim = self.claim_of(&volume);
                    let decision = plan::for_volume(&volume, claim.as_deref());
                    (claim, Some(volume), decision)
                }
            };
            let decision = match (&decision.step, &volume) {
                (Step::Release, Some(volume)) => match self.is_claim_gone(volume).await? {
                    true => plan::released(volume),
                    // It is there, but not here yet.
                    false => return Ok(Next::Retry),
                },
                _ => decision,
            };
            let goes_on = self.act(&decision, claim.as_ref(), volume.as_ref()).await?;
            if !goes_on {
                return Ok(Next::Done);
            }
        }
        Ok(Next::Retry)
    }

    fn look_at(&self, claim: &PersistentVolumeClaim) -> Decision {
        let mut candidates = self.volumes_by.get(&claim_word(&ObjectKey::of(claim)));
        candidates.extend(
            self.volumes_by
                .get(&free_word(class_of_claim(claim).unwrap_or_default())),
        );
        let classes = if class_of_claim(claim).is_none() {
            self.classes.list()
        } else {
            Vec::new()
        };
        let waiting = || {
            let pods = self.pods_by_claim.get(&ObjectKey::of(claim).to_string());
            let waiting = pods.iter().filter(|pod| !is_scheduled(pod));
            waiting.map(|pod| pod.name_any()).collect()
        };
        let world = World {
            volume: &|name| self.volumes.get("", name),
            candidates: &candidates,
            class: &|name| self.classes.get("", name),
            default_class: plan::default_class(&classes),
            waiting_pods: &waiting,
            node_exists: &|name| self.nodes.get("", name).is_some(),
        };
        plan::for_claim(claim, &world)
    }

    fn claim_of(&self, volume: &PersistentVolume) -> Option<Arc<PersistentVolumeClaim>> {
        let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
        self.claims
            .get(reference.namespace.as_deref()?, reference.name.as_deref()?)
    }

    /// A volume must not be released because the cache is behind.
    async fn is_claim_gone(&self, volume: &PersistentVolume) -> Result<bool, Error> {
        let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()) else {
            return Ok(false);
        };
        let (namespace, name) = (
            reference.namespace.unwrap_or_default(),
            reference.name.unwrap_or_default(),
        );
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let live = api.get_opt(&name).await.map_err(|source| Error::Write {
            what: "the release of a volume of the claim",
            key: ObjectKey::new(namespace, name),
            source,
        })?;
        Ok(live.is_none_or(|live| live.metadata.uid != reference.uid))
    }

    /// True if there may be a next step.
    async fn act(
        &self,
        decision: &Decision,
        claim: Option<&Arc<PersistentVolumeClaim>>,
        volume: Option<&Arc<PersistentVolume>>,
    ) -> Result<bool, Error> {
        let goes_on = match &decision.step {
            Step::Done | Step::Release => false,
            Step::LookAt(key) => {
                self.queue.add(Key::Claim(key.clone()));
                false
            }
            Step::Volume(new) | Step::VolumeStatus(new) => {
                let api: Api<PersistentVolume> = Api::all(self.client.clone());
                let (name, parameters) = (new.name_any(), PostParams::default());
                let written = match &decision.step {
                    Step::Volume(_) => api.replace(&name, &parameters, new).await,
                    _ => api.replace_status(&name, &parameters, new).await,
                };
                let written = written.map_err(failed_write("the volume", ObjectKey::of(&**new)))?;
                self.volumes.seen(&written.resource_version().unwrap_or_default()).await;
                true
            }
            Step::Claim(new) | Step::ClaimStatus(new) => {
                let namespace = new.namespace().unwrap_or_default();
                let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
                let (name, parameters) = (new.name_any(), PostParams::default());
                let written = match &decision.step {
                    Step::Claim(_) => api.replace(&name, &parameters, new).await,
                    _ => api.replace_status(&name, &parameters, new).await,
                };
                let written = written.map_err(failed_write("the claim", ObjectKey::of(&**new)))?;
                self.claims.seen(&written.resource_version().unwrap_or_default()).await;
                true
            }
            Step::Provision(class) => {
                if let Some(claim) = claim {
                    self.provision(claim, class).await?;
                }
                false
            }
            Step::Delete => {
                if let Some(volume) = volume {
                    self.delete(volume).await?;
                }
                false
            }
        };
        for notice in &decision.notices {
            self.tell(notice, goes_on, claim, volume);
        }
        Ok(goes_on)
    }

    fn tell(
        &self,
        notice: &Notice,
        changed: bool,
        claim: Option<&Arc<PersistentVolumeClaim>>,
        volume: Option<&Arc<PersistentVolume>>,
    ) {
        let (level, reason, message) = (notice.level, notice.reason, notice.message.clone());
        match (notice.of_claim, claim, volume) {
            (true, Some(claim), _) => {
                let uid = claim.uid().unwrap_or_default();
                let known = self.told.lock().insert(uid, message.clone());
                if changed || known.as_ref() != Some(&message) {
                    self.recorder.event(&**claim, level, reason, message);
                }
            }
            (false, _, Some(volume)) => self.recorder.event(&**volume, level, reason, message),
            _ => {}
        }
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Error> {
        let node = claim
            .annotations()
            .get(SELECTED_NODE)
            .and_then(|name| self.nodes.get("", name));
        let volume = match local_path::volume(claim, class, node.as_deref(), &self.directory) {
            Ok(volume) => volume,
            Err(why) => {
                let message = format!(
                    "Failed to provision volume with StorageClass \"{}\": {why}",
                    class.name_any()
                );
                self.recorder
                    .event(claim, Level::Warning, "ProvisioningFailed", message);
                return Ok(());
            }
        };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &volume).await {
            Ok(made) => {
                let message = format!("Successfully provisioned volume {} using {LOCAL_PATH}", made.name_any());
                self.recorder
                    .event(claim, Level::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            // It was made by a look before this one, and its change leads to the claim.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(source) => {
                let message = format!(
                    "Error creating provisioned PV object for claim {}: {}. Deleting the volume.",
                    ObjectKey::of(claim),
                    message_of(&source)
                );
                self.recorder
                    .event(claim, Level::Warning, "ProvisioningFailed", message);
                Err(failed_write("the volume", ObjectKey::of(&volume))(source))
            }
        }
    }

    async fn delete(&self, volume: &Arc<PersistentVolume>) -> Result<(), Error> {
        if let Err(failure) = self.delete_data(volume).await {
            let decision = plan::failed(volume, "VolumeFailedDelete", &failure.message);
            // The failure is what is told of; the write of it is retried with everything.
            Box::pin(self.act(&decision, None, Some(volume))).await?;
            return match failure.again {
                true => Err(Error::Data {
                    volume: volume.name_any(),
                    reason: failure.message,
                }),
                false => Ok(()),
            };
        }
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = volume.name_any();
        if volume
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == local_path::FINALIZER)
        {
            let mut free = PersistentVolume::clone(volume);
            free.finalizers_mut()
                .retain(|finalizer| finalizer != local_path::FINALIZER);
            match api.replace(&name, &PostParams::default(), &free).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(source) => return Err(failed_write("the volume", ObjectKey::of(&**volume))(source)),
            }
        }
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failed_write("the volume", ObjectKey::of(&**volume))(source)),
        }
    }

    async fn delete_data(&self, volume: &PersistentVolume) -> Result<(), DeleteFailure> {
        let refused = |message: String| DeleteFailure { message, again: false };
        let path = if volume
            .annotations()
            .get(PROVISIONED_BY)
            .is_some_and(|by| by == LOCAL_PATH)
        {
            local_path::directory(volume, &self.directory).map_err(refused)?
        } else {
            let source = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref());
            let Some(source) = source else {
                return Err(refused(format!(
                    "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched",
                    volume.name_any()
                )));
            };
            let path = Path::new(&source.path);
            let below_tmp = path.strip_prefix("/tmp").is_ok_and(|rest| {
                let mut parts = rest.components();
                parts.clone().next().is_some() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
            });
            if !below_tmp {
                return Err(refused(format!(
                    "host_path deleter only supports /tmp/.+ but received provided {}",
                    source.path
                )));
            }
            path.to_owned()
        };
        let removal = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        });
        let removed = removal.await.unwrap_or_else(|error| Err(error.to_string()));
        removed.map_err(|message| DeleteFailure { message, again: true })
    }
}

struct DeleteFailure {
    message: String,
    /// It may go better another time.
    again: bool,
}

fn failed_write(what: &'static str, key: ObjectKey) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Write { what, key, source }
}
