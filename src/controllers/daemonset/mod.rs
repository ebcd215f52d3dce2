//! DaemonSets: one pod on each node that is fit for it (upstream: `pkg/controller/daemon`).
//!
//! - [`eligibility`]: which nodes.
//! - [`pods`]: the pod for a node.
//! - [`backoff`]: how long failed pods are left alone.
//! - [`plan`]: the pure decision.
//! - [`revisions`]: the history of the template.

mod backoff;
mod eligibility;
mod plan;
mod pods;
mod revisions;

use super::Context;
use super::expectations::{Expectations, WAIT_MAX};
use super::pods::{PodControl, is_namespace_terminating, is_news_to_owner};
use super::revisions::Revisions;
use super::{ownership, slow_start};
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Index, Informer, Watched};
use crate::client::work_queue::{Next, WorkQueue};
use backoff::Backoff;
use eligibility::Eligibility;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use kube::core::Selector;
use parking_lot::Mutex;
use std::sync::Arc;

const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{doing} of DaemonSet {set}: {source}")]
    Call {
        doing: &'static str,
        set: ObjectKey,
        source: kube::Error,
    },
    #[error("the template of DaemonSet {set} cannot be kept: {source}")]
    Template { set: ObjectKey, source: serde_json::Error },
    #[error("the update strategy of DaemonSet {set}: {source}")]
    Strategy {
        set: ObjectKey,
        source: super::int_or_percent::NotAPercentage,
    },
}

struct Controller {
    client: Client,
    recorder: Recorder,
    pod_control: PodControl,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    orphaned_pods: Index<Pod>,
    revisions: Revisions,
    orphaned_revisions: Index<ControllerRevision>,
    /// What was done to pods and the cache does not show yet.
    expectations: Expectations,
    backoff: Mutex<Backoff>,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until the shutdown.
pub async fn run(ctx: &Context) {
    let client = ctx.client("daemon-set-controller");
    let recorder = ctx.recorder_as("daemon-set-controller", "daemonset-controller");
    let pods = ctx.informers.of();
    let revisions = ctx.informers.of();
    let controller = Arc::new(Controller {
        pod_control: PodControl::new(client.clone(), recorder.clone()),
        recorder,
        sets: ctx.informers.of(),
        nodes: ctx.informers.of(),
        orphaned_pods: ownership::orphans(&pods),
        pods,
        orphaned_revisions: ownership::orphans(&revisions),
        revisions: Revisions::new(client.clone(), revisions),
        expectations: Expectations::default(),
        backoff: Mutex::default(),
        queue: WorkQueue::new("daemonset"),
        client,
    });
    controller.listen();
    if !ctx.caught_up(controller.synced()).await {
        return;
    }
    let work = |key| {
        let controller = Arc::clone(&controller);
        async move { controller.sync(key).await }
    };
    controller.queue.run(WORKERS, &ctx.shutdown, work).await;
}

impl Controller {
    fn listen(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.sets.on_change(move |change| {
            if let Some(set) = change.object() {
                queue.add(ObjectKey::of(&**set));
            }
        });
        let this = Arc::downgrade(self);
        self.pods.on_change(move |change| {
            if let Some(this) = this.upgrade().filter(|_| is_news_to_owner(change)) {
                this.wake_owners(change);
            }
        });
        let this = Arc::downgrade(self);
        self.revisions.cache.on_change(move |change| {
            if let Some(this) = this.upgrade().filter(|_| !ownership::is_made_by_its_owner(change)) {
                this.wake_owners(change);
            }
        });
        let this = Arc::downgrade(self);
        self.nodes.on_change(move |change| {
            if let Some(this) = this.upgrade() {
                this.wake_for_node(change);
            }
        });
    }

    /// Wakes the sets that control an object, or that may adopt it.
    fn wake_owners<K: Watched>(&self, change: &Change<K>) {
        let selector = |set: &DaemonSet| ownership::selector(Some(&set.spec.selector));
        for key in ownership::concerned(change, &self.sets, selector) {
            let set = self.sets.get_key(&key);
            self.wake(key, set.as_deref());
        }
    }

    /// All nodes and all pods are looked at each time, so the changes of many are taken together.
    fn wake(&self, key: ObjectKey, set: Option<&DaemonSet>) {
        let uid = set.and_then(|set| set.metadata.uid.as_deref());
        let pods = self.pods.count_controlled_by(uid.unwrap_or_default());
        self.queue.add_of_many(key, pods);
    }

    /// Wakes the sets to which a node is something else than before. Heartbeats are no news.
    fn wake_for_node(&self, change: &Change<Node>) {
        let taints = |node: &Arc<Node>| node.spec.as_ref().and_then(|spec| spec.taints.clone());
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && old.metadata.labels == new.metadata.labels
            && taints(old) == taints(new)
        {
            return;
        }
        for set in self.sets.list() {
            let eligibility = Eligibility::of(&set);
            let fit = |node: &Option<Arc<Node>>| node.as_ref().map(|node| eligibility.fit(node));
            let (old, new) = (fit(&change.old), fit(&change.new));
            let matters = match (old, new) {
                (Some(old), Some(new)) => old != new,
                (Some(fit), None) | (None, Some(fit)) => fit.may_stay,
                (None, None) => false,
            };
            if matters {
                self.wake(ObjectKey::of(&*set), Some(&set));
            }
        }
    }

    async fn synced(&self) {
        tokio::join!(
            self.sets.synced(),
            self.nodes.synced(),
            self.pods.synced(),
            self.revisions.cache.synced()
        );
    }

    fn api(&self, key: &ObjectKey) -> Api<DaemonSet> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn pod_api(&self, key: &ObjectKey) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(set) = self.sets.get_key(&key) else {
            self.expectations.forget(&key);
            return Ok(Next::Done);
        };
        if set.spec.selector == LabelSelector::default() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&*set, Level::Warning, "SelectingAll", message);
            return Ok(Next::Done);
        }
        // One that is deleted is the garbage collector's: its history may be gone before its pods are.
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let selector = ownership::selector(Some(&set.spec.selector));
        let pods = self.settled_pods(&key, &set, &selector).await?;
        let Some(history) = self.history(&key, &set, &selector, &pods).await? else {
            return Ok(Next::Retry);
        };
        let nodes = self.nodes.list();
        let view = plan::View {
            set: &set,
            nodes: &nodes,
            pods: &pods,
            hash: &history.hash,
            now: Timestamp::now(),
        };
        let mut status = plan::status(&view);
        if !self.expectations.fulfilled(&key, &self.pods) {
            // What this generation asks for is not looked at yet.
            status.observed_generation = set.status.as_ref().and_then(|status| status.observed_generation);
            self.write_status(&key, &set, status).await?;
            return Ok(Next::After(WAIT_MAX));
        }
        let plan = plan::plan(&view, &mut self.backoff.lock());
        let plan = plan.map_err(|source| Error::Strategy {
            set: key.clone(),
            source,
        })?;
        let again_after = plan.again_after;
        let done = self.execute(&key, &set, &history.hash, plan).await;
        let done = match done {
            Ok(()) => self.truncate(&key, &set, &pods, history.old).await,
            failed => failed,
        };
        // The status tells what was found even where something failed.
        let written = self.write_status(&key, &set, status).await;
        done?;
        written?;
        Ok(again_after.map_or(Next::Done, Next::After))
    }

    async fn settled_pods(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        selector: &Selector,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let candidates = ownership::candidates(set, &self.pods, &self.orphaned_pods);
        let settled = ownership::settle(&self.api(key), &self.pod_api(key), set, selector, candidates).await;
        settled.map_err(call("adopting pods", key))
    }

    async fn execute(&self, key: &ObjectKey, set: &DaemonSet, hash: &str, plan: plan::Plan) -> Result<(), Error> {
        for notice in plan.notices {
            self.recorder.event(set, notice.level, notice.reason, notice.message);
        }
        let created = slow_start::run(plan.create_on, |node| async move {
            match self.pod_control.create(set, &pods::for_node(set, hash, &node)).await {
                Ok(pod) => self.expectations.written(key, &pod),
                Err(error) if is_namespace_terminating(&error) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
        let created = created.await.result().map_err(call("creating pods", key));
        let deleted = slow_start::all(plan.delete.iter().map(|pod| async move {
            if self.pod_control.delete(set, pod).await? {
                self.expectations.deleted(key, &**pod);
            }
            Ok(())
        }));
        let deleted: Result<(), kube::Error> = deleted.await.into_iter().collect();
        created?;
        deleted.map_err(call("deleting pods", key))
    }

    async fn write_status(&self, key: &ObjectKey, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
        if !plan::differs(set, &status) {
            return Ok(());
        }
        let put = |set: &mut DaemonSet| {
            let others = set.status.take().unwrap_or_default();
            set.status = Some(DaemonSetStatus {
                collision_count: others.collision_count,
                conditions: others.conditions,
                ..status.clone()
            });
        };
        let written = super::status::write(&self.api(key), set, put).await;
        written.map_err(call("writing the status", key))
    }
}

fn call<'a>(doing: &'static str, set: &'a ObjectKey) -> impl Fn(kube::Error) -> Error + 'a {
    move |source| Error::Call {
        doing,
        set: set.clone(),
        source,
    }
}
