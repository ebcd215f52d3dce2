//! ResourceQuotas say what is used of them (upstream: `pkg/controller/resourcequota`).
//!
//! New objects are charged when they are admitted; this controller gives back what has gone, and counts for new or
//! changed quotas. It decides by the caches whether there is anything to say, but says it by what the API server
//! lists afterwards: whoever is charged meanwhile changes the quota, so that the write is refused and the count begins
//! again. So a stale cache never makes room that is not there.

mod kinds;
mod plan;
#[cfg(test)]
mod random;

use super::Context;
use crate::client::ObjectKey;
use crate::client::informer::{Change, Informer, Informers, Watched};
use crate::client::work_queue::{Next, WorkQueue};
use crate::usage::{Amounts, DeviceClaim, DeviceClasses, Evaluator, Measured, is_extended_claim, scopes, total};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kinds::Kinds;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const NAME: &str = "resourcequota-controller";
const WORKERS: usize = 5;
/// Changes are gathered for this long at least,
const GATHER_MIN: Duration = Duration::from_millis(20);
/// and for so many times of what the last count took, so that counting never takes up the machine.
const GATHER_FACTOR: u32 = 5;
const GATHER_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("counting {what} of quota {quota}: {source}")]
    Count {
        what: String,
        quota: ObjectKey,
        source: kube::Error,
    },
    #[error("writing the status of quota {quota}: {source}")]
    Write { quota: ObjectKey, source: kube::Error },
}

/// Runs until shutdown.
pub async fn run(ctx: &Context) {
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("resourcequota");
    let signals = Signals {
        quotas: ctx.informers.of(),
        queue: queue.clone(),
        gather: Arc::new(Mutex::new(GATHER_MIN)),
        waiting: Arc::default(),
    };
    let told = signals.clone();
    let changed: kinds::Changed = Arc::new(move |counted, namespace| {
        let (group, plural) = &counted.name;
        if let Some(evaluator) = Evaluator::of(group, plural) {
            told.concern(&evaluator, namespace);
        }
    });
    let kinds = Arc::new(Kinds::new(ctx.client(NAME), ctx.shutdown.clone(), changed));
    let controller = Controller {
        client: ctx.client(NAME),
        informers: ctx.informers.clone(),
        pods: ctx.informers.of(),
        services: ctx.informers.of(),
        volumes: ctx.informers.of(),
        devices: OnceLock::new(),
        kinds: kinds.clone(),
        signals: signals.clone(),
    };
    signals.follow(&controller.pods, "");
    signals.follow(&controller.services, "");
    signals.follow(&controller.volumes, "");
    let own = queue.clone();
    signals.quotas.on_change(move |change| {
        if let Some(quota) = &change.new {
            own.add(ObjectKey::of(&**quota));
        }
    });
    let definitions = signals.clone();
    ctx.informers.of::<CustomResourceDefinition>().on_change(move |change| {
        if let Some(definition) = change.object() {
            let (group, plural) = (&definition.spec.group, &definition.spec.names.plural);
            let versions = |one: &CustomResourceDefinition| one.spec.versions.clone();
            let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if versions(old) == versions(new));
            if !same {
                kinds.forget(group, plural);
            }
            definitions.served(group, plural);
        }
    });
    let (controller, shutdown) = (Arc::new(controller), &ctx.shutdown);
    queue
        .run(WORKERS, shutdown, |key| {
            let controller = controller.clone();
            async move { controller.reconcile(key).await }
        })
        .await;
}

/// Which quota is to be looked at when something changes.
#[derive(Clone)]
struct Signals {
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    gather: Arc<Mutex<Duration>>,
    /// Quotas that name a kind that was not served.
    waiting: Arc<Mutex<BTreeSet<ObjectKey>>>,
}

impl Signals {
    /// Objects of a kind changed in a namespace.
    fn concern(&self, evaluator: &Evaluator, namespace: &str) {
        let delay = *self.gather.lock();
        for quota in self.quotas.in_namespace(namespace) {
            if plan::concerns(&quota, evaluator) {
                self.queue.add_after(ObjectKey::of(&*quota), delay);
            }
        }
    }

    /// What objects of a kind are charged for changed everywhere.
    fn concern_all(&self, evaluator: &Evaluator) {
        let delay = *self.gather.lock();
        for quota in self.quotas.list() {
            if plan::concerns(&quota, evaluator) {
                self.queue.add_after(ObjectKey::of(&*quota), delay);
            }
        }
    }

    /// Looks at quotas again when what objects use changes.
    fn follow<K>(&self, informer: &Informer<K>, group: &str)
    where
        K: Watched + Measured + Resource<Scope = NamespaceResourceScope>,
    {
        let Some(evaluator) = Evaluator::of(group, &K::plural(&())) else {
            return;
        };
        let signals = self.clone();
        informer.on_change(move |change: &Change<K>| {
            let namespace = change.object().and_then(|object| object.meta().namespace.as_deref());
            let namespace = namespace.unwrap_or_default();
            if signals.quotas.in_namespace(namespace).is_empty() {
                return;
            }
            let now = Timestamp::now();
            let same = matches!((&change.old, &change.new), (Some(old), Some(new))
                if old.usage(now) == new.usage(now) && old.scope_facts() == new.scope_facts());
            if !same {
                signals.concern(&evaluator, namespace);
            }
        });
    }

    /// A kind may be served by now.
    fn served(&self, group: &str, plural: &str) {
        let kind = (group.to_owned(), plural.to_owned());
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for key in waiting {
            let quota = self.quotas.get_key(&key);
            if quota.is_some_and(|quota| plan::counted_kinds(&quota).contains(&kind)) {
                self.queue.add(key);
            } else {
                self.waiting.lock().insert(key);
            }
        }
    }
}

struct Controller {
    client: Client,
    informers: Informers,
    pods: Informer<Pod>,
    services: Informer<Service>,
    volumes: Informer<PersistentVolumeClaim>,
    /// Watched from the first quota on that names them.
    devices: OnceLock<Devices>,
    kinds: Arc<Kinds>,
    signals: Signals,
}

struct Devices {
    claims: Informer<ResourceClaim>,
    classes: Informer<DeviceClass>,
}

fn devices_evaluator() -> Option<Evaluator> {
    Evaluator::of("resource.k8s.io", &ResourceClaim::plural(&()))
}

/// Whom to ask what there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Caches,
    Server,
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(quota) = self.signals.quotas.get_key(&key) else {
            return Ok(Next::Done);
        };
        let seen = self.count(&key, &quota, By::Caches).await?;
        if let Some(seen) = seen
            && plan::status(&quota, &seen).is_none()
        {
            return Ok(self.when_again(&quota));
        }
        let begin = Instant::now();
        let counted = self.count(&key, &quota, By::Server).await?;
        let took = begin.elapsed();
        *self.signals.gather.lock() = (took * GATHER_FACTOR).clamp(GATHER_MIN, GATHER_MAX);
        if let Some(status) = plan::status(&quota, &counted.unwrap_or_default()) {
            let mut body = ResourceQuota::clone(&quota);
            body.status = Some(status);
            let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &PostParams::default(), &body).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Next::Done),
                // Charged or changed meanwhile: once the cache shows that, it is counted again.
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(Next::Retry),
                Err(source) => return Err(Error::Write { quota: key, source }),
            }
        }
        Ok(self.when_again(&quota))
    }

    /// What is used of what the quota limits. None if the caches do not know yet.
    async fn count(&self, key: &ObjectKey, quota: &ResourceQuota, by: By) -> Result<Option<Amounts>, Error> {
        let mut sum = Some(Amounts::default());
        let mut tracked: Vec<Evaluator> = Vec::new();
        let both = |(mut sum, counted): (Amounts, Amounts)| {
            sum.add(&counted);
            sum
        };
        macro_rules! of {
            ($informer:expr, $kind:ty, $group:literal) => {
                if let Some(evaluator) =
                    Evaluator::of($group, &<$kind>::plural(&())).filter(|e| plan::concerns(quota, e))
                {
                    let counted = self.total::<$kind>(key, quota, $informer, by).await?;
                    sum = sum.zip(counted).map(both);
                    tracked.push(evaluator);
                }
            };
        }
        of!(&self.pods, Pod, "");
        of!(&self.services, Service, "");
        of!(&self.volumes, PersistentVolumeClaim, "");
        if let Some(evaluator) = devices_evaluator().filter(|evaluator| plan::concerns(quota, evaluator)) {
            let counted = self.total_of_devices(key, quota, by).await?;
            sum = sum.zip(counted).map(both);
            tracked.push(evaluator);
        }
        for (group, plural) in plan::counted_kinds(quota) {
            let failed = |source| Error::Count {
                what: format!("{plural}.{group}"),
                quota: key.clone(),
                source,
            };
            let Some(kind) = self.kinds.of(&group, &plural).await.map_err(failed)? else {
                self.signals.waiting.lock().insert(key.clone());
                continue;
            };
            // Kinds of which only the number counts are in no scope.
            let number = match by {
                _ if !scopes(quota).is_empty() => Some(0),
                By::Caches => kind.seen(&key.namespace),
                By::Server => Some(kind.ask(&self.client, &key.namespace).await.map_err(failed)?),
            };
            if let (Some(sum), Some(evaluator)) = (&mut sum, Evaluator::of(&group, &plural)) {
                match number {
                    Some(number) => {
                        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
                        for name in hard.into_iter().flatten().map(|(name, _)| name) {
                            if evaluator.tracks(name) {
                                sum.count(name, i64::try_from(number).unwrap_or(i64::MAX));
                            }
                        }
                    }
                    None => return Ok(None),
                }
            }
        }
        // What nothing uses of the known is used to zero.
        if let Some(sum) = &mut sum {
            let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
            for name in hard.into_iter().flatten().map(|(name, _)| name) {
                if sum.get(name).is_none() && tracked.iter().any(|evaluator| evaluator.tracks(name)) {
                    sum.count(name, 0);
                }
            }
        }
        Ok(sum)
    }

    async fn total<K>(
        &self,
        key: &ObjectKey,
        quota: &ResourceQuota,
        informer: &Informer<K>,
        by: By,
    ) -> Result<Option<Amounts>, Error>
    where
        K: Watched + Measured + Resource<Scope = NamespaceResourceScope>,
    {
        let (scopes, now) = (scopes(quota), Timestamp::now());
        match by {
            By::Caches if !informer.is_synced() => Ok(None),
            By::Caches => {
                let objects = informer.in_namespace(&key.namespace);
                Ok(Some(total(objects.iter().map(|object| &**object), &scopes, now)))
            }
            By::Server => {
                let listed = self.list::<K>(key).await?;
                Ok(Some(total(&listed, &scopes, now)))
            }
        }
    }

    async fn total_of_devices(&self, key: &ObjectKey, quota: &ResourceQuota, by: By) -> Result<Option<Amounts>, Error> {
        let Devices { claims, classes } = self.devices();
        let caches = [claims.is_synced(), classes.is_synced(), self.pods.is_synced()];
        if by == By::Caches && caches.contains(&false) {
            return Ok(None);
        }
        let claims: Vec<Arc<ResourceClaim>> = match by {
            By::Caches => claims.in_namespace(&key.namespace),
            By::Server => self.list(key).await?.into_iter().map(Arc::new).collect(),
        };
        let pods: BTreeMap<String, Arc<Pod>> = match by {
            By::Server if claims.iter().any(|claim| is_extended_claim(claim)) => {
                let pods = self.list::<Pod>(key).await?.into_iter();
                pods.map(|pod| (pod.name_any(), Arc::new(pod))).collect()
            }
            _ => BTreeMap::new(),
        };
        let pod = |name: &str| match by {
            By::Caches => self.pods.get(&key.namespace, name),
            By::Server => pods.get(name).cloned(),
        };
        let classes: Vec<Arc<DeviceClass>> = match by {
            By::Caches => classes.list(),
            By::Server if claims.is_empty() => Vec::new(),
            By::Server => {
                let listed = self.list_of(Api::all(self.client.clone()), key).await?;
                listed.into_iter().map(Arc::new).collect()
            }
        };
        let resource = |class: Arc<DeviceClass>| {
            let spec = class.spec.as_ref();
            let resource = spec.and_then(|spec| spec.extended_resource_name.clone());
            (class.name_any(), resource)
        };
        let classes: Arc<DeviceClasses> = Arc::new(classes.into_iter().map(resource).collect());
        let charged = claims.iter();
        let charged =
            charged.map(|claim| DeviceClaim::new(claim.clone(), Arc::clone(&classes), pod, || claims.clone()));
        let charged: Vec<DeviceClaim> = charged.collect();
        Ok(Some(total(&charged, &scopes(quota), Timestamp::now())))
    }

    /// What there is in the quota's namespace, by the API server.
    async fn list<K>(&self, quota: &ObjectKey) -> Result<Vec<K>, Error>
    where
        K: Watched + Resource<Scope = NamespaceResourceScope>,
    {
        self.list_of(Api::namespaced(self.client.clone(), &quota.namespace), quota)
            .await
    }

    async fn list_of<K: Watched>(&self, api: Api<K>, quota: &ObjectKey) -> Result<Vec<K>, Error> {
        let listed = api.list(&ListParams::default()).await;
        let listed = listed.map_err(|source| Error::Count {
            what: K::plural(&()).into_owned(),
            quota: quota.clone(),
            source,
        })?;
        Ok(listed.items)
    }

    fn devices(&self) -> &Devices {
        self.devices.get_or_init(|| {
            let devices = Devices {
                claims: self.informers.of(),
                classes: self.informers.of(),
            };
            let Some(evaluator) = devices_evaluator() else {
                return devices;
            };
            let (signals, of_claims) = (self.signals.clone(), evaluator.clone());
            devices.claims.on_change(move |change: &Change<ResourceClaim>| {
                let said = |claim: &ResourceClaim| (claim.spec.clone(), is_extended_claim(claim));
                let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if said(old) == said(new));
                if let Some(claim) = change.object().filter(|_| !same) {
                    signals.concern(&of_claims, claim.metadata.namespace.as_deref().unwrap_or_default());
                }
            });
            let (signals, of_classes) = (self.signals.clone(), evaluator);
            devices.classes.on_change(move |change: &Change<DeviceClass>| {
                let resource = |class: &DeviceClass| {
                    let spec = class.spec.as_ref();
                    spec.and_then(|spec| spec.extended_resource_name.clone())
                };
                let same =
                    matches!((&change.old, &change.new), (Some(old), Some(new)) if resource(old) == resource(new));
                if !same {
                    signals.concern_all(&of_classes);
                }
            });
            devices
        })
    }

    /// A pod that should be gone by now is not charged any longer: the only thing that time changes.
    fn when_again(&self, quota: &ResourceQuota) -> Next {
        let concerned = Evaluator::of("", "pods").is_some_and(|pods| plan::concerns(quota, &pods));
        if !concerned {
            return Next::Done;
        }
        let now = Timestamp::now();
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let ends = self.pods.in_namespace(namespace).into_iter().filter_map(|pod| {
            let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds?);
            let end = pod.metadata.deletion_timestamp.as_ref()?.0.checked_add(grace).ok()?;
            (end >= now).then_some(end)
        });
        match ends.min() {
            Some(end) => Next::After(end.duration_since(now).unsigned_abs() + Duration::from_millis(10)),
            None => Next::Done,
        }
    }
}
