//! All controllers and the scheduler together, against an API server that misbehaves: conflicts, refused calls, answers
//! that are lost, watches that break, and restarts at any moment. What they must keep holds all the time, and in the
//! end everything is as it was asked for.
//!
//! `KRUST_TEST_SEED=N` runs that seed alone.

mod cluster;
mod faults;
mod history;
#[path = "../support/hollow.rs"]
mod hollow;
mod invariants;

use cluster::Cluster;
use faults::Faults;
use serde_json::json;

/// The seeds that are run in turn.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("KRUST_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..count).collect(),
    }
}

/// Nothing is lost but time: no bound is ever broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_broken_watches_and_restarts() {
    for seed in seeds(3) {
        let faults = Faults {
            refused: 3,
            conflicts: 6,
            lost_answers: 0,
            broken_watches: 10,
        };
        story(seed, faults).await;
    }
}

/// A call whose answer is lost was perhaps done, perhaps not. Bounds may be broken for a moment, as upstream's are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers() {
    for seed in seeds(2) {
        let faults = Faults {
            refused: 2,
            conflicts: 3,
            lost_answers: 5,
            broken_watches: 5,
        };
        story(seed, faults).await;
    }
}

async fn story(seed: u64, faults: Faults) {
    let exact = faults.lost_answers == 0;
    let mut cluster = Cluster::start(seed, faults).await;
    let container = json!({"name": "c", "image": "registry.example.com/app:1"});
    let template = |name: &str| json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}});
    let selector = |name: &str| json!({"matchLabels": {"app": name}});
    cluster
        .create(
            "apps/v1",
            "deployments",
            json!({"metadata": {"name": "web"}, "spec": {"replicas": 6,
            "selector": selector("web"), "template": template("web"),
            "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}}}),
        )
        .await;
    cluster
        .create(
            "apps/v1",
            "statefulsets",
            json!({"metadata": {"name": "db"}, "spec": {"replicas": 3,
            "serviceName": "db", "selector": selector("db"), "template": template("db")}}),
        )
        .await;
    cluster
        .create(
            "apps/v1",
            "daemonsets",
            json!({"metadata": {"name": "agent"}, "spec": {
            "selector": selector("agent"), "template": template("agent")}}),
        )
        .await;
    let mut work = template("work");
    work["metadata"]["annotations"] = json!({hollow::EXIT: "0"});
    work["spec"]["restartPolicy"] = json!("Never");
    cluster
        .create(
            "batch/v1",
            "jobs",
            json!({"metadata": {"name": "work"}, "spec": {"completions": 8, "parallelism": 3,
            "completionMode": "Indexed", "template": work}}),
        )
        .await;
    cluster
        .create(
            "v1",
            "services",
            json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        )
        .await;
    cluster.disturb(4).await;
    cluster
        .patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 9}}))
        .await;
    cluster
        .patch(
            "apps/v1",
            "deployments",
            "web",
            json!({"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}}),
        )
        .await;
    cluster
        .patch(
            "apps/v1",
            "statefulsets",
            "db",
            json!({"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}}),
        )
        .await;
    cluster.disturb(4).await;
    cluster
        .patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 4}}))
        .await;
    cluster.disturb(3).await;
    cluster.settles().await;
    if exact {
        cluster.bounds_held();
    }
    cluster.deletes_all().await;
    cluster.stop().await;
}
