//! Pods that make room for others, on nodes that only exist as objects.

use crate::cluster::{Cluster, eventually};
use crate::resource::{Resource, merge_into, pod};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-scheduling] SchedulerPreemption validates basic preemption works",
            basic,
        ),
        test(
            "[sig-scheduling] SchedulerPreemption validates lower priority pod preemption by critical pod",
            critical,
        ),
        test(
            "[sig-scheduling] SchedulerPreemption validates pod disruption condition is added to the preempted pod",
            condition,
        ),
        test(
            "[sig-scheduling] SchedulerPreemption PreemptionExecutionPath runs ReplicaSets to verify preemption running path",
            replica_sets,
        ),
    ]
}

/// Nodes with a resource of their own, and classes of priority.
struct Stage {
    cluster: Cluster,
    namespace: String,
    resource: String,
    nodes: Vec<String>,
}

impl Stage {
    async fn new(cluster: &Cluster, nodes_count: usize, amount: &str) -> Self {
        let resource = format!("example.com/{}", cluster.unique("scarce"));
        let mut figures = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
        figures[&resource] = json!(amount);
        let nodes = cluster.core("nodes", None);
        let mut names = Vec::new();
        for _ in 0..nodes_count {
            let name = cluster.unique("scarce-node");
            let node = json!({
                "metadata": {"name": name},
                "spec": {"taints": [{"key": "scarce", "effect": "NoSchedule"}]},
                "status": {
                    "capacity": figures, "allocatable": figures,
                    "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "by a test"}],
                },
            });
            nodes.create(&node).await.unwrap();
            names.push(name);
        }
        Self {
            namespace: cluster.namespace("preemption").await,
            cluster: cluster.clone(),
            resource,
            nodes: names,
        }
    }

    fn pods(&self) -> Resource {
        self.cluster.core("pods", Some(&self.namespace))
    }

    async fn class(&self, value: i32) -> String {
        let name = self.cluster.unique("priority");
        let classes = self.cluster.resource("scheduling.k8s.io/v1", "priorityclasses", None);
        let class = json!({"metadata": {"name": name}, "value": value});
        classes.create(&class).await.unwrap();
        name
    }

    /// A pod that ends at once when it is deleted, for nobody would tell of its end.
    fn pod(&self, name: &str, class: &str, amount: &str, node: Option<&str>) -> Value {
        let mut limits = json!({});
        limits[&self.resource] = json!(amount);
        let mut object = pod(
            name,
            json!({
                "priorityClassName": class,
                "tolerations": [{"key": "scarce", "operator": "Exists"}],
                "terminationGracePeriodSeconds": 0,
            }),
        );
        object["spec"]["containers"][0]["resources"] = json!({"requests": limits, "limits": limits});
        if let Some(node) = node {
            let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
            let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
            object["spec"]["affinity"] = json!({"nodeAffinity": affinity});
        }
        object
    }

    /// One pod on each node, which takes two of the three that there are: the first is the least important.
    async fn fill(&self) -> Vec<String> {
        let (low, medium) = (self.class(1).await, self.class(100).await);
        let mut names = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let (name, class) = (format!("pod-{n}"), if n == 0 { &low } else { &medium });
            self.pods()
                .create(&self.pod(&name, class, "2", Some(node)))
                .await
                .unwrap();
            assert_eq!(placed(&self.pods(), &name).await, *node);
            names.push(name);
        }
        names
    }

    /// Pods elsewhere than in the namespace are the caller's.
    async fn end(self) {
        let now = kube::api::DeleteParams::default().grace_period(0);
        for pod in self.pods().labelled("").await {
            let _ = self.pods().delete_with(crate::resource::name(&pod), &now).await;
        }
        for node in &self.nodes {
            self.cluster.core("nodes", None).delete(node).await.unwrap();
        }
    }
}

async fn placed(pods: &Resource, name: &str) -> String {
    eventually("the pod has a node", async || {
        let pod = pods.get(name).await.unwrap();
        pod["spec"]["nodeName"].as_str().map(str::to_owned)
    })
    .await
}

/// The first is gone, and the preemptor stands where it stood; the others are still there.
async fn check(stage: &Stage, names: &[String], preemptors: &Resource, preemptor: &str) {
    assert_eq!(placed(preemptors, preemptor).await, stage.nodes[0]);
    assert!(
        stage
            .pods()
            .get(&names[0])
            .await
            .is_err_and(|status| status.code == 404)
    );
    for name in &names[1..] {
        let pod = stage.pods().get(name).await.unwrap();
        assert!(pod["metadata"].get("deletionTimestamp").is_none(), "{pod}");
    }
}

async fn basic(cluster: Cluster) {
    let stage = Stage::new(&cluster, 2, "3").await;
    let names = stage.fill().await;
    let victim = stage.pods().get(&names[0]).await.unwrap();
    let high = stage.class(1000).await;
    let made = stage
        .pods()
        .create(&stage.pod("preemptor", &high, "2", None))
        .await
        .unwrap();
    check(&stage, &names, &stage.pods(), "preemptor").await;
    // Both sides are told.
    let events = stage.cluster.core("events", Some(&stage.namespace));
    let chosen = ListParams::default().fields(&format!("involvedObject.name={},reason=Preempted", names[0]));
    let event = eventually("an event says who was preempted", async || {
        let list = events.list(&chosen).await.unwrap();
        list["items"].as_array().unwrap().first().cloned()
    })
    .await;
    let by = made["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        event["message"],
        format!("Preempted by pod {by} on node {}", stage.nodes[0])
    );
    assert_eq!(event["involvedObject"]["uid"], victim["metadata"]["uid"]);
    let pod = stage.pods().get("preemptor").await.unwrap();
    assert!(pod["status"].get("nominatedNodeName").is_none(), "it has a node: {pod}");
    stage.end().await;
}

async fn critical(cluster: Cluster) {
    let stage = Stage::new(&cluster, 2, "3").await;
    let names = stage.fill().await;
    let system = cluster.core("pods", Some("kube-system"));
    let name = cluster.unique("critical-pod");
    let object = stage.pod(&name, "system-cluster-critical", "2", None);
    let made = system.create(&object).await.unwrap();
    assert_eq!(made["spec"]["priority"], 2_000_000_000);
    check(&stage, &names, &system, &name).await;
    system.delete(&name).await.unwrap();
    stage.end().await;
}

async fn condition(cluster: Cluster) {
    let stage = Stage::new(&cluster, 1, "1").await;
    let node = stage.nodes[0].clone();
    let (low, high) = (stage.class(1).await, stage.class(1000).await);
    let finalizer = "example.com/test-finalizer";
    let mut victim = stage.pod("victim", &low, "1", Some(&node));
    merge_into(&mut victim, json!({"metadata": {"finalizers": [finalizer]}}));
    stage.pods().create(&victim).await.unwrap();
    assert_eq!(placed(&stage.pods(), "victim").await, node);
    let preemptor = stage.pod("preemptor", &high, "1", Some(&node));
    stage.pods().create(&preemptor).await.unwrap();
    let victim = eventually("the victim is going", async || {
        let pod = stage.pods().get("victim").await.unwrap();
        pod["metadata"].get("deletionTimestamp").is_some().then_some(pod)
    })
    .await;
    let conditions = victim["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget");
    let target = target.unwrap_or_else(|| panic!("no DisruptionTarget: {victim}"));
    assert_eq!(
        (&target["status"], &target["reason"]),
        (&json!("True"), &json!("PreemptionByScheduler"))
    );
    assert_eq!(
        target["message"],
        "default-scheduler: preempting to accommodate a higher priority pod"
    );
    // Until it is gone its room is kept for the pod that waits.
    let waiting = eventually("the node is nominated", async || {
        let pod = stage.pods().get("preemptor").await.unwrap();
        (pod["status"]["nominatedNodeName"] == node.as_str()).then_some(pod)
    })
    .await;
    assert!(waiting["spec"].get("nodeName").is_none(), "{waiting}");
    let nothing = json!({"metadata": {"finalizers": null}});
    stage.pods().merge("victim", nothing).await.unwrap();
    assert_eq!(placed(&stage.pods(), "preemptor").await, node);
    stage.end().await;
}

async fn replica_sets(cluster: Cluster) {
    let stage = Stage::new(&cluster, 1, "1000").await;
    let sets = cluster.resource("apps/v1", "replicasets", Some(&stage.namespace));
    let mut watch = stage.pods().watch("", "").await;
    for (name, value, amount) in [("pod1", 1, "200"), ("pod2", 2, "300"), ("pod3", 3, "450")] {
        let class = stage.class(value).await;
        let spec = stage.pod("", &class, amount, Some(&stage.nodes[0]))["spec"].take();
        let set = json!({"metadata": {"name": format!("rs-{name}")}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"name": name}},
            "template": {"metadata": {"labels": {"name": name}}, "spec": spec},
        }});
        sets.create(&set).await.unwrap();
        let selector = format!("name={name}");
        eventually("the set's pod has a node", async || {
            let pods = stage.pods().labelled(&selector).await;
            pods.iter().any(|pod| pod["spec"]["nodeName"].is_string()).then_some(())
        })
        .await;
    }
    let highest = stage.class(4).await;
    let preemptor = stage.pod("pod4", &highest, "500", Some(&stage.nodes[0]));
    stage.pods().create(&preemptor).await.unwrap();
    assert_eq!(placed(&stage.pods(), "pod4").await, stage.nodes[0]);
    // The two least important made room, and their sets made others of them, which wait; the third stayed.
    let mut made = [0; 3];
    while made != [2, 2, 1] {
        let pod = watch
            .until("ADDED", |pod| pod["metadata"]["labels"]["name"].is_string())
            .await;
        let name = pod["metadata"]["labels"]["name"].as_str().unwrap();
        let set = ["pod1", "pod2", "pod3"].iter().position(|set| *set == name).unwrap();
        made[set] += 1;
        assert!(made[0] <= 2 && made[1] <= 2 && made[2] <= 1, "{made:?}");
    }
    for (selector, waits) in [("name=pod1", true), ("name=pod2", true), ("name=pod3", false)] {
        let pods = stage.pods().labelled(selector).await;
        assert_eq!(pods.len(), 1, "{pods:?}");
        assert_eq!(pods[0]["spec"].get("nodeName").is_none(), waits, "{}", pods[0]);
    }
    for name in ["rs-pod1", "rs-pod2", "rs-pod3"] {
        sets.delete(name).await.unwrap();
    }
    stage.end().await;
}
