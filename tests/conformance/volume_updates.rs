//! Volumes whose content changes under running pods, and what several containers or pods have of them.

use crate::cluster::{Cluster, eventually_every};
use crate::pods::{Pods, SLEEP, container, pod_of, sleeper, with_main, with_spec};
use crate::prints::map;
use crate::runner::{Test, pod_test};
use crate::volumes::{
    CONFIG_MAP, PROJECTED_CONFIG_MAP, PROJECTED_SECRET, SECRET, Source, downward_volume, with_volume,
};
use base64::Engine;
use serde_json::{Value, json};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        pod_test(
            "[sig-storage] ConfigMap binary data should be reflected in volume",
            binary,
        ),
        pod_test(
            "[sig-storage] Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace",
            own_namespace,
        ),
        pod_test(
            "[sig-storage] EmptyDir volumes pod should support shared volumes between containers",
            shared,
        ),
        pod_test(
            "[sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps",
            fifty_maps,
        ),
    ];
    for (name, source) in [
        (
            "[sig-storage] ConfigMap updates should be reflected in volume",
            CONFIG_MAP,
        ),
        (
            "[sig-storage] Projected configMap updates should be reflected in volume",
            PROJECTED_CONFIG_MAP,
        ),
    ] {
        tests.push(pod_test(name, move |cluster| updates(cluster, source)));
    }
    for (name, source) in [
        (
            "[sig-storage] ConfigMap optional updates should be reflected in volume",
            CONFIG_MAP,
        ),
        (
            "[sig-storage] Projected configMap optional updates should be reflected in volume",
            PROJECTED_CONFIG_MAP,
        ),
        (
            "[sig-storage] Secrets optional updates should be reflected in volume",
            SECRET,
        ),
        (
            "[sig-storage] Projected secret optional updates should be reflected in volume",
            PROJECTED_SECRET,
        ),
    ] {
        tests.push(pod_test(name, move |cluster| optional_updates(cluster, source)));
    }
    for (projected, kind) in [(false, "Downward API volume"), (true, "Projected downwardAPI")] {
        for field in ["labels", "annotations"] {
            let name = format!("[sig-storage] {kind} should update {field} on modification");
            tests.push(pod_test(name.leak(), move |cluster| {
                field_updates(cluster, projected, field)
            }));
        }
    }
    tests
}

/// Waits until a script in the container prints this.
async fn until_prints(pods: &Pods, name: &str, script: &str, wanted: &str) {
    let mut last = String::new();
    let pause = Duration::from_millis(500);
    eventually_every(pause, &format!("{script} prints {wanted:?}"), async || {
        last = pods.exec(name, "", &["sh", "-c", script]).await.stdout;
        (last.trim() == wanted).then_some(())
    })
    .await;
}

async fn updates(cluster: Cluster, source: Source) {
    let pods = cluster.pods("updates").await;
    let maps = pods.core(source.plural);
    maps.create(&map(source.plural, "map", &[("data-1", "value-1")]))
        .await
        .unwrap();
    pods.ready(&with_volume(sleeper("reads"), source.volume("v", "map", json!({}))))
        .await;
    until_prints(&pods, "reads", "cat /v/data-1", "value-1").await;
    maps.merge("map", json!({"data": {"data-1": "value-2", "data-2": "new"}}))
        .await
        .unwrap();
    until_prints(&pods, "reads", "cat /v/data-1 /v/data-2", "value-2new").await;
}

async fn optional_updates(cluster: Cluster, source: Source) {
    let pods = cluster.pods("optional").await;
    let maps = pods.core(source.plural);
    for name in ["goes", "changes"] {
        maps.create(&map(source.plural, name, &[("data-1", "value-1")]))
            .await
            .unwrap();
    }
    let names = ["goes", "changes", "comes"];
    let optional = json!({"optional": true});
    let volumes: Vec<Value> = names
        .iter()
        .map(|name| source.volume(name, name, optional.clone()))
        .collect();
    let mounts: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "mountPath": format!("/{name}")}))
        .collect();
    let reads = with_spec(sleeper("reads"), json!({"volumes": volumes}));
    pods.ready(&with_main(reads, json!({"volumeMounts": mounts}))).await;
    until_prints(
        &pods,
        "reads",
        "cat /goes/data-1 /changes/data-1; ls /comes",
        "value-1value-1",
    )
    .await;
    maps.delete("goes").await.unwrap();
    let changed = match source.plural {
        "secrets" => json!({"data": {"data-1": null}, "stringData": {"data-3": "value-3"}}),
        _ => json!({"data": {"data-1": null, "data-3": "value-3"}}),
    };
    maps.merge("changes", changed).await.unwrap();
    maps.create(&map(source.plural, "comes", &[("data-1", "new")]))
        .await
        .unwrap();
    until_prints(
        &pods,
        "reads",
        "ls /goes; ls /changes; cat /changes/data-3 /comes/data-1",
        "data-3\nvalue-3new",
    )
    .await;
}

async fn field_updates(cluster: Cluster, projected: bool, field: &str) {
    let pods = cluster.pods("fields").await;
    let items = json!([{"path": "file", "fieldRef": {"fieldPath": format!("metadata.{field}")}}]);
    let mut reads = with_volume(sleeper("reads"), downward_volume(projected, items, None));
    reads["metadata"]["labels"] = json!({});
    reads["metadata"][field] = json!({"b": "two", "a": "one"});
    pods.ready(&reads).await;
    until_prints(&pods, "reads", "cat /v/file", "a=\"one\"\nb=\"two\"").await;
    let patch = json!({"metadata": {field: {"b": "changed", "c": "three"}}});
    pods.resource.merge("reads", patch).await.unwrap();
    until_prints(&pods, "reads", "cat /v/file", "a=\"one\"\nb=\"changed\"\nc=\"three\"").await;
}

async fn binary(cluster: Cluster) {
    let pods = cluster.pods("binary").await;
    let bytes = base64::engine::general_purpose::STANDARD.encode([0xde, 0xca, 0xfe, 0xba, 0xd0, 0xfe, 0xff]);
    let object = json!({"metadata": {"name": "map"}, "data": {"text": "value"}, "binaryData": {"dump.bin": bytes}});
    pods.core("configmaps").create(&object).await.unwrap();
    pods.ready(&with_volume(sleeper("reads"), CONFIG_MAP.volume("v", "map", json!({}))))
        .await;
    assert_eq!(
        pods.shell("reads", "", "cat /v/text; echo; base64 /v/dump.bin").await,
        format!("value\n{bytes}\n")
    );
}

async fn own_namespace(cluster: Cluster) {
    let (here, there) = (cluster.pods("here").await, cluster.pods("there").await);
    for (pods, value) in [(&here, "mine"), (&there, "theirs")] {
        pods.core("secrets")
            .create(&map("secrets", "same", &[("data-1", value)]))
            .await
            .unwrap();
    }
    let looks = with_volume(
        crate::pods::pod("looks", "cat /v/data-1"),
        SECRET.volume("v", "same", json!({})),
    );
    assert_eq!(here.output(&looks).await, "mine");
}

async fn shared(cluster: Cluster) {
    let pods = cluster.pods("shared").await;
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let mut containers = [
        container(
            "writes",
            &format!("echo Hello from the other container > /v/file; {SLEEP}"),
        ),
        container("reads", SLEEP),
    ];
    for container in &mut containers {
        container["volumeMounts"] = mounts.clone();
    }
    let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    pods.ready(&with_spec(pod_of("both", &containers), volumes)).await;
    let read = "until [ -s /v/file ]; do sleep 0.1; done; cat /v/file";
    assert_eq!(
        pods.shell("both", "reads", read).await,
        "Hello from the other container\n"
    );
}

async fn fifty_maps(cluster: Cluster) {
    let pods = cluster.pods("fifty").await;
    let names: Vec<String> = (0..50).map(|index| format!("map-{index}")).collect();
    for name in &names {
        let object = map("configmaps", name, &[("data-1", name)]);
        pods.core("configmaps").create(&object).await.unwrap();
    }
    let volumes: Vec<Value> = names
        .iter()
        .map(|name| CONFIG_MAP.volume(name, name, json!({})))
        .collect();
    let mounts: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "mountPath": format!("/v/{name}")}))
        .collect();
    let script = "cat /v/*/data-1 | grep -o map- | wc -l";
    for index in 0..3 {
        let name = format!("mounts-{index}");
        let mounting = with_spec(crate::pods::pod(&name, script), json!({"volumes": volumes}));
        pods.create(&with_main(mounting, json!({"volumeMounts": mounts}))).await;
    }
    for index in 0..3 {
        let name = format!("mounts-{index}");
        pods.phase(&name, "Succeeded").await;
        assert_eq!(pods.logs(&name, "").await.trim(), "50");
    }
}
