//! CronJobs and disruption budgets as objects.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::{names, namespaced};
use crate::resource::{items, merge_into};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test("[sig-apps] CronJob should not schedule jobs when suspended", suspended),
        test("[sig-apps] CronJob should support CronJob API operations", cron_job),
        test(
            "[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets",
            budgets_everywhere,
        ),
        test(
            "[sig-apps] DisruptionController should create a PodDisruptionBudget",
            one_budget,
        ),
    ]
}

/// One that is suspended and has an image that nobody needs.
fn cron_job_spec() -> Value {
    let template = json!({"spec": {
        "restartPolicy": "OnFailure",
        "containers": [{"name": "main", "image": "registry.example/pause:1"}],
    }});
    json!({
        "schedule": "*/1 * * * *", "concurrencyPolicy": "Allow", "suspend": true,
        "jobTemplate": {"spec": {"template": template}},
    })
}

/// Both have missed their times for an hour, so that one which is not suspended starts a Job at once.
async fn suspended(cluster: Cluster) {
    let namespace = cluster.namespace("cronjob").await;
    let crons = cluster.resource("batch/v1", "cronjobs", Some(&namespace));
    let jobs = cluster.resource("batch/v1", "jobs", Some(&namespace));
    let an_hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let last = json!({"status": {"lastScheduleTime": format!("{an_hour_ago:.0}")}});
    for name in ["suspended", "works"] {
        let cron = json!({"metadata": {"name": name}, "spec": cron_job_spec()});
        crons.create(&cron).await.unwrap();
        crons.merge_sub(name, "status", last.clone()).await.unwrap();
    }
    let jobs_of = async |name: &str| {
        let list = jobs.list(&ListParams::default()).await.unwrap();
        let owned = items(&list)
            .into_iter()
            .filter(|job| job["metadata"]["ownerReferences"][0]["name"] == name);
        owned.count()
    };
    let resume = json!({"spec": {"suspend": false}});
    crons.merge("works", resume.clone()).await.unwrap();
    eventually("the other one has a job", async || {
        (jobs_of("works").await > 0).then_some(())
    })
    .await;
    assert_eq!(jobs_of("suspended").await, 0);
    let cron = crons.get("suspended").await.unwrap();
    assert_eq!(cron["status"].get("active"), None);
    assert_eq!(cron["status"]["lastScheduleTime"], last["status"]["lastScheduleTime"]);
    crons.merge("suspended", resume).await.unwrap();
    eventually("it has a job, too", async || {
        (jobs_of("suspended").await > 0).then_some(())
    })
    .await;
}

async fn cron_job(cluster: Cluster) {
    let spec = cron_job_spec();
    namespaced("batch/v1", "cronjobs", "CronJob", json!({"spec": spec}))
        .change(json!({"spec": {"schedule": "@daily", "timeZone": "Europe/Berlin"}}))
        .status(json!({"lastScheduleTime": "2026-01-02T03:04:05Z"}))
        .run(&cluster)
        .await;
}

fn budget(name: &str, labels: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "minAvailable": 1},
    })
}

async fn budgets_everywhere(cluster: Cluster) {
    let label = cluster.unique("budgets");
    let selector = format!("set={label}");
    // In the order of lists, which is not that of their numbers.
    let mut namespaces = [cluster.namespace("budgets").await, cluster.namespace("budgets").await];
    namespaces.sort();
    let [here, there] = namespaces;
    let budgets = |namespace: &str| cluster.resource("policy/v1", "poddisruptionbudgets", Some(namespace));
    for (namespace, name) in [(&here, "a"), (&here, "b"), (&there, "c")] {
        budgets(namespace)
            .create(&budget(name, json!({"set": label})))
            .await
            .unwrap();
    }
    let everywhere = cluster.resource("policy/v1", "poddisruptionbudgets", None);
    let list = everywhere.list(&ListParams::default().labels(&selector)).await.unwrap();
    assert_eq!(names(&list), ["a", "b", "c"]);
    budgets(&here).delete_collection(&selector).await.unwrap();
    let list = everywhere.list(&ListParams::default().labels(&selector)).await.unwrap();
    assert_eq!(names(&list), ["c"], "the other namespace keeps its own");
}

async fn one_budget(cluster: Cluster) {
    let namespace = cluster.namespace("budget").await;
    let budgets = cluster.resource("policy/v1", "poddisruptionbudgets", Some(&namespace));
    let created = budgets.create(&budget("foo", json!({}))).await.unwrap();
    assert_eq!(created["spec"]["minAvailable"], 1);
    assert_eq!(created["metadata"]["generation"], 1);
    // The controller writes the status meanwhile.
    let replaced = eventually("replaced", async || {
        let mut more = budgets.get("foo").await.unwrap();
        more["spec"]["minAvailable"] = json!(2);
        budgets.replace(&more).await.ok()
    })
    .await;
    assert_eq!(replaced["spec"]["minAvailable"], 2);
    let share = json!({"spec": {"minAvailable": "10%"}});
    let patched = budgets.merge("foo", share).await.unwrap();
    assert_eq!(patched["spec"]["minAvailable"], "10%");
    assert_eq!(patched["metadata"]["generation"], 3);
    // Both bounds at once make no sense; without a revision it may not be replaced.
    let both = json!({"spec": {"maxUnavailable": 1}});
    let status = refused(budgets.merge("foo", both).await, 422, "Invalid");
    assert!(
        status
            .message
            .contains("minAvailable and maxUnavailable cannot be both set"),
        "{}",
        status.message
    );
    let mut blind = patched.clone();
    merge_into(&mut blind, json!({"metadata": {"resourceVersion": ""}}));
    let status = refused(budgets.replace(&blind).await, 422, "Invalid");
    assert!(
        status.message.contains("must be specified for an update"),
        "{}",
        status.message
    );
    assert_eq!(budgets.get("foo").await.unwrap()["spec"], patched["spec"]);
    budgets.delete("foo").await.unwrap();
    refused(budgets.get("foo").await, 404, "NotFound");
}
