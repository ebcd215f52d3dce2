//! Pods leave devices whose NoExecute taints their claims do not bear, or bear no longer
//! (upstream: `pkg/controller/devicetainteviction`). What rules say of evictions in their status is not written.

mod plan;

use super::Context;
use super::pods::{self, node_name};
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use crate::client::{self, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceTaintRule, ResourceClaim, ResourceSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use parking_lot::Mutex;
use plan::{claim_names, devices, is_for, is_reserved_for, leaves_at};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "device-taint-eviction-controller";
const COMPONENT: &str = "device-taint-eviction";
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
#[error("evicting pod {pod}: {source}")]
struct Error {
    pod: ObjectKey,
    source: kube::Error,
}

struct Evictor {
    client: Client,
    recorder: Recorder,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    rules: Informer<DeviceTaintRule>,
    /// By driver and pool.
    slices_of: Index<ResourceSlice>,
    /// Uids of pods that are to leave some time.
    waiting: Mutex<HashMap<ObjectKey, Option<String>>>,
}

fn pool_word(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

/// Runs until shutdown.
pub async fn run(ctx: &Context) {
    let (pods, claims) = (ctx.informers.of::<Pod>(), ctx.informers.of::<ResourceClaim>());
    let (slices, rules) = (
        ctx.informers.of::<ResourceSlice>(),
        ctx.informers.of::<DeviceTaintRule>(),
    );
    let claim_words = |pod: &Pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let names = claim_names(pod).into_iter();
        names.map(|name| format!("{namespace}/{name}")).collect::<Vec<_>>()
    };
    let pods_of: Index<Pod> = pods.index(claim_words);
    let claims_of: Index<ResourceClaim> = claims.index(|claim| {
        let mut words: Vec<String> = devices(claim).map(|one| pool_word(&one.driver, &one.pool)).collect();
        words.sort();
        words.dedup();
        words
    });
    let evictor = Evictor {
        client: ctx.client(NAME),
        recorder: ctx.recorder_as(NAME, COMPONENT),
        slices_of: slices.index(|slice| vec![pool_word(&slice.spec.driver, &slice.spec.pool.name)]),
        pods: pods.clone(),
        claims: claims.clone(),
        rules: rules.clone(),
        waiting: Mutex::default(),
    };
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("devicetainteviction");
    let of_pods = queue.clone();
    pods.on_change(move |change| {
        let facts = |pod: &Pod| {
            let node = node_name(pod).map(str::to_owned);
            (node, claim_words(pod), pods::is_terminating(pod))
        };
        let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if facts(old) == facts(new));
        let concerned = change.object().filter(|pod| !same && !claim_names(pod).is_empty());
        concerned.into_iter().for_each(|pod| of_pods.add(ObjectKey::of(&**pod)));
    });
    let tell = {
        let queue = queue.clone();
        move |claim: &ResourceClaim| {
            for pod in pods_of.get(&ObjectKey::of(claim).to_string()) {
                queue.add(ObjectKey::of(&*pod));
            }
        }
    };
    let tell_claim = tell.clone();
    claims.on_change(move |change| change.object().into_iter().for_each(|claim| tell_claim(claim)));
    let tell_slice = tell.clone();
    slices.on_change(move |change| {
        if let Some(slice) = change.object() {
            let word = pool_word(&slice.spec.driver, &slice.spec.pool.name);
            claims_of.get(&word).iter().for_each(|claim| tell_slice(claim));
        }
    });
    let known = claims.clone();
    rules.on_change(move |change| {
        let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if old.spec == new.spec);
        let rules: Vec<&Arc<DeviceTaintRule>> = change.each().filter(|_| !same).collect();
        if rules.is_empty() {
            return;
        }
        for claim in known.list() {
            let mut devices = devices(&claim);
            let concerned = devices.any(|one| {
                rules
                    .iter()
                    .any(|rule| is_for(&rule.spec, &one.driver, &one.pool, &one.device))
            });
            if concerned {
                tell(&claim);
            }
        }
    });
    let synced = async { tokio::join!(pods.synced(), claims.synced(), slices.synced(), rules.synced()) };
    if !ctx.caught_up(synced).await {
        return;
    }
    let evictor = &evictor;
    queue.run(WORKERS, &ctx.shutdown, |key| evictor.look(key)).await;
}

impl Evictor {
    /// The device's own taints, by its pool's newest slices, and those of rules.
    fn taints(&self, driver: &str, pool: &str, device: &str) -> Vec<DeviceTaint> {
        let slices = self.slices_of.get(&pool_word(driver, pool));
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
        let slices = slices.iter().filter(|slice| Some(slice.spec.pool.generation) == newest);
        let all = slices.flat_map(|slice| slice.spec.devices.iter().flatten());
        let own = all
            .filter(|one| one.name == device)
            .flat_map(|one| one.taints.iter().flatten());
        let mut taints: Vec<DeviceTaint> = own.cloned().collect();
        let rules = self.rules.list().into_iter();
        let rules = rules.filter(|rule| is_for(&rule.spec, driver, pool, device));
        taints.extend(rules.map(|rule| rule.spec.taint.clone()));
        taints
    }

    fn leaves_at(&self, pod: &Pod) -> Option<Timestamp> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let claims = claim_names(pod).into_iter();
        let claims = claims.filter_map(|name| self.claims.get(namespace, &name));
        let times = claims.filter(|claim| is_reserved_for(claim, pod)).filter_map(|claim| {
            let times = devices(&claim).filter_map(|one| {
                let taints = self.taints(&one.driver, &one.pool, &one.device);
                leaves_at(&taints, one.tolerations.as_deref().unwrap_or_default())
            });
            times.min()
        });
        times.min()
    }

    async fn look(&self, key: ObjectKey) -> Result<Next, Error> {
        let pod = self.pods.get_key(&key).filter(|pod| !pods::is_terminating(pod));
        let Some(pod) = pod.filter(|pod| node_name(pod).is_some()) else {
            self.waiting.lock().remove(&key);
            return Ok(Next::Done);
        };
        let tell = |message: &str| {
            self.recorder
                .event(&*pod, Level::Normal, "DeviceTaintManagerEviction", message);
        };
        let now = Timestamp::now();
        match self.leaves_at(&pod) {
            None => {
                let waited = self.waiting.lock().remove(&key);
                if waited.is_some_and(|uid| uid == pod.metadata.uid) {
                    tell("Cancelling deletion");
                }
                Ok(Next::Done)
            }
            Some(at) if at > now => {
                self.waiting.lock().insert(key, pod.metadata.uid.clone());
                let left = at.duration_since(now).unsigned_abs();
                Ok(Next::After(left.max(Duration::from_millis(1))))
            }
            Some(_) => {
                self.waiting.lock().remove(&key);
                tell("Marking for deletion");
                let evicted = evict(&self.client, &pod).await;
                evicted.map_err(|source| Error { pod: key, source })?;
                Ok(Next::Done)
            }
        }
    }
}

/// Says on the pod why it goes, and deletes it.
async fn evict(client: &Client, pod: &Pod) -> kube::Result<()> {
    let (metadata, name) = (&pod.metadata, pod.metadata.name.as_deref().unwrap_or_default());
    let api: Api<Pod> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByDeviceTaintManager",
        "message": "Device Taint manager: deleting due to NoExecute taint",
        "observedGeneration": metadata.generation, "lastTransitionTime": Time(Timestamp::now()),
    });
    let patch = json!({"metadata": {"uid": metadata.uid}, "status": {"conditions": [condition]}});
    let params = DeleteParams::default().preconditions(client::only(metadata.uid.clone()));
    let done = async {
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
        api.delete(name, &params).await
    };
    match done.await {
        Ok(_) => Ok(()),
        // It is gone, or another has its name by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}
