//! StatefulSets: pods with names and storage of their own (upstream: `pkg/controller/statefulset`).
//!
//! - [`identity`]: names, labels and claims of an ordinal.
//! - [`retention`]: who owns claims.
//! - [`plan`]: the pure decision.
//! - [`execute`]: the calls it asks for.

mod execute;
mod identity;
mod plan;
mod retention;

use super::Context;
use super::expectations::{Expectations, WAIT_MAX};
use super::history::{self, Candidate, Step};
use super::ownership;
use super::pods::{is_news_to_owner, phase};
use super::revisions::Revisions;
use crate::client::ObjectKey;
use crate::client::events::Recorder;
use crate::client::informer::{Change, Index, Informer, Watched};
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::core::Selector;
use kube::{Client, ResourceExt};
use std::collections::BTreeSet;
use std::sync::Arc;

const WORKERS: usize = 5;
const COLLISIONS_MAX: i32 = 10;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{doing} of StatefulSet {set}: {source}")]
    Call {
        doing: &'static str,
        set: ObjectKey,
        source: kube::Error,
    },
    #[error("the template of StatefulSet {set} cannot be kept or read: {source}")]
    Template { set: ObjectKey, source: serde_json::Error },
    #[error("pods of StatefulSet {set}: {source}")]
    Pods { set: ObjectKey, source: execute::Error },
}

struct Controller {
    client: Client,
    recorder: Recorder,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    orphaned_pods: Index<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Revisions,
    orphaned_revisions: Index<ControllerRevision>,
    /// What was done to pods and the cache does not show yet.
    expectations: Expectations,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until the shutdown.
pub async fn run(ctx: &Context) {
    let client = ctx.client("statefulset-controller");
    let (sets, pods, claims) = (ctx.informers.of(), ctx.informers.of(), ctx.informers.of());
    let revisions = ctx.informers.of();
    let controller = Arc::new(Controller {
        recorder: ctx.recorder("statefulset-controller"),
        orphaned_pods: ownership::orphans(&pods),
        orphaned_revisions: ownership::orphans(&revisions),
        revisions: Revisions::new(client.clone(), revisions),
        expectations: Expectations::default(),
        queue: WorkQueue::new("statefulset"),
        client,
        sets,
        pods,
        claims,
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
        let this = Arc::downgrade(self);
        let queue = self.queue.clone();
        self.sets.on_change(move |change| {
            if let Some(set) = change.object() {
                queue.add(ObjectKey::of(&**set));
            }
        });
        let of_pods = this.clone();
        self.pods.on_change(move |change| {
            // Its order goes by who runs.
            let moved = change.old.as_deref().map(phase) != change.new.as_deref().map(phase);
            if let Some(this) = of_pods.upgrade().filter(|_| moved || is_news_to_owner(change)) {
                this.wake_owners(change);
            }
        });
        let of_revisions = this.clone();
        self.revisions.cache.on_change(move |change| {
            if let Some(this) = of_revisions
                .upgrade()
                .filter(|_| !ownership::is_made_by_its_owner(change))
            {
                this.wake_owners(change);
            }
        });
        self.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
            if let (Some(this), Some(gone), None) = (this.upgrade(), &change.old, &change.new) {
                this.wake_waiting_for(gone);
            }
        });
    }

    /// Wakes the sets that control an object, or that may adopt it.
    fn wake_owners<K: Watched>(&self, change: &Change<K>) {
        let selector = |set: &StatefulSet| ownership::selector(Some(&set.spec.selector));
        for key in ownership::concerned(change, &self.sets, selector) {
            let set = self.sets.get_key(&key);
            let uid = set.as_ref().and_then(|set| set.metadata.uid.as_deref());
            // All pods are looked at each time, so the changes of many are taken together.
            self.queue
                .add_of_many(key, self.pods.count_controlled_by(uid.unwrap_or_default()));
        }
    }

    /// A pod may have waited for a claim to go.
    fn wake_waiting_for(&self, claim: &PersistentVolumeClaim) {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        for set in self.sets.in_namespace(&namespace) {
            if identity::owns_claim_name(&set, &name) {
                self.queue.add(ObjectKey::of(&*set));
            }
        }
    }

    async fn synced(&self) {
        tokio::join!(
            self.sets.synced(),
            self.pods.synced(),
            self.claims.synced(),
            self.revisions.cache.synced()
        );
    }

    fn api(&self, key: &ObjectKey) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(set) = self.sets.get_key(&key) else {
            self.expectations.forget(&key);
            return Ok(Next::Done);
        };
        if !self.expectations.fulfilled(&key, &self.pods) {
            return Ok(Next::After(WAIT_MAX));
        }
        let selector = ownership::selector(Some(&set.spec.selector));
        let revisions = self.settled_revisions(&key, &set, &selector).await?;
        let pods = self.settled_pods(&key, &set, &selector).await?;
        let (update, collisions) = self.update_revision(&key, &set, &revisions).await?;
        let status = set.status.as_ref();
        let current_name = status.and_then(|status| status.current_revision.as_deref());
        let current = revisions
            .iter()
            .find(|revision| Some(&*revision.name_any()) == current_name)
            .unwrap_or(&update);
        let (current_name, update_name) = (current.name_any(), update.name_any());
        let claim = |name: &str| self.claims.get(&key.namespace, name);
        let plan = plan::plan(&plan::View {
            set: &set,
            pods: &pods,
            current: &current_name,
            update: &update_name,
            collisions,
            claim: &claim,
            now: Timestamp::now(),
        });
        let current_template = history::template_of(current).map_err(|source| Error::Template {
            set: key.clone(),
            source,
        })?;
        let executor = execute::Executor {
            controller: self,
            key: &key,
            set: &set,
            current: (&current_name, &current_template),
            update: (&update_name, &set.spec.template),
        };
        let again_after = plan.again_after;
        let (status, done) = executor.execute(plan).await;
        // The status tells what was found even where something failed.
        let written = self.write_status(&key, &set, status).await;
        done.map_err(|source| Error::Pods {
            set: key.clone(),
            source,
        })?;
        written?;
        self.truncate(&key, &set, &pods, &revisions, [current_name, update_name])
            .await?;
        Ok(again_after.map_or(Next::Done, Next::After))
    }

    /// The set's revisions, sorted.
    async fn settled_revisions(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let candidates = ownership::candidates(set, &self.revisions.cache, &self.orphaned_revisions);
        let api = self.revisions.api(&key.namespace);
        let settled = ownership::settle(&self.api(key), &api, set, selector, candidates).await;
        let mut settled = settled.map_err(call("adopting revisions", key))?;
        history::sort(&mut settled);
        Ok(settled)
    }

    async fn settled_pods(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let mut candidates = ownership::candidates(set, &self.pods, &self.orphaned_pods);
        candidates.retain(|pod| identity::is_member(&key.name, pod));
        let api = Api::namespaced(self.client.clone(), &key.namespace);
        let settled = ownership::settle(&self.api(key), &api, set, selector, candidates).await;
        settled.map_err(call("adopting pods", key))
    }

    /// The revision of the set's template, made if there is none, and how often its name was taken.
    async fn update_revision(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<(Arc<ControllerRevision>, i32), Error> {
        let status = set.status.as_ref();
        let mut collisions = status.and_then(|status| status.collision_count).unwrap_or(0);
        let data = history::data_of(&set.spec.template).map_err(|source| Error::Template {
            set: key.clone(),
            source,
        })?;
        let number = match history::step(revisions, &data) {
            Step::Keep(revision) => return Ok((revision, collisions)),
            Step::Renumber(revision, number) => {
                let renumbered = self.revisions.renumber(&revision, number).await;
                return Ok((renumbered.map_err(call("renumbering a revision", key))?, collisions));
            }
            Step::Create(number) => number,
        };
        let candidate = Candidate::new(set, &set.spec.template, data, number, history::HASH_LABEL);
        let begin = collisions;
        loop {
            let created = self.revisions.create(&candidate, collisions).await;
            match created.map_err(call("creating a revision", key))? {
                Some(revision) => return Ok((revision, collisions)),
                None if collisions - begin < COLLISIONS_MAX => collisions += 1,
                None => {
                    let source = kube::Error::Service("every name of the revision is taken".into());
                    return Err(call("creating a revision", key)(source));
                }
            }
        }
    }

    async fn write_status(&self, key: &ObjectKey, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Error> {
        if !plan::differs(set, &status) {
            return Ok(());
        }
        let put = |set: &mut StatefulSet| set.status = Some(status.clone());
        let written = super::status::write(&self.api(key), set, put).await;
        written.map_err(call("writing the status", key))
    }

    /// Deletes revisions beyond the limit that no pod uses.
    async fn truncate(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        revisions: &[Arc<ControllerRevision>],
        in_use: [String; 2],
    ) -> Result<(), Error> {
        let limit = set.spec.revision_history_limit.unwrap_or(10);
        let Ok(limit) = usize::try_from(limit) else {
            return Ok(());
        };
        let of_pods = pods.iter().map(|pod| identity::revision_of(pod).to_owned());
        let live: BTreeSet<String> = of_pods.chain(in_use).collect();
        for revision in history::surplus(revisions, &live, limit) {
            let deleted = self.revisions.delete(&revision).await;
            deleted.map_err(call("deleting a revision", key))?;
        }
        Ok(())
    }
}

fn call<'a>(doing: &'static str, set: &'a ObjectKey) -> impl Fn(kube::Error) -> Error + 'a {
    move |source| Error::Call {
        doing,
        set: set.clone(),
        source,
    }
}
