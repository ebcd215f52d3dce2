//! PodDisruptionBudgets: how many pods may be evicted now (upstream: `pkg/controller/disruption`).
//!
//! The API server takes from `status.disruptionsAllowed` when it evicts; this controller counts anew.
//!
//! - [`plan`]: the pure decision.
//! - [`scale`]: how many pods there should be.
//! - [`stale`]: pods that were to be evicted, and were not.

mod plan;
mod scale;
mod stale;

use super::{Context, pods};
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::core::{Selector, SelectorExt};
use kube::{Client, ResourceExt};
use scale::Scales;
use std::sync::Arc;

const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("writing the status of PodDisruptionBudget {budget}: {source}")]
    Write { budget: ObjectKey, source: kube::Error },
    #[error("PodDisruptionBudget {budget}: {source}")]
    Count { budget: ObjectKey, source: scale::Error },
    #[error("resetting the condition DisruptionTarget of Pod {pod}: {source}")]
    Reset { pod: ObjectKey, source: kube::Error },
}

struct Controller {
    client: Client,
    recorder: Recorder,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    queue: WorkQueue<ObjectKey>,
    stale: WorkQueue<ObjectKey>,
}

/// Runs until the shutdown.
pub async fn run(ctx: &Context) {
    let client = ctx.client("disruption-controller");
    let controller = Arc::new(Controller {
        recorder: ctx.recorder_as("disruption-controller", "controllermanager"),
        budgets: ctx.informers.of(),
        pods: ctx.informers.of(),
        scales: Scales::new(client.clone(), &ctx.informers),
        queue: WorkQueue::new("disruption"),
        stale: WorkQueue::new("stale_pod_disruption"),
        client,
    });
    controller.listen();
    if !ctx.caught_up(controller.synced()).await {
        return;
    }
    let count = |key| {
        let controller = Arc::clone(&controller);
        async move { controller.sync(key).await }
    };
    let reset = |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reset(key).await }
    };
    tokio::join!(
        controller.queue.run(WORKERS, &ctx.shutdown, count),
        controller.stale.run(1, &ctx.shutdown, reset),
    );
}

/// What a budget selects; one without a selector nothing, one with an empty one everything in its namespace.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    let selector = budget.spec.as_ref()?.selector.clone()?;
    selector.try_into().ok()
}

impl Controller {
    fn listen(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.budgets.on_change(move |change| {
            if let Some(budget) = change.object() {
                queue.add(ObjectKey::of(&**budget));
            }
        });
        let this = Arc::downgrade(self);
        self.pods.on_change(move |change| {
            if let Some(this) = this.upgrade() {
                this.on_pod(change);
            }
        });
    }

    fn on_pod(&self, change: &Change<Pod>) {
        for pod in change.each() {
            let mut selecting = 0;
            let mut chosen = None;
            for budget in self.budgets.in_namespace(&pod.namespace().unwrap_or_default()) {
                if selector(&budget).is_some_and(|selector| selector.matches(pod.labels())) {
                    // All its pods are counted each time, so the changes of many are taken together.
                    let expected = budget.status.as_ref().and_then(|status| status.expected_pods);
                    let expected = usize::try_from(expected.unwrap_or_default()).unwrap_or_default();
                    self.queue.add_of_many(ObjectKey::of(&*budget), expected);
                    selecting += 1;
                    chosen.get_or_insert_with(|| budget.name_any());
                }
            }
            if let (2.., Some(chosen), None) = (selecting, chosen, &change.old) {
                let message = format!(
                    "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {chosen:?} arbitrarily.",
                    pod.namespace().unwrap_or_default(),
                    pod.name_any()
                );
                let reason = "MultiplePodDisruptionBudgets";
                self.recorder.event(&**pod, Level::Warning, reason, message);
            }
        }
        if let Some(pod) = &change.new
            && let Some(left) = stale::reset_in(pod, Timestamp::now())
        {
            self.stale.add_after(ObjectKey::of(&**pod), left);
        }
    }

    async fn synced(&self) {
        tokio::join!(self.budgets.synced(), self.pods.synced(), self.scales.synced());
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get_key(&key) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        match self.count(&budget, now).await {
            Ok((status, again_after)) => {
                if let Some(status) = status {
                    self.write(&key, &budget, status).await?;
                }
                Ok(again_after.map_or(Next::Done, Next::After))
            }
            // What cannot be counted must not be spent.
            Err(source) => {
                let status = plan::failed(&budget, &source.to_string(), now);
                if Some(&status) != budget.status.as_ref() {
                    tracing::info!(budget = %key, error = %source, "A disruption budget cannot be counted");
                    self.write(&key, &budget, status).await?;
                }
                match source.is_transient() {
                    true => Err(Error::Count { budget: key, source }),
                    false => Ok(Next::Done),
                }
            }
        }
    }

    /// The status, if it is to change, and when to look again.
    async fn count(
        &self,
        budget: &PodDisruptionBudget,
        now: Timestamp,
    ) -> Result<(Option<PodDisruptionBudgetStatus>, Option<std::time::Duration>), scale::Error> {
        let selector = selector(budget);
        let in_namespace = self.pods.in_namespace(&budget.namespace().unwrap_or_default());
        let selected: Vec<Arc<Pod>> = in_namespace
            .into_iter()
            .filter(|pod| selector.as_ref().is_some_and(|selector| selector.matches(pod.labels())))
            .collect();
        if selected.is_empty() {
            let message = "No matching pods found";
            self.recorder.event(budget, Level::Normal, "NoPods", message);
        }
        let expected = match self.expected(budget, &selected).await {
            Ok(expected) => expected,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                let reason = "CalculateExpectedPodCountFailed";
                self.recorder.event(budget, Level::Warning, reason, message);
                return Err(error);
            }
        };
        let plan = plan::plan(budget, &selected, expected, now);
        for pod in plan.not_deleted {
            let message = format!(
                "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                budget.namespace().unwrap_or_default(),
                budget.name_any()
            );
            self.recorder.event(&*pod, Level::Warning, "NotDeleted", message);
        }
        Ok((plan.status, plan.again_after))
    }

    async fn expected(
        &self,
        budget: &PodDisruptionBudget,
        selected: &[Arc<Pod>],
    ) -> Result<plan::Expected, scale::Error> {
        let count = i32::try_from(selected.len()).unwrap_or(i32::MAX);
        if !plan::needs_scale(budget) {
            return Ok(plan::expected(budget, count)?);
        }
        let scale = self.scales.of_owners(selected).await?;
        if scale.has_unmanaged {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let message = plan::unmanaged_message(selector);
            self.recorder.event(budget, Level::Warning, "UnmanagedPods", message);
        }
        Ok(plan::expected(budget, scale.replicas)?)
    }

    async fn write(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut counted = budget.clone();
        counted.status = Some(status);
        match api.replace_status(&key.name, &PostParams::default(), &counted).await {
            Ok(written) => {
                let version = written.metadata.resource_version.as_deref();
                self.budgets.seen(version.unwrap_or_default()).await;
                Ok(())
            }
            // Gone, or changed meanwhile, by an eviction perhaps: its next version is on its way.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(source) => Err(Error::Write {
                budget: key.clone(),
                source,
            }),
        }
    }

    /// Takes back what was announced of a pod that stayed.
    async fn reset(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.pods.get_key(&key) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        match stale::reset_in(&pod, now) {
            None => return Ok(Next::Done),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let reset = stale::reset(&pod, now);
        match api.replace_status(&key.name, &PostParams::default(), &reset).await {
            Ok(_) => Ok(Next::Done),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Next::Done),
            Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(Next::Retry),
            Err(source) => Err(Error::Reset { pod: key, source }),
        }
    }
}
