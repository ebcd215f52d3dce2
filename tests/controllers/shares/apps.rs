//! Deployments, ReplicaSets, ReplicationControllers, StatefulSets, DaemonSets.

use super::*;
use crate::cluster::NODES;

const SETS: Kind = ("apps/v1", "statefulsets");
const DAEMONS: Kind = ("apps/v1", "daemonsets");
const LEGACY: Kind = ("v1", "replicationcontrollers");

pub async fn begin(cluster: &Cluster) {
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": 6,
        "selector": selector("web"), "template": pod("web"),
        "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}}});
    cluster.create(DEPLOYMENTS, web).await;
    let db = json!({"metadata": {"name": "db"}, "spec": {"replicas": 3,
        "serviceName": "db", "selector": selector("db"), "template": pod("db")}});
    cluster.create(SETS, db).await;
    let agent = json!({"metadata": {"name": "agent"}, "spec": {
        "selector": selector("agent"), "template": pod("agent")}});
    cluster.create(DAEMONS, agent).await;
    // One pod that matches is nobody's, another is somebody else's.
    cluster.create(PODS, named("foundling", pod("legacy"))).await;
    let other = cluster
        .create(CONFIG_MAPS, json!({"metadata": {"name": "other"}}))
        .await;
    let mut stranger = named("stranger", pod("legacy"));
    stranger["metadata"]["ownerReferences"] = json!([reference("v1", "ConfigMap", &other)]);
    stranger["metadata"]["ownerReferences"][0]["controller"] = json!(true);
    cluster.create(PODS, stranger).await;
    let legacy = json!({"metadata": {"name": "legacy"}, "spec": {"replicas": 2,
        "selector": {"app": "legacy"}, "template": pod("legacy")}});
    cluster.create(LEGACY, legacy).await;
}

pub async fn change(cluster: &Cluster) {
    let second = || json!({"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}});
    cluster
        .patch(DEPLOYMENTS, "web", json!({"spec": {"replicas": 9}}))
        .await;
    cluster.patch(DEPLOYMENTS, "web", second()).await;
    cluster.patch(SETS, "db", second()).await;
    cluster.patch(LEGACY, "legacy", json!({"spec": {"replicas": 4}})).await;
}

pub async fn change_again(cluster: &Cluster) {
    cluster
        .patch(DEPLOYMENTS, "web", json!({"spec": {"replicas": 4}}))
        .await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    for (kind, name, fields, count) in [
        (
            DEPLOYMENTS,
            "web",
            &["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"][..],
            4,
        ),
        (
            SETS,
            "db",
            &["replicas", "updatedReplicas", "readyReplicas", "currentReplicas"],
            3,
        ),
        (
            DAEMONS,
            "agent",
            &["desiredNumberScheduled", "currentNumberScheduled", "numberReady"],
            NODES,
        ),
        (
            LEGACY,
            "legacy",
            &["replicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"],
            4,
        ),
    ] {
        let found = cluster.get(kind, name).await;
        let (status, generation) = (&found["status"], found["metadata"]["generation"].clone());
        wrong.expect(
            &format!("{name}'s generation"),
            status["observedGeneration"].clone(),
            generation,
        );
        for field in fields {
            wrong.expect(&format!("{name}'s {field}"), status[field].clone(), count);
        }
        if kind == SETS {
            let revisions = (status["currentRevision"].clone(), status["updateRevision"].clone());
            wrong.expect("db's revision", revisions.0, revisions.1);
        }
    }
    let pods = cluster.list(PODS).await;
    for (app, count) in [("web", 4), ("db", 3), ("agent", NODES), ("legacy", 5)] {
        let of_it = of_app(&pods, app);
        wrong.expect(&format!("pods of {app}"), of_it.len(), count);
        let unready = of_it.iter().filter(|pod| condition(pod, "Ready") != "True").count();
        wrong.expect(&format!("pods of {app} that are not ready"), unready, 0);
    }
    wrong.expect(
        "pods of db",
        names(of_app(&pods, "db")),
        json!(["db-0", "db-1", "db-2"]),
    );
    let updated = ["web", "db"].into_iter().flat_map(|app| of_app(&pods, app));
    let stale = updated.filter(|pod| pod["metadata"]["annotations"]["v"] != "2").count();
    wrong.expect("pods of the old template", stale, 0);
    for (name, owner) in [("foundling", "legacy"), ("stranger", "other")] {
        let found = pods.iter().find(|pod| pod["metadata"]["name"] == name);
        let owners = found.map_or(Value::Null, |pod| pod["metadata"]["ownerReferences"].clone());
        let of: Vec<&Value> = owners
            .as_array()
            .into_iter()
            .flatten()
            .map(|owner| &owner["name"])
            .collect();
        wrong.expect(&format!("owners of {name}"), json!(of), json!([owner]));
    }
    let sets = cluster.list(REPLICA_SETS).await;
    let of_web = sets.iter().filter(|set| set["metadata"]["labels"]["app"] == "web");
    let replicas: i64 = of_web.filter_map(|set| set["spec"]["replicas"].as_i64()).sum();
    wrong.expect("replicas of web's sets", replicas, 4);
}
