//! Disruption budgets, autoscalers, quotas.

use super::*;

/// The namespace with a quota.
pub const METERED: &str = "metered";
const BUDGETS: Kind = ("policy/v1", "poddisruptionbudgets");
const AUTOSCALERS: Kind = ("autoscaling/v2", "horizontalpodautoscalers");
const QUOTAS: Kind = ("v1", "resourcequotas");

pub async fn begin(cluster: &Cluster) {
    let guarded = json!({"metadata": {"name": "guarded"}, "spec": {"replicas": 3,
        "selector": selector("guarded"), "template": pod("guarded")}});
    cluster.create(DEPLOYMENTS, guarded).await;
    let budget = json!({"metadata": {"name": "guarded"}, "spec": {"minAvailable": 2, "selector": selector("guarded")}});
    cluster.create(BUDGETS, budget).await;
    let small = json!({"metadata": {"name": "small"}, "spec": {"replicas": 1,
        "selector": selector("small"), "template": pod("small")}});
    cluster.create(DEPLOYMENTS, small).await;
    let scaler = json!({"metadata": {"name": "small"}, "spec": {"minReplicas": 2, "maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "small"}}});
    cluster.create(AUTOSCALERS, scaler).await;

    cluster.create(NAMESPACES, json!({"metadata": {"name": METERED}})).await;
    let quota = json!({"metadata": {"name": "all", "namespace": METERED},
        "spec": {"hard": {"pods": "3", "count/configmaps": "20", "count/replicasets.apps": "5"}}});
    cluster.create(QUOTAS, quota).await;
    let few = json!({"metadata": {"name": "few", "namespace": METERED}, "spec": {"replicas": 2,
        "selector": selector("few"), "template": pod("few")}});
    cluster.create(REPLICA_SETS, few).await;
    for number in 0..3 {
        let map = json!({"metadata": {"name": format!("map-{number}"), "namespace": METERED}});
        cluster.create(CONFIG_MAPS, map).await;
    }
}

pub async fn change(cluster: &Cluster) {
    let metered = cluster.within(REPLICA_SETS, METERED);
    cluster
        .patch_in(&metered, "few", json!({"spec": {"replicas": 3}}))
        .await;
    cluster.delete_in(&cluster.within(CONFIG_MAPS, METERED), "map-1").await;
    cluster
        .patch(AUTOSCALERS, "small", json!({"spec": {"minReplicas": 3}}))
        .await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let budget = cluster.get(BUDGETS, "guarded").await;
    for (field, count) in [
        ("expectedPods", 3),
        ("currentHealthy", 3),
        ("desiredHealthy", 2),
        ("disruptionsAllowed", 1),
    ] {
        wrong.expect(&format!("the budget's {field}"), budget["status"][field].clone(), count);
    }
    let small = cluster.get(DEPLOYMENTS, "small").await;
    wrong.expect("small's replicas", small["spec"]["replicas"].clone(), 3);
    let pods = cluster.list(PODS).await;
    for app in ["guarded", "small"] {
        wrong.expect(&format!("pods of {app}"), of_app(&pods, app).len(), 3);
    }

    let quota = cluster.get_in(&cluster.within(QUOTAS, METERED), "all").await;
    let count = async |kind| cluster.list_in(&cluster.within(kind, METERED)).await.len();
    let (pods, maps, sets) = (count(PODS).await, count(CONFIG_MAPS).await, count(REPLICA_SETS).await);
    wrong.expect("pods of few", pods, 3);
    let used = json!({"pods": pods.to_string(), "count/configmaps": maps.to_string(),
        "count/replicasets.apps": sets.to_string()});
    wrong.expect("what the quota says is used", quota["status"]["used"].clone(), used);
}
