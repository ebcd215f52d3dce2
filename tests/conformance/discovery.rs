//! Groups, versions and resources, in the old documents and in the aggregated ones; the server's version.

use crate::cluster::{Cluster, eventually};
use crate::custom_resources::Definition;
use crate::runner::{Test, test};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup",
            every_group_lists_resources,
        ),
        test(
            "[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup",
            preferred_versions,
        ),
        test(
            "[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface",
            aggregated_client,
        ),
        test(
            "[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs",
            aggregated_client_sees_a_definition,
        ),
        test(
            "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers",
            accept_headers,
        ),
        test(
            "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs",
            raw_document_has_a_definition,
        ),
        test(
            "[sig-api-machinery] server version should find the server version",
            server_version,
        ),
    ]
}

async fn groups(cluster: &Cluster) -> Vec<Value> {
    let list = cluster.client().list_api_groups().await.unwrap();
    let list = serde_json::to_value(list).unwrap();
    list["groups"].as_array().unwrap().clone()
}

async fn every_group_lists_resources(cluster: Cluster) {
    let groups = groups(&cluster).await;
    assert!(groups.len() > 15, "only {} groups", groups.len());
    for group in groups {
        for version in group["versions"].as_array().unwrap() {
            let group_version = version["groupVersion"].as_str().unwrap();
            let name = group["name"].as_str().unwrap();
            assert_eq!(
                group_version,
                format!("{name}/{}", version["version"].as_str().unwrap())
            );
            let Ok(resources) = cluster.client().list_api_group_resources(group_version).await else {
                // Another test's definition may be gone by now, and then its group is, too.
                assert!(name.ends_with(".example.com"), "{group_version} has no resources");
                continue;
            };
            assert_eq!(resources.group_version, group_version);
            assert!(!resources.resources.is_empty(), "{group_version} is empty");
            let first = &resources.resources[0];
            assert!(!first.kind.is_empty() && !first.verbs.is_empty(), "{first:?}");
        }
    }
}

async fn preferred_versions(cluster: Cluster) {
    for group in groups(&cluster).await {
        let preferred = &group["preferredVersion"];
        assert!(group["versions"].as_array().unwrap().contains(preferred), "{group}");
        let name = group["name"].as_str().unwrap();
        let answer = cluster.get(&format!("/apis/{name}")).await;
        if answer.code == 404 && name.ends_with(".example.com") {
            continue;
        }
        let alone = answer.expect(200);
        assert_eq!(alone["preferredVersion"], *preferred);
    }
}

/// Resources by `group/version/plural` of an aggregated document.
fn resources(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for group in document["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                found.insert(format!(
                    "{name}/{}/{}",
                    text(&version["version"]),
                    text(&resource["resource"])
                ));
            }
        }
    }
    found
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

async fn document(cluster: &Cluster, path: &str) -> Value {
    cluster
        .send("GET", path, &[("accept", AGGREGATED)], "")
        .await
        .expect(200)
}

async fn aggregated_client(cluster: Cluster) {
    let found = resources(&document(&cluster, "/apis").await);
    for resource in [
        "apps/v1/deployments",
        "apps/v1/statefulsets",
        "batch/v1/jobs",
        "networking.k8s.io/v1/ingresses",
        "rbac.authorization.k8s.io/v1/clusterroles",
        "coordination.k8s.io/v1/leases",
        "discovery.k8s.io/v1/endpointslices",
        "policy/v1/poddisruptionbudgets",
        "storage.k8s.io/v1/storageclasses",
        "events.k8s.io/v1/events",
    ] {
        assert!(found.contains(resource), "{resource} is missing in {found:?}");
    }
    let found = resources(&document(&cluster, "/api").await);
    for resource in ["pods", "nodes", "configmaps", "secrets", "services", "namespaces"] {
        assert!(
            found.contains(&format!("/v1/{resource}")),
            "{resource} is missing in {found:?}"
        );
    }
    // The library's own reading of it.
    let groups = cluster.client().list_api_groups_aggregated().await.unwrap();
    let names: Vec<String> = groups
        .items
        .iter()
        .filter_map(|g| g.metadata.as_ref()?.name.clone())
        .collect();
    assert!(names.contains(&"apps".to_owned()), "{names:?}");
    let discovery = kube::discovery::Discovery::new(cluster.client())
        .run_aggregated()
        .await
        .unwrap();
    assert!(discovery.has_group("batch"));
}

async fn accept_headers(cluster: Cluster) {
    for path in ["/api", "/apis"] {
        let both = format!("{AGGREGATED},application/json");
        for accept in [AGGREGATED, both.as_str()] {
            let answer = cluster.send("GET", path, &[("accept", accept)], "").await;
            let kind = answer.header("content-type");
            for part in [
                "application/json",
                "g=apidiscovery.k8s.io",
                "v=v2",
                "as=APIGroupDiscoveryList",
            ] {
                assert!(kind.contains(part), "{path}: {kind}");
            }
            let document = answer.expect(200);
            assert_eq!(document["kind"], "APIGroupDiscoveryList");
            assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        }
        let plain = cluster.send("GET", path, &[("accept", "application/json")], "").await;
        assert_eq!(plain.header("content-type"), "application/json");
        let kind = if path == "/api" { "APIVersions" } else { "APIGroupList" };
        assert_eq!(plain.expect(200)["kind"], kind);
        // A version that nobody serves, alone.
        let never = "application/json;g=apidiscovery.k8s.io;v=v1;as=APIGroupDiscoveryList";
        let answer = cluster.send("GET", path, &[("accept", never)], "").await;
        assert_eq!(answer.code, 406, "{}", answer.text);
    }
}

async fn aggregated_client_sees_a_definition(cluster: Cluster) {
    let definition = Definition::new(&cluster, "aggregated").establish(&cluster).await;
    let wanted = format!("{}/v1/{}", definition.group, definition.plural);
    eventually("the kind is discovered", async || {
        resources(&document(&cluster, "/apis").await)
            .contains(&wanted)
            .then_some(())
    })
    .await;
    definition.delete(&cluster).await;
    eventually("the kind is gone", async || {
        (!resources(&document(&cluster, "/apis").await).contains(&wanted)).then_some(())
    })
    .await;
}

async fn raw_document_has_a_definition(cluster: Cluster) {
    let definition = Definition::new(&cluster, "aggregated").establish(&cluster).await;
    let found = eventually("the group is in the document", async || {
        let document = document(&cluster, "/apis").await;
        let groups = document["items"].as_array().unwrap().clone();
        groups
            .into_iter()
            .find(|group| group["metadata"]["name"] == definition.group)
    })
    .await;
    let version = &found["versions"][0];
    assert_eq!(version["version"], "v1");
    assert_eq!(version["freshness"], "Current");
    let resource = &version["resources"][0];
    assert_eq!(resource["resource"], definition.plural);
    assert_eq!(resource["scope"], "Namespaced");
    assert_eq!(
        resource["responseKind"],
        json!({"group": definition.group, "version": "v1", "kind": definition.kind})
    );
    definition.delete(&cluster).await;
}

async fn server_version(cluster: Cluster) {
    let info = cluster.client().apiserver_version().await.unwrap();
    for number in [&info.major, &info.minor] {
        number
            .parse::<u32>()
            .unwrap_or_else(|_| panic!("{number:?} is no number"));
    }
    assert!(
        info.git_version
            .starts_with(&format!("v{}.{}.", info.major, info.minor)),
        "{}",
        info.git_version
    );
}
