//! Pods that change in place: their resources, and all their containers anew.

use crate::cluster::{Cluster, NODE, POLITE, app, eventually};
use k8s_openapi::api::core::v1::{Node, Pod};
use krust::runtime::fake::Behaviour;
use krust::runtime::{ContainerState, Runtime};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

async fn resize(cluster: &Cluster, name: &str, spec: Value) {
    let patch = Patch::Strategic(json!({"spec": spec}));
    let (pods, parameters) = (cluster.pods(), PatchParams::default());
    let resized = pods.patch_subresource("resize", name, &parameters, &patch);
    resized.await.unwrap();
}

async fn node_declares(cluster: &Cluster) -> Vec<String> {
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    eventually("the node is there", async || {
        nodes.get_opt(NODE).await.unwrap().is_some()
    })
    .await;
    nodes
        .get(NODE)
        .await
        .unwrap()
        .status
        .unwrap()
        .declared_features
        .unwrap()
}

fn resize_conditions(pod: &Pod) -> Vec<(String, Option<String>, Option<String>)> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let resizes = conditions.filter(|condition| condition.type_.starts_with("PodResize"));
    resizes
        .map(|c| (c.type_.clone(), c.reason.clone(), c.message.clone()))
        .collect()
}

#[tokio::test]
async fn what_a_pod_has_as_a_whole_changes_in_place() {
    let cluster = Cluster::start().await;
    let declared = [
        "ExtendWebSocketsToKubelet",
        "InPlacePodLevelResourcesVerticalScaling",
        "InPlacePodVerticalScalingInitContainers",
        "RestartAllContainersOnContainerExits",
    ];
    assert_eq!(node_declares(&cluster).await, declared);
    let of = |memory: &str| json!({"requests": {"cpu": "100m", "memory": memory}, "limits": {"memory": memory}});
    let mut spec = app(&[]);
    spec["resources"] = of("64Mi");
    cluster.runtime.set_behaviour(
        "app:1",
        Behaviour {
            memory_bytes: 20 * MIB,
            ..Behaviour::default()
        },
    );
    cluster.create("whole", spec).await;
    let running = cluster.wait_phase("whole", "Running").await.status.unwrap();
    assert_eq!(json!(running.resources), of("64Mi"));
    assert_eq!(json!(running.allocated_resources), of("64Mi")["requests"]);
    let sandbox = cluster.runtime.list_pod_sandboxes().await.unwrap()[0].id.clone();
    let container = cluster.container_ids().await[0].clone();
    let limits = || [&sandbox, &container].map(|id| cluster.runtime.resources(id).unwrap().memory_limit_bytes / MIB);
    assert_eq!(limits(), [64, 64]);

    resize(&cluster, "whole", json!({"resources": of("32Mi")})).await;
    cluster.wait_event("ResizeCompleted", "\"generation\":2").await;
    let resized = |memory: &'static str| {
        let wanted = json!({"requests": {"cpu": "100m", "memory": memory}, "limits": {"memory": memory}});
        move |pod: &Pod| {
            let status = pod.status.clone().unwrap();
            json!(status.resources) == wanted
                && json!(status.allocated_resources) == wanted["requests"]
                && resize_conditions(pod).is_empty()
        }
    };
    cluster.wait("whole", "resized", resized("32Mi")).await;
    assert_eq!(limits(), [32, 32]);
    assert_eq!(
        cluster.container_ids().await,
        std::slice::from_ref(&container),
        "it was not restarted"
    );

    // What is used is not taken.
    resize(&cluster, "whole", json!({"resources": of("16Mi")})).await;
    let refused = |pod: &Pod| {
        resize_conditions(pod)
            .iter()
            .any(|(_, reason, _)| reason.as_deref() == Some("Error"))
    };
    let pod = cluster.wait("whole", "refused", refused).await;
    let (kind, _, message) = resize_conditions(&pod).remove(0);
    let (limit, used) = (16 * MIB, 20 * MIB);
    let of_one =
        |subject: &str| format!("attempting to set {subject} memory limit ({limit}) below current usage ({used})");
    let both = format!("[{}, {}]", of_one("pod"), of_one("container \"c\""));
    assert_eq!(kind, "PodResizeInProgress");
    assert_eq!(message.unwrap(), format!("cannot decrease memory limits: {both}"));
    assert_eq!(limits(), [32, 32]);
    // Taking the wish back ends it.
    resize(&cluster, "whole", json!({"resources": of("32Mi")})).await;
    cluster.wait("whole", "as before", resized("32Mi")).await;
    assert_eq!(limits(), [32, 32]);
}

#[tokio::test]
async fn an_init_container_is_resized_while_it_runs() {
    let cluster = Cluster::start().await;
    node_declares(&cluster).await;
    let of = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    let mut spec = app(&POLITE);
    spec["initContainers"] = json!([{"name": "i", "image": "app:1", "resources": of("100m")}]);
    cluster.create("init", spec).await;
    let state = |pod: &Pod| {
        let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
        Some(json!(statuses[0]))
    };
    let runs = |pod: &Pod| state(pod).is_some_and(|status| status["state"]["running"].is_object());
    cluster.wait("init", "in its first container", runs).await;
    let id = cluster.container_ids().await[0].clone();
    resize(
        &cluster,
        "init",
        json!({"initContainers": [{"name": "i", "resources": of("200m")}]}),
    )
    .await;
    let resized = |pod: &Pod| {
        let status = state(pod).unwrap();
        status["resources"] == of("200m")
            && status["allocatedResources"]["cpu"] == "200m"
            && resize_conditions(pod).is_empty()
    };
    cluster.wait("init", "resized", resized).await;
    assert_eq!(cluster.runtime.resources(&id).unwrap().cpu_quota, 20_000);
    assert_eq!(cluster.container_ids().await, [id]);
}

#[tokio::test]
async fn all_containers_begin_anew_where_a_rule_says_so() {
    let cluster = Cluster::start().await;
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let mut spec = app(&[]);
    spec["restartPolicy"] = json!("Never");
    spec["initContainers"] = json!([{"name": "i", "image": "app:1", "command": ["sh", "-c", "exit 0"]}]);
    spec["containers"] = json!([
        {"name": "c", "image": "app:1"},
        {"name": "w", "image": "app:1", "restartPolicy": "Never", "restartPolicyRules": [rule]},
    ]);
    cluster.create("again", spec).await;
    let first = cluster.wait_phase("again", "Running").await;
    let named = async |name: &str| {
        let all = cluster.runtime.list_containers().await.unwrap();
        let runs = all
            .into_iter()
            .find(|c| c.name == name && c.state == ContainerState::Running);
        runs.unwrap().id
    };
    let kept = named("c").await;
    cluster.runtime.exit_container(&named("w").await, 42);
    let counts = |pod: &Pod| {
        let status = pod.status.as_ref().unwrap();
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let all = lists.into_iter().flatten().flatten();
        all.map(|container| container.restart_count).collect::<Vec<_>>()
    };
    let anew = |pod: &Pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Running") && counts(pod) == [1, 1, 1];
    let again = cluster.wait("again", "running anew", anew).await;
    assert_ne!(named("c").await, kept);
    let address = |pod: &Pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert_eq!(address(&first), address(&again), "the sandbox stays");
    let conditions = again.status.unwrap().conditions.unwrap();
    let condition = conditions
        .iter()
        .find(|c| c.type_ == "AllContainersRestarting")
        .unwrap();
    assert_eq!(condition.status, "False");
    // Any other end is one.
    cluster.runtime.exit_container(&named("w").await, 0);
    cluster.runtime.exit_container(&named("c").await, 0);
    cluster.wait_phase("again", "Succeeded").await;
}
