//! Pods leave devices whose NoExecute taints their claims do not bear, or bear no longer
//! (upstream: `pkg/controller/devicetainteviction`), and rules say in their status how far that is.

mod plan;
#[cfg(test)]
mod random;
mod status;

use super::Context;
use super::leaving::{self, Evictor, Outcome, Words};
use super::pods::{self, node_name};
use crate::client::ObjectKey;
use crate::client::informer::{Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceTaintRule, ResourceClaim, ResourceSlice};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use plan::{Observed, Rules, claim_names, devices, is_for, leaves, newest};
use serde_json::json;
use status::Counts;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const NAME: &str = "device-taint-eviction-controller";
const COMPONENT: &str = "device-taint-eviction";
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Evicting(#[from] leaving::Error),
    #[error("writing the status of the rule {rule}: {source}")]
    Status { rule: String, source: kube::Error },
}

struct Controller {
    evictor: Evictor<Rules>,
    /// Of pods by namespace and name, and of rules by name alone.
    queue: WorkQueue<ObjectKey>,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    rules: Informer<DeviceTaintRule>,
    /// By namespace and name of their claims.
    pods_of: Index<Pod>,
    /// By driver and pool.
    slices_of: Index<ResourceSlice>,
    /// How many pods have left since the start, by the rule's uid.
    evicted: Mutex<HashMap<String, usize>>,
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
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("devicetainteviction");
    let words = Words {
        event: "DeviceTaintManagerEviction",
        with_name: false,
        reason: "DeletionByDeviceTaintManager",
        message: "Device Taint manager: deleting due to NoExecute taint",
    };
    let controller = Controller {
        evictor: Evictor {
            client: ctx.client(NAME),
            recorder: ctx.recorder_as(NAME, COMPONENT),
            words,
            leaving: Mutex::default(),
        },
        queue: queue.clone(),
        slices_of: slices.index(|slice| vec![pool_word(&slice.spec.driver, &slice.spec.pool.name)]),
        pods_of: pods_of.clone(),
        pods: pods.clone(),
        claims: claims.clone(),
        slices: slices.clone(),
        rules: rules.clone(),
        evicted: Mutex::default(),
    };
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
    let (known, of_rules) = (claims.clone(), queue.clone());
    rules.on_change(move |change| {
        let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if old.spec == new.spec);
        let rules: Vec<&Arc<DeviceTaintRule>> = change.each().filter(|_| !same).collect();
        if rules.is_empty() {
            return;
        }
        rules.iter().for_each(|rule| of_rules.add(ObjectKey::of(&***rule)));
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
    let controller = &controller;
    queue
        .run(WORKERS, &ctx.shutdown, |key| async move {
            match key.namespace.is_empty() {
                true => controller.report(&key.name).await,
                false => controller.look(key).await,
            }
        })
        .await;
}

impl Controller {
    /// When a pod has to leave by these rules and the taints of its devices, and because of which rules.
    fn leaves(&self, pod: &Pod, rules: &[Arc<DeviceTaintRule>]) -> Option<(Timestamp, Rules)> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let observed = Observed {
            claim: &|name| self.claims.get(namespace, name),
            slices: &|driver, pool| self.slices_of.get(&pool_word(driver, pool)),
            rules,
        };
        let placed = Some(pod).filter(|pod| !pods::is_terminating(pod) && node_name(pod).is_some());
        placed.and_then(|pod| leaves(pod, &observed))
    }

    /// Has the statuses of rules looked at.
    fn tell(&self, rules: Rules) {
        rules
            .into_values()
            .for_each(|name| self.queue.add(ObjectKey::new("", name)));
    }

    async fn look(&self, key: ObjectKey) -> Result<Next, Error> {
        let pod = self.pods.get_key(&key).filter(|pod| !pods::is_terminating(pod));
        let Some(pod) = pod else {
            let rules = self.evictor.leaving.lock().forget(&key);
            self.tell(rules.unwrap_or_default());
            return Ok(Next::Done);
        };
        let leaves = self.leaves(&pod, &self.rules.list());
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let before = self.evictor.leaving.lock().why(&key, uid).cloned();
        let mut concerned = before.unwrap_or_default();
        let because = leaves.iter().flat_map(|(_, rules)| rules.clone());
        let because: Rules = because.collect();
        concerned.extend(because.clone());
        self.tell(concerned);
        let outcome = self.evictor.act(&key, &pod, leaves).await?;
        if outcome == Outcome::Evicted {
            for (uid, name) in because {
                *self.evicted.lock().entry(uid).or_default() += 1;
                self.queue.add_after(ObjectKey::new("", name), status::PERIOD);
            }
        }
        Ok(outcome.into())
    }

    fn count(&self, rule: &Arc<DeviceTaintRule>) -> Counts {
        let uid = rule.uid().unwrap_or_default();
        let mut counts = Counts {
            evicted: self.evicted.lock().get(&uid).copied().unwrap_or_default(),
            ..Counts::default()
        };
        let mut leave: BTreeMap<ObjectKey, Arc<Pod>> = BTreeMap::new();
        let rules = [Arc::new(status::in_effect(rule))];
        for claim in self.claims.list() {
            let concerned = devices(&claim)
                .filter(|one| is_for(&rule.spec, &one.driver, &one.pool, &one.device))
                .count();
            counts.allocated += concerned;
            if concerned > 0 {
                let users = self.pods_of.get(&ObjectKey::of(&*claim).to_string());
                leave.extend(users.into_iter().map(|pod| (ObjectKey::of(&*pod), pod)));
            }
        }
        leave.retain(|_, pod| {
            let leaves = self.leaves(pod, &rules);
            leaves.is_some_and(|(_, because)| because.contains_key(&uid))
        });
        counts.pods = leave.len();
        counts.namespaces = leave.keys().map(|key| &key.namespace).collect::<BTreeSet<_>>().len();
        if rule.spec.taint.effect == "None" {
            let slices = self.slices.list();
            let mut pools: BTreeMap<String, Vec<Arc<ResourceSlice>>> = BTreeMap::new();
            for slice in slices {
                let word = pool_word(&slice.spec.driver, &slice.spec.pool.name);
                pools.entry(word).or_default().push(slice);
            }
            let published = pools.values().flat_map(|slices| newest(slices)).flat_map(|slice| {
                let (spec, devices) = (&slice.spec, slice.spec.devices.iter().flatten());
                devices.filter(|device| is_for(&rule.spec, &spec.driver, &spec.pool.name, &device.name))
            });
            counts.published = published.count();
        }
        counts
    }

    /// Says in a rule's status how far its evictions are, at once and then from time to time while it goes on.
    async fn report(&self, name: &str) -> Result<Next, Error> {
        let Some(rule) = self.rules.get("", name) else {
            let known: BTreeSet<Option<String>> = self.rules.list().iter().map(|rule| rule.uid()).collect();
            self.evicted.lock().retain(|uid, _| known.contains(&Some(uid.clone())));
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        if let Some(left) = status::waits(&rule, now) {
            return Ok(Next::After(left));
        }
        let Some(condition) = status::news(&rule, &self.count(&rule), now) else {
            return Ok(Next::Done);
        };
        let applied = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceTaintRule",
            "metadata": {"name": name, "uid": rule.uid()}, "status": {"conditions": [condition]}});
        let api: Api<DeviceTaintRule> = Api::all(self.evictor.client.clone());
        let params = PatchParams::apply(NAME).force();
        match api.patch_status(name, &params, &Patch::Apply(applied)).await {
            Ok(_) => Ok(Next::Done),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Done),
            Err(source) => Err(Error::Status {
                rule: name.to_owned(),
                source,
            }),
        }
    }
}
