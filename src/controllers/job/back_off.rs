//! How long a Job waits before it replaces failed pods (upstream: `pkg/controller/job/backoff_utils.go`).

use super::pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const LONGEST: SignedDuration = SignedDuration::from_mins(10);

/// What is remembered of a Job's failures since its last success. It is not stored anywhere: after a restart the first
/// replacement may come early.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BackOff {
    pub failures: i32,
    pub last_failure: Option<Timestamp>,
}

impl BackOff {
    /// With what ended since.
    #[must_use]
    pub fn after(self, succeeded: &[&Pod], failed: &[&Pod]) -> Self {
        let last_failure = failed.iter().map(|pod| finished_at(pod)).max();
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let Some(last_success) = succeeded.iter().map(|pod| finished_at(pod)).max() else {
            return Self {
                failures: self.failures.saturating_add(count(failed.len())),
                last_failure: last_failure.or(self.last_failure),
            };
        };
        let since = failed.iter().filter(|pod| finished_at(pod) > last_success).count();
        Self {
            failures: count(since),
            last_failure: last_failure.filter(|at| *at > last_success),
        }
    }

    /// What is left to wait.
    pub fn left(self, now: Timestamp) -> SignedDuration {
        left(self.failures, self.last_failure, now)
    }
}

/// What is left to wait for the pod that replaces `failed`.
pub fn left_for(failed: &Pod, now: Timestamp) -> SignedDuration {
    left(
        pod::failures_of_index(failed).total() + 1,
        Some(finished_at(failed)),
        now,
    )
}

fn left(failures: i32, last: Option<Timestamp>, now: Timestamp) -> SignedDuration {
    let Some(last) = last.filter(|_| failures > 0) else {
        return SignedDuration::ZERO;
    };
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(16);
    let delay = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    (delay - now.duration_since(last)).max(SignedDuration::ZERO)
}

/// When a pod ended: its last container, else when it stopped being ready, else when it was asked to go.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let meta = &pod.metadata;
    let deleted = meta.deletion_timestamp.as_ref().map(|at| {
        let grace = SignedDuration::from_secs(meta.deletion_grace_period_seconds.unwrap_or(0));
        at.0.checked_sub(grace).unwrap_or(at.0)
    });
    let created = || meta.creation_timestamp.as_ref().map(|at| at.0);
    containers_finished_at(pod)
        .or_else(|| stopped_being_ready_at(pod))
        .or(deleted)
        .or_else(created)
        .unwrap_or_default()
}

fn containers_finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let sidecars = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> = sidecars
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let init = status.init_container_statuses.iter().flatten();
    let sidecars = init.filter(|container| sidecars.contains(&container.name.as_str()));
    let all = status.container_statuses.iter().flatten().chain(sidecars);
    let ended = all.map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    let ended: Option<Vec<Timestamp>> = ended.collect();
    ended?.into_iter().max()
}

fn stopped_being_ready_at(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let since = ready.last_transition_time.as_ref()?;
    (ready.status == "False").then_some(since.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(at: i64) -> Pod {
        let at = Timestamp::from_second(at).unwrap().to_string();
        serde_json::from_value(json!({"metadata": {}, "status": {"containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]}}))
        .unwrap()
    }

    #[test]
    fn failures_since_the_last_success_double_the_delay() {
        // Failures before, what succeeded and what failed when, and what is left at 1000.
        let cases: [(i32, &[i64], &[i64], i64); 9] = [
            (0, &[], &[], 0),
            (0, &[], &[995], 5),
            (0, &[], &[990, 998], 18),
            (1, &[], &[1000], 20),
            (3, &[], &[1000], 80),
            (20, &[], &[1000], 600),
            (3, &[999], &[], 0),
            (3, &[992], &[991, 1000], 10),
            (3, &[999], &[991, 998], 0),
        ];
        let now = Timestamp::from_second(1000).unwrap();
        for (failures, succeeded, failed, expected) in cases {
            let pods = |times: &[i64]| times.iter().map(|at| ended(*at)).collect::<Vec<_>>();
            let (succeeded, failed) = (pods(succeeded), pods(failed));
            let before = BackOff {
                failures,
                last_failure: None,
            };
            let after = before.after(
                &succeeded.iter().collect::<Vec<_>>(),
                &failed.iter().collect::<Vec<_>>(),
            );
            assert_eq!(after.left(now).as_secs(), expected, "{failures} {after:?}");
        }
    }

    #[test]
    fn the_end_of_a_pod() {
        let cases = [
            (
                json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}),
                "2024-01-01T00:00:00Z",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2024-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}}),
                "2024-01-01T00:00:30Z",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2024-01-01T00:01:00Z"},
                    "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2024-01-01T00:00:50Z"}]}}),
                "2024-01-01T00:00:50Z",
            ),
        ];
        for (pod, expected) in cases {
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(finished_at(&pod).to_string(), expected);
        }
    }
}
