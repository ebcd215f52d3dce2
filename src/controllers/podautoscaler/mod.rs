//! Scales targets by metrics for HorizontalPodAutoscalers (upstream: `pkg/controller/podautoscaler`).
//!
//! - [`target`]: reads and writes the scale of any kind; [`metrics`]: reads metrics.
//! - [`replicas`]: what a metric asks for; [`limits`]: what of it may be done; [`plan`]: status, conditions, events.
//!
//! Metrics do not announce their changes, so each autoscaler is looked at every 15 seconds.

mod limits;
mod metrics;
mod plan;
mod replicas;
mod target;
#[cfg(test)]
mod tests;

use super::Context;
use super::pods::message_of;
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::Informer;
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use limits::History;
use parking_lot::Mutex;
use plan::{Conditions, Observed, Reading, Warning, needs_metrics, plan, without_scale};
use replicas::Problem;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use target::Target;

const NAME: &str = "horizontal-pod-autoscaler";
const PERIOD: Duration = Duration::from_secs(15);
const WORKERS: usize = 5;

#[derive(Debug, thiserror::Error)]
#[error("failed to update status for {autoscaler}: {source}")]
struct Error {
    autoscaler: ObjectKey,
    source: kube::Error,
}

/// Which pods autoscalers last saw, by uid: two that scale the same pods would fight.
#[derive(Default)]
struct Seen {
    by_pod: HashMap<String, BTreeSet<ObjectKey>>,
    by_autoscaler: HashMap<ObjectKey, Vec<String>>,
}

impl Seen {
    /// Notes that `key` scales `pods`, and says who does.
    fn note(&mut self, key: &ObjectKey, pods: &[Pod]) -> BTreeSet<ObjectKey> {
        for uid in self.by_autoscaler.remove(key).unwrap_or_default() {
            if let Some(keys) = self.by_pod.get_mut(&uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_pod.remove(&uid);
                }
            }
        }
        let mut all = BTreeSet::from([key.clone()]);
        let uids: Vec<String> = pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        for uid in &uids {
            let keys = self.by_pod.entry(uid.clone()).or_default();
            keys.insert(key.clone());
            all.extend(keys.iter().cloned());
        }
        if !uids.is_empty() {
            self.by_autoscaler.insert(key.clone(), uids);
        }
        all
    }
}

type Metrics = Result<(Vec<Pod>, Vec<Result<Reading, Problem>>), (Warning, String)>;

struct Controller {
    client: Client,
    recorder: Recorder,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    histories: Mutex<HashMap<ObjectKey, History>>,
    seen: Mutex<Seen>,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until `shutdown`.
pub async fn run(context: &Context) {
    let controller = Arc::new(Controller {
        client: context.client(NAME),
        recorder: context.recorder(NAME),
        autoscalers: context.informers.of::<HorizontalPodAutoscaler>(),
        histories: Mutex::default(),
        seen: Mutex::default(),
        queue: WorkQueue::new("horizontalpodautoscaler"),
    });
    let this = Arc::clone(&controller);
    controller.autoscalers.on_change(move |change| {
        let Some(autoscaler) = change.object() else { return };
        let key = ObjectKey::of(&**autoscaler);
        match (&change.old, &change.new) {
            // Its own status.
            (Some(old), Some(new)) if old.spec == new.spec => {}
            _ => this.queue.add(key),
        }
    });
    if !context.caught_up(controller.autoscalers.synced()).await {
        return;
    }
    let this = &controller;
    this.queue.run(WORKERS, &context.shutdown, |key| this.sync(key)).await;
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(autoscaler) = self.autoscalers.get_key(&key) else {
            self.histories.lock().remove(&key);
            self.seen.lock().note(&key, &[]);
            return Ok(Next::Done);
        };
        let status = self.scale(&key, &autoscaler).await;
        if autoscaler.status.clone().unwrap_or_default() != status {
            self.write_status(&key, &autoscaler, status).await?;
        }
        Ok(Next::After(PERIOD))
    }

    /// Looks at the target and scales it; the status that tells of it.
    async fn scale(&self, key: &ObjectKey, autoscaler: &HorizontalPodAutoscaler) -> HorizontalPodAutoscalerStatus {
        let now = Timestamp::now;
        let read = async {
            let target = Target::of(&self.client, &key.namespace, &autoscaler.spec.scale_target_ref).await?;
            let scale = target.get(&self.client).await?;
            Ok::<_, Problem>((target, scale))
        };
        let (target, mut scale) = match read.await {
            Ok(read) => read,
            Err(Problem(why)) => {
                self.recorder
                    .event(autoscaler, Level::Warning, "FailedGetScale", why.clone());
                return without_scale(autoscaler, &why, now());
            }
        };
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let metrics = if needs_metrics(autoscaler, current) {
            self.read_metrics(key, autoscaler, &scale).await
        } else {
            Ok((Vec::new(), Vec::new()))
        };
        let mut history = self.histories.lock().get(key).cloned().unwrap_or_default();
        let observed = Observed {
            autoscaler,
            scale: &scale,
            metrics,
            now: now(),
        };
        let mut plan = plan(observed, &mut history);
        for (reason, message) in plan.warnings {
            self.recorder.event(autoscaler, Level::Warning, reason, message);
        }
        if let Some((replicas, reason)) = plan.rescale {
            scale.spec.get_or_insert_default().replicas = Some(replicas);
            let written = target.put(&self.client, &scale).await;
            let mut conditions = Conditions {
                status: &mut plan.status,
                generation: autoscaler.metadata.generation,
                now: now(),
            };
            match written {
                Ok(_) => {
                    let message = format!("the HPA controller was able to update the target scale to {replicas}");
                    conditions.set("AbleToScale", true, "SucceededRescale", message);
                    plan.status.last_scale_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
                    let message = format!("New size: {replicas}; reason: {reason}");
                    self.recorder
                        .event(autoscaler, Level::Normal, "SuccessfulRescale", message);
                    history.scaled(plan.current, replicas, now());
                }
                Err(Problem(why)) => {
                    let message = format!("the HPA controller was unable to update the target scale: {why}");
                    conditions.set("AbleToScale", false, "FailedUpdateScale", message);
                    plan.status.desired_replicas =
                        autoscaler.status.as_ref().map_or(0, |status| status.desired_replicas);
                    let message = format!("New size: {replicas}; reason: {reason}; error: {why}");
                    self.recorder
                        .event(autoscaler, Level::Warning, "FailedRescale", message);
                }
            }
        }
        self.histories.lock().insert(key.clone(), history);
        plan.status
    }

    async fn read_metrics(&self, key: &ObjectKey, autoscaler: &HorizontalPodAutoscaler, scale: &Scale) -> Metrics {
        let selector = scale.status.as_ref().and_then(|status| status.selector.as_deref());
        let selector = selector.unwrap_or_default();
        if selector.is_empty() {
            let warning = ("SelectorRequired", "selector is required".to_owned());
            return Err((warning, "the HPA target's scale is missing a selector".to_owned()));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pods = match pods.list(&ListParams::default().labels(selector)).await {
            Ok(list) => list.items,
            Err(error) => {
                let why = message_of(&error);
                let text = format!("couldn't convert selector into a corresponding internal selector object: {why}");
                return Err((("InvalidSelector", text.clone()), text));
            }
        };
        let seen = self.seen.lock().note(key, &pods);
        if seen.len() > 1 {
            let all: Vec<String> = seen.iter().map(ToString::to_string).collect();
            let all = all.join(" ");
            let text = format!("pods by selector {selector} are controlled by multiple HPAs: [{all}]");
            return Err((("AmbiguousSelector", text.clone()), text));
        }
        let mut readings = Vec::new();
        for spec in autoscaler.spec.metrics.iter().flatten() {
            readings.push(metrics::read(&self.client, &key.namespace, selector, spec).await);
        }
        Ok((pods, readings))
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<(), Error> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut updated = autoscaler.clone();
        updated.status = Some(status);
        match api.replace_status(&key.name, &PostParams::default(), &updated).await {
            Ok(written) => {
                let version = written.metadata.resource_version.unwrap_or_default();
                self.autoscalers.seen(&version).await;
                Ok(())
            }
            // Looked at again with what it is then.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => {
                let message = message_of(&source);
                self.recorder
                    .event(autoscaler, Level::Warning, "FailedUpdateStatus", message);
                let autoscaler = key.clone();
                Err(Error { autoscaler, source })
            }
        }
    }
}
