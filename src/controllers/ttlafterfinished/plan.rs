//! How long an ended Job is still kept. Pure.

use crate::controllers::job::conditions;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

/// What is left of the time of an ended Job, not above zero if it is over; None if it is not to be deleted.
pub fn time_left(job: &Job, now: Timestamp) -> Option<SignedDuration> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let ended = conditions::finished(job)?.last_transition_time.as_ref()?.0;
    Some(SignedDuration::from_secs(ttl.into()) - now.duration_since(ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn situations() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        let ended = json!([{"type": "Failed", "status": "True", "lastTransitionTime": "2024-01-01T00:00:30Z"}]);
        let running = json!([{"type": "Failed", "status": "False", "lastTransitionTime": "2024-01-01T00:00:30Z"}]);
        for (ttl, conditions, deleted, left) in [
            (json!(40), &ended, json!(null), Some(10)),
            (json!(30), &ended, json!(null), Some(0)),
            (json!(0), &ended, json!(null), Some(-30)),
            (json!(null), &ended, json!(null), None),
            (json!(0), &running, json!(null), None),
            (json!(0), &ended, json!("2024-01-01T00:00:30Z"), None),
        ] {
            let job: Job = serde_json::from_value(json!({"metadata": {"deletionTimestamp": deleted},
                "spec": {"template": {}, "ttlSecondsAfterFinished": ttl}, "status": {"conditions": conditions}}))
            .unwrap();
            assert_eq!(time_left(&job, now).map(|left| left.as_secs()), left, "{ttl} {deleted}");
        }
    }
}
