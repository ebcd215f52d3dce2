//! The scheduler's calls to the API: volumes and bindings, victims, and the condition and event that say why there is no
//! node (upstream: `defaultbinder`, `volumebinding`, `preemption/executor.go`, `handleSchedulingFailure`).

mod devices;
mod events;
mod room;
mod volumes;

use super::diagnosis::as_note;
use super::engine::{Action, Report};
use super::extenders::Extenders;
use super::plugins::volumes::binding::Bindings;
use super::pod_info::PodInfo;
use super::profile::Timeouts;
use crate::client::informer::{Informer, Informers};
use events::{Events, Told};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub enum CallResult {
    Bound {
        bindings: Bindings,
        written: Vec<Arc<ResourceClaim>>,
    },
    NotBound {
        uid: String,
        bindings: Bindings,
        claims: Vec<Arc<ResourceClaim>>,
        /// Those of the claims that have their devices all the same.
        written: Vec<Arc<ResourceClaim>>,
        message: String,
    },
    RoomMade {
        uid: String,
        failed: Vec<String>,
        displaced: Vec<Arc<PodInfo>>,
    },
    Reported,
}

#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("running PreBind plugin \"VolumeBinding\": {0}")]
    Volume(String),
    #[error("running PreBind plugin \"DynamicResources\": {0}")]
    Claim(String),
    #[error("running Bind plugin \"DefaultBinder\": {}", said(.0))]
    Binding(kube::Error),
    #[error("{0}")]
    Extender(String),
}

/// The API server's own words, if it was the API server.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What calls work with.
#[derive(Clone)]
struct Calls {
    client: Client,
    extenders: Arc<Extenders>,
    events: Events,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    nodes: Informer<Node>,
    resource_claims: Informer<ResourceClaim>,
    /// Changes whenever a claim or a volume does.
    storage_changed: watch::Receiver<u64>,
    /// Changes whenever a claim for devices does.
    devices_changed: watch::Receiver<u64>,
}

pub struct Binder {
    calls: Calls,
    tasks: JoinSet<CallResult>,
    /// Those that wait for volumes, for minutes perhaps: they do not count.
    slow: JoinSet<CallResult>,
}

impl Binder {
    pub fn new(client: Client, informers: &Informers, extenders: Arc<Extenders>) -> Self {
        let (claims, volumes) = (
            informers.of::<PersistentVolumeClaim>(),
            informers.of::<PersistentVolume>(),
        );
        let (changed, storage_changed) = watch::channel(0u64);
        let changed = Arc::new(changed);
        let also_changed = changed.clone();
        claims.on_change(move |_| changed.send_modify(|count| *count += 1));
        volumes.on_change(move |_| also_changed.send_modify(|count| *count += 1));
        let (changed, devices_changed) = watch::channel(0u64);
        let resource_claims = informers.of::<ResourceClaim>();
        resource_claims.on_change(move |_| changed.send_modify(|count| *count += 1));
        Self {
            calls: Calls {
                events: Events::new(client.clone()),
                client,
                extenders,
                claims,
                volumes,
                nodes: informers.of::<Node>(),
                resource_claims,
                storage_changed,
                devices_changed,
            },
            tasks: JoinSet::new(),
            slow: JoinSet::new(),
        }
    }

    pub fn under_way(&self) -> usize {
        self.tasks.len()
    }

    /// The next call that has ended; None while there is none under way.
    pub async fn next(&mut self) -> Option<CallResult> {
        let ended = tokio::select! {
            Some(ended) = self.tasks.join_next() => ended,
            Some(ended) = self.slow.join_next() => ended,
            else => return None,
        };
        match ended {
            Ok(result) => Some(result),
            Err(error) => {
                if !error.is_cancelled() {
                    tracing::error!(%error, "a scheduler's call to the API panicked");
                }
                Some(CallResult::Reported)
            }
        }
    }

    /// Those that wait for volumes do not keep the scheduler from ending.
    pub fn stop_waiting(&mut self) {
        self.slow.abort_all();
    }

    pub fn start(&mut self, action: Action) {
        let calls = self.calls.clone();
        match action {
            Action::Bind {
                pod,
                node,
                bindings,
                claims,
                timeouts,
            } => {
                let waits = !bindings.is_empty() || calls.waits_for_devices(&pod, &claims);
                let tasks = if waits { &mut self.slow } else { &mut self.tasks };
                tasks.spawn(async move { calls.bind(pod, node, bindings, claims, timeouts).await });
            }
            Action::Deallocate(claim) => {
                self.tasks.spawn(async move { calls.deallocate(&claim).await });
            }
            Action::Report(report) => {
                self.tasks.spawn(async move { calls.report(report).await });
            }
            Action::Preempt {
                pod,
                node,
                victims,
                displaced,
            } => {
                self.tasks
                    .spawn(async move { calls.make_room(&pod, &node, victims, displaced).await });
            }
        }
    }
}

impl Calls {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn bind(
        self,
        pod: Arc<PodInfo>,
        node: String,
        bindings: Bindings,
        claims: Vec<Arc<ResourceClaim>>,
        timeouts: Timeouts,
    ) -> CallResult {
        let mut written = Vec::new();
        let tried = self.try_bind(&pod, &node, &bindings, &claims, timeouts, &mut written);
        match tried.await {
            Ok(()) => {
                let note = format!("Successfully assigned {} to {node}", pod.key());
                let told = Told {
                    warning: false,
                    reason: "Scheduled",
                    action: "Binding",
                    note,
                    related: None,
                };
                self.events.tell(pod.scheduler_name(), &pod, told).await;
                CallResult::Bound { bindings, written }
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key(), %node, %error, "a pod was not bound; it is tried again unless it is gone");
                self.release_claims(&pod, &written).await;
                CallResult::NotBound {
                    uid: pod.uid.clone(),
                    bindings,
                    claims,
                    written,
                    message: error.to_string(),
                }
            }
        }
    }

    async fn try_bind(
        &self,
        pod: &PodInfo,
        node: &str,
        bindings: &Bindings,
        claims: &[Arc<ResourceClaim>],
        timeouts: Timeouts,
        written: &mut Vec<Arc<ResourceClaim>>,
    ) -> Result<(), BindError> {
        if !bindings.is_empty() {
            self.nominate(pod, Some(node)).await;
            tokio::time::timeout(timeouts.volumes, self.bind_volumes(bindings, node))
                .await
                .unwrap_or_else(|_| Err("binding volumes: context deadline exceeded".into()))
                .map_err(BindError::Volume)?;
        }
        self.reserve_claims(pod, claims, written)
            .await
            .map_err(BindError::Claim)?;
        if self.waits_for_devices(pod, written) {
            self.wait_for_devices(pod, node, written, timeouts.devices)
                .await
                .map_err(BindError::Claim)?;
        }
        match self.extenders.bind(pod, node).await {
            Some(bound) => bound.map_err(BindError::Extender),
            None => self.create_binding(pod, node).await.map_err(BindError::Binding),
        }
    }

    async fn create_binding(&self, pod: &PodInfo, node: &str) -> kube::Result<()> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.into()),
                ..ObjectReference::default()
            },
        };
        let pods = self.pods(&pod.namespace);
        let _: Value = pods
            .create_subresource("binding", &pod.name, &PostParams::default(), &binding)
            .await?;
        Ok(())
    }

    /// Condition PodScheduled=False, the nomination, and an event; what the pod says already is not written again.
    async fn report(self, report: Report) -> CallResult {
        let Report {
            pod,
            reason,
            message,
            nominate,
            by_time,
        } = report;
        let mut status = json!({});
        let changed = condition(&pod.pod, reason, &message);
        if let Some(condition) = &changed {
            status["conditions"] = json!([condition]);
        }
        if let Some(node) = nominate
            && node.as_deref() != pod.nominated_node()
        {
            status["nominatedNodeName"] = json!(node);
        }
        if status != json!({}) {
            self.patch_status(&pod, status).await;
        }
        if !by_time || changed.is_some() {
            let told = Told {
                warning: true,
                reason: "FailedScheduling",
                action: "Scheduling",
                note: as_note(&message),
                related: None,
            };
            self.events.tell(pod.scheduler_name(), &pod, told).await;
        }
        CallResult::Reported
    }

    async fn nominate(&self, pod: &PodInfo, node: Option<&str>) {
        if pod.nominated_node() != node {
            self.patch_status(pod, json!({"nominatedNodeName": node})).await;
        }
    }

    async fn patch_status(&self, pod: &PodInfo, status: Value) {
        let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
        let patched = self
            .pods(&pod.namespace)
            .patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        match patched {
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => tracing::warn!(pod = %pod.key(), %error, "could not write the status of a pod"),
        }
    }
}

/// Whole seconds, as metadata's times are.
fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second())
        .unwrap_or_default()
        .to_string()
}

/// The condition to be written; None if the pod says the same.
fn condition(pod: &Pod, reason: &str, message: &str) -> Option<Value> {
    let generation = pod.metadata.generation;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let old = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled");
    let was_false = old.filter(|old| old.status == "False");
    let same = was_false.is_some_and(|old| {
        old.reason.as_deref() == Some(reason)
            && old.message.as_deref() == Some(message)
            && old.observed_generation == generation
    });
    if same {
        return None;
    }
    let since = was_false.and_then(|old| old.last_transition_time.as_ref());
    Some(json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "observedGeneration": generation, "lastProbeTime": null,
        "lastTransitionTime": since.map_or_else(now, |time| time.0.to_string()),
    }))
}
