//! How many pods to make or which to delete, and what to say of those that are there. Pure (upstream:
//! `pkg/controller/replicaset/replica_set.go`, `replica_set_utils.go`).

use super::kinds::Replicated;
use crate::controllers::pods;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// No more pods are made or deleted at a time.
const BURST: usize = 500;
const REPLICA_FAILURE: &str = "ReplicaFailure";

#[derive(Debug)]
pub enum Step {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// What `owner` does about its `active` pods. `related` gives the pods of all owners that have the same controller.
pub fn step<K: Replicated>(
    owner: &K,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Step {
    if owner.meta().deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    let wanted = usize::try_from(owner.replicas()).unwrap_or(0);
    if active.len() < wanted {
        return Step::Create((wanted - active.len()).min(BURST));
    }
    if active.len() == wanted {
        return Step::Nothing;
    }
    let related = related();
    let mut shared: HashMap<Option<&str>, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *shared.entry(pods::node_name(pod)).or_default() += 1;
    }
    let rank = |pod: &Pod| shared.get(&pods::node_name(pod)).copied().unwrap_or(0);
    let mut ordered: Vec<&Arc<Pod>> = active.iter().collect();
    ordered.sort_by(|one, other| pods::deletion_order((one, rank(one)), (other, rank(other)), now));
    let excess = (active.len() - wanted).min(BURST);
    Step::Delete(ordered.into_iter().take(excess).cloned().collect())
}

/// What a look at the pods has found.
pub struct Seen<'a> {
    pub active: &'a [Arc<Pod>],
    /// Pods that have not ended yet, but will.
    pub terminating: usize,
    /// Why pods could not be made or deleted.
    pub failure: Option<&'a str>,
}

/// The status of `owner`, and when the next pod will have been ready for long enough.
pub fn status<K: Replicated>(owner: &K, seen: &Seen<'_>, now: Timestamp) -> (ReplicaSetStatus, Option<Duration>) {
    let labels = owner
        .template()
        .and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let has_labels = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        let mut wanted = labels.into_iter().flatten();
        wanted.all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
    };
    let (mut labeled, mut ready, mut available) = (0, 0, 0);
    let mut next: Option<Duration> = None;
    for pod in seen.active {
        labeled += i32::from(has_labels(pod));
        ready += i32::from(pods::is_ready(pod));
        match pods::available_in(pod, owner.min_ready_seconds(), now) {
            None => {}
            Some(left) if left.is_zero() => available += 1,
            Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
        }
    }
    let before = owner.status();
    let status = ReplicaSetStatus {
        replicas: i32::try_from(seen.active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: some(labeled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        terminating_replicas: K::COUNTS_TERMINATING.then(|| i32::try_from(seen.terminating).unwrap_or(i32::MAX)),
        observed_generation: owner.meta().generation,
        conditions: conditions(owner, before.conditions, seen, now),
    };
    (status, next)
}

/// Zero is not written.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn conditions<K: Replicated>(
    owner: &K,
    before: Option<Vec<ReplicaSetCondition>>,
    seen: &Seen<'_>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = before.unwrap_or_default();
    let is_failure = |condition: &ReplicaSetCondition| condition.type_.as_deref() == Some(REPLICA_FAILURE);
    match seen.failure {
        None => conditions.retain(|condition| !is_failure(condition)),
        // The first failure stands as long as there are any.
        Some(_) if conditions.iter().any(is_failure) => {}
        Some(message) => {
            let wanted = usize::try_from(owner.replicas()).unwrap_or(0);
            let reason = if seen.active.len() < wanted {
                "FailedCreate"
            } else {
                "FailedDelete"
            };
            conditions.push(ReplicaSetCondition {
                type_: Some(REPLICA_FAILURE.to_owned()),
                status: Some("True".to_owned()),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now)),
            });
        }
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// Whether both say the same: a count that is absent is zero.
pub fn same(one: &ReplicaSetStatus, other: &ReplicaSetStatus) -> bool {
    let counts = |status: &ReplicaSetStatus| {
        let counts = [
            status.fully_labeled_replicas,
            status.ready_replicas,
            status.available_replicas,
        ];
        (status.replicas, counts.map(|count| count.unwrap_or(0)))
    };
    counts(one) == counts(other)
        && one.terminating_replicas == other.terminating_replicas
        && one.observed_generation.unwrap_or(0) == other.observed_generation.unwrap_or(0)
        && one.conditions.iter().flatten().eq(other.conditions.iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::ReplicationController;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn set(replicas: i32, min_ready_seconds: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "set", "generation": 3},
            "spec": {
                "replicas": replicas, "minReadySeconds": min_ready_seconds,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b", "c": "d"}}},
            },
            "status": {"replicas": 0},
        }))
        .unwrap()
    }

    /// A pod on a node, ready for so many seconds.
    fn pod(name: &str, node: &str, ready: Option<i64>, labels: Value) -> Arc<Pod> {
        let mut status = json!({"phase": "Running"});
        if let Some(seconds) = ready {
            let since = now() - jiff::SignedDuration::from_secs(seconds);
            status["conditions"] =
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": since.to_string()}]);
        }
        let metadata = json!({"name": name, "labels": labels});
        let spec = json!({"nodeName": node, "containers": []});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap())
    }

    fn plain(name: &str) -> Arc<Pod> {
        pod(name, "one", Some(100), json!({"a": "b", "c": "d"}))
    }

    #[test]
    fn how_many_pods_are_made_or_deleted() {
        let pods: Vec<Arc<Pod>> = ["x", "y", "z"].map(plain).to_vec();
        let mut going = set(5, 0);
        going.metadata.deletion_timestamp = Some(Time(now()));
        for (name, owner, active, expected) in [
            ("too few", set(5, 0), 3, "Create(2)"),
            ("far too few", set(2000, 0), 3, "Create(500)"),
            ("enough", set(3, 0), 3, "Nothing"),
            ("none wanted, none there", set(0, 0), 0, "Nothing"),
            ("one that goes makes none", going, 0, "Nothing"),
        ] {
            let step = step(&owner, &pods[..active], Vec::new, now());
            assert_eq!(format!("{step:?}"), expected, "{name}");
        }
        let many: Vec<Arc<Pod>> = (0..700).map(|index| plain(&index.to_string())).collect();
        assert!(matches!(step(&set(1, 0), &many, Vec::new, now()), Step::Delete(pods) if pods.len() == 500));
    }

    #[test]
    fn pods_that_share_a_node_with_kin_go_first() {
        let labels = json!({"a": "b"});
        let mine = [
            pod("alone", "one", Some(100), labels.clone()),
            pod("crowded", "two", Some(100), labels.clone()),
        ];
        let kin = [mine.to_vec(), vec![pod("kin", "two", Some(100), labels)]].concat();
        let Step::Delete(gone) = step(&set(1, 0), &mine, || kin, now()) else {
            panic!("nothing is deleted")
        };
        assert_eq!(gone[0].metadata.name.as_deref(), Some("crowded"));
    }

    #[test]
    fn what_is_counted() {
        let (all, some_labels) = (json!({"a": "b", "c": "d", "e": "f"}), json!({"a": "b"}));
        let active = [
            pod("ready", "", Some(100), all.clone()),
            pod("just ready", "", Some(20), all.clone()),
            pod("later ready", "", Some(10), some_labels),
            pod("not ready", "", None, all),
        ];
        let seen = Seen {
            active: &active,
            terminating: 2,
            failure: None,
        };
        let (found, next) = status(&set(4, 30), &seen, now());
        assert_eq!(found.replicas, 4);
        assert_eq!(found.fully_labeled_replicas, Some(3));
        assert_eq!(found.ready_replicas, Some(3));
        assert_eq!(found.available_replicas, Some(1));
        assert_eq!(found.terminating_replicas, Some(2));
        assert_eq!(found.observed_generation, Some(3));
        assert_eq!(next, Some(Duration::from_secs(10)), "the next one is available then");
        let (found, next) = status(&set(4, 0), &seen, now());
        assert_eq!((found.available_replicas, next), (Some(3), None));

        let mut controller: ReplicationController =
            serde_json::from_value(serde_json::to_value(set(4, 0)).unwrap()).unwrap_or_default();
        controller.metadata.generation = Some(3);
        let (found, _) = status(&controller, &seen, now());
        assert_eq!(found.terminating_replicas, None, "a field that the kind does not have");
        controller.set_status(found.clone());
        assert!(same(&controller.status(), &found));
    }

    #[test]
    fn a_failure_is_told_once_and_until_it_is_over() {
        let mut owner = set(2, 0);
        let look = |owner: &ReplicaSet, active: &[Arc<Pod>], failure| {
            let terminating = 0;
            let seen = Seen {
                active,
                terminating,
                failure,
            };
            status(owner, &seen, now()).0
        };
        let told = |status: &ReplicaSetStatus| {
            let conditions = status.conditions.iter().flatten();
            let texts = conditions.map(|c| {
                (
                    c.reason.clone().unwrap_or_default(),
                    c.message.clone().unwrap_or_default(),
                )
            });
            texts.collect::<Vec<_>>()
        };
        let failed = look(&owner, &[], Some("quota"));
        assert_eq!(told(&failed), [("FailedCreate".to_owned(), "quota".to_owned())]);
        owner.set_status(failed.clone());
        assert!(same(&look(&owner, &[], Some("something else")), &failed));
        assert!(told(&look(&owner, &[], None)).is_empty());
        let pods: Vec<Arc<Pod>> = ["x", "y", "z"].map(plain).to_vec();
        let failed = look(&set(2, 0), &pods, Some("no"));
        assert_eq!(told(&failed)[0].0, "FailedDelete");
    }
}
