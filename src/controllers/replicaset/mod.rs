//! ReplicaSets, and whatever else keeps a number of pods alive (upstream: `pkg/controller/replicaset`).

pub(super) mod kinds;
pub(super) mod plan;

use super::Context;
use super::expectations::{self, Expectations};
use super::ownership::{self, Claim};
use super::pods::{self, PodControl};
use super::slow_start;
use crate::client::ObjectKey;
use crate::client::informer::{Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kinds::Replicated;
use kube::Client;
use kube::api::{Api, PostParams};
use plan::{Seen, Step};
use std::sync::Arc;

const WORKERS: usize = 5;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("taking over the pods that match: {0}")]
    Claim(#[source] kube::Error),
    #[error("making or deleting pods: {0}")]
    Pods(#[source] kube::Error),
    #[error("writing the status: {0}")]
    Status(#[source] kube::Error),
}

pub async fn run(context: &Context) {
    run_for::<ReplicaSet>(context).await;
}

/// Runs for one kind until the shutdown.
pub async fn run_for<K: Replicated>(context: &Context) {
    let client = context.client(K::CONTROLLER);
    let shell = Shell::<K> {
        owners: context.informers.of(),
        pods: context.informers.of(),
        orphans: ownership::orphans(&context.informers.of::<Pod>()),
        control: PodControl::new(client.clone(), context.recorder(K::CONTROLLER)),
        client,
        expectations: Arc::default(),
    };
    let queue = WorkQueue::new(K::CONTROLLER);
    shell.subscribe(&queue);
    let synced = async { tokio::join!(shell.owners.synced(), shell.pods.synced()) };
    if !context.caught_up(synced).await {
        return;
    }
    queue.run(WORKERS, &context.shutdown, |key| shell.sync(key)).await;
}

struct Shell<K> {
    client: Client,
    owners: Informer<K>,
    pods: Informer<Pod>,
    orphans: Index<Pod>,
    control: PodControl,
    expectations: Arc<Expectations>,
}

impl<K: Replicated> Shell<K> {
    fn subscribe(&self, queue: &WorkQueue<ObjectKey>) {
        let (owners, expectations) = (queue.clone(), Arc::clone(&self.expectations));
        self.owners.on_change(move |change| {
            let Some(owner) = change.object() else { return };
            let key = ObjectKey::of(&**owner);
            if change.new.is_none() {
                expectations.forget(&key);
            }
            owners.add(key);
        });
        let (queue, owners, pods) = (queue.clone(), self.owners.clone(), self.pods.clone());
        self.pods.on_change(move |change| {
            if !pods::is_news_to_owner(change) {
                return;
            }
            for key in ownership::concerned(change, &owners, K::selector) {
                let owner = owners.get_key(&key);
                let uid = owner.as_ref().and_then(|owner| owner.meta().uid.as_deref());
                queue.add_of_many(key, pods.count_controlled_by(uid.unwrap_or_default()));
            }
        });
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(owner) = self.owners.get_key(&key) else {
            self.expectations.forget(&key);
            return Ok(Next::Done);
        };
        // What is not in the cache yet will come; if it was passed over, the wait for it ends. A count before would be
        // wrong, and so would be what others conclude from it.
        if !self.expectations.fulfilled(&key, &self.pods) {
            return Ok(Next::After(expectations::WAIT_MAX));
        }
        let selector = owner.selector();
        let candidates = ownership::candidates(&*owner, &self.pods, &self.orphans);
        // What has ended, or is about to, stays whose it was.
        let (active, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|pod| pods::is_active(pod));
        let ours = |pod: &&Arc<Pod>| ownership::claim(owner.meta(), &selector, &pod.metadata) == Claim::Ours;
        let terminating = others.iter().filter(ours).filter(|pod| !pods::is_finished(pod)).count();
        let owners = Api::namespaced(self.client.clone(), &key.namespace);
        let api = Api::namespaced(self.client.clone(), &key.namespace);
        let active = ownership::settle(&owners, &api, &*owner, &selector, active)
            .await
            .map_err(Error::Claim)?;
        let result = self.act(&key, &owner, &active).await;
        let failure = result.as_ref().err().map(pods::message_of);
        let seen = Seen {
            active: &active,
            terminating,
            failure: failure.as_deref(),
        };
        let (status, next) = plan::status(&*owner, &seen, Timestamp::now());
        self.write(&owner, status).await.map_err(Error::Status)?;
        result.map_err(Error::Pods)?;
        Ok(next.map_or(Next::Done, Next::After))
    }

    async fn act(&self, key: &ObjectKey, owner: &Arc<K>, active: &[Arc<Pod>]) -> kube::Result<()> {
        match plan::step(&**owner, active, || self.related(owner), Timestamp::now()) {
            Step::Nothing => Ok(()),
            Step::Create(count) => self.create(key, owner, count).await,
            Step::Delete(pods) => {
                let deletions = pods.iter().map(|pod| async move {
                    if self.control.delete(&**owner, pod).await? {
                        self.expectations.deleted(key, &**pod);
                    }
                    Ok(())
                });
                slow_start::all(deletions).await.into_iter().collect()
            }
        }
    }

    /// The pods of all that have the same controller as `owner`: where they are tells which are missed least.
    fn related(&self, owner: &Arc<K>) -> Vec<Arc<Pod>> {
        let Some(controller) = ownership::controller_of(owner.meta()) else {
            return Vec::new();
        };
        let owners = self.owners.controlled_by(&controller.uid);
        let uids = owners.iter().filter_map(|owner| owner.meta().uid.as_deref());
        uids.flat_map(|uid| self.pods.controlled_by(uid)).collect()
    }

    async fn create(&self, key: &ObjectKey, owner: &Arc<K>, count: usize) -> kube::Result<()> {
        let Some(template) = owner.template() else {
            return Ok(());
        };
        let pod = pods::from_template(&**owner, template);
        let creation = |_| async {
            match self.control.create(&**owner, &pod).await {
                Ok(pod) => {
                    self.expectations.written(key, &pod);
                    Ok(())
                }
                // The owner goes as well.
                Err(error) if pods::is_namespace_terminating(&error) => Ok(()),
                Err(error) => Err(error),
            }
        };
        slow_start::run(0..count, creation).await.result().map(|_| ())
    }

    async fn write(&self, owner: &Arc<K>, status: ReplicaSetStatus) -> kube::Result<()> {
        if plan::same(&owner.status(), &status) {
            return Ok(());
        }
        let mut changed = (**owner).clone();
        changed.set_status(status);
        let meta = owner.meta();
        let api: Api<K> = Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        match api.replace_status(name, &PostParams::default(), &changed).await {
            Ok(written) => {
                let version = written.meta().resource_version.as_deref().unwrap_or_default();
                self.owners.seen(version).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}
