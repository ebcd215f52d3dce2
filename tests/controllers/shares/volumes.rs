//! Volumes: claims are bound, protected, made for a pod, and given back.

use super::*;

const SCRATCH: &str = "scratch";

fn claim() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
        "resources": {"requests": {"storage": "1Gi"}}})
}

pub async fn begin(cluster: &Cluster) {
    for number in 0..3 {
        let volume = json!({"metadata": {"name": format!("volume-{number}")}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/nowhere"}}});
        cluster.create(VOLUMES, volume).await;
    }
    for name in ["data-0", "data-1"] {
        let claim = json!({"metadata": {"name": name}, "spec": claim()});
        cluster.create(CLAIMS, claim).await;
    }
    let mut scratch = named(SCRATCH, pod(SCRATCH));
    scratch["spec"]["volumes"] = json!([{"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": claim()}}}]);
    cluster.create(PODS, scratch).await;
}

pub async fn change(cluster: &Cluster) {
    cluster.delete(CLAIMS, "data-1").await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let claims = cluster.list(CLAIMS).await;
    let mut expected = vec!["data-0", "scratch-own"];
    expected.extend(attached::claims());
    expected.sort_unstable();
    wrong.expect("claims", names(&claims), json!(expected));
    let volumes = cluster.list(VOLUMES).await;
    for claim in &claims {
        let name = &claim["metadata"]["name"];
        wrong.expect(&format!("phase of {name}"), claim["status"]["phase"].clone(), "Bound");
        let finalizers = claim["metadata"]["finalizers"].clone();
        wrong.expect(
            &format!("protection of {name}"),
            finalizers,
            json!(["kubernetes.io/pvc-protection"]),
        );
        let bound = volumes
            .iter()
            .find(|volume| volume["metadata"]["name"] == claim["spec"]["volumeName"]);
        let of = bound.map_or(Value::Null, |volume| volume["spec"]["claimRef"]["uid"].clone());
        wrong.expect(
            &format!("claim of the volume of {name}"),
            of,
            claim["metadata"]["uid"].clone(),
        );
        let phase = bound.map_or(Value::Null, |volume| volume["status"]["phase"].clone());
        wrong.expect(&format!("phase of the volume of {name}"), phase, "Bound");
    }
    // A claim that was never bound leaves its volume to whoever comes next.
    let count = |phase: &str| {
        volumes
            .iter()
            .filter(|volume| volume["status"]["phase"] == phase)
            .count()
    };
    wrong.expect("volumes without a claim", count("Released") + count("Available"), 1);
    let scratch = cluster.get(PODS, SCRATCH).await;
    wrong.expect("phase of scratch", scratch["status"]["phase"].clone(), "Running");
}

pub async fn end(cluster: &Cluster) {
    cluster.delete(PODS, SCRATCH).await;
    for volume in cluster.list(VOLUMES).await {
        cluster
            .delete(VOLUMES, volume["metadata"]["name"].as_str().unwrap())
            .await;
    }
}
