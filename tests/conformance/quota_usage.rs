//! What quotas count and refuse.

use crate::cluster::{Cluster, eventually, refused};
use crate::resource::{Resource, merge_into, name, pod, revision};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated.",
            promptly_calculated,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service.",
            life_of_a_service,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret.",
            life_of_a_secret,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod.",
            life_of_a_pod,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap.",
            life_of_a_config_map,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller.",
            life_of_a_replication_controller,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set.",
            life_of_a_replica_set,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes.",
            terminating_scopes,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope.",
            best_effort_scope,
        ),
        test(
            "[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status",
            changes_to_the_status,
        ),
    ]
}

/// A namespace, and the quotas in it.
struct Place {
    cluster: Cluster,
    namespace: String,
    quotas: Resource,
}

impl Place {
    async fn new(cluster: Cluster) -> Self {
        let namespace = cluster.namespace("quota").await;
        Self {
            quotas: cluster.core("resourcequotas", Some(&namespace)),
            cluster,
            namespace,
        }
    }

    fn core(&self, plural: &str) -> Resource {
        self.cluster.core(plural, Some(&self.namespace))
    }

    /// Makes a quota of these limits and waits until it is counted, with nothing used but `used`.
    async fn quota(&self, name: &str, spec: Value, used: Value) {
        let quota = json!({"metadata": {"name": name}, "spec": spec});
        self.quotas.create(&quota).await.unwrap();
        let mut expected: Value = spec["hard"]
            .as_object()
            .unwrap()
            .keys()
            .map(|resource| (resource.clone(), json!("0")))
            .collect();
        merge_into(&mut expected, used);
        self.used(name, expected).await;
        let counted = self.quotas.get(name).await.unwrap();
        assert_eq!(counted["status"]["hard"], spec["hard"]);
    }

    /// Waits until these figures are told.
    async fn used(&self, name: &str, figures: Value) {
        let what = format!("quota {name} says {figures}");
        eventually(&what, async || {
            let told = self.quotas.get(name).await.unwrap()["status"]["used"].clone();
            let figures = figures.as_object().unwrap();
            figures.iter().all(|(name, figure)| told[name] == *figure).then_some(())
        })
        .await;
    }

    /// Waits until the number of objects of a kind is at rest: what is put in every namespace is there.
    async fn standing(&self, plural: &str, named: &[&str]) -> usize {
        let objects = self.core(plural);
        eventually("what every namespace has is there", async || {
            let list = objects.list(&ListParams::default()).await.unwrap();
            let there = list["items"].as_array().unwrap();
            let all = named
                .iter()
                .all(|wanted| there.iter().any(|object| name(object) == *wanted));
            all.then_some(there.len())
        })
        .await
    }
}

async fn promptly_calculated(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let hard = json!({"pods": "5", "services": "10", "replicationcontrollers": "10", "resourcequotas": "1",
        "secrets": "10", "cpu": "1", "memory": "500Mi", "count/deployments.apps": "3"});
    place
        .quota("counted", json!({"hard": hard}), json!({"resourcequotas": "1"}))
        .await;
    // The quota counts itself.
    let second = json!({"metadata": {"name": "second"}, "spec": {"hard": {"pods": "1"}}});
    let status = refused(place.quotas.create(&second).await, 403, "Forbidden");
    assert_eq!(
        status.message,
        "resourcequotas \"second\" is forbidden: exceeded quota: counted, requested: resourcequotas=1, \
         used: resourcequotas=1, limited: resourcequotas=1"
    );
}

async fn life_of_a_service(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let hard = json!({"services": "10", "services.nodeports": "1", "services.loadbalancers": "1"});
    place.quota("counted", json!({"hard": hard}), json!({})).await;
    let services = place.core("services");
    let service = |name: &str, kind: &str, allocate: bool| {
        let mut service = json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}], "selector": {"a": "b"}}});
        if !allocate {
            service["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
        }
        service
    };
    services.create(&service("plain", "ClusterIP", true)).await.unwrap();
    services.create(&service("ports", "NodePort", true)).await.unwrap();
    let status = refused(
        services.create(&service("more", "LoadBalancer", true)).await,
        403,
        "Forbidden",
    );
    assert_eq!(
        status.message,
        "services \"more\" is forbidden: exceeded quota: counted, requested: services.nodeports=1, \
         used: services.nodeports=1, limited: services.nodeports=1"
    );
    services
        .create(&service("balancer", "LoadBalancer", false))
        .await
        .unwrap();
    place
        .used(
            "counted",
            json!({"services": "3", "services.nodeports": "1", "services.loadbalancers": "1"}),
        )
        .await;
    // What a refused one was to get is not taken.
    let grown = services.merge("plain", json!({"spec": {"type": "NodePort"}})).await;
    refused(grown, 403, "Forbidden");
    for name in ["plain", "ports", "balancer"] {
        services.delete(name).await.unwrap();
    }
    place
        .used(
            "counted",
            json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"}),
        )
        .await;
}

async fn life_of_a_secret(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let standing = place.standing("secrets", &[]).await;
    let hard = json!({"secrets": (standing + 1).to_string(), "count/secrets": "10"});
    let used = |number: usize| json!({"secrets": number.to_string(), "count/secrets": number.to_string()});
    place.quota("counted", json!({"hard": hard}), used(standing)).await;
    let secrets = place.core("secrets");
    let secret = |name: &str| json!({"metadata": {"name": name}, "stringData": {"a": "b"}});
    secrets.create(&secret("one")).await.unwrap();
    place.used("counted", used(standing + 1)).await;
    let status = refused(secrets.create(&secret("two")).await, 403, "Forbidden");
    assert!(
        status.message.contains("exceeded quota: counted, requested: secrets=1"),
        "{}",
        status.message
    );
    secrets.delete("one").await.unwrap();
    place.used("counted", used(standing)).await;
}

fn demanding(name: &str, cpu: &str, dongles: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu, "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": dongles},
        "limits": {"example.com/dongle": dongles}});
    let mut pod = pod(name, json!({}));
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

async fn life_of_a_pod(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let hard = json!({"pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi",
        "requests.example.com/dongle": "3"});
    place.quota("counted", json!({"hard": hard}), json!({})).await;
    let pods = place.core("pods");
    let uid = pods.create(&demanding("fits", "500m", "2")).await.unwrap()["metadata"]["uid"].clone();
    let used = json!({"pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi",
        "requests.example.com/dongle": "2"});
    // It is charged before anybody counts.
    assert_eq!(place.quotas.get("counted").await.unwrap()["status"]["used"], used);
    for (name, cpu, dongles, resource) in [
        ("cpu", "600m", "1", "cpu=600m"),
        ("dongle", "100m", "2", "requests.example.com/dongle=2"),
    ] {
        let status = refused(pods.create(&demanding(name, cpu, dongles)).await, 403, "Forbidden");
        assert!(
            status.message.starts_with(&format!(
                "pods \"{name}\" is forbidden: exceeded quota: counted, requested: "
            )),
            "{}",
            status.message
        );
        assert!(status.message.contains(resource), "{}", status.message);
    }
    let silent = refused(pods.create(&pod("silent", json!({}))).await, 403, "Forbidden");
    assert_eq!(
        silent.message,
        "pods \"silent\" is forbidden: failed quota: counted: must specify cpu for: main; memory for: main"
    );
    // What it asks for cannot grow past the quota by an update, either.
    let grown = json!({"spec": {"containers": [{"name": "main", "image": "registry.example/pause:1",
        "resources": {"requests": {"cpu": "100m"}}}]}});
    refused(pods.merge("fits", grown).await, 422, "Invalid");
    place.used("counted", used).await;
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(pods.merge("fits", labelled).await.unwrap()["metadata"]["uid"], uid);
    pods.delete("fits").await.unwrap();
    place
        .used("counted", json!({"pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0", "requests.example.com/dongle": "0"}))
        .await;
}

async fn life_of_a_config_map(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let standing = place.standing("configmaps", &["kube-root-ca.crt"]).await;
    let hard = json!({"configmaps": (standing + 1).to_string()});
    let used = |number: usize| json!({"configmaps": number.to_string()});
    place.quota("counted", json!({"hard": hard}), used(standing)).await;
    let maps = place.core("configmaps");
    maps.create(&json!({"metadata": {"name": "one"}, "data": {"a": "b"}}))
        .await
        .unwrap();
    place.used("counted", used(standing + 1)).await;
    refused(
        maps.create(&json!({"metadata": {"name": "two"}})).await,
        403,
        "Forbidden",
    );
    maps.delete("one").await.unwrap();
    place.used("counted", used(standing)).await;
}

fn workload(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": name}},
        "template": {"metadata": {"labels": {"a": name}}, "spec": {"containers": [{"name": "main", "image": "registry.example/pause:1"}]}}}})
}

async fn life_of_a_replication_controller(cluster: Cluster) {
    let place = Place::new(cluster).await;
    place
        .quota("counted", json!({"hard": {"replicationcontrollers": "1"}}), json!({}))
        .await;
    let controllers = place.core("replicationcontrollers");
    let controller = |name: &str| {
        let mut controller = workload(name, 0);
        controller["spec"]["selector"] = json!({"a": name});
        controller
    };
    controllers.create(&controller("one")).await.unwrap();
    place.used("counted", json!({"replicationcontrollers": "1"})).await;
    refused(controllers.create(&controller("two")).await, 403, "Forbidden");
    controllers.delete("one").await.unwrap();
    place.used("counted", json!({"replicationcontrollers": "0"})).await;
}

async fn life_of_a_replica_set(cluster: Cluster) {
    let place = Place::new(cluster).await;
    place
        .quota("counted", json!({"hard": {"count/replicasets.apps": "1"}}), json!({}))
        .await;
    let sets = place.cluster.resource("apps/v1", "replicasets", Some(&place.namespace));
    sets.create(&workload("one", 0)).await.unwrap();
    place.used("counted", json!({"count/replicasets.apps": "1"})).await;
    let status = refused(sets.create(&workload("two", 0)).await, 403, "Forbidden");
    assert!(
        status.message.contains("requested: count/replicasets.apps=1"),
        "{}",
        status.message
    );
    sets.delete("one").await.unwrap();
    place.used("counted", json!({"count/replicasets.apps": "0"})).await;
}

/// Makes a quota for each of two scopes, and sees each pod counted by one of them.
async fn in_one_scope(place: &Place, scopes: [&str; 2], pods: [Value; 2], resources: &[&str]) {
    let hard: Value = resources.iter().map(|name| ((*name).to_owned(), json!("5"))).collect();
    for scope in scopes {
        let name = scope.to_lowercase();
        place
            .quota(&name, json!({"hard": hard, "scopes": [scope]}), json!({}))
            .await;
    }
    let objects = place.core("pods");
    for (of, pod) in pods.iter().enumerate() {
        objects.create(pod).await.unwrap();
        for (scope, counts) in [(scopes[of], "1"), (scopes[1 - of], "0")] {
            place.used(&scope.to_lowercase(), json!({"pods": counts})).await;
        }
        objects.delete(name(pod)).await.unwrap();
        place.used(&scopes[of].to_lowercase(), json!({"pods": "0"})).await;
    }
}

async fn terminating_scopes(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let rich = |name: &str| {
        let mut pod = pod(name, json!({}));
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}});
        pod
    };
    let mut ends = rich("ends");
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    in_one_scope(
        &place,
        ["Terminating", "NotTerminating"],
        [ends, rich("stays")],
        &["pods"],
    )
    .await;
}

async fn best_effort_scope(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let mut rich = pod("rich", json!({}));
    rich["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "500m"}});
    in_one_scope(
        &place,
        ["BestEffort", "NotBestEffort"],
        [pod("poor", json!({})), rich],
        &["pods"],
    )
    .await;
}

async fn changes_to_the_status(cluster: Cluster) {
    let place = Place::new(cluster).await;
    let hard = json!({"cpu": "500m", "memory": "500Mi"});
    place.quota("one", json!({"hard": hard}), json!({})).await;
    let counted = place.quotas.get("one").await.unwrap();
    // A changed limit comes to the status by itself.
    let mut watch = place.quotas.watch("", &revision(&counted)).await;
    let raised = json!({"cpu": "1", "memory": "1Gi"});
    place
        .quotas
        .merge("one", json!({"spec": {"hard": raised}}))
        .await
        .unwrap();
    watch.until("MODIFIED", |quota| quota["status"]["hard"] == raised).await;
    // What somebody else writes into the status is taken, does not touch the limits, and is put right.
    let mut forged = place.quotas.get_sub("one", "status").await.unwrap();
    forged["status"]["hard"] = json!({"cpu": "8", "memory": "2Gi"});
    forged["spec"]["hard"] = json!({"cpu": "9"});
    let written = place.quotas.replace_sub("status", &forged).await.unwrap();
    assert_eq!(written["status"]["hard"], forged["status"]["hard"]);
    assert_eq!(written["spec"]["hard"], raised);
    watch.until("MODIFIED", |quota| quota["status"]["hard"] == raised).await;
    let patched = place
        .quotas
        .merge_sub("one", "status", json!({"status": {"hard": {"cpu": "7"}}}))
        .await
        .unwrap();
    assert_eq!(
        (&patched["status"]["hard"]["cpu"], &patched["spec"]["hard"]),
        (&json!("7"), &raised)
    );
    watch.until("MODIFIED", |quota| quota["status"]["hard"] == raised).await;
}
