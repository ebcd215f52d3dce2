//! Situations of a DaemonSet's pods, and what is done about them.

use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T01:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "a", "uid": "u", "generation": 3},
        "spec": {"selector": {}, "template": {"spec": {"containers": []}}, "updateStrategy": strategy},
    }))
    .unwrap()
}

fn rolling(max_unavailable: Value, max_surge: Value) -> DaemonSet {
    let numbers = json!({"maxUnavailable": max_unavailable, "maxSurge": max_surge});
    set(json!({"type": "RollingUpdate", "rollingUpdate": numbers}))
}

/// `name` or `name taint effect`.
fn node(description: &str) -> Arc<Node> {
    let words: Vec<&str> = description.split(' ').collect();
    let taints = match words.as_slice() {
        [_, key, effect] => json!([{"key": key, "effect": effect}]),
        _ => json!([]),
    };
    let node = json!({"metadata": {"name": words[0]}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(node).unwrap())
}

/// Described as `node hash state`, as in `n1 new ready`; a fourth word is the name.
fn pod(description: &str) -> Arc<Pod> {
    let words: Vec<&str> = description.split(' ').collect();
    let (node, hash, state) = (words[0], words[1], words[2]);
    let name = words
        .get(3)
        .map_or_else(|| format!("{node}-{hash}"), |name| (*name).to_owned());
    let (phase, ready) = match state {
        "ready" | "young" | "going" => ("Running", "True"),
        "running" => ("Running", "False"),
        "pending" | "waiting" => ("Pending", "False"),
        "failed" | "failed-going" => ("Failed", "False"),
        "succeeded" => ("Succeeded", "False"),
        other => panic!("{other}"),
    };
    let since = if state == "young" {
        "2026-01-01T00:59:55Z"
    } else {
        "2026-01-01T00:00:00Z"
    };
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"controller-revision-hash": hash}},
        "spec": {"containers": [], "nodeName": node},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    });
    if state.ends_with("going") {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    if state == "waiting" {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
        let terms = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
        pod["spec"] = json!({"containers": [], "affinity": affinity});
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn planned(set: &DaemonSet, nodes: &[&str], pods: &[&str], backoff: &mut Backoff) -> (Plan, DaemonSetStatus) {
    let nodes: Vec<Arc<Node>> = nodes.iter().map(|description| node(description)).collect();
    let pods: Vec<Arc<Pod>> = pods.iter().map(|description| pod(description)).collect();
    let view = View {
        set,
        nodes: &nodes,
        pods: &pods,
        hash: "new",
        now: now(),
    };
    (plan(&view, backoff).unwrap(), status(&view))
}

fn told(plan: &Plan) -> String {
    let created = plan.create_on.iter().map(|node| format!("create on {node}"));
    let deleted = plan.delete.iter().map(|pod| format!("delete {}", pod.name_any()));
    created.chain(deleted).collect::<Vec<_>>().join(", ")
}

fn check(set: &DaemonSet, nodes: &[&str], pods: &[&str], expected: &str) {
    let (plan, _) = planned(set, nodes, pods, &mut Backoff::default());
    assert_eq!(told(&plan), expected, "{nodes:?} {pods:?}");
}

#[test]
fn every_fit_node_has_one() {
    let set = rolling(json!(1), json!(0));
    for (nodes, pods, expected) in [
        (&["n1", "n2"][..], &[][..], "create on n1, create on n2"),
        (&["n1", "n2"], &["n1 new pending"], "create on n2"),
        (&["n1"], &["n1 new waiting"], ""),
        (&["n1 own NoSchedule"], &[], ""),
        (&["n1 own NoSchedule"], &["n1 new ready"], ""),
        (&["n1 own NoExecute"], &["n1 new ready"], "delete n1-new"),
        (&["n1 own NoExecute"], &["n1 new going"], ""),
        (&["n1 node.kubernetes.io/unschedulable NoSchedule"], &[], "create on n1"),
        // One that goes holds the place, unless it is over.
        (&["n1"], &["n1 new going"], ""),
        (&["n1"], &["n1 new failed-going"], "create on n1"),
        (&["n1"], &["n1 new ready a", "n1 new ready b"], "delete b"),
        (&["n1"], &["n1 new waiting a", "n1 new ready b"], "delete a"),
        (&["n1"], &["n1 new succeeded"], "delete n1-new"),
        // Nobody else removes what waits for a node that is gone.
        (&[], &["n1 new waiting", "n2 new ready"], "delete n1-new"),
    ] {
        check(&set, nodes, pods, expected);
    }
}

#[test]
fn failed_pods_are_replaced_with_pauses() {
    let set = rolling(json!(1), json!(0));
    let mut backoff = Backoff::default();
    let (plan, _) = planned(&set, &["n1"], &["n1 new failed"], &mut backoff);
    assert_eq!(told(&plan), "delete n1-new");
    assert_eq!(
        plan.notices,
        [Notice {
            level: Level::Warning,
            reason: "FailedDaemonPod",
            message: "Found failed daemon pod a/n1-new on node n1, will try to kill it".to_owned(),
        }]
    );
    let (plan, _) = planned(&set, &["n1"], &["n1 new failed"], &mut backoff);
    assert_eq!(
        (told(&plan).as_str(), plan.again_after),
        ("", Some(Duration::from_secs(1)))
    );
    let (plan, _) = planned(&set, &["n1"], &["n1 new succeeded"], &mut backoff);
    assert_eq!(plan.notices[0].reason, "SucceededDaemonPod");
}

#[test]
fn updates_delete_no_more_than_may_be_unavailable() {
    let nodes = &["n1", "n2", "n3"];
    let all_old = &["n1 old ready", "n2 old ready", "n3 old ready"];
    check(&rolling(json!(1), json!(0)), nodes, all_old, "delete n1-old");
    check(
        &rolling(json!("50%"), json!(0)),
        nodes,
        all_old,
        "delete n1-old, delete n2-old",
    );
    check(&rolling(json!(0), json!(0)), nodes, all_old, "delete n1-old");
    check(&set(json!({"type": "OnDelete"})), nodes, all_old, "");
    let one = rolling(json!(1), json!(0));
    check(&one, nodes, &["n1 new running", "n2 old ready", "n3 old ready"], "");
    check(
        &one,
        nodes,
        &["n1 new ready", "n2 old ready", "n3 old ready"],
        "delete n2-old",
    );
    check(&one, nodes, &["n1 old going", "n2 old ready", "n3 old ready"], "");
    // One that is down already goes first.
    check(
        &one,
        nodes,
        &["n1 old ready", "n2 old ready", "n3 old running"],
        "delete n3-old",
    );
    check(
        &rolling(json!(2), json!(0)),
        nodes,
        &["n1 old ready", "n2 old ready", "n3 old running"],
        "delete n3-old, delete n1-old",
    );
    // First every node has its pod.
    check(&one, nodes, &["n1 old ready", "n2 old ready"], "create on n3");
    let mut slow = one;
    slow.spec.min_ready_seconds = Some(10);
    check(&slow, nodes, &["n1 new young", "n2 old ready", "n3 old ready"], "");
}

#[test]
fn updates_with_surge_create_first() {
    let nodes = &["n1", "n2"];
    let surge = || rolling(json!(0), json!(1));
    check(&surge(), nodes, &["n1 old ready", "n2 old ready"], "create on n1");
    check(&surge(), nodes, &["n1 old ready", "n1 new running", "n2 old ready"], "");
    check(
        &surge(),
        nodes,
        &["n1 old ready", "n1 new ready", "n2 old ready"],
        "delete n1-old",
    );
    check(&surge(), nodes, &["n1 new ready", "n2 old ready"], "create on n2");
    // One that is down is replaced beside it at once.
    check(
        &surge(),
        nodes,
        &["n1 old running", "n2 old ready"],
        "create on n1, create on n2",
    );
    check(
        &surge(),
        nodes,
        &["n1 old running", "n1 new running", "n2 old ready"],
        "delete n1-old",
    );
    check(&surge(), nodes, &["n1 new going", "n2 new ready"], "create on n1");
    check(
        &surge(),
        nodes,
        &["n1 new ready a", "n1 new ready b", "n2 new ready"],
        "delete b",
    );
    // Where a pod no longer belongs it stays until there are enough elsewhere.
    let sunset = &["n1 own NoSchedule", "n2"];
    check(&surge(), sunset, &["n1 old ready", "n2 new running"], "");
    check(&surge(), sunset, &["n1 old ready", "n2 new ready"], "delete n1-old");
    check(&surge(), sunset, &["n1 old running", "n2 new running"], "delete n1-old");
}

#[test]
fn no_more_than_a_burst() {
    let nodes: Vec<String> = (0..300).map(|number| format!("n{number}")).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let (plan, _) = planned(&rolling(json!(1), json!(0)), &nodes, &[], &mut Backoff::default());
    assert_eq!(plan.create_on.len(), BURST);
}

#[test]
fn the_status_counts() {
    let mut set = rolling(json!(1), json!(0));
    set.spec.min_ready_seconds = Some(10);
    let nodes = ["n1", "n2", "n3", "n4 own NoSchedule", "n5"];
    let pods = ["n1 new ready", "n2 old ready", "n3 new young", "n4 new ready"];
    let (plan, status) = planned(&set, &nodes, &pods, &mut Backoff::default());
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        json!({
            "desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberMisscheduled": 1, "numberReady": 3,
            "numberAvailable": 2, "numberUnavailable": 2, "updatedNumberScheduled": 2, "observedGeneration": 3,
        })
    );
    assert_eq!(plan.again_after, Some(Duration::from_secs(5)));
    assert!(differs(&set, &status));
    set.status = Some(status.clone());
    assert!(!differs(&set, &status));
    set.metadata.generation = Some(4);
    assert!(differs(&set, &status));
}
