//! Pods that were to be evicted or preempted, say so, and stay (upstream: `syncStalePodDisruption`). Pure.

use super::pods;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

const TYPE: &str = "DisruptionTarget";
/// Whoever disrupts a pod deletes it within this time.
const STALE_AFTER: Duration = Duration::from_secs(2 * 60);
/// The node may take long, and means it.
const BY_KUBELET: &str = "TerminationByKubelet";

/// When the pod's condition is to be taken back, if it is.
pub fn reset_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let condition = pods::condition(pod, TYPE)?;
    let is_ours = condition.status == "True" && condition.reason.as_deref() != Some(BY_KUBELET);
    if !is_ours || !pods::is_active(pod) {
        return None;
    }
    let since = condition.last_transition_time.as_ref().map_or(now, |time| time.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(STALE_AFTER.saturating_sub(passed))
}

/// The pod with the condition taken back.
pub fn reset(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    for condition in conditions.iter_mut().filter(|condition| condition.type_ == TYPE) {
        *condition = PodCondition {
            type_: TYPE.to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(Time(now)),
            observed_generation: generation,
            ..PodCondition::default()
        };
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(condition: Value, phase: &str) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "generation": 3},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}, condition]}});
        pod["status"]["conditions"][1]["type"] = json!(TYPE);
        pod["status"]["conditions"][1]["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn situations() {
        let now: Timestamp = "2026-01-01T00:01:30Z".parse().unwrap();
        let evicted = json!({"status": "True", "reason": "EvictionByEvictionAPI"});
        let left = reset_in(&pod(evicted.clone(), "Running"), now);
        assert_eq!(left, Some(Duration::from_secs(30)));
        let later = now
            .checked_add(k8s_openapi::jiff::SignedDuration::from_mins(5))
            .unwrap();
        assert_eq!(reset_in(&pod(evicted.clone(), "Running"), later), Some(Duration::ZERO));
        assert_eq!(reset_in(&pod(evicted.clone(), "Failed"), later), None);
        assert_eq!(reset_in(&pod(json!({"status": "False"}), "Running"), later), None);
        let by_kubelet = json!({"status": "True", "reason": BY_KUBELET});
        assert_eq!(reset_in(&pod(by_kubelet, "Running"), later), None);
        let mut going = pod(evicted.clone(), "Running");
        going.metadata.deletion_timestamp = Some(Time(now));
        assert_eq!(reset_in(&going, later), None);

        let reset = reset(&pod(evicted, "Running"), later);
        assert_eq!(
            serde_json::to_value(reset.status.unwrap().conditions.unwrap()).unwrap(),
            json!([
                {"type": "Ready", "status": "True"},
                {"type": TYPE, "status": "False", "lastTransitionTime": "2026-01-01T00:06:30Z", "observedGeneration": 3},
            ])
        );
    }
}
