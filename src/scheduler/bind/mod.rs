//! The scheduler's calls to the API: volumes and bindings, victims, and the condition and event that say why there is no
//! node (upstream: `defaultbinder`, `volumebinding`, `preemption/executor.go`, `handleSchedulingFailure`).

mod events;
mod room;
mod volumes;

use super::diagnosis::as_note;
use super::engine::{Action, Report};
use super::plugins::dynamic_resources::{claim_names, is_reserved_for};
use super::plugins::volumes::binding::Bindings;
use super::pod_info::PodInfo;
use crate::client::informer::{Informer, Informers};
use events::{Events, Told};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub enum CallResult {
    Bound {
        bindings: Bindings,
        claims: Vec<Arc<ResourceClaim>>,
    },
    NotBound {
        uid: String,
        bindings: Bindings,
        claims: Vec<Arc<ResourceClaim>>,
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
    #[error("running PreBind plugin \"DynamicResources\": {}", said(.0))]
    Claim(kube::Error),
    #[error("running Bind plugin \"DefaultBinder\": {}", said(.0))]
    Binding(kube::Error),
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
    events: Events,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    nodes: Informer<Node>,
    /// Changes whenever a claim or a volume does.
    storage_changed: watch::Receiver<u64>,
}

pub struct Binder {
    calls: Calls,
    tasks: JoinSet<CallResult>,
    /// Those that wait for volumes, for minutes perhaps: they do not count.
    slow: JoinSet<CallResult>,
}

impl Binder {
    pub fn new(client: Client, informers: &Informers) -> Self {
        let (claims, volumes) = (
            informers.of::<PersistentVolumeClaim>(),
            informers.of::<PersistentVolume>(),
        );
        let (changed, storage_changed) = watch::channel(0u64);
        let changed = Arc::new(changed);
        let also_changed = changed.clone();
        claims.on_change(move |_| changed.send_modify(|count| *count += 1));
        volumes.on_change(move |_| also_changed.send_modify(|count| *count += 1));
        Self {
            calls: Calls {
                events: Events::new(client.clone()),
                client,
                claims,
                volumes,
                nodes: informers.of::<Node>(),
                storage_changed,
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
                timeout,
            } => {
                let tasks = if bindings.is_empty() {
                    &mut self.tasks
                } else {
                    &mut self.slow
                };
                tasks.spawn(async move { calls.bind(pod, node, bindings, claims, timeout).await });
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
        timeout: Duration,
    ) -> CallResult {
        match self.try_bind(&pod, &node, &bindings, &claims, timeout).await {
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
                CallResult::Bound { bindings, claims }
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key(), %node, %error, "a pod was not bound; it is tried again unless it is gone");
                CallResult::NotBound {
                    uid: pod.uid.clone(),
                    bindings,
                    claims,
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
        timeout: Duration,
    ) -> Result<(), BindError> {
        if !bindings.is_empty() {
            self.nominate(pod, Some(node)).await;
            tokio::time::timeout(timeout, self.bind_volumes(bindings, node))
                .await
                .unwrap_or_else(|_| Err("binding volumes: context deadline exceeded".into()))
                .map_err(BindError::Volume)?;
        }
        self.reserve_claims(pod, claims).await.map_err(BindError::Claim)?;
        self.create_binding(pod, node).await.map_err(BindError::Binding)
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

    /// Writes which devices claims get, and adds the pod to the users of its claims.
    async fn reserve_claims(&self, pod: &PodInfo, chosen: &[Arc<ResourceClaim>]) -> kube::Result<()> {
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &pod.namespace);
        for name in claim_names(pod).unwrap_or_default() {
            let mut claim = api.get(&name).await?;
            if is_reserved_for(&claim, pod) {
                continue;
            }
            let chosen = chosen.iter().find(|chosen| chosen.metadata.uid == claim.metadata.uid);
            let allocation = chosen.and_then(|chosen| chosen.status.as_ref()?.allocation.clone());
            if allocation.is_some() {
                claim = protect(&api, claim).await?;
            }
            let mut users = claim.status.and_then(|status| status.reserved_for).unwrap_or_default();
            users.push(ResourceClaimConsumerReference {
                api_group: None,
                resource: "pods".into(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            });
            let mut status = json!({"reservedFor": users});
            if let Some(allocation) = allocation {
                status["allocation"] = json!(allocation);
            }
            // Whoever has changed the claim meanwhile is in the right.
            let patch = json!({
                "metadata": {"resourceVersion": claim.metadata.resource_version},
                "status": status,
            });
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
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

/// A claim with devices does not go away before they are given back.
async fn protect(api: &Api<ResourceClaim>, claim: ResourceClaim) -> kube::Result<ResourceClaim> {
    const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
    let mut finalizers = claim.metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(claim);
    }
    finalizers.push(FINALIZER.into());
    let patch = json!({"metadata": {
        "resourceVersion": claim.metadata.resource_version, "finalizers": finalizers,
    }});
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
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
