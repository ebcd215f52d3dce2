//! Situations of a StatefulSet's pods, and what is done about them.

use super::*;
use kube::ResourceExt;
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T01:00:00Z";

pub(super) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A set `web` of three, with these members of its spec.
fn set(spec: Value) -> StatefulSet {
    let mut whole = json!({"replicas": 3, "selector": {}, "template": {},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let metadata = json!({"name": "web", "namespace": "a", "uid": "set", "generation": 5});
    serde_json::from_value(json!({"metadata": metadata, "spec": whole})).unwrap()
}

/// Described as `ordinal revision state`, as in `0 new ready`.
fn pod(description: &str) -> Arc<Pod> {
    let words: Vec<&str> = description.split(' ').collect();
    let [ordinal, revision, state] = words.as_slice() else {
        panic!("{description}")
    };
    let name = format!("web-{ordinal}");
    let (phase, ready) = match *state {
        "ready" | "young" | "going" => ("Running", "True"),
        "running" => ("Running", "False"),
        "pending" => ("Pending", "False"),
        "failed" => ("Failed", "False"),
        "succeeded" => ("Succeeded", "False"),
        other => panic!("{other}"),
    };
    let since = if *state == "young" {
        "2026-01-01T00:59:55Z"
    } else {
        "2026-01-01T00:00:00Z"
    };
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{ordinal}"), "labels": {
            "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    });
    if *state == "going" {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn planned(set: &StatefulSet, pods: &[&str], claims: &[PersistentVolumeClaim]) -> Plan {
    let pods: Vec<Arc<Pod>> = pods.iter().map(|description| pod(description)).collect();
    let claim = |name: &str| {
        claims
            .iter()
            .find(|claim| claim.name_any() == name)
            .cloned()
            .map(Arc::new)
    };
    plan(&View {
        set,
        pods: &pods,
        current: "old",
        update: "new",
        collisions: 0,
        claim: &claim,
        now: now(),
    })
}

/// The actions in a line.
fn told(plan: &Plan) -> String {
    let name = |pod: &Arc<Pod>| identity::ordinal(pod).unwrap_or(-1);
    let action = |action: &Action| match action {
        Action::Create {
            ordinal,
            at_current: true,
        } => format!("create {ordinal} old"),
        Action::Create { ordinal, .. } => format!("create {ordinal}"),
        Action::CreateClaims(pod) => format!("claims {}", name(pod)),
        Action::Correct(pod) => format!("correct {}", name(pod)),
        Action::CorrectClaims(pod) => format!("owners {}", name(pod)),
        Action::Delete(pod) => format!("delete {}", name(pod)),
    };
    let actions = plan.phases.iter().flatten().map(action);
    let outdated = plan.outdated.iter().map(|pod| format!("update {}", name(pod)));
    actions.chain(outdated).collect::<Vec<_>>().join(", ")
}

fn check(spec: Value, pods: &[&str], expected: &str) {
    let found = told(&planned(&set(spec.clone()), pods, &[]));
    assert_eq!(found, expected, "{spec} {pods:?}");
}

#[test]
fn ordered_pods_come_and_go_one_by_one() {
    let ordered = || json!({});
    for (pods, expected) in [
        (&[][..], "create 0"),
        (&["0 new pending"], ""),
        (&["0 new running"], ""),
        (&["0 new ready"], "create 1"),
        (&["0 new ready", "2 new ready"], "create 1"),
        (&["0 new going", "1 new ready"], ""),
        (&["0 new failed", "1 new ready"], "delete 0"),
        (&["0 new ready", "1 new succeeded", "2 new ready"], "delete 1"),
        (&["0 new ready", "1 new ready", "2 new ready"], ""),
        // Too many: the last one goes, once the others are well.
        (
            &[
                "0 new ready",
                "1 new ready",
                "2 new ready",
                "3 new ready",
                "4 new ready",
            ],
            "delete 4",
        ),
        (&["0 new ready", "1 new running", "2 new ready", "3 new ready"], ""),
        (
            &[
                "0 new ready",
                "1 new ready",
                "2 new ready",
                "3 new ready",
                "4 new going",
            ],
            "",
        ),
        (
            &[
                "0 new ready",
                "1 new ready",
                "2 new ready",
                "3 new running",
                "4 new ready",
            ],
            "delete 4",
        ),
        (
            &[
                "0 new ready",
                "1 new ready",
                "2 new ready",
                "3 new running",
                "4 new running",
            ],
            "",
        ),
        (
            &[
                "0 new ready",
                "1 new ready",
                "2 new ready",
                "3 new ready",
                "4 new running",
            ],
            "delete 4",
        ),
    ] {
        check(ordered(), pods, expected);
    }
    check(json!({"minReadySeconds": 10}), &["0 new young"], "");
    check(json!({"minReadySeconds": 5}), &["0 new young"], "create 1");
    check(json!({"replicas": 0}), &["0 new running"], "delete 0");
    check(json!({"ordinals": {"start": 2}}), &["2 new ready"], "create 3");
    check(
        json!({"ordinals": {"start": 1}}),
        &["0 new ready", "1 new ready", "2 new ready", "3 new ready"],
        "delete 0",
    );
}

#[test]
fn parallel_pods_wait_for_nobody() {
    let parallel = |replicas: i32| json!({"podManagementPolicy": "Parallel", "replicas": replicas});
    for (replicas, pods, expected) in [
        (3, &[][..], "create 0, create 1, create 2"),
        (3, &["1 new pending"], "create 0, create 2"),
        (1, &["0 new running", "1 new running", "2 new going"], "delete 1"),
        (
            1,
            &["0 new failed", "1 new ready", "2 new ready"],
            "delete 0, delete 2, delete 1",
        ),
    ] {
        check(parallel(replicas), pods, expected);
    }
    let many = told(&planned(&set(parallel(i32::MAX)), &[], &[]));
    assert_eq!(many.matches("create").count(), CREATED_AT_ONCE_MAX);
}

#[test]
fn updates_go_from_the_last_one_down() {
    let all_old = &["0 old ready", "1 old ready", "2 old ready"];
    check(json!({}), all_old, "update 2");
    check(json!({}), &["0 old ready", "1 old ready", "2 new ready"], "update 1");
    check(json!({}), &["0 old ready", "1 old ready", "2 new running"], "");
    check(json!({}), &["0 old ready", "1 old ready", "2 old going"], "");
    let partition = |partition: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    check(partition(2), all_old, "update 2");
    check(partition(2), &["0 old ready", "1 old ready", "2 new ready"], "");
    check(partition(2), &["0 old ready", "2 new ready"], "create 1 old");
    check(partition(1), &["0 old ready", "2 new ready"], "create 1");
    check(partition(5), all_old, "");
    check(json!({"updateStrategy": {"type": "OnDelete"}}), all_old, "");
    check(
        json!({"updateStrategy": {"type": "OnDelete"}}),
        &["0 old ready", "1 old ready"],
        "create 2",
    );
    // Scaling comes first.
    check(json!({"replicas": 2}), all_old, "delete 2");
    let start = json!({"ordinals": {"start": 4}, "replicas": 2,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}});
    check(start.clone(), &["4 old ready", "5 old ready"], "update 5");
    check(start, &["4 old ready", "5 new ready"], "");
}

#[test]
fn several_may_be_unavailable() {
    let at_most = |number: Value, policy: &str| {
        json!({"podManagementPolicy": policy, "replicas": 4,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": number}}})
    };
    let all_old = &["0 old ready", "1 old ready", "2 old ready", "3 old ready"];
    check(at_most(json!(2), "OrderedReady"), all_old, "update 3, update 2");
    check(at_most(json!("50%"), "OrderedReady"), all_old, "update 3, update 2");
    check(at_most(json!("10%"), "OrderedReady"), all_old, "update 3");
    let one_down = &["0 old running", "1 old ready", "2 old ready", "3 old ready"];
    check(at_most(json!(2), "Parallel"), one_down, "update 0, update 3");
    check(at_most(json!(1), "Parallel"), one_down, "update 0");
    check(at_most(json!(2), "OrderedReady"), one_down, "");
    let coming = &["0 old ready", "1 old ready", "2 new pending", "3 old ready"];
    check(at_most(json!(2), "Parallel"), coming, "update 3");
    check(at_most(json!(1), "Parallel"), coming, "");
}

fn with_claims(policy: Value) -> StatefulSet {
    set(json!({"replicas": 1, "persistentVolumeClaimRetentionPolicy": policy,
        "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}))
}

fn claim(owner: Value) -> PersistentVolumeClaim {
    let owners: Vec<Value> = [owner].into_iter().filter(|owner| !owner.is_null()).collect();
    serde_json::from_value(json!({"metadata": {"name": "data-web-0", "ownerReferences": owners}})).unwrap()
}

#[test]
fn claims_come_before_their_pod_and_follow_the_policy() {
    let keep = with_claims(json!({}));
    let owned = |kind: &str, name: &str, uid: &str| {
        let api_version = if kind == "Pod" { "v1" } else { "apps/v1" };
        json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true})
    };
    let by_set = || claim(owned("StatefulSet", "web", "set"));
    let free = || claim(Value::Null);
    assert_eq!(told(&planned(&keep, &[], &[])), "create 0");
    assert_eq!(told(&planned(&keep, &["0 new pending"], &[])), "claims 0");
    assert_eq!(told(&planned(&keep, &["0 new pending"], &[free()])), "");
    // The volume is missing in these pods.
    assert_eq!(told(&planned(&keep, &["0 new ready"], &[free()])), "correct 0");
    let with_set = with_claims(json!({"whenDeleted": "Delete"}));
    assert_eq!(told(&planned(&with_set, &["0 new pending"], &[free()])), "claims 0");
    assert_eq!(told(&planned(&with_set, &["0 new pending"], &[by_set()])), "");
    // An earlier pod took its claim along: the next one waits until it is gone.
    let scaled = with_claims(json!({"whenScaled": "Delete"}));
    let going = claim(owned("Pod", "web-0", "earlier"));
    assert_eq!(told(&planned(&scaled, &[], &[going])), "");
    assert_eq!(told(&planned(&scaled, &[], &[free()])), "create 0");
    let mut none = scaled.clone();
    none.spec.replicas = Some(0);
    assert_eq!(told(&planned(&none, &["0 new ready"], &[free()])), "owners 0, delete 0");
}

#[test]
fn identities_are_corrected_and_a_set_that_goes_is_left_alone() {
    let mut stripped = Pod::clone(&pod("0 new ready"));
    stripped.labels_mut().remove("statefulset.kubernetes.io/pod-name");
    let mut one = set(json!({"replicas": 1}));
    let plan_of = |set: &StatefulSet, pod: &Pod| {
        let pods = [Arc::new(pod.clone())];
        plan(&View {
            set,
            pods: &pods,
            current: "new",
            update: "new",
            collisions: 0,
            claim: &|_| None,
            now: now(),
        })
    };
    assert_eq!(told(&plan_of(&one, &stripped)), "correct 0");
    one.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let plan = plan_of(&one, &stripped);
    assert_eq!((told(&plan).as_str(), plan.status.replicas), ("", 1));
}

#[test]
fn the_status_counts() {
    let set = set(json!({"minReadySeconds": 10}));
    let pods = ["0 old ready", "1 new young", "2 new running", "3 old going"];
    let plan = planned(&set, &pods, &[]);
    assert_eq!(
        serde_json::to_value(&plan.status).unwrap(),
        json!({
            "observedGeneration": 5, "replicas": 4, "readyReplicas": 3, "availableReplicas": 2,
            "currentReplicas": 1, "updatedReplicas": 2, "currentRevision": "old", "updateRevision": "new",
            "collisionCount": 0,
        })
    );
    assert_eq!(plan.again_after, Some(Duration::from_secs(5)));
    let finished = finish(&set, plan.status.clone(), 1);
    assert_eq!(
        (finished.current_replicas, finished.current_revision.as_deref()),
        (Some(0), Some("old"))
    );
    assert!(differs(&set, &finished));

    let all_new = planned(&set, &["0 new ready", "1 new ready", "2 new ready"], &[]);
    let finished = finish(&set, all_new.status, 0);
    assert_eq!(finished.current_revision.as_deref(), Some("new"));
    let mut told = set.clone();
    told.status = Some(finished.clone());
    assert!(!differs(&told, &finished));
    // An update that is only begun is not complete.
    let begun = planned(&set, &["0 new ready", "1 new ready", "2 new running"], &[]);
    assert_eq!(finish(&set, begun.status, 0).current_revision.as_deref(), Some("old"));
}
