//! Victims of preemption are told and deleted (upstream: `preemption/executor.go`).

use super::events::Told;
use super::{CallResult, Calls, now};
use crate::client;
use crate::scheduler::pod_info::PodInfo;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;

impl Calls {
    pub(super) async fn make_room(
        self,
        pod: &PodInfo,
        node: &str,
        victims: Vec<Arc<PodInfo>>,
        displaced: Vec<Arc<PodInfo>>,
    ) -> CallResult {
        for other in &displaced {
            self.nominate(other, None).await;
        }
        let mut failed = Vec::new();
        for victim in victims {
            if victim.is_terminating() {
                continue;
            }
            match self.evict(pod, &victim).await {
                Ok(true) => {
                    let note = format!("Preempted by pod {} on node {node}", pod.uid);
                    let told = Told {
                        warning: false,
                        reason: "Preempted",
                        action: "Preempting",
                        note,
                        related: Some(pod),
                    };
                    self.events.tell(pod.scheduler_name(), &victim, told).await;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(pod = %pod.key(), victim = %victim.key(), %error, "a pod could not be preempted");
                    failed.push(victim.uid.clone());
                }
            }
        }
        CallResult::RoomMade {
            uid: pod.uid.clone(),
            failed,
            displaced,
        }
    }

    /// False if it was gone already.
    async fn evict(&self, pod: &PodInfo, victim: &PodInfo) -> kube::Result<bool> {
        let pods = self.pods(&victim.namespace);
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name()),
            "observedGeneration": victim.pod.metadata.generation, "lastProbeTime": null, "lastTransitionTime": now(),
        });
        let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
        let patched = pods
            .patch_status(&victim.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        // Another pod of that name is none of our business.
        let is_other =
            |error: &kube::Error| matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409));
        match patched {
            Ok(_) => {}
            Err(error) if is_other(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let params = DeleteParams {
            preconditions: Some(client::only(Some(victim.uid.clone()))),
            ..DeleteParams::default()
        };
        match pods.delete(&victim.name, &params).await {
            Ok(_) => Ok(true),
            Err(error) if is_other(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
