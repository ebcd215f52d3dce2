//! Jobs and CronJobs that run pods.

use crate::cluster::Cluster;
use crate::pods::{PODS_PATIENCE, SLEEP, condition, pod};
use crate::resource::{Resource, name};
use crate::runner::{Test, pod_test};
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    vec![
        pod_test("[sig-apps] CronJob should schedule multiple jobs concurrently", allow),
        pod_test(
            "[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent",
            forbid,
        ),
        pod_test("[sig-apps] CronJob should replace jobs when ReplaceConcurrent", replace),
        pod_test(
            "[sig-apps] Job should adopt matching orphans and release non-matching pods",
            adopt,
        ),
        pod_test(
            "[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition",
            disruption_ignored,
        ),
        pod_test("[sig-apps] Job should apply changes to a job status", status),
        pod_test("[sig-apps] Job should delete a job", delete),
        pod_test("[sig-apps] Job should manage the lifecycle of a job", life),
        pod_test(
            "[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted",
            restarted,
        ),
        pod_test(
            "[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname",
            indexed,
        ),
        pod_test(
            "[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early",
            fails_early,
        ),
        pod_test(
            "[sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex",
            all_indexes,
        ),
        pod_test(
            "[sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy",
            fail_index,
        ),
        pod_test(
            "[sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes",
            max_failed_indexes,
        ),
        pod_test(
            "[sig-apps] Job with successPolicy should succeeded when all indexes succeeded",
            all_succeeded,
        ),
        pod_test(
            "[sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending",
            enough_succeeded,
        ),
        pod_test(
            "[sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending",
            chosen_succeeded,
        ),
    ]
}

/// A Job of pods that run a shell script.
fn job(name: &str, script: &str, more: Value) -> Value {
    let mut spec = json!({"backoffLimit": 6, "template": {"spec": pod(name, script)["spec"]}});
    spec["template"]["spec"]["restartPolicy"] = json!("Never");
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

struct Batch {
    namespace: String,
    jobs: Resource,
    pods: Resource,
    cron_jobs: Resource,
    events: Resource,
}

impl Batch {
    async fn of(cluster: &Cluster, base: &str) -> Self {
        let namespace = cluster.namespace(base).await;
        let here = Some(namespace.as_str());
        Self {
            jobs: cluster.resource("batch/v1", "jobs", here),
            pods: cluster.core("pods", here),
            cron_jobs: cluster.resource("batch/v1", "cronjobs", here),
            events: cluster.core("events", here),
            namespace,
        }
    }

    async fn job(&self, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait(what, async || {
            last = self.jobs.get(name).await.unwrap();
            so(&last).then(|| last.clone())
        })
        .await
    }

    /// The Job when it has ended so.
    async fn ends(&self, name: &str, kind: &str) -> Value {
        self.job(name, kind, |job| {
            let other = if kind == "Failed" { "Complete" } else { "Failed" };
            assert_ne!(condition(job, other), "True", "{job:#}");
            condition(job, kind) == "True"
        })
        .await
    }

    async fn pods_of(&self, job: &str) -> Vec<Value> {
        self.pods.labelled(&format!("batch.kubernetes.io/job-name={job}")).await
    }
}

async fn wait<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PODS_PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn reason<'a>(job: &'a Value, kind: &str) -> &'a Value {
    let conditions = job["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    &found.unwrap_or_else(|| panic!("no {kind}: {job:#}"))["reason"]
}

fn cron_job(name: &str, script: &str, policy: &str) -> Value {
    let template = json!({"spec": job(name, script, json!({}))["spec"]});
    let spec = json!({"schedule": "@every 3s", "concurrencyPolicy": policy, "jobTemplate": template});
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn active(batch: &Batch) -> usize {
    let cron_job = batch.cron_jobs.get("cron").await.unwrap();
    cron_job["status"]["active"].as_array().map_or(0, Vec::len)
}

async fn allow(cluster: Cluster) {
    let batch = Batch::of(&cluster, "allow").await;
    batch.cron_jobs.create(&cron_job("cron", SLEEP, "Allow")).await.unwrap();
    wait("two active jobs", async || (active(&batch).await >= 2).then_some(())).await;
    assert!(batch.jobs.labelled("").await.len() >= 2);
}

async fn forbid(cluster: Cluster) {
    let batch = Batch::of(&cluster, "forbid").await;
    batch
        .cron_jobs
        .create(&cron_job("cron", SLEEP, "Forbid"))
        .await
        .unwrap();
    wait("an active job", async || (active(&batch).await == 1).then_some(())).await;
    // The next one would have a name of its own from the next minute on.
    wait("the next one is not started", async || {
        let list = batch.events.list(&ListParams::default()).await.unwrap();
        let told = list["items"].as_array().unwrap().iter().any(|event| {
            event["reason"] == "JobAlreadyActive"
                && event["message"]
                    == "Not starting job because prior execution is running and concurrency policy is Forbid"
        });
        told.then_some(())
    })
    .await;
    assert_eq!((active(&batch).await, batch.jobs.labelled("").await.len()), (1, 1));
}

async fn replace(cluster: Cluster) {
    let batch = Batch::of(&cluster, "replace").await;
    batch
        .cron_jobs
        .create(&cron_job("cron", SLEEP, "Replace"))
        .await
        .unwrap();
    let first = wait("a job", async || batch.jobs.labelled("").await.pop()).await;
    let name = first["metadata"]["name"].clone();
    wait("another job instead", async || {
        let jobs = batch.jobs.labelled("").await;
        (jobs.len() == 1 && jobs[0]["metadata"]["name"] != name).then_some(())
    })
    .await;
}

async fn adopt(cluster: Cluster) {
    let batch = Batch::of(&cluster, "adopt").await;
    let more = json!({"parallelism": 2, "completions": 2});
    batch.jobs.create(&job("adopts", SLEEP, more)).await.unwrap();
    let pods = wait("two pods", async || {
        Some(batch.pods_of("adopts").await).filter(|pods| pods.len() == 2)
    })
    .await;
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    batch
        .pods
        .merge(name, json!({"metadata": {"ownerReferences": null}}))
        .await
        .unwrap();
    let owner = async || {
        let pod = batch.pods.get(name).await.unwrap();
        pod["metadata"]["ownerReferences"][0]["kind"]
            .as_str()
            .map(str::to_owned)
    };
    wait("the pod is adopted", async || {
        owner().await.filter(|kind| kind == "Job")
    })
    .await;
    batch
        .pods
        .merge(name, json!({"metadata": {"labels": null}}))
        .await
        .unwrap();
    wait("the pod is released", async || owner().await.is_none().then_some(())).await;
}

async fn status(cluster: Cluster) {
    let batch = Batch::of(&cluster, "status").await;
    let more = json!({"parallelism": 2, "completions": 4});
    batch.jobs.create(&job("status", SLEEP, more)).await.unwrap();
    batch
        .job("status", "two active", |job| job["status"]["active"] == 2)
        .await;
    let now = |type_: &str| json!({"type": type_, "status": "True", "reason": "E2E", "message": "set by a test"});
    let conditions = json!({"status": {"conditions": [now("Patched")]}});
    batch.jobs.merge_sub("status", "status", conditions).await.unwrap();
    let patched = batch.jobs.get_sub("status", "status").await.unwrap();
    assert_eq!(reason(&patched, "Patched"), "E2E");
    wait("the status is replaced", async || {
        let mut job = batch.jobs.get("status").await.unwrap();
        job["status"]["conditions"] = json!([now("Replaced")]);
        batch.jobs.replace_sub("status", &job).await.ok()
    })
    .await;
    batch
        .job("status", "replaced", |job| condition(job, "Replaced") == "True")
        .await;
}

async fn delete(cluster: Cluster) {
    let batch = Batch::of(&cluster, "delete").await;
    let more = json!({"parallelism": 2, "completions": 4});
    batch.jobs.create(&job("deleted", SLEEP, more)).await.unwrap();
    batch
        .job("deleted", "two active", |job| job["status"]["active"] == 2)
        .await;
    let foreground = DeleteParams::foreground();
    batch.jobs.delete_with("deleted", &foreground).await.unwrap();
    wait("job and pods are gone", async || {
        let gone = batch.jobs.get("deleted").await.is_err() && batch.pods_of("deleted").await.is_empty();
        gone.then_some(())
    })
    .await;
}

async fn life(cluster: Cluster) {
    let batch = Batch::of(&cluster, "life").await;
    let mut job = job(
        "life",
        SLEEP,
        json!({"suspend": true, "parallelism": 2, "completions": 2}),
    );
    job["metadata"]["labels"] = json!({"e2e-job": "life"});
    batch.jobs.create(&job).await.unwrap();
    let suspended = batch
        .job("life", "suspended", |job| condition(job, "Suspended") == "True")
        .await;
    assert_eq!(reason(&suspended, "Suspended"), "JobSuspended");
    assert!(suspended["status"]["startTime"].is_null() && batch.pods_of("life").await.is_empty());
    let patch = json!({"metadata": {"labels": {"patched": "true"}}, "spec": {"parallelism": 1}});
    let patched = batch.jobs.merge("life", patch).await.unwrap();
    assert_eq!(
        (
            &patched["metadata"]["labels"]["patched"],
            &patched["spec"]["parallelism"]
        ),
        (&json!("true"), &json!(1))
    );
    wait("it is resumed", async || {
        let mut job = batch.jobs.get("life").await.unwrap();
        job["spec"]["suspend"] = json!(false);
        job["metadata"]["annotations"] = json!({"updated": "true"});
        batch.jobs.replace(&job).await.ok()
    })
    .await;
    let resumed = batch
        .job("life", "one pod is ready", |job| job["status"]["ready"] == 1)
        .await;
    assert_eq!(resumed["metadata"]["annotations"]["updated"], "true");
    assert_eq!(reason(&resumed, "Suspended"), "JobResumed");
    assert!(resumed["status"]["startTime"].is_string());
    let of = format!("patched=true,e2e-job={}", name(&resumed));
    let everywhere = cluster.resource("batch/v1", "jobs", None).labelled(&of).await;
    let ours = |job: &&Value| job["metadata"]["uid"] == resumed["metadata"]["uid"];
    assert_eq!(everywhere.iter().filter(ours).count(), 1);
    // Without this the pods of a Job stay.
    let background = DeleteParams::background();
    batch.jobs.delete_collection_with(&of, &background).await.unwrap();
    wait("job and pods are gone", async || {
        let gone = batch.jobs.get("life").await.is_err() && batch.pods_of("life").await.is_empty();
        gone.then_some(())
    })
    .await;
}

async fn disruption_ignored(cluster: Cluster) {
    let batch = Batch::of(&cluster, "ignored").await;
    let pods = cluster.pods_in(&batch.namespace);
    // Each pod works until it is told that all is done; when it is ended before, it has failed.
    let script = "trap 'exit 1' TERM; until [ -f /tmp/done ]; do sleep 1 & wait $!; done";
    let rules = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]);
    let more = json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}});
    batch.jobs.create(&indexes("ignored", script, 2, more)).await.unwrap();
    let both_ready = async || {
        batch
            .job("ignored", "two ready", |job| job["status"]["ready"] == 2)
            .await
    };
    both_ready().await;
    for pod in batch.pods_of("ignored").await {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name(&pod), "namespace": batch.namespace}});
        batch.pods.create_sub(name(&pod), "eviction", &eviction).await.unwrap();
        pods.gone(name(&pod)).await;
    }
    let job = both_ready().await;
    assert_eq!(job["status"]["failed"], Value::Null, "{:#}", job["status"]);
    for pod in batch.pods_of("ignored").await {
        pods.shell(name(&pod), "main", "touch /tmp/done").await;
    }
    let done = batch.ends("ignored", "Complete").await;
    let status = &done["status"];
    assert_eq!(
        (&status["completedIndexes"], &status["succeeded"], &status["failed"]),
        (&json!("0,1"), &json!(2), &Value::Null)
    );
}

async fn restarted(cluster: Cluster) {
    let batch = Batch::of(&cluster, "restarted").await;
    // Each pod fails once, which a file in its volume remembers.
    let script = "if [ -f /data/ran ]; then exit 0; fi; touch /data/ran; exit 1";
    let mut job = job("restarted", script, json!({"parallelism": 2, "completions": 4}));
    let spec = &mut job["spec"]["template"]["spec"];
    spec["restartPolicy"] = json!("OnFailure");
    spec["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    batch.jobs.create(&job).await.unwrap();
    let done = batch.ends("restarted", "Complete").await;
    assert_eq!(
        (&done["status"]["succeeded"], &done["status"]["failed"]),
        (&json!(4), &Value::Null)
    );
}

fn indexes(name: &str, script: &str, completions: i64, more: Value) -> Value {
    let mut job = job(name, script, more);
    job["spec"]["completionMode"] = json!("Indexed");
    job["spec"]["completions"] = json!(completions);
    job["spec"]["parallelism"] = json!(completions);
    job
}

async fn indexed(cluster: Cluster) {
    let batch = Batch::of(&cluster, "indexed").await;
    let script = "test \"$(hostname)\" = \"indexed-$JOB_COMPLETION_INDEX\"";
    batch
        .jobs
        .create(&indexes("indexed", script, 3, json!({})))
        .await
        .unwrap();
    let done = batch.ends("indexed", "Complete").await;
    assert_eq!(done["status"]["completedIndexes"], "0-2");
    let mut found: Vec<String> = batch
        .pods_of("indexed")
        .await
        .iter()
        .filter(|pod| pod["status"]["phase"] == "Succeeded")
        .map(|pod| pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].to_string())
        .collect();
    found.sort();
    assert_eq!(found, ["\"0\"", "\"1\"", "\"2\""]);
}

async fn fails_early(cluster: Cluster) {
    let batch = Batch::of(&cluster, "early").await;
    let rules = json!([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]);
    let more = json!({"parallelism": 2, "completions": 4, "podFailurePolicy": {"rules": rules}});
    batch.jobs.create(&job("early", "exit 1", more)).await.unwrap();
    let failed = batch.ends("early", "Failed").await;
    assert_eq!(reason(&failed, "FailureTarget"), "PodFailurePolicy");
    assert_eq!(reason(&failed, "Failed"), "PodFailurePolicy");
}

const EVEN_FAIL: &str = "exit $((1 - JOB_COMPLETION_INDEX % 2))";

async fn all_indexes(cluster: Cluster) {
    let batch = Batch::of(&cluster, "indexes").await;
    let more = json!({"backoffLimitPerIndex": 1, "backoffLimit": null});
    batch
        .jobs
        .create(&indexes("indexes", EVEN_FAIL, 4, more))
        .await
        .unwrap();
    let failed = batch.ends("indexes", "Failed").await;
    let status = &failed["status"];
    assert_eq!(reason(&failed, "Failed"), "FailedIndexes");
    assert_eq!(
        (&status["failedIndexes"], &status["completedIndexes"]),
        (&json!("0,2"), &json!("1,3"))
    );
    assert_eq!((&status["failed"], &status["succeeded"]), (&json!(4), &json!(2)));
}

async fn fail_index(cluster: Cluster) {
    let batch = Batch::of(&cluster, "failindex").await;
    let rules = json!([{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]);
    let more = json!({"backoffLimitPerIndex": 1, "backoffLimit": null, "podFailurePolicy": {"rules": rules}});
    batch
        .jobs
        .create(&indexes("failindex", EVEN_FAIL, 2, more))
        .await
        .unwrap();
    let failed = batch.ends("failindex", "Failed").await;
    let status = &failed["status"];
    assert_eq!(
        (&status["failedIndexes"], &status["completedIndexes"]),
        (&json!("0"), &json!("1"))
    );
    assert_eq!((&status["failed"], &status["succeeded"]), (&json!(1), &json!(1)));
}

async fn max_failed_indexes(cluster: Cluster) {
    let batch = Batch::of(&cluster, "maxfailed").await;
    let more = json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": null});
    let script = format!("if [ $JOB_COMPLETION_INDEX -lt 2 ]; then exit 1; fi; {SLEEP}");
    batch
        .jobs
        .create(&indexes("maxfailed", &script, 4, more))
        .await
        .unwrap();
    let failed = batch.ends("maxfailed", "Failed").await;
    assert_eq!(reason(&failed, "FailureTarget"), "MaxFailedIndexesExceeded");
    assert_eq!(failed["status"]["failedIndexes"], "0,1");
}

async fn all_succeeded(cluster: Cluster) {
    let batch = Batch::of(&cluster, "succeeded").await;
    let more = json!({"successPolicy": {"rules": [{"succeededIndexes": "0-1"}]}});
    batch
        .jobs
        .create(&indexes("succeeded", "exit 0", 2, more))
        .await
        .unwrap();
    let done = batch.ends("succeeded", "Complete").await;
    assert_eq!(done["status"]["completedIndexes"], "0,1");
    // The last success may be seen together with the first, or end the Job without it.
    assert_eq!(reason(&done, "SuccessCriteriaMet"), reason(&done, "Complete"));
}

async fn enough_succeeded(cluster: Cluster) {
    let batch = Batch::of(&cluster, "enough").await;
    let more = json!({"successPolicy": {"rules": [{"succeededCount": 1}]}});
    succeeds_at_index_0(&batch, "enough", more).await;
}

async fn chosen_succeeded(cluster: Cluster) {
    let batch = Batch::of(&cluster, "chosen").await;
    let more = json!({"successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    succeeds_at_index_0(&batch, "chosen", more).await;
}

/// The Job ends with the success of its first index, while the others would run for ever.
async fn succeeds_at_index_0(batch: &Batch, name: &str, more: Value) {
    let script = format!("if [ $JOB_COMPLETION_INDEX = 0 ]; then exit 0; fi; {SLEEP}");
    batch.jobs.create(&indexes(name, &script, 3, more)).await.unwrap();
    let done = batch.ends(name, "Complete").await;
    assert_eq!(reason(&done, "SuccessCriteriaMet"), "SuccessPolicy");
    let status = &done["status"];
    assert_eq!(
        (&status["completedIndexes"], &status["active"]),
        (&json!("0"), &Value::Null)
    );
}
