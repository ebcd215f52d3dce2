//! Deployments: replica sets that follow one template (upstream: `pkg/controller/deployment`).

mod plan;
#[cfg(test)]
mod random;
mod replica_sets;
mod sizes;
mod status;
#[cfg(test)]
mod tests;

use super::Context;
use super::ownership;
use super::pods;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use crate::client::{self, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use plan::{Event, Observed, Plan};
use std::collections::BTreeSet;
use std::sync::Arc;

const CONTROLLER: &str = "deployment-controller";
const WORKERS: usize = 5;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("taking over the replica sets that match: {0}")]
    Claim(#[source] kube::Error),
    #[error("{verb} replica set {set}: {source}")]
    Set {
        verb: &'static str,
        set: String,
        source: kube::Error,
    },
    #[error("writing the deployment: {0}")]
    Write(#[source] kube::Error),
}

/// Runs until the shutdown.
pub async fn run(context: &Context) {
    let sets = context.informers.of::<ReplicaSet>();
    let shell = Shell {
        client: context.client(CONTROLLER),
        recorder: context.recorder(CONTROLLER),
        deployments: context.informers.of(),
        orphans: ownership::orphans(&sets),
        sets,
        pods: context.informers.of(),
    };
    let queue = WorkQueue::new(CONTROLLER);
    shell.subscribe(&queue);
    let synced = async { tokio::join!(shell.deployments.synced(), shell.sets.synced(), shell.pods.synced()) };
    if !context.caught_up(synced).await {
        return;
    }
    queue.run(WORKERS, &context.shutdown, |key| shell.sync(key)).await;
}

struct Shell {
    client: Client,
    recorder: Recorder,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    orphans: Index<ReplicaSet>,
    pods: Informer<Pod>,
}

impl Shell {
    fn subscribe(&self, queue: &WorkQueue<ObjectKey>) {
        let own = queue.clone();
        self.deployments.on_change(move |change| {
            if let Some(deployment) = change.object() {
                own.add(ObjectKey::of(&**deployment));
            }
        });
        let (of_sets, deployments) = (queue.clone(), self.deployments.clone());
        self.sets.on_change(move |change| {
            let selector = |deployment: &Deployment| ownership::selector(Some(&deployment.spec.selector));
            for key in ownership::concerned(change, &deployments, selector) {
                of_sets.add(key);
            }
        });
        // One that makes its new pods when the old ones have ended waits for their end.
        let (queue, deployments, sets) = (queue.clone(), self.deployments.clone(), self.sets.clone());
        self.pods.on_change(move |change| {
            let Some(key) = ended(change).and_then(|pod| deployment_of(pod, &sets)) else {
                return;
            };
            if deployments
                .get_key(&key)
                .is_some_and(|deployment| recreates(&deployment))
            {
                queue.add(key);
            }
        });
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(deployment) = self.deployments.get_key(&key) else {
            return Ok(Next::Done);
        };
        let owners = Api::namespaced(self.client.clone(), &key.namespace);
        let api = Api::namespaced(self.client.clone(), &key.namespace);
        let selector = ownership::selector(Some(&deployment.spec.selector));
        let candidates = ownership::candidates(&*deployment, &self.sets, &self.orphans);
        let sets = ownership::settle(&owners, &api, &*deployment, &selector, candidates)
            .await
            .map_err(Error::Claim)?;
        let observed = Observed {
            deployment: &deployment,
            with_pods: self.with_pods(&deployment, &sets),
            sets: &sets,
        };
        let plan = plan::plan(&observed, Timestamp::now());
        self.execute(&key, &observed, plan).await
    }

    fn with_pods(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> BTreeSet<String> {
        if !recreates(deployment) {
            return BTreeSet::new();
        }
        let uids = sets.iter().filter_map(|set| set.uid());
        uids.filter(|uid| {
            let pods = self.pods.controlled_by(uid);
            pods.iter().any(|pod| !pods::is_finished(pod))
        })
        .collect()
    }

    async fn execute(&self, key: &ObjectKey, observed: &Observed<'_>, plan: Plan) -> Result<Next, Error> {
        let deployment = observed.deployment;
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.namespace);
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
        if let Some(target) = &plan.rollback {
            let result = api.replace(&key.name, &PostParams::default(), target).await;
            self.written(result).await.map_err(Error::Write)?;
        }
        for event in &plan.events {
            self.tell(deployment, event);
        }
        for update in &plan.update {
            let set = update.set.name_any();
            match sets.replace(&set, &PostParams::default(), &update.set).await {
                Ok(written) => {
                    if let Some(event) = update.event() {
                        self.tell(deployment, &event);
                    }
                    if !self.sets.seen(&written.resource_version().unwrap_or_default()).await {
                        // What comes next would be reckoned with sizes of before.
                        return Ok(Next::Retry);
                    }
                }
                Err(source) => {
                    let verb = "updating";
                    return Err(Error::Set { verb, set, source });
                }
            }
        }
        if let Some(set) = &plan.create
            && let Some(next) = self.create(&sets, observed, &plan, set).await?
        {
            return Ok(next);
        }
        for set in &plan.delete {
            let name = set.name_any();
            match sets
                .delete(
                    &name,
                    &DeleteParams::background().preconditions(client::only(set.uid())),
                )
                .await
            {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(source) => {
                    return Err(Error::Set {
                        verb: "deleting",
                        set: name,
                        source,
                    });
                }
            }
        }
        if let Some(status) = &plan.status {
            self.write_status(&api, status).await?;
        }
        Ok(plan.check_after.map_or(Next::Done, Next::After))
    }

    /// Makes the new set. What is left to do has to wait if there is a `Next`.
    async fn create(
        &self,
        sets: &Api<ReplicaSet>,
        observed: &Observed<'_>,
        plan: &Plan,
        set: &ReplicaSet,
    ) -> Result<Option<Next>, Error> {
        let (deployment, name) = (observed.deployment, set.name_any());
        let api: Api<Deployment> = Api::namespaced(
            self.client.clone(),
            deployment.meta().namespace.as_deref().unwrap_or_default(),
        );
        let failed = |source| Error::Set {
            verb: "creating",
            set: name.clone(),
            source,
        };
        let error = match sets.create(&PostParams::default(), set).await {
            Ok(created) => {
                if let Some(event) = plan::scaled(&name, 0, replica_sets::replicas(&created)) {
                    self.tell(deployment, &event);
                }
                self.sets.seen(&created.resource_version().unwrap_or_default()).await;
                return Ok(None);
            }
            Err(error) => error,
        };
        if matches!(&error, kube::Error::Api(status) if status.reason == "AlreadyExists") {
            // It is ours from an attempt whose answer got lost, or another template has the same hash.
            return match sets.get_opt(&name).await.map_err(failed)? {
                None => Ok(Some(Next::Retry)),
                Some(found) if plan::is_wanted(deployment, &found) => {
                    self.sets.seen(&found.resource_version().unwrap_or_default()).await;
                    Ok(None)
                }
                Some(_) => {
                    self.write_status(&api, &plan::collided(deployment)).await?;
                    Ok(Some(Next::Retry))
                }
            };
        }
        // The deployment goes as well.
        if pods::is_namespace_terminating(&error) {
            return Ok(Some(Next::Done));
        }
        let why = pods::message_of(&error);
        let (event, status) = plan::create_failed(plan, observed, &why, Timestamp::now());
        self.tell(deployment, &event);
        if let Some(status) = status {
            self.write_status(&api, &status).await?;
        }
        Err(failed(error))
    }

    async fn write_status(&self, api: &Api<Deployment>, deployment: &Deployment) -> Result<(), Error> {
        let name = deployment.name_any();
        let result = api.replace_status(&name, &PostParams::default(), deployment).await;
        self.written(result).await.map_err(Error::Write)
    }

    async fn written(&self, result: kube::Result<Deployment>) -> kube::Result<()> {
        match result {
            Ok(written) => {
                self.deployments
                    .seen(&written.resource_version().unwrap_or_default())
                    .await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, deployment: &Deployment, event: &Event) {
        let level = if event.warning { Level::Warning } else { Level::Normal };
        self.recorder
            .event(deployment, level, event.reason, event.message.clone());
    }
}

fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// The pod that has ended by this change.
fn ended(change: &Change<Pod>) -> Option<&Arc<Pod>> {
    match &change.new {
        None => change.old.as_ref(),
        Some(new) => pods::is_finished(new).then_some(new),
    }
}

fn deployment_of(pod: &Pod, sets: &Informer<ReplicaSet>) -> Option<ObjectKey> {
    let owner = ownership::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet")?;
    let set = sets.get(pod.metadata.namespace.as_deref()?, &owner.name)?;
    controller_key(&set)
}

fn controller_key(set: &ReplicaSet) -> Option<ObjectKey> {
    let owner = ownership::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, owner.name.clone()))
}
