//! Keeps claims that pods use, volumes that are bound, and classes of attributes that either has, until that ends
//! (upstream: `pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}`): three controllers of one kind.

mod plan;

use super::Context;
use super::claims::{claim_words, is_scheduled};
use super::pods::is_finished;
use crate::client::ObjectKey;
use crate::client::informer::{Change, Informer, Watched};
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{Api, ListParams, PostParams};
use kube::{Resource, ResourceExt};
use plan::{Protection, classes_of_claim, is_volume_used, pod_uses, protection};
use serde::Serialize;
use std::sync::Arc;

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";
const OF_CLASSES: &str = "kubernetes.io/vac-protection";
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
#[error("{verb} for the protection of {key}: {source}")]
struct Error {
    verb: &'static str,
    key: ObjectKey,
    source: kube::Error,
}

fn failed(verb: &'static str, key: &ObjectKey) -> impl FnOnce(kube::Error) -> Error {
    let key = key.clone();
    move |source| Error { verb, key, source }
}

/// Runs the three until the context's shutdown.
pub async fn run(ctx: &Context) {
    tokio::join!(claims(ctx), volumes(ctx), classes(ctx));
}

/// Adds an object to `queue` when its protection is to change.
fn watch_own<K: Watched>(informer: &Informer<K>, queue: &WorkQueue<ObjectKey>, finalizer: &'static str) {
    let queue = queue.clone();
    informer.on_change(move |change: &Change<K>| {
        let new = change.new.iter();
        let wrong = new.filter(|object| protection(object.meta(), finalizer) != Protection::Right);
        wrong.for_each(|object| queue.add(ObjectKey::of(&**object)));
    });
}

/// Writes the object with its protection, or without it.
async fn write<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<Next, Error>
where
    K: Watched + Serialize,
{
    let mut new = object.clone();
    let add = protection(object.meta(), finalizer) == Protection::Missing;
    new.finalizers_mut().retain(|one| one != finalizer);
    if add {
        new.finalizers_mut().push(finalizer.to_owned());
    }
    match api.replace(&object.name_any(), &PostParams::default(), &new).await {
        Ok(_) => Ok(Next::Done),
        // It is gone, or its change is on its way and leads here again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404) => Ok(Next::Done),
        Err(source) => Err(failed("the write", &ObjectKey::of(object))(source)),
    }
}

/// Everything of a kind, from the API server itself: what the cache does not show yet must hinder, too.
async fn live<K>(api: Api<K>, key: &ObjectKey) -> Result<Vec<K>, Error>
where
    K: Watched,
{
    let list = api.list(&ListParams::default()).await;
    list.map(|list| list.items).map_err(failed("the list", key))
}

fn namespaced<K>(client: kube::Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client, namespace)
}

async fn claims(ctx: &Context) {
    let client = ctx.client("pvc-protection-controller");
    let (claims, pods) = (ctx.informers.of::<PersistentVolumeClaim>(), ctx.informers.of::<Pod>());
    let by_claim = pods.index(claim_words);
    let queue = WorkQueue::new("pvcprotection");
    watch_own(&claims, &queue, OF_CLAIMS);
    let (added, known) = (queue.clone(), claims.clone());
    pods.on_change(move |change: &Change<Pod>| {
        let gone = change.old.iter().filter(|_| change.new.is_none());
        let harmless = change.new.iter().filter(|pod| is_finished(pod) || !is_scheduled(pod));
        for pod in gone.chain(harmless) {
            for word in claim_words(pod) {
                let key = word
                    .split_once('/')
                    .map(|(namespace, name)| ObjectKey::new(namespace, name));
                let going = key.filter(|key| {
                    let claim = known.get_key(key);
                    claim.is_some_and(|claim| protection(&claim.metadata, OF_CLAIMS) == Protection::Going)
                });
                going.into_iter().for_each(|key| added.add(key));
            }
        }
    });
    let synced = async {
        tokio::join!(claims.synced(), pods.synced());
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    let work = |key: ObjectKey| {
        let (client, claims, by_claim) = (&client, &claims, &by_claim);
        async move {
            let Some(claim) = claims.get_key(&key) else {
                return Ok(Next::Done);
            };
            let api: Api<PersistentVolumeClaim> = namespaced(client.clone(), &key.namespace);
            match protection(&claim.metadata, OF_CLAIMS) {
                Protection::Right => Ok(Next::Done),
                Protection::Missing => write(&api, &*claim, OF_CLAIMS).await,
                Protection::Going => {
                    if by_claim.get(&key.to_string()).iter().any(|pod| pod_uses(pod, &claim)) {
                        return Ok(Next::Done);
                    }
                    let pods: Vec<Pod> = live(namespaced(client.clone(), &key.namespace), &key).await?;
                    if pods.iter().any(|pod| pod_uses(pod, &claim)) {
                        // The cache is behind, and will lead here when the pod goes.
                        return Ok(Next::Done);
                    }
                    write(&api, &*claim, OF_CLAIMS).await
                }
            }
        }
    };
    queue.run(WORKERS, &ctx.shutdown, work).await;
}

async fn volumes(ctx: &Context) {
    let api: Api<PersistentVolume> = Api::all(ctx.client("pv-protection-controller"));
    let volumes = ctx.informers.of::<PersistentVolume>();
    let queue = WorkQueue::new("pvprotection");
    watch_own(&volumes, &queue, OF_VOLUMES);
    if !ctx.caught_up(volumes.synced()).await {
        return;
    }
    let work = |key: ObjectKey| {
        let (api, volumes) = (&api, &volumes);
        async move {
            let Some(volume) = volumes.get_key(&key) else {
                return Ok(Next::Done);
            };
            match protection(&volume.metadata, OF_VOLUMES) {
                Protection::Missing => write(api, &*volume, OF_VOLUMES).await,
                Protection::Going if !is_volume_used(&volume) => write(api, &*volume, OF_VOLUMES).await,
                _ => Ok(Next::Done),
            }
        }
    };
    queue.run(WORKERS, &ctx.shutdown, work).await;
}

async fn classes(ctx: &Context) {
    let client = ctx.client("volumeattributesclass-protection-controller");
    let classes = ctx.informers.of::<VolumeAttributesClass>();
    let (claims, volumes) = (
        ctx.informers.of::<PersistentVolumeClaim>(),
        ctx.informers.of::<PersistentVolume>(),
    );
    let claims_of = claims.index(classes_of_claim);
    let volumes_of = volumes.index(|volume| plan::class_of_volume(volume).into_iter().collect());
    let queue = WorkQueue::new("vacprotection");
    watch_own(&classes, &queue, OF_CLASSES);
    let added = queue.clone();
    claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
        let named = |claim: &Arc<PersistentVolumeClaim>| classes_of_claim(claim);
        let now: Vec<String> = change.new.iter().flat_map(named).collect();
        let before = change.old.iter().flat_map(named);
        before
            .filter(|class| !now.contains(class))
            .for_each(|class| added.add(ObjectKey::new("", class)));
    });
    let added = queue.clone();
    volumes.on_change(move |change: &Change<PersistentVolume>| {
        let now = change.new.as_ref().and_then(|volume| plan::class_of_volume(volume));
        let before = change.old.as_ref().and_then(|volume| plan::class_of_volume(volume));
        let left = before.filter(|before| Some(before) != now.as_ref());
        left.into_iter().for_each(|class| added.add(ObjectKey::new("", class)));
    });
    let synced = async {
        tokio::join!(classes.synced(), claims.synced(), volumes.synced());
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    let work = |key: ObjectKey| {
        let (client, classes, claims_of, volumes_of) = (&client, &classes, &claims_of, &volumes_of);
        async move {
            let Some(class) = classes.get_key(&key) else {
                return Ok(Next::Done);
            };
            let api: Api<VolumeAttributesClass> = Api::all(client.clone());
            match protection(&class.metadata, OF_CLASSES) {
                Protection::Right => Ok(Next::Done),
                Protection::Missing => write(&api, &*class, OF_CLASSES).await,
                Protection::Going => {
                    if !claims_of.get(&key.name).is_empty() || !volumes_of.get(&key.name).is_empty() {
                        return Ok(Next::Done);
                    }
                    let claims: Vec<PersistentVolumeClaim> = live(Api::all(client.clone()), &key).await?;
                    let volumes: Vec<PersistentVolume> = live(Api::all(client.clone()), &key).await?;
                    let used = claims.iter().any(|claim| classes_of_claim(claim).contains(&key.name))
                        || volumes
                            .iter()
                            .any(|volume| plan::class_of_volume(volume).as_ref() == Some(&key.name));
                    if used {
                        return Ok(Next::Done);
                    }
                    write(&api, &*class, OF_CLASSES).await
                }
            }
        }
    };
    queue.run(WORKERS, &ctx.shutdown, work).await;
}
