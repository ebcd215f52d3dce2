//! Claims for devices are written before the pod is bound, and waited for where drivers ask for it
//! (upstream: `dynamicresources`, bindClaim, PreBind and Unreserve).

use super::events::Told;
use super::{CallResult, Calls, is_gone, now, said};
use crate::client;
use crate::scheduler::devices::extended;
use crate::scheduler::devices::key;
use crate::scheduler::devices::readiness::{has_conditions, is_given_up, is_ready};
use crate::scheduler::plugins::dynamic_resources::{claim_names, is_reserved_for};
use crate::scheduler::pod_info::PodInfo;
use crate::usage::is_extended_claim;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Times that a claim is looked at again because somebody has changed it meanwhile.
const ATTEMPTS_MAX: usize = 5;

impl Calls {
    fn resource_claims(&self, namespace: &str) -> Api<ResourceClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Writes which devices claims get, and adds the pod to the users of its claims. `written` are those that got some.
    pub(super) async fn reserve_claims(
        &self,
        pod: &PodInfo,
        chosen: &[Arc<ResourceClaim>],
        written: &mut Vec<Arc<ResourceClaim>>,
    ) -> Result<(), String> {
        let api = self.resource_claims(&pod.namespace);
        for name in claim_names(pod).unwrap_or_default() {
            let mut attempts = 0;
            let claim = loop {
                attempts += 1;
                let claim = api.get(&name).await.map_err(|error| said(&error))?;
                if is_reserved_for(&claim, pod) {
                    break claim;
                }
                match self.reserve(&api, pod, claim, chosen).await {
                    Ok(claim) => break claim,
                    Err(Failed::Conflict(_)) if attempts < ATTEMPTS_MAX => {}
                    Err(Failed::Conflict(why) | Failed::Finally(why)) => return Err(why),
                }
            };
            if chosen.iter().any(|chosen| chosen.metadata.uid == claim.metadata.uid) {
                written.push(Arc::new(claim));
            }
        }
        if let Some(chosen) = chosen.iter().find(|chosen| extended::is_to_be_written(chosen)) {
            self.write_special(&api, pod, chosen, written).await?;
        }
        Ok(())
    }

    /// Makes the claim for extended resources, with its devices, and says in the pod's status which is for what.
    async fn write_special(
        &self,
        api: &Api<ResourceClaim>,
        pod: &PodInfo,
        chosen: &ResourceClaim,
        written: &mut Vec<Arc<ResourceClaim>>,
    ) -> Result<(), String> {
        let mut new = chosen.clone();
        (new.metadata.name, new.metadata.uid, new.status) = (None, None, None);
        let failed =
            |error: &kube::Error| format!("create claim for extended resources {}: {}", pod.key(), said(error));
        let created = api.create(&PostParams::default(), &new).await;
        let created = created.map_err(|error| failed(&error))?;
        let name = created.metadata.name.clone().unwrap_or_default();
        written.push(Arc::new(created.clone()));
        let mut with_devices = chosen.clone();
        with_devices.metadata.uid.clone_from(&created.metadata.uid);
        let reserved = self.reserve(api, pod, created, &[Arc::new(with_devices)]).await;
        let reserved = reserved.map_err(|(Failed::Conflict(why) | Failed::Finally(why))| why)?;
        written.pop();
        written.push(Arc::new(reserved));
        let status = json!({"extendedResourceClaimStatus": {
            "requestMappings": extended::mappings(pod, chosen), "resourceClaimName": name}});
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid}, "status": status}));
        let (pods, params) = (self.pods(&pod.namespace), PatchParams::default());
        let patched = pods.patch_status(&pod.name, &params, &patch).await;
        let failed =
            |error: kube::Error| format!("update pod {} ExtendedResourceClaimStatus: {}", pod.key(), said(&error));
        patched.map(|_| ()).map_err(failed)
    }

    async fn reserve(
        &self,
        api: &Api<ResourceClaim>,
        pod: &PodInfo,
        mut claim: ResourceClaim,
        chosen: &[Arc<ResourceClaim>],
    ) -> Result<ResourceClaim, Failed> {
        let key = key(&claim);
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(Failed::Finally(format!("claim {key} got deleted in the meantime")));
        }
        let chosen = chosen.iter().find(|chosen| chosen.metadata.uid == claim.metadata.uid);
        let mut allocation = chosen.and_then(|chosen| chosen.status.as_ref()?.allocation.clone());
        let held = claim.status.as_ref().and_then(|status| status.allocation.clone());
        if allocation.is_some() && held.is_some() {
            return Err(Failed::Finally(format!(
                "claim {key} got allocated elsewhere in the meantime"
            )));
        }
        let what = if allocation.is_some() {
            "add allocation and reservation to claim"
        } else {
            "add reservation to claim"
        };
        if allocation.is_some() {
            let failed = |error: kube::Error| Failed::from(format!("add finalizer to claim {key}"), &error);
            claim = protect(api, claim).await.map_err(failed)?;
        }
        let mut status = json!({});
        if let Some(allocation) = allocation
            .as_mut()
            .filter(|allocation| allocation.allocation_timestamp.is_none())
        {
            status["allocation"] = json!(allocation);
            status["allocation"]["allocationTimestamp"] = json!(now());
        }
        let mut users = claim.status.and_then(|status| status.reserved_for).unwrap_or_default();
        users.push(ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".into(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        });
        status["reservedFor"] = json!(users);
        // Whoever has changed the claim meanwhile is in the right.
        let patch = json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status});
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let written = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        written.map_err(|error| Failed::from(format!("{what} {key}"), &error))
    }

    /// Whether the pod has devices whose drivers say when they are ready, or gets such.
    pub(super) fn waits_for_devices(&self, pod: &PodInfo, chosen: &[Arc<ResourceClaim>]) -> bool {
        let held = claim_names(pod).unwrap_or_default().into_iter();
        let mut held = held.filter_map(|name| self.resource_claims.get(&pod.namespace, &name));
        chosen.iter().any(|claim| has_conditions(claim)) || held.any(|claim| has_conditions(&claim))
    }

    pub(super) async fn wait_for_devices(
        &self,
        pod: &PodInfo,
        node: &str,
        written: &[Arc<ResourceClaim>],
        patience: Duration,
    ) -> Result<(), String> {
        let told = Told {
            warning: false,
            reason: "BindingConditionsPending",
            action: "Scheduling",
            note: format!("waiting for binding conditions for device on node {node}"),
            related: None,
        };
        self.events.tell(pod.scheduler_name(), pod, told).await;
        // What was written just now is to be seen, not what was there before.
        for claim in written {
            let revision = claim.metadata.resource_version.as_deref().unwrap_or_default();
            self.resource_claims.seen(revision).await;
        }
        let ready = async {
            let mut changed = self.devices_changed.clone();
            loop {
                changed.mark_unchanged();
                if self.are_ready(pod, written, patience)? {
                    return Ok(());
                }
                changed.changed().await.map_err(|_| "context canceled")?;
            }
        };
        tokio::time::timeout(patience, ready)
            .await
            .unwrap_or_else(|_| Err("device binding timeout".into()))
    }

    fn are_ready(&self, pod: &PodInfo, written: &[Arc<ResourceClaim>], patience: Duration) -> Result<bool, String> {
        let special = written.iter().filter(|claim| is_extended_claim(claim));
        let special = special.filter_map(|claim| claim.metadata.name.clone());
        for name in claim_names(pod).unwrap_or_default().into_iter().chain(special) {
            let Some(claim) = self.resource_claims.get(&pod.namespace, &name) else {
                return Err(format!("resourceclaim.resource.k8s.io {name:?} not found"));
            };
            if !is_ready(&claim)? {
                if is_given_up(&claim, patience, Timestamp::now()) {
                    return Err(format!("claim {name} binding timeout"));
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The pod is not bound: others may use its claims.
    pub(super) async fn release_claims(&self, pod: &PodInfo, written: &[Arc<ResourceClaim>]) {
        let api = self.resource_claims(&pod.namespace);
        for claim in written.iter().filter(|claim| is_extended_claim(claim)) {
            self.delete_special(claim).await;
        }
        for name in claim_names(pod).unwrap_or_default() {
            let claim = match api.get_opt(&name).await {
                Ok(Some(claim)) if is_reserved_for(&claim, pod) => claim,
                _ => continue,
            };
            let patch = json!({"metadata": {"uid": claim.metadata.uid},
                "status": {"reservedFor": [{"$patch": "delete", "uid": pod.uid}]}});
            let params = PatchParams::default();
            let released = api.patch_status(&name, &params, &Patch::Strategic(patch)).await;
            if let Err(error) = released
                && !is_gone(&error)
            {
                tracing::warn!(pod = %pod.key(), claim = %name, %error, "a claim stays reserved for a pod that was not bound");
            }
        }
    }

    /// A claim for extended resources goes with the try that it was made for; its devices are free at once.
    async fn delete_special(&self, claim: &ResourceClaim) {
        let meta = &claim.metadata;
        let api = self.resource_claims(meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        let patch = json!({"metadata": {"uid": meta.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let done = async {
            api.patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await?;
            let only = DeleteParams::default().preconditions(client::only(meta.uid.clone()));
            api.delete(name, &only).await
        };
        if let Err(error) = done.await
            && !is_gone(&error)
        {
            tracing::warn!(claim = %key(claim), %error, "a claim for extended resources is left behind");
        }
    }

    pub(super) async fn deallocate(self, claim: &ResourceClaim) -> CallResult {
        if is_extended_claim(claim) {
            self.delete_special(claim).await;
            return CallResult::Reported;
        }
        let meta = &claim.metadata;
        let api = self.resource_claims(meta.namespace.as_deref().unwrap_or_default());
        let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "status": {"allocation": null, "reservedFor": null, "devices": null}});
        let name = meta.name.as_deref().unwrap_or_default();
        let freed = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        if let Err(error) = freed {
            // Whoever has changed it meanwhile is heard of.
            tracing::info!(claim = %key(claim), %error, "a claim keeps its devices");
        }
        CallResult::Reported
    }
}

enum Failed {
    /// Somebody has changed the claim meanwhile.
    Conflict(String),
    Finally(String),
}

impl Failed {
    fn from(what: String, error: &kube::Error) -> Self {
        let why = format!("{what}: {}", said(error));
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict(why),
            _ => Self::Finally(why),
        }
    }
}

/// A claim with devices does not go away before they are given back.
async fn protect(api: &Api<ResourceClaim>, claim: ResourceClaim) -> kube::Result<ResourceClaim> {
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
