//! Situations of Jobs and what is done about them.

use super::back_off::BackOff;
use super::plan::{Done, Observed, decide};
use super::pod::{FINALIZER, INDEX, INDEX_FAILURES, uid};
use super::track::{Account, account};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;

const NOW: &str = "2024-01-01T01:00:00Z";
const EARLIER: &str = "2024-01-01T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}});
    let mut whole = json!({"template": template, "parallelism": 2, "completions": 3, "backoffLimit": 6});
    let (whole_map, more) = (whole.as_object_mut().unwrap(), spec.as_object().unwrap().clone());
    for (key, value) in more {
        if value.is_null() {
            whole_map.remove(&key);
        } else {
            whole_map.insert(key, value);
        }
    }
    let meta = json!({"name": "j", "namespace": "n", "uid": "job"});
    serde_json::from_value(json!({"metadata": meta, "spec": whole, "status": status})).unwrap()
}

/// `p0 Running`, `p1:3 Failed` with index 3, `p2 Running going`, `p3 Succeeded free` without the finalizer, `p4 Running
/// ready`, `p5:1*2 Failed` with two failures of its index before.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap();
    let (name, failures) = name.split_once('*').unwrap_or((name, ""));
    let (name, index) = name.split_once(':').unwrap_or((name, ""));
    let phase = words.next().unwrap();
    let marks: Vec<&str> = words.collect();
    let mut annotations = Map::new();
    for (key, value) in [(INDEX, index), (INDEX_FAILURES, failures)] {
        if !value.is_empty() {
            annotations.insert(key.to_owned(), json!(value));
        }
    }
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "namespace": "n", "annotations": annotations, "creationTimestamp": EARLIER},
        "status": {"phase": phase},
    });
    if !marks.contains(&"free") {
        pod["metadata"]["finalizers"] = json!([FINALIZER]);
    }
    if marks.contains(&"going") {
        pod["metadata"]["deletionTimestamp"] = json!(EARLIER);
    }
    if marks.contains(&"ready") {
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": EARLIER}]);
    }
    if marks.contains(&"disrupted") {
        pod["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    }
    if let Some(code) = marks.iter().find_map(|mark| mark.strip_prefix("exit=")) {
        let at = if marks.contains(&"just") { NOW } else { EARLIER };
        let code: i32 = code.parse().unwrap();
        pod["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]);
    }
    if let Some(restarts) = marks.iter().find_map(|mark| mark.strip_prefix("restarts=")) {
        let restarts: i32 = restarts.parse().unwrap();
        pod["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": restarts}]);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// A sync in which everything goes well, as text: moves, then the status after it.
fn sync(job: &Job, pods: &[&str]) -> (String, Account, Vec<String>) {
    let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
    let decision = decide(Observed {
        job,
        pods: &pods,
        back_off: BackOff::default(),
        now: now(),
    });
    let moves = decision.moves.clone();
    let again = decision.again;
    let mut text = Vec::new();
    let mut deleted: Vec<&str> = moves.delete.iter().map(|pod| uid(pod)).collect();
    deleted.sort_unstable();
    if !deleted.is_empty() {
        let how = if moves.uncounted { "drop" } else { "delete" };
        text.push(format!("{how} {}", deleted.join(" ")));
    }
    if !moves.create.is_empty() {
        let indexes: Vec<String> = moves
            .create
            .iter()
            .map(|new| new.index.map_or("+".to_owned(), |index| index.to_string()))
            .collect();
        text.push(format!("create {}", indexes.join(" ")));
    }
    if let Some(again) = again {
        text.push(format!("again in {}", again.as_secs()));
    }
    let ready = moves
        .delete
        .iter()
        .filter(|pod| crate::controllers::pods::is_ready(pod))
        .count();
    let done = Done {
        created: moves.create.len() as i32,
        deleted: moves.delete.len() as i32,
        deleted_ready: ready as i32,
    };
    let mut account = account(decision, done);
    let untracked: HashSet<String> = account.untrack.iter().map(|pod| uid(pod).to_owned()).collect();
    let first = serde_json::to_value(&account.status).unwrap();
    let mut notices: Vec<String> = account.notices.iter().map(|notice| notice.reason.clone()).collect();
    notices.extend(account.settle(&untracked).into_iter().map(|notice| notice.reason));
    let mut untracked: Vec<String> = untracked.into_iter().collect();
    untracked.sort_unstable();
    if !untracked.is_empty() {
        text.push(format!("free {}", untracked.join(" ")));
    }
    let conditions = |status: &Value| -> Vec<String> {
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let shown = all.iter().map(|condition| {
            let sign = if condition["status"] == "True" { "" } else { "!" };
            format!(
                "{sign}{}/{}",
                condition["type"].as_str().unwrap(),
                condition["reason"].as_str().unwrap_or("")
            )
        });
        shown.collect()
    };
    let last = serde_json::to_value(&account.status).unwrap();
    for (name, value) in [("first", conditions(&first)), ("then", conditions(&last))] {
        if !value.is_empty() && (name == "first" || conditions(&first) != value) {
            text.push(format!("{name} {}", value.join(" ")));
        }
    }
    (text.join("; "), account, notices)
}

#[test]
fn pods_come_and_go() {
    let indexed = json!({"completionMode": "Indexed", "completions": 4});
    let per_index = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimitPerIndex": 1,
        "backoffLimit": 1000});
    let only_failed = json!({"podReplacementPolicy": "Failed"});
    let policy = json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]}});
    let success = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4,
        "successPolicy": {"rules": [{"succeededIndexes": "1,2", "succeededCount": 1}]}});
    let cases: Vec<(&str, Value, Value, Vec<&str>, &str)> = vec![
        ("the first sync", json!({}), json!({}), vec![], "create + +"),
        ("enough run", json!({}), json!({}), vec!["a Running", "b Pending"], ""),
        (
            "no more than are left",
            json!({}),
            json!({"succeeded": 2}),
            vec![],
            "create +",
        ),
        (
            "one ended",
            json!({}),
            json!({}),
            vec!["a Succeeded", "b Running"],
            "create +; free a",
        ),
        (
            "all ended",
            json!({}),
            json!({"succeeded": 2}),
            vec!["a Succeeded"],
            "free a; first SuccessCriteriaMet/CompletionsReached; then SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached",
        ),
        (
            "counted before, free since",
            json!({}),
            json!({"succeeded": 2, "uncountedTerminatedPods": {"succeeded": ["a"]}}),
            vec!["a Succeeded free"],
            "first SuccessCriteriaMet/CompletionsReached; then SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached",
        ),
        (
            "the end waits for those that go",
            json!({}),
            json!({"succeeded": 2}),
            vec!["a Succeeded", "b Running going free"],
            "free a; first SuccessCriteriaMet/CompletionsReached",
        ),
        (
            "parallelism was lowered",
            json!({"parallelism": 1}),
            json!({}),
            vec!["a Running ready", "b Pending"],
            "drop b",
        ),
        (
            "a work queue: one success, others may end",
            json!({"completions": null}),
            json!({"succeeded": 1}),
            vec!["a Running"],
            "",
        ),
        (
            "a work queue is done",
            json!({"completions": null}),
            json!({}),
            vec!["a Succeeded"],
            "free a; first SuccessCriteriaMet/CompletionsReached; then SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached",
        ),
        (
            "a failure waits",
            json!({}),
            json!({}),
            vec!["a Failed exit=1 just", "b Running"],
            "again in 10; free a",
        ),
        (
            "a failure has waited",
            json!({}),
            json!({}),
            vec!["a Failed exit=1", "b Running"],
            "create +; free a",
        ),
        (
            "going is failed",
            json!({}),
            json!({}),
            vec!["a Running going", "b Running"],
            "create +; free a",
        ),
        (
            "going is not failed yet",
            only_failed.clone(),
            json!({}),
            vec!["a Running going", "b Running"],
            "",
        ),
        (
            "gone is failed",
            only_failed,
            json!({}),
            vec!["a Failed going", "b Running"],
            "create +; free a",
        ),
        (
            "too many failures",
            json!({"backoffLimit": 1}),
            json!({"failed": 1}),
            vec!["a Failed exit=1 just", "b Running"],
            "delete b; free a b; first FailureTarget/BackoffLimitExceeded",
        ),
        (
            "nothing is left after too many failures",
            json!({"backoffLimit": 0}),
            json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}]}),
            vec!["a Failed"],
            "free a; first FailureTarget/BackoffLimitExceeded; then FailureTarget/BackoffLimitExceeded Failed/BackoffLimitExceeded",
        ),
        (
            "too many restarts in place",
            json!({"backoffLimit": 3, "template": {"spec": {"restartPolicy": "OnFailure", "containers": []}}}),
            json!({}),
            vec!["a Running restarts=2", "b Running restarts=1"],
            "delete a b; free a b; first FailureTarget/BackoffLimitExceeded",
        ),
        (
            "too long",
            json!({"activeDeadlineSeconds": 3600}),
            json!({"startTime": EARLIER}),
            vec!["a Running"],
            "delete a; free a; first FailureTarget/DeadlineExceeded",
        ),
        (
            "not too long yet",
            json!({"activeDeadlineSeconds": 3700}),
            json!({"startTime": EARLIER}),
            vec!["a Running", "b Running"],
            "again in 100",
        ),
        (
            "suspended",
            json!({"suspend": true}),
            json!({"startTime": EARLIER}),
            vec!["a Running", "b Succeeded"],
            "drop a; free b; first Suspended/JobSuspended",
        ),
        (
            "resumed",
            json!({"suspend": false}),
            json!({"conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended"}]}),
            vec![],
            "create + +; first !Suspended/JobResumed",
        ),
        (
            "indexes that are missing",
            indexed.clone(),
            json!({"completedIndexes": "0"}),
            vec!["a:2 Running"],
            "create 1",
        ),
        (
            "an index twice, one beyond, one without",
            indexed.clone(),
            json!({}),
            vec!["a:0 Running ready", "b:0 Running", "c:9 Running", "d Running"],
            "drop b c d",
        ),
        (
            "all indexes",
            indexed.clone(),
            json!({"completedIndexes": "0-2", "succeeded": 3}),
            vec!["a:3 Succeeded", "b:1 Succeeded"],
            "free a b; first SuccessCriteriaMet/CompletionsReached; then SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached",
        ),
        (
            "an index failed: its pod stays for its successor",
            per_index.clone(),
            json!({}),
            vec!["a:0 Failed exit=1 just", "b:1 Running", "c:2 Running"],
            "again in 10",
        ),
        (
            "its successor comes",
            per_index.clone(),
            json!({}),
            vec!["a:0 Failed exit=1", "b:1 Running", "c:2 Running"],
            "create 0",
        ),
        (
            "its successor is there",
            per_index.clone(),
            json!({}),
            vec!["a:0 Failed exit=1", "d:0*1 Running", "b:1 Running", "c:2 Running"],
            "free a",
        ),
        (
            "an index that failed for good",
            per_index.clone(),
            json!({}),
            vec!["a:0*1 Failed exit=1", "b:1 Running", "c:2 Running"],
            "free a",
        ),
        (
            "all indexes over, some failed",
            per_index.clone(),
            json!({"failedIndexes": "0", "completedIndexes": "1", "succeeded": 1}),
            vec!["c:2 Succeeded"],
            "free c; first FailureTarget/FailedIndexes; then FailureTarget/FailedIndexes Failed/FailedIndexes",
        ),
        (
            "too many failed indexes",
            json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": 1000}),
            json!({"failedIndexes": "0"}),
            vec!["b:1 Failed exit=1", "c:2 Running"],
            "delete c; free b c; first FailureTarget/MaxFailedIndexesExceeded",
        ),
        (
            "an index that a rule fails",
            policy.clone(),
            json!({}),
            vec!["a:0 Failed exit=7", "b:1 Running"],
            "create 2; free a",
        ),
        (
            "a disruption does not count",
            policy.clone(),
            json!({"failed": 6}),
            vec!["a:0 Failed disrupted", "b:1 Running"],
            "create 0",
        ),
        (
            "a rule fails the Job",
            policy,
            json!({}),
            vec!["a:0 Failed exit=42", "b:1 Running"],
            "delete b; free a b; first FailureTarget/PodFailurePolicy",
        ),
        (
            "enough for the success policy",
            success,
            json!({}),
            vec!["a:0 Running", "b:1 Succeeded", "c:2 Running", "d:3 Failed exit=1"],
            "delete a c; free a b c d; first SuccessCriteriaMet/SuccessPolicy",
        ),
    ];
    for (name, spec, status, pods, expected) in cases {
        let (text, _, _) = sync(&job(spec, status), &pods);
        assert_eq!(text, expected, "{name}");
    }
}

#[test]
fn the_status_and_what_people_are_told() {
    let (_, first, _) = sync(&job(json!({}), json!({})), &["a Running ready"]);
    let expected = json!({"active": 2, "ready": 1, "terminating": 0, "startTime": NOW, "uncountedTerminatedPods": {}});
    assert_eq!(serde_json::to_value(&first.status).unwrap(), expected);

    let (_, ended, notices) = sync(
        &job(json!({}), json!({"succeeded": 1, "startTime": EARLIER})),
        &["a Succeeded", "b Succeeded"],
    );
    let mut status = serde_json::to_value(&ended.status).unwrap();
    let conditions = status.as_object_mut().unwrap().remove("conditions").unwrap();
    let expected = json!({"succeeded": 3, "ready": 0, "terminating": 0, "startTime": EARLIER, "completionTime": NOW, "uncountedTerminatedPods": {}});
    assert_eq!(status, expected);
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "CompletionsReached",
            "message": "Reached expected number of succeeded pods", "lastProbeTime": NOW, "lastTransitionTime": NOW})
    };
    assert_eq!(
        conditions,
        json!([condition("SuccessCriteriaMet"), condition("Complete")])
    );
    assert_eq!(notices, ["Completed"]);

    let (_, suspended, notices) = sync(&job(json!({"suspend": true}), json!({"startTime": EARLIER})), &[]);
    assert_eq!(
        (suspended.status.start_time, notices),
        (None, vec!["Suspended".to_owned()])
    );
    let spec = json!({"backoffLimit": 0});
    let status = json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]});
    let (_, failed, notices) = sync(&job(spec, status), &["a Failed"]);
    assert_eq!(
        (failed.status.failed, failed.status.completion_time, notices),
        (Some(1), None, vec!["BackoffLimitExceeded".to_owned()])
    );
}

#[test]
fn an_idle_job_writes_nothing() {
    let status =
        json!({"active": 2, "ready": 0, "terminating": 0, "startTime": EARLIER, "uncountedTerminatedPods": {}});
    let job = job(json!({}), status);
    let (text, account, _) = sync(&job, &["a Running", "b Running", "c Succeeded free"]);
    assert_eq!((text.as_str(), Some(&account.status)), ("", job.status.as_ref()));
}

#[test]
fn what_ended_is_noted_before_its_finalizer_goes() {
    let pods = [pod("a Succeeded"), pod("b Failed exit=1")];
    let job = job(json!({"podReplacementPolicy": "Failed"}), json!({}));
    let decision = decide(Observed {
        job: &job,
        pods: &pods,
        back_off: BackOff::default(),
        now: now(),
    });
    let mut account = account(decision, Done::default());
    let noted = |account: &Account| serde_json::to_value(&account.status.uncounted_terminated_pods).unwrap();
    assert_eq!(noted(&account), json!({"succeeded": ["a"], "failed": ["b"]}));
    assert_eq!((account.status.succeeded, account.status.failed), (None, None));
    // One of the two could not be freed: it stays noted.
    account.settle(&HashSet::from(["a".to_owned()]));
    assert_eq!(noted(&account), json!({"failed": ["b"]}));
    assert_eq!((account.status.succeeded, account.status.failed), (Some(1), None));
}
