//! An API group that a pod serves: see [`crate::flunders`].

use crate::cluster::Cluster;
use crate::flunders::{GROUP, VERSION};
use crate::pods::{PODS_PATIENCE, Pods};
use crate::resource::{Resource, items, name};
use crate::runner::{Test, pod_test};
use crate::webhook_server::serving;
use kube::api::ListParams;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    vec![pod_test(
        "[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator",
        serves_a_group,
    )]
}

const SERVICE: &str = "sample-api";
const SERVICE_PORT: u16 = 7443;
const POD_PORT: u16 = 9443;
const REGISTRATION: &str = "apiregistration.k8s.io/v1";
/// Pods start and documents are fetched meanwhile.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks until there is an answer, for as long as pods may take.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PODS_PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The server in a pod of a Deployment, which reads for itself whom to believe, and its service.
async fn deploy(pods: &Pods) -> Value {
    let (authority, container, volumes) = serving(pods, SERVICE, "flunders", POD_PORT).await;
    let labels = json!({"app": "sample-apiserver"});
    let deployment = json!({
        "metadata": {"name": "sample-apiserver"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "containers": [container], "terminationGracePeriodSeconds": 1, "volumes": volumes,
            },
        }},
    });
    pods.of_group("apps/v1", "deployments")
        .create(&deployment)
        .await
        .unwrap();
    let ports = json!([{"port": SERVICE_PORT, "targetPort": POD_PORT}]);
    let service = json!({"metadata": {"name": SERVICE}, "spec": {"selector": labels, "ports": ports}});
    pods.core("services").create(&service).await.unwrap();
    json!({
        "metadata": {"name": format!("{VERSION}.{GROUP}")},
        "spec": {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": pods.namespace, "name": SERVICE, "port": SERVICE_PORT},
            "caBundle": authority},
    })
}

fn available(service: &Value) -> String {
    let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == "Available")
        .cloned();
    let found = found.unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("status"), text("reason"))
}

async fn until_available(services: &Resource, wanted: &str) {
    eventually(wanted, async || {
        let service = services.get(&format!("{VERSION}.{GROUP}")).await.unwrap();
        (available(&service) == wanted).then_some(())
    })
    .await;
}

async fn names(flunders: &Resource) -> Vec<String> {
    let list = flunders.list(&ListParams::default()).await.unwrap();
    items(&list).iter().map(|one| name(one).to_owned()).collect()
}

async fn serves_a_group(cluster: Cluster) {
    let pods = cluster.pods("aggregator").await;
    let bindings = cluster.resource("rbac.authorization.k8s.io/v1", "rolebindings", Some("kube-system"));
    let reader = cluster.unique("wardler-auth-reader");
    let binding = json!({
        "metadata": {"name": reader},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": pods.namespace}],
    });
    bindings.create(&binding).await.unwrap();
    let registration = deploy(&pods).await;
    let deployments = pods.of_group("apps/v1", "deployments");
    // Not before it serves: while a group cannot be asked what it has, no namespace can be emptied.
    eventually("the server is ready", async || {
        let deployment = deployments.get("sample-apiserver").await.unwrap();
        (deployment["status"]["readyReplicas"] == 1).then_some(())
    })
    .await;
    let services = cluster.resource(REGISTRATION, "apiservices", None);
    services.create(&registration).await.unwrap();
    until_available(&services, "True Passed").await;
    objects(&cluster, &pods).await;
    discovered(&cluster).await;
    kubectl(&cluster, &pods).await;
    dependents(&cluster, &pods).await;
    goes_with_its_namespace(&cluster).await;
    registered(&cluster, &services).await;
    // Without a pod there is nobody to ask.
    services.create(&registration).await.unwrap();
    until_available(&services, "True Passed").await;
    deployments
        .merge("sample-apiserver", json!({"spec": {"replicas": 0}}))
        .await
        .unwrap();
    until_available(&services, "False MissingEndpoints").await;
    let answer = cluster.get(&format!("/apis/{GROUP}/{VERSION}/flunders")).await;
    assert_eq!((answer.code, answer.text.as_str()), (503, "service unavailable\n"));
    services.delete(name(&registration)).await.unwrap();
    bindings.delete(&reader).await.unwrap();
}

/// Through a client that knows nothing but paths, and through one for any object.
async fn objects(cluster: &Cluster, pods: &Pods) {
    let uri = format!("/apis/{GROUP}/{VERSION}/namespaces/{}/flunders", pods.namespace);
    assert_eq!(cluster.get(&uri).await.expect(200)["items"], json!([]));
    let flunder = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Flunder",
        "metadata": {"name": "rest-flunder", "namespace": pods.namespace, "labels": {"sample-label": "true"}},
    });
    let sent = [("content-type", "application/json")];
    let made = cluster.send("POST", &uri, &sent, flunder.to_string()).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({"sample-label": "true"}));
    let list = cluster.get(&uri).await.expect(200);
    assert_eq!(items(&list).len(), 1, "{list}");
    cluster
        .send("DELETE", &format!("{uri}/rest-flunder"), &[], "")
        .await
        .expect(200);
    let list = cluster.get(&uri).await.expect(200);
    assert_eq!(items(&list).len(), 0, "{list}");

    let flunders = pods.of_group(&format!("{GROUP}/{VERSION}"), "flunders");
    let mut watch = flunders.watch("", "0").await;
    let mut flunder = flunder;
    flunder["metadata"]["name"] = json!("dynamic-flunder");
    flunders.create(&flunder).await.unwrap();
    watch.until("ADDED", |seen| name(seen) == "dynamic-flunder").await;
    assert_eq!(names(&flunders).await, ["dynamic-flunder"]);
    flunders.delete("dynamic-flunder").await.unwrap();
    watch.until("DELETED", |seen| name(seen) == "dynamic-flunder").await;
    assert_eq!(names(&flunders).await, [] as [&str; 0]);
}

async fn discovered(cluster: &Cluster) {
    let client = cluster.client();
    let groups = client.list_api_groups_aggregated().await.unwrap().items;
    let named = |group: &&kube::core::discovery::v2::APIGroupDiscovery| {
        group.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()) == Some(GROUP)
    };
    let group = groups.iter().find(named).expect("the group");
    let version = &group.versions[0];
    assert_eq!(
        (version.version.as_deref(), version.freshness.as_deref()),
        (Some(VERSION), Some("Current"))
    );
    assert_eq!(version.resources[0].resource.as_deref(), Some("flunders"));
    let legacy = client
        .list_api_group_resources(&format!("{GROUP}/{VERSION}"))
        .await
        .unwrap();
    let flunders = legacy.resources.iter().find(|resource| resource.name == "flunders");
    assert!(
        flunders.is_some_and(|found| found.namespaced && found.kind == "Flunder"),
        "{legacy:?}"
    );
    let groups = client.list_api_groups().await.unwrap().groups;
    assert!(groups.iter().any(|group| group.name == GROUP));
}

fn in_namespace<'a>(namespace: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["-n", namespace], arguments].concat()
}

async fn kubectl(cluster: &Cluster, pods: &Pods) {
    let namespace = pods.namespace.clone();
    cluster
        .with_kubectl(move |kubectl| {
            let of_namespace = |arguments| in_namespace(&namespace, arguments);
            let flunder = format!(
                "apiVersion: {GROUP}/{VERSION}\nkind: Flunder\nmetadata:\n  name: typed\nspec:\n  reference: other\n"
            );
            let made = kubectl.ok_with(&of_namespace(&["create", "-f", "-"]), &flunder);
            assert_eq!(made, format!("flunder.{GROUP}/typed created\n"));
            assert_eq!(
                kubectl.ok(&of_namespace(&[
                    "get",
                    "fl",
                    "-o",
                    "jsonpath={.items[*].spec.reference}"
                ])),
                "other"
            );
            let explained = kubectl.ok(&["explain", "flunders.spec.reference"]);
            assert!(explained.contains("The name of the other flunder."), "{explained}");
            let resources = kubectl.ok(&["api-resources", "--api-group", GROUP, "-o", "name"]);
            assert_eq!(resources, format!("flunders.{GROUP}\nidentities.{GROUP}\n"));
            let gone = kubectl.ok(&of_namespace(&["delete", "flunder", "typed"]));
            assert!(gone.contains("deleted"), "{gone}");
        })
        .await;
}

/// The garbage collector finds them like all others.
async fn dependents(cluster: &Cluster, pods: &Pods) {
    let flunders = pods.of_group(&format!("{GROUP}/{VERSION}"), "flunders");
    let owner = json!({"metadata": {"name": "owner"}});
    let owner = pods.core("configmaps").create(&owner).await.unwrap();
    let reference = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"],
    });
    for (flunder, references) in [("dependent", json!([reference])), ("independent", json!([]))] {
        let flunder = json!({"metadata": {"name": flunder, "ownerReferences": references}});
        flunders.create(&flunder).await.unwrap();
    }
    let uri = format!(
        "/api/v1/namespaces/{}/configmaps/owner?propagationPolicy=Background",
        pods.namespace
    );
    cluster.send("DELETE", &uri, &[], "").await.expect(200);
    eventually("the dependent is gone", async || {
        (names(&flunders).await == ["independent"]).then_some(())
    })
    .await;
}

async fn goes_with_its_namespace(cluster: &Cluster) {
    let namespace = cluster.namespace("flunders").await;
    let flunders = cluster.resource(&format!("{GROUP}/{VERSION}"), "flunders", Some(&namespace));
    flunders.create(&json!({"metadata": {"name": "last"}})).await.unwrap();
    cluster.core("namespaces", None).delete(&namespace).await.unwrap();
    eventually("the namespace is gone", async || {
        cluster.core("namespaces", None).get(&namespace).await.err()
    })
    .await;
    assert_eq!(names(&flunders).await, [] as [&str; 0]);
}

/// What clients do with the registration itself.
async fn registered(cluster: &Cluster, services: &Resource) {
    let registration = format!("{VERSION}.{GROUP}");
    let read = services.get_sub(&registration, "status").await.unwrap();
    assert_eq!(available(&read), "True Passed");
    let patch = json!({"spec": {"versionPriority": 400}});
    let patched = services.merge(&registration, patch).await.unwrap();
    assert_eq!(patched["spec"]["versionPriority"], 400);
    let list = services.list(&ListParams::default()).await.unwrap();
    let listed = items(&list).into_iter().find(|service| name(service) == registration);
    assert_eq!(listed.expect("the service")["spec"]["versionPriority"], 400);
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    eventually("the status is updated", async || {
        let mut service = services.get(&registration).await.unwrap();
        let conditions = service["status"]["conditions"].as_array_mut()?;
        conditions.push(condition("StatusUpdated"));
        services.replace_sub("status", &service).await.ok()
    })
    .await;
    let patch = json!({"status": {"conditions": [condition("StatusPatched")]}});
    let patch = kube::api::Patch::Strategic(patch);
    services.patch_sub(&registration, "status", &patch).await.unwrap();
    let read = services.get_sub(&registration, "status").await.unwrap();
    let conditions = read["status"]["conditions"].as_array().unwrap();
    for kind in ["Available", "StatusUpdated", "StatusPatched"] {
        assert!(
            conditions.iter().any(|condition| condition["type"] == kind),
            "{kind}: {conditions:?}"
        );
    }
    let label = json!({"metadata": {"labels": {"e2e-apiservice": cluster.unique("patched")}}});
    let labelled = services.merge(&registration, label).await.unwrap();
    let value = labelled["metadata"]["labels"]["e2e-apiservice"].as_str().unwrap();
    services
        .delete_collection(&format!("e2e-apiservice={value}"))
        .await
        .unwrap();
    eventually("the service is gone", async || services.get(&registration).await.err()).await;
    let groups = cluster.client().list_api_groups().await.unwrap().groups;
    assert!(!groups.iter().any(|group| group.name == GROUP));
}
