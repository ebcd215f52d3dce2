//! Configurations of admission webhooks: made, changed, listed, and refused.

use crate::cluster::{Cluster, refused};
use crate::resource::{Resource, json_patch};
use crate::runner::{Test, pod_test};
use crate::webhook_server::{Kind, LABEL, WebhookServer, configuration, configurations};
use crate::webhooks::{denied, map, maps, unwanted, webhook_tests};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    webhook_tests![
        "listing mutating webhooks should work" => listed_mutating,
        "listing validating webhooks should work" => listed_validating,
        "patching/updating a mutating webhook should work" => changed_mutating,
        "patching/updating a validating webhook should work" => changed_validating,
        "should be able to create and update mutating webhook configurations with match conditions" => conditions_mutating,
        "should be able to create and update validating webhook configurations with match conditions" => conditions_validating,
        "should include webhook resources in discovery documents" => discovered,
        "should not be able to mutate or prevent deletion of webhook configuration objects" => spares_configurations,
        "should reject mutating webhook configurations with invalid match conditions" => invalid_mutating,
        "should reject validating webhook configurations with invalid match conditions" => invalid_validating,
    ]
}

async fn listed(cluster: Cluster, kind: Kind) {
    let server = WebhookServer::start(&cluster).await;
    let path = match kind {
        Kind::Mutating => "/mutating-configmaps",
        Kind::Validating => "/configmaps",
    };
    for number in 0..10 {
        let hook = server.hook(&format!("hook-{number}.listed"), path, maps(&["CREATE"]), json!({}));
        server.register(kind, &[hook]).await;
    }
    let selector = format!("{LABEL}={}", server.namespace());
    let all = configurations(&cluster, kind);
    assert_eq!(all.labelled(&selector).await.len(), 10);
    let maps = server.pods.core("configmaps");
    acts(&maps, "before", kind, true).await;
    all.delete_collection(&selector).await.unwrap();
    assert_eq!(all.labelled(&selector).await.len(), 0);
    acts(&maps, "after", kind, false).await;
}

/// Creates a config map; `acts` says whether webhooks of this kind are to have their way with it.
async fn acts(maps: &Resource, name: &str, kind: Kind, acts: bool) {
    match kind {
        Kind::Mutating => {
            let made = maps.create(&map(name, json!({"mutation-start": "yes"}))).await.unwrap();
            assert_eq!(made["data"]["mutation-stage-1"] == "yes", acts, "{made}");
        }
        Kind::Validating if acts => denied(
            maps.create(&unwanted(name)).await,
            "the configmap contains unwanted key and value",
        ),
        Kind::Validating => drop(maps.create(&unwanted(name)).await.unwrap()),
    }
}

async fn listed_mutating(cluster: Cluster) {
    listed(cluster, Kind::Mutating).await;
}

async fn listed_validating(cluster: Cluster) {
    listed(cluster, Kind::Validating).await;
}

async fn changed(cluster: Cluster, kind: Kind, path: &str) {
    let server = WebhookServer::start(&cluster).await;
    let hook = server.hook("changed.webhook", path, maps(&["CREATE"]), json!({}));
    let name = server.register(kind, &[hook]).await;
    let all = configurations(&cluster, kind);
    let maps = server.pods.core("configmaps");
    acts(&maps, "as-made", kind, true).await;
    let mut updated = all.get(&name).await.unwrap();
    updated["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    all.replace(&updated).await.unwrap();
    acts(&maps, "updated", kind, false).await;
    let operations = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]);
    all.patch(&name, &json_patch(operations)).await.unwrap();
    acts(&maps, "patched", kind, true).await;
    server.end().await;
}

async fn changed_mutating(cluster: Cluster) {
    changed(cluster, Kind::Mutating, "/mutating-configmaps").await;
}

async fn changed_validating(cluster: Cluster) {
    changed(cluster, Kind::Validating, "/configmaps").await;
}

/// A webhook that nobody serves, for a namespace that does not exist.
fn unserved(conditions: Value) -> Value {
    json!({
        "name": "conditions.webhook.k8s.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": [maps(&["CREATE"])],
        "namespaceSelector": {"matchLabels": {"no": "namespace"}}, "matchConditions": conditions,
    })
}

async fn with_conditions(cluster: Cluster, kind: Kind) {
    let all = configurations(&cluster, kind);
    let label = cluster.unique("conditions");
    let conditions = json!([
        {"name": "expression-1", "expression": "object.metadata.namespace == 'production'"},
    ]);
    let made = configuration(&label, &label, &[unserved(conditions.clone())]);
    let made = all.create(&made).await.unwrap();
    assert_eq!(made["webhooks"][0]["matchConditions"], conditions);
    let mut updated = all.get(&label).await.unwrap();
    let conditions = json!([
        {"name": "expression-1", "expression": "object.metadata.namespace == 'production'"},
        {"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"},
    ]);
    updated["webhooks"][0]["matchConditions"] = conditions.clone();
    let updated = all.replace(&updated).await.unwrap();
    assert_eq!(updated["webhooks"][0]["matchConditions"], conditions);
    all.delete(&label).await.unwrap();
}

async fn conditions_mutating(cluster: Cluster) {
    with_conditions(cluster, Kind::Mutating).await;
}

async fn conditions_validating(cluster: Cluster) {
    with_conditions(cluster, Kind::Validating).await;
}

async fn with_invalid_conditions(cluster: Cluster, kind: Kind) {
    let label = cluster.unique("invalid");
    let conditions = json!([{"name": "invalid-expression-1", "expression": "... [] bad expression"}]);
    let made = configuration(&label, &label, &[unserved(conditions)]);
    let status = refused(configurations(&cluster, kind).create(&made).await, 422, "Invalid");
    assert!(status.message.contains("compilation failed"), "{}", status.message);
}

async fn invalid_mutating(cluster: Cluster) {
    with_invalid_conditions(cluster, Kind::Mutating).await;
}

async fn invalid_validating(cluster: Cluster) {
    with_invalid_conditions(cluster, Kind::Validating).await;
}

async fn discovered(cluster: Cluster) {
    let groups = cluster.get("/apis").await.expect(200);
    let named = |group: &&Value| group["name"] == "admissionregistration.k8s.io";
    let group = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(named)
        .expect("the group");
    let versions = group["versions"].as_array().unwrap();
    assert!(versions.iter().any(|version| version["version"] == "v1"), "{group}");
    let alone = cluster.get("/apis/admissionregistration.k8s.io").await.expect(200);
    let versions = alone["versions"].as_array().unwrap();
    assert!(versions.iter().any(|version| version["version"] == "v1"), "{alone}");
    let resources = cluster.get("/apis/admissionregistration.k8s.io/v1").await.expect(200);
    let resources = resources["resources"].as_array().unwrap();
    for kind in [Kind::Mutating, Kind::Validating] {
        assert!(resources.iter().any(|resource| resource["name"] == kind.plural()));
    }
}

/// Webhooks that would change or refuse everything of admission's configuration have no say there.
async fn spares_configurations(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let all = ["CREATE", "UPDATE", "DELETE"];
    let everything = json!({"apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "operations": all,
        "resources": ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]});
    let hook = |name: &str, path: &str| server.hook(name, path, everything.clone(), json!({}));
    server
        .register(
            Kind::Validating,
            &[hook("deny-webhook-configuration-deletions", "/always-deny")],
        )
        .await;
    server
        .register(
            Kind::Mutating,
            &[hook("add-label-to-webhook-configurations", "/add-label")],
        )
        .await;
    for kind in [Kind::Validating, Kind::Mutating] {
        let configurations = configurations(&cluster, kind);
        let harmless = server.hook(
            "harmless.webhook",
            "/add-label",
            maps(&["CREATE"]),
            json!({
                "namespaceSelector": {"matchLabels": {"no": "namespace"}},
            }),
        );
        let name = server.register(kind, &[harmless]).await;
        let made = configurations.get(&name).await.unwrap();
        assert_eq!(made["metadata"]["labels"], json!({LABEL: server.namespace()}));
        configurations.delete(&name).await.unwrap();
        let labelled = configurations.list(&ListParams::default()).await.unwrap();
        let left = labelled["items"].as_array().unwrap();
        assert!(left.iter().all(|other| other["metadata"]["name"] != name.as_str()));
    }
    server.end().await;
}
