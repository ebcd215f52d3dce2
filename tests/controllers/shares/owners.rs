//! Garbage: what belongs to somebody who is gone goes, and nothing else.

use super::*;

async fn map(cluster: &Cluster, name: &str, owners: &[&Value]) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .map(|owner| {
            let mut reference = reference("v1", "ConfigMap", owner);
            reference["blockOwnerDeletion"] = json!(true);
            reference
        })
        .collect();
    let map = json!({"metadata": {"name": name, "labels": {"garbage": "yes"}, "ownerReferences": references}});
    cluster.create(CONFIG_MAPS, map).await
}

pub async fn begin(cluster: &Cluster) {
    for how in ["background", "foreground", "orphan"] {
        let root = map(cluster, how, &[]).await;
        let child = map(cluster, &format!("{how}-child"), &[&root]).await;
        map(cluster, &format!("{how}-grandchild"), &[&child]).await;
    }
    let living = map(cluster, "living", &[]).await;
    let never = json!({"metadata": {"name": "never", "uid": "00000000-0000-0000-0000-000000000000"}});
    map(cluster, "of-nobody", &[&never]).await;
    map(cluster, "of-one-of-two", &[&never, &living]).await;
}

pub async fn change(cluster: &Cluster) {
    for (name, how) in [
        ("background", "Background"),
        ("foreground", "Foreground"),
        ("orphan", "Orphan"),
    ] {
        cluster.delete_as(CONFIG_MAPS, name, how).await;
    }
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let maps = cluster.list(CONFIG_MAPS).await;
    let maps: Vec<&Value> = maps
        .iter()
        .filter(|map| map["metadata"]["labels"]["garbage"] == "yes")
        .collect();
    let mut found: Vec<(&Value, Vec<&Value>)> = maps
        .iter()
        .map(|map| {
            let owners = map["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            (&map["metadata"]["name"], owners.map(|owner| &owner["name"]).collect())
        })
        .collect();
    found.sort_by_key(|(name, _)| name.to_string());
    let expected = json!([
        ["living", []],
        ["of-one-of-two", ["living"]],
        ["orphan-child", []],
        ["orphan-grandchild", ["orphan-child"]]
    ]);
    wrong.expect("what is left, with its owners", json!(found), expected);
}
