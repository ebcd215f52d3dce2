//! What state a pod is in, and how controllers make and delete pods (upstream: `pkg/api/v1/pod/util.go`, `controller_utils.go`).

use super::ownership::controller_ref;
use crate::client::informer::{Change, Watched};
pub use crate::client::pods::{is_finished, is_terminating, node_name, phase};
use crate::client::{
    self,
    events::{Level, Recorder},
};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use std::cmp::{Ordering, Reverse};
use std::time::Duration;

/// Lower goes first when pods must go.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Neither finished nor going: it counts as a replica.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is ready, if it is and says so.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// How long until a ready pod has been ready for `min_ready_seconds`; zero if it is available already, None if it is
/// not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let wanted = i64::from(min_ready_seconds) * 1000;
    let passed = now.as_millisecond() - ready_since(pod)?.as_millisecond();
    Some(Duration::from_millis(
        u64::try_from(wanted - passed).unwrap_or_default(),
    ))
}

pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_in(pod, min_ready_seconds, now).is_some_and(|left| left.is_zero())
}

/// Whether a change of a pod may matter to who keeps a number of pods alive: to how many there are to be and where, or
/// to what the owner's status says of them.
pub fn is_news_to_owner(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    let ready = |pod: &Pod| is_ready(pod).then(|| ready_since(pod));
    old.metadata.uid != new.metadata.uid
        || old.metadata.labels != new.metadata.labels
        || old.metadata.owner_references != new.metadata.owner_references
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || node_name(old) != node_name(new)
        || is_finished(old) != is_finished(new)
        || ready(old) != ready(new)
}

pub fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

/// The order in which pods are deleted, first to last. `rank` is how many pods of the same owner share the pod's node.
pub fn deletion_order(left: (&Pod, usize), right: (&Pod, usize), now: Timestamp) -> Ordering {
    let ((a, a_rank), (b, b_rank)) = (left, right);
    let assigned = |pod: &Pod| node_name(pod).is_some();
    let life = |pod: &Pod| match phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    // Pods that have been ready for about the same time are equals: not all those of the newest node go.
    let ready_for = |pod: &Pod| {
        let seconds = ready_since(pod).map(|since| (now.as_second() - since.as_second()).max(1));
        seconds.map(|seconds| seconds.ilog2())
    };
    let restarts = |pod: &Pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter());
        statuses
            .flatten()
            .map(|status| status.restart_count)
            .max()
            .unwrap_or_default()
    };
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| life(a).cmp(&life(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| b_rank.cmp(&a_rank))
        .then_with(|| ready_for(a).cmp(&ready_for(b)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| Reverse(created(a)).cmp(&Reverse(created(b))))
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// The pod that `template` describes, for `owner` and with a name that the API server makes.
pub fn from_template<K: Watched>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let described = template.metadata.clone().unwrap_or_default();
    let name = owner.meta().name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: owner.meta().namespace.clone(),
            labels: described.labels,
            annotations: described.annotations,
            finalizers: described.finalizers,
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Makes and deletes pods, and tells so in events of their owner.
#[derive(Clone)]
pub struct PodControl {
    client: Client,
    recorder: Recorder,
}

impl PodControl {
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    fn api(&self, namespace: Option<&str>) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace.unwrap_or_default())
    }

    /// Creates `pod` for `owner`.
    pub async fn create<K: Watched>(&self, owner: &K, pod: &Pod) -> kube::Result<Pod> {
        let api = self.api(owner.meta().namespace.as_deref());
        match api.create(&PostParams::default(), pod).await {
            Ok(pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Created pod: {name}");
                self.recorder.event(owner, Level::Normal, "SuccessfulCreate", message);
                Ok(pod)
            }
            Err(error) => {
                // In a namespace that goes away nothing can be created, which needs no telling.
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", message_of(&error));
                    self.recorder.event(owner, Level::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes `pod` for `owner`, with the pod's own grace period. False if it was gone already, or is another by now.
    pub async fn delete<K: Watched>(&self, owner: &K, pod: &Pod) -> kube::Result<bool> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let api = self.api(pod.metadata.namespace.as_deref());
        match api
            .delete(
                name,
                &DeleteParams::default().preconditions(client::only(pod.metadata.uid.clone())),
            )
            .await
        {
            Ok(_) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.event(owner, Level::Normal, "SuccessfulDelete", message);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => {
                let message = format!("Error deleting: {}", message_of(&error));
                self.recorder.event(owner, Level::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }
}

/// The API server's own words, without the client's around them.
pub fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether something could not be created because its namespace goes away.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ready(since: &str) -> Value {
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]})
    }

    #[test]
    fn availability() {
        let now = at("2026-01-01T00:01:00Z");
        let ready = pod(json!({"status": ready("2026-01-01T00:00:30Z")}));
        for (pod, min_ready_seconds, left) in [
            (&pod(json!({})), 0, None),
            (&ready, 0, Some(0)),
            (&ready, 30, Some(0)),
            (&ready, 40, Some(10)),
        ] {
            let expected = left.map(Duration::from_secs);
            assert_eq!(available_in(pod, min_ready_seconds, now), expected);
        }
        assert!(is_active(&ready) && is_ready(&ready) && !is_available(&ready, 31, now));
        assert!(!is_active(&pod(json!({"status": {"phase": "Failed"}}))));
    }

    #[test]
    fn pods_that_are_missed_least_go_first() {
        let now = at("2026-01-01T01:00:00Z");
        let running = |name: &str, since: &str, more: Value| {
            let mut value = json!({"metadata": {"name": name, "creationTimestamp": since},
                "spec": {"nodeName": "n", "containers": []}, "status": ready(since)});
            for (pointer, more) in more.as_object().unwrap() {
                *value.pointer_mut(pointer).unwrap() = more.clone();
            }
            value
        };
        let old = "2026-01-01T00:00:00Z";
        // In the order in which they must go, each with its rank.
        let ordered = [
            (json!({"metadata": {"name": "unassigned"}, "status": ready(old)}), 0),
            (running("pending", old, json!({"/status": {"phase": "Pending"}})), 0),
            (running("unknown", old, json!({"/status": {"phase": "Unknown"}})), 0),
            (running("not-ready", old, json!({"/status": {"phase": "Running"}})), 0),
            (
                running(
                    "cheap",
                    old,
                    json!({"/metadata": {"name": "cheap", "annotations": {DELETION_COST: "-5"}}}),
                ),
                0,
            ),
            (running("crowded", old, json!({})), 3),
            (running("young", "2026-01-01T00:59:00Z", json!({})), 1),
            (
                running(
                    "restarted",
                    old,
                    json!({"/status": {"phase": "Running", "conditions": ready(old)["conditions"],
                        "containerStatuses": [{"name": "c", "restartCount": 4, "image": "", "imageID": "", "ready": true}]}}),
                ),
                1,
            ),
            (running("a", old, json!({})), 1),
            (running("b", old, json!({})), 1),
        ];
        let mut shuffled: Vec<(Pod, usize)> = ordered
            .iter()
            .rev()
            .map(|(value, rank)| (pod(value.clone()), *rank))
            .collect();
        shuffled.sort_by(|left, right| deletion_order((&left.0, left.1), (&right.0, right.1), now));
        let names: Vec<&str> = shuffled
            .iter()
            .map(|(pod, _)| pod.metadata.name.as_deref().unwrap())
            .collect();
        let expected: Vec<&str> = ordered
            .iter()
            .map(|(value, _)| value["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected);
    }
}
