//! Pods that make room for others: on the node that runs them, beside nodes that only exist as objects.

use crate::cluster::{Cluster, eventually};
use crate::pods::{Pods, sleeper, with_main, with_spec};
use crate::replicas::{has_ready, long_watch, template, until};
use crate::resource::merge_into;
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-scheduling] SchedulerPreemption validates basic preemption works",
            basic,
        ),
        pod_test(
            "[sig-scheduling] SchedulerPreemption validates lower priority pod preemption by critical pod",
            critical,
        ),
        pod_test(
            "[sig-scheduling] SchedulerPreemption validates pod disruption condition is added to the preempted pod",
            condition,
        ),
        pod_test(
            "[sig-scheduling] SchedulerPreemption PreemptionExecutionPath runs ReplicaSets to verify preemption running path",
            replica_sets,
        ),
    ]
}

/// Nodes with a resource of their own, the one that runs pods first; and classes of priority.
struct Stage {
    cluster: Cluster,
    pods: Pods,
    resource: String,
    nodes: Vec<String>,
}

impl Stage {
    async fn new(cluster: &Cluster, nodes_count: usize, amount: &str) -> Self {
        let resource = format!("example.com/{}", cluster.unique("scarce"));
        let stage = Self {
            pods: cluster.pods("preemption").await,
            cluster: cluster.clone(),
            nodes: vec![cluster.node().await],
            resource,
        };
        stage.give(&stage.nodes[0], json!(amount)).await;
        let mut figures = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
        figures[&stage.resource] = json!(amount);
        let nodes = cluster.core("nodes", None);
        let mut names = stage.nodes.clone();
        for _ in 1..nodes_count {
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
        Self { nodes: names, ..stage }
    }

    /// So much of the resource is there from now on.
    async fn give(&self, node: &str, amount: Value) {
        let mut figures = json!({});
        figures[&self.resource] = amount;
        let status = json!({"status": {"capacity": figures, "allocatable": figures}});
        let nodes = self.cluster.core("nodes", None);
        nodes.merge_sub(node, "status", status).await.unwrap();
    }

    fn runs(&self, node: &str) -> bool {
        node == self.nodes[0]
    }

    async fn class(&self, value: i32) -> String {
        let name = self.cluster.unique("priority");
        let classes = self.cluster.resource("scheduling.k8s.io/v1", "priorityclasses", None);
        let class = json!({"metadata": {"name": name}, "value": value});
        classes.create(&class).await.unwrap();
        name
    }

    /// A pod that takes so much. On a node that is none it ends at once when it is deleted, for nobody would tell of its end.
    fn pod(&self, name: &str, class: &str, amount: &str, node: Option<&str>) -> Value {
        let mut limits = json!({});
        limits[&self.resource] = json!(amount);
        let grace = i32::from(node.is_none_or(|node| self.runs(node)));
        let mut object = with_spec(
            sleeper(name),
            json!({
                "priorityClassName": class,
                "tolerations": [{"key": "scarce", "operator": "Exists"}],
                "terminationGracePeriodSeconds": grace,
            }),
        );
        object = with_main(object, json!({"resources": {"requests": limits, "limits": limits}}));
        if let Some(node) = node {
            let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
            let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
            object["spec"]["affinity"] = json!({"nodeAffinity": affinity});
        }
        object
    }

    /// Makes a pod for a node, and waits until it is there.
    async fn place(&self, pod: &Value, node: &str) {
        self.pods.create(pod).await;
        let name = crate::resource::name(pod);
        let placed = match self.runs(node) {
            true => self.pods.until_ready(name).await,
            false => {
                let has_node = |pod: &Value| pod["spec"]["nodeName"].is_string();
                self.pods.until(name, "placed", has_node).await
            }
        };
        assert_eq!(placed["spec"]["nodeName"], node);
    }

    /// One pod on each node, which takes two of the three that there are: the first is the least important.
    async fn fill(&self) -> Vec<String> {
        let (low, medium) = (self.class(1).await, self.class(100).await);
        let mut names = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let (name, class) = (format!("pod-{n}"), if n == 0 { &low } else { &medium });
            self.place(&self.pod(&name, class, "2", Some(node)), node).await;
            names.push(name);
        }
        names
    }

    /// Pods elsewhere than in the namespace are the caller's.
    async fn end(self) {
        let now = kube::api::DeleteParams::default().grace_period(0);
        for pod in self.pods.resource.labelled("").await {
            let _ = self.pods.resource.delete_with(crate::resource::name(&pod), &now).await;
        }
        for node in &self.nodes[1..] {
            self.cluster.core("nodes", None).delete(node).await.unwrap();
        }
        self.give(&self.nodes[0], Value::Null).await;
    }
}

/// The first is gone, and the preemptor runs where it ran; the others are still there.
async fn check(stage: &Stage, names: &[String], preemptors: &Pods, preemptor: &str) {
    let runs = preemptors.until_ready(preemptor).await;
    assert_eq!(runs["spec"]["nodeName"], stage.nodes[0].as_str());
    stage.pods.gone(&names[0]).await;
    for name in &names[1..] {
        let pod = stage.pods.resource.get(name).await.unwrap();
        assert!(pod["metadata"].get("deletionTimestamp").is_none(), "{pod}");
    }
}

async fn basic(cluster: Cluster) {
    let stage = Stage::new(&cluster, 2, "3").await;
    let names = stage.fill().await;
    let victim = stage.pods.resource.get(&names[0]).await.unwrap();
    let high = stage.class(1000).await;
    let made = stage.pods.create(&stage.pod("preemptor", &high, "2", None)).await;
    check(&stage, &names, &stage.pods, "preemptor").await;
    // Both sides are told.
    let by = made["metadata"]["uid"].as_str().unwrap();
    let told = stage.pods.event(&names[0], "Preempted: ").await;
    assert_eq!(
        told,
        format!("Preempted: Preempted by pod {by} on node {}", stage.nodes[0])
    );
    assert!(victim["metadata"]["uid"].is_string());
    let pod = stage.pods.resource.get("preemptor").await.unwrap();
    assert!(pod["status"].get("nominatedNodeName").is_none(), "it has a node: {pod}");
    stage.end().await;
}

async fn critical(cluster: Cluster) {
    let stage = Stage::new(&cluster, 2, "3").await;
    let names = stage.fill().await;
    let system = cluster.pods_in("kube-system");
    let name = cluster.unique("critical-pod");
    let object = stage.pod(&name, "system-cluster-critical", "2", None);
    let made = system.create(&object).await;
    assert_eq!(made["spec"]["priority"], 2_000_000_000);
    check(&stage, &names, &system, &name).await;
    system.delete(&name).await;
    stage.end().await;
}

async fn condition(cluster: Cluster) {
    let stage = Stage::new(&cluster, 1, "1").await;
    let node = stage.nodes[0].clone();
    let (low, high) = (stage.class(1).await, stage.class(1000).await);
    let finalizer = "example.com/test-finalizer";
    let mut victim = stage.pod("victim", &low, "1", Some(&node));
    merge_into(&mut victim, json!({"metadata": {"finalizers": [finalizer]}}));
    stage.place(&victim, &node).await;
    let preemptor = stage.pod("preemptor", &high, "1", Some(&node));
    stage.pods.create(&preemptor).await;
    let is_going = |pod: &Value| pod["metadata"].get("deletionTimestamp").is_some();
    let victim = stage.pods.until("victim", "going", is_going).await;
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
    // Its end makes room; what keeps the object does not keep the pod.
    let runs = stage.pods.until_ready("preemptor").await;
    assert_eq!(runs["spec"]["nodeName"], node.as_str());
    let ended = stage.pods.ended("victim").await;
    let conditions = ended["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "DisruptionTarget"), "{ended}");
    let nothing = json!({"metadata": {"finalizers": null}});
    stage.pods.resource.merge("victim", nothing).await.unwrap();
    stage.pods.gone("victim").await;
    stage.end().await;
}

async fn replica_sets(cluster: Cluster) {
    let stage = Stage::new(&cluster, 1, "1000").await;
    let sets = cluster.resource("apps/v1", "replicasets", Some(&stage.pods.namespace));
    let mut watch = long_watch(&stage.pods.resource, "", "").await;
    for (name, value, amount) in [("pod1", 1, "200"), ("pod2", 2, "300"), ("pod3", 3, "450")] {
        let class = stage.class(value).await;
        let labels = json!({"name": name});
        let pod = stage.pod("", &class, amount, Some(&stage.nodes[0]));
        let set = json!({"metadata": {"name": format!("rs-{name}")}, "spec": {
            "replicas": 1, "selector": {"matchLabels": labels}, "template": template(labels, &pod),
        }});
        sets.create(&set).await.unwrap();
        until(&sets, &format!("rs-{name}"), "ready", has_ready(1)).await;
    }
    let highest = stage.class(4).await;
    let preemptor = stage.pod("pod4", &highest, "500", Some(&stage.nodes[0]));
    stage.place(&preemptor, &stage.nodes[0]).await;
    // The two least important made room, and their sets made others of them, which wait; the third stayed.
    let mut made = [0; 3];
    while made != [2, 2, 1] {
        let set_of = |pod: &Value| {
            let name = &pod["metadata"]["labels"]["name"];
            ["pod1", "pod2", "pod3"].iter().position(|set| name == set)
        };
        let pod = watch.until("ADDED", |pod| set_of(pod).is_some()).await;
        made[set_of(&pod).unwrap()] += 1;
        assert!(made[0] <= 2 && made[1] <= 2 && made[2] <= 1, "{made:?}");
    }
    for (selector, waits) in [("name=pod1", true), ("name=pod2", true), ("name=pod3", false)] {
        let pods = eventually("the set has one pod", async || {
            let pods = stage.pods.resource.labelled(selector).await;
            (pods.len() == 1).then_some(pods)
        })
        .await;
        assert_eq!(pods[0]["spec"].get("nodeName").is_none(), waits, "{}", pods[0]);
    }
    for name in ["rs-pod1", "rs-pod2", "rs-pod3"] {
        sets.delete(name).await.unwrap();
    }
    stage.end().await;
}
