//! The scheduler's calls to the API: the binding, or the condition and event that say why there is none
//! (upstream: `defaultbinder`, `handleSchedulingFailure`).

use super::SCHEDULER_NAME;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;

pub enum CallResult {
    Bound,
    BindFailed { pod: Arc<Pod> },
    Reported,
}

pub struct Binder {
    client: kube::Client,
    recorder: Recorder,
    calls: JoinSet<CallResult>,
}

impl Binder {
    pub fn new(client: kube::Client) -> Self {
        let recorder = Recorder::new(
            client.clone(),
            Reporter {
                controller: SCHEDULER_NAME.into(),
                instance: None,
            },
        );
        Self {
            client,
            recorder,
            calls: JoinSet::new(),
        }
    }

    pub fn under_way(&self) -> usize {
        self.calls.len()
    }

    /// The next call that has ended; None while there is none under way.
    pub async fn next(&mut self) -> Option<CallResult> {
        match self.calls.join_next().await? {
            Ok(result) => Some(result),
            Err(error) => {
                tracing::error!(%error, "a scheduler's call to the API panicked");
                Some(CallResult::Reported)
            }
        }
    }

    pub fn bind(&mut self, pod: Arc<Pod>, node: String) {
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        self.calls.spawn(async move {
            match create_binding(&client, &pod, &node).await {
                Ok(()) => {
                    let note = format!(
                        "Successfully assigned {}/{} to {node}",
                        pod.namespace().unwrap_or_default(),
                        pod.name_any()
                    );
                    record(&recorder, &pod, EventType::Normal, "Scheduled", "Binding", note).await;
                    CallResult::Bound
                }
                // Deleted or bound meanwhile: the watch has told or will tell.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => CallResult::Bound,
                Err(error) => {
                    tracing::warn!(pod = %pod.name_any(), %node, %error, "binding failed and is retried");
                    CallResult::BindFailed { pod }
                }
            }
        });
    }

    /// Condition PodScheduled=False and an event, unless the pod says the same already.
    pub fn report_unschedulable(&mut self, pod: Arc<Pod>, message: String) {
        if already_says(&pod, &message) {
            return;
        }
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        self.calls.spawn(async move {
            if let Err(error) = patch_condition(&client, &pod, &message).await {
                tracing::warn!(pod = %pod.name_any(), %error, "could not write the PodScheduled condition");
            }
            record(
                &recorder,
                &pod,
                EventType::Warning,
                "FailedScheduling",
                "Scheduling",
                message,
            )
            .await;
            CallResult::Reported
        });
    }
}

fn already_says(pod: &Pod, message: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.message.as_deref() == Some(message)
    })
}

async fn create_binding(client: &kube::Client, pod: &Pod, node: &str) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.into()),
            ..ObjectReference::default()
        },
    };
    let _: serde_json::Value = api
        .create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding)
        .await?;
    Ok(())
}

async fn patch_condition(client: &kube::Client, pod: &Pod, message: &str) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let since = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let since = since.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    let since = since
        .filter_map(|c| c.last_transition_time.as_ref())
        .map(|time| time.0)
        .next();
    // Whole seconds, as metadata's times are.
    let since = since.unwrap_or_else(|| Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default());
    let patch = json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": since.to_string(),
        }]},
    });
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .map(drop)
}

async fn record(recorder: &Recorder, pod: &Pod, type_: EventType, reason: &str, action: &str, note: String) {
    let event = Event {
        type_,
        reason: reason.into(),
        note: Some(note),
        action: action.into(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &pod.object_ref(&())).await {
        tracing::warn!(pod = %pod.name_any(), %error, reason, "could not record an event");
    }
}
