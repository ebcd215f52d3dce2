//! Jobs, CronJobs, and Jobs that clean up after themselves.

use super::*;
use crate::hollow;

const JOBS: Kind = ("batch/v1", "jobs");
const CRON_JOBS: Kind = ("batch/v1", "cronjobs");

/// A template of pods that end well by themselves.
fn work(app: &str) -> Value {
    let mut pod = pod(app);
    pod["metadata"]["annotations"] = json!({hollow::EXIT: "0"});
    pod["spec"]["restartPolicy"] = json!("Never");
    pod
}

pub async fn begin(cluster: &Cluster) {
    let all = json!({"metadata": {"name": "work"}, "spec": {"completions": 8, "parallelism": 3,
        "completionMode": "Indexed", "template": work("work")}});
    cluster.create(JOBS, all).await;
    let brief =
        json!({"metadata": {"name": "brief"}, "spec": {"ttlSecondsAfterFinished": 0, "template": work("brief")}});
    cluster.create(JOBS, brief).await;
    let tick = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid",
        "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": work("tick")}}}});
    cluster.create(CRON_JOBS, tick).await;
    // So that a run is due at once.
    let before = k8s_openapi::jiff::Timestamp::now() - k8s_openapi::jiff::SignedDuration::from_secs(90);
    let last = format!("{before:.0}");
    cluster
        .patch_status(CRON_JOBS, "tick", json!({"status": {"lastScheduleTime": last}}))
        .await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let job = cluster.get(JOBS, "work").await;
    wrong.expect("work's successes", job["status"]["succeeded"].clone(), 8);
    wrong.expect("work's indexes", job["status"]["completedIndexes"].clone(), "0-7");
    wrong.expect("work is complete", condition(&job, "Complete").clone(), "True");
    wrong.expect("work's failures", job["status"]["failed"].as_i64().unwrap_or(0), 0);
    wrong.expect("brief", cluster.get(JOBS, "brief").await, Value::Null);

    let tick = cluster.get(CRON_JOBS, "tick").await;
    wrong.expect("tick's running jobs", tick["status"]["active"].clone(), Value::Null);
    let last = &tick["status"]["lastSuccessfulTime"];
    wrong.expect("tick has run", last.is_string(), true);
    let jobs = cluster.list(JOBS).await;
    let ran = jobs
        .iter()
        .filter(|job| job["metadata"]["ownerReferences"][0]["name"] == "tick");
    let complete: Vec<&Value> = ran.map(|job| condition(job, "Complete")).collect();
    wrong.expect("tick's jobs", json!(complete), json!(["True"]));

    let pods = cluster.list(PODS).await;
    for (app, count) in [("work", 8), ("brief", 0), ("tick", 1)] {
        let of_it = of_app(&pods, app);
        wrong.expect(&format!("pods of {app}"), of_it.len(), count);
        let kept = of_it
            .iter()
            .filter(|pod| !pod["metadata"]["finalizers"].is_null())
            .count();
        wrong.expect(&format!("pods of {app} with finalizers"), kept, 0);
    }
}
