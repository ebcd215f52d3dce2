//! Priority classes and limits as objects; pods that the scheduler places, on the node that runs them and on nodes that
//! only exist as objects.

use crate::cluster::{Cluster, eventually, refused};
use crate::pods::{sleeper, with_main, with_spec};
use crate::resource::{Resource, merge_into, pod};
use crate::runner::{Test, pod_test, test};
use kube::api::{ListParams, Patch};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-scheduling] SchedulerPreemption PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods",
            priority_classes,
        ),
        test(
            "[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied.",
            limits,
        ),
        test(
            "[sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if not matching",
            no_node_matches,
        ),
        pod_test(
            "[sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if matching",
            a_node_matches,
        ),
        pod_test(
            "[sig-scheduling] SchedulerPredicates validates resource limits of pods that are allowed to run",
            no_room_left,
        )
        // It takes all processors.
        .alone(),
        pod_test(
            "[sig-scheduling] SchedulerPredicates validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP",
            host_port_is_taken,
        ),
        test(
            "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead",
            runtime_class_without_overhead,
        ),
        test(
            "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead",
            runtime_class_with_overhead,
        ),
    ]
}

async fn priority_classes(cluster: Cluster) {
    let classes = cluster.resource("scheduling.k8s.io/v1", "priorityclasses", None);
    let label = cluster.unique("priorities");
    let selector = format!("set={label}");
    let (low, high) = (cluster.unique("p"), cluster.unique("p"));
    for (name, value) in [(&low, 1), (&high, 2)] {
        let class = json!({"metadata": {"name": name, "labels": {"set": label}}, "value": value});
        let created = classes.create(&class).await.unwrap();
        assert_eq!(created["preemptionPolicy"], "PreemptLowerPriority");
    }
    // The value is for ever, whichever way one tries.
    let other = json!({"value": 10});
    for patch in [
        Patch::Strategic(other.clone()),
        Patch::Merge(other.clone()),
        crate::resource::json_patch(json!([{"op": "replace", "path": "/value", "value": 10}])),
    ] {
        let status = refused(classes.patch(&low, &patch).await, 422, "Invalid");
        let cause = &status.details.unwrap().causes[0];
        assert_eq!(cause.field, "value");
    }
    let mut object = classes.get(&low).await.unwrap();
    merge_into(&mut object, other);
    refused(classes.replace(&object).await, 422, "Invalid");
    object["value"] = json!(1);
    object["description"] = json!("changed");
    assert_eq!(classes.replace(&object).await.unwrap()["description"], "changed");
    let patch = Patch::Strategic(json!({"description": "again"}));
    assert_eq!(classes.patch(&low, &patch).await.unwrap()["description"], "again");
    assert_eq!(classes.labelled(&selector).await.len(), 2);
    let all = classes.list(&ListParams::default()).await.unwrap();
    let names = crate::lifecycle::names(&all);
    for name in ["system-cluster-critical", "system-node-critical"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    refused(classes.delete("system-node-critical").await, 403, "Forbidden");
    classes.delete_collection(&selector).await.unwrap();
    assert!(classes.labelled(&selector).await.is_empty());
}

/// A pod whose container has these resources.
fn sized(name: &str, resources: Value) -> Value {
    let mut pod = pod(name, json!({}));
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

async fn limits(cluster: Cluster) {
    let namespace = cluster.namespace("limits").await;
    let ranges = cluster.core("limitranges", Some(&namespace));
    let pods = cluster.core("pods", Some(&namespace));
    let figures =
        |cpu: &str, memory: &str, disk: &str| json!({"cpu": cpu, "memory": memory, "ephemeral-storage": disk});
    let mut watch = ranges.watch("", "").await;
    let (min, max) = (figures("50m", "100Mi", "100Gi"), figures("500m", "500Mi", "500Gi"));
    let (default, request) = (figures("500m", "500Mi", "500Gi"), figures("100m", "200Mi", "200Gi"));
    let range = json!({"metadata": {"name": "range"}, "spec": {"limits": [{
        "type": "Container", "min": min, "max": max, "default": default, "defaultRequest": request,
    }]}});
    ranges.create(&range).await.unwrap();
    watch.expect("ADDED").await;
    let made = eventually("the defaults are applied", async || {
        let made = pods.create(&sized(&cluster.unique("none"), json!({}))).await.unwrap();
        (made["spec"]["containers"][0]["resources"] == json!({"limits": default, "requests": request})).then_some(made)
    })
    .await;
    assert!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"].is_string(),
        "{made}"
    );
    // What is said stays, what is not said comes from the range; a limit alone is a request, too.
    let partial = json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m", "memory": "500Mi"}});
    let made = pods.create(&sized("partial", partial)).await.unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": figures("300m", "150Mi", "200Gi"), "limits": figures("300m", "500Mi", "500Gi")})
    );
    let low = json!({"requests": {"cpu": "10m", "memory": "50Mi"}});
    let status = refused(pods.create(&sized("low", low)).await, 403, "Forbidden");
    for text in [
        "minimum cpu usage per Container is 50m, but request is 10m",
        "minimum memory usage per Container is 100Mi, but request is 50Mi",
    ] {
        assert!(status.message.contains(text), "{}", status.message);
    }
    let high = json!({"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}});
    let status = refused(pods.create(&sized("high", high.clone())).await, 403, "Forbidden");
    assert!(
        status
            .message
            .contains("maximum cpu usage per Container is 500m, but limit is 600m"),
        "{}",
        status.message
    );
    // A wider range lets it in.
    let wider = json!({"spec": {"limits": [{"type": "Container", "max": figures("700m", "700Mi", "700Gi")}]}});
    ranges.merge("range", wider).await.unwrap();
    watch.expect("MODIFIED").await;
    eventually("the wider range counts", async || {
        pods.create(&sized("high", high.clone())).await.ok()
    })
    .await;
    ranges.delete("range").await.unwrap();
    watch.expect("DELETED").await;
    eventually("no range counts", async || {
        pods.create(&sized(&cluster.unique("huge"), json!({"requests": {"cpu": "9"}})))
            .await
            .ok()
    })
    .await;
}

/// A ready node without a kubelet, for pods that tolerate `only=<name>` and nobody else.
async fn node(cluster: &Cluster, labels: Value) -> String {
    let name = cluster.unique("node");
    let nodes = cluster.core("nodes", None);
    let figures = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": "only", "value": name, "effect": "NoSchedule"}]},
        "status": {
            "capacity": figures, "allocatable": figures,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "by a test"}],
        },
    });
    nodes.create(&node).await.unwrap();
    name
}

/// Why the scheduler has none for it.
async fn unschedulable(pods: &Resource, name: &str) -> String {
    let condition = eventually("the scheduler says no", async || {
        let pod = pods.get(name).await.unwrap();
        assert!(pod["spec"].get("nodeName").is_none(), "{pod}");
        scheduled(&pod).cloned()
    })
    .await;
    assert_eq!(condition["status"], "False");
    assert_eq!(condition["reason"], "Unschedulable");
    condition["message"].as_str().unwrap().to_owned()
}

async fn a_node_matches(cluster: Cluster) {
    let (real, other) = (cluster.node().await, node(&cluster, json!({})).await);
    let pods = cluster.pods("matching").await;
    let key = cluster.unique("label");
    let spec = |label: &str| {
        let tolerations = json!([{"key": "only", "operator": "Exists"}]);
        json!({"tolerations": tolerations, "nodeSelector": {key.clone(): label}})
    };
    pods.create(&with_spec(sleeper("there"), spec("42"))).await;
    let message = unschedulable(&pods.resource, "there").await;
    assert!(
        message.contains("2 node(s) didn't match Pod's node affinity/selector"),
        "{message}"
    );
    // The label decides, which is new on the nodes.
    let nodes = cluster.core("nodes", None);
    let label = |value: Value| json!({"metadata": {"labels": {key.clone(): value}}});
    nodes.merge(&other, label(json!("41"))).await.unwrap();
    nodes.merge(&real, label(json!("42"))).await.unwrap();
    let runs = pods.until_ready("there").await;
    assert_eq!(runs["spec"]["nodeName"], real.as_str());
    pods.create(&with_spec(sleeper("elsewhere"), spec("41"))).await;
    let placed = pods
        .until("elsewhere", "placed", |pod| scheduled_to(pod).is_some())
        .await;
    assert_eq!(scheduled_to(&placed), Some(other.as_str()));
    nodes.merge(&real, label(Value::Null)).await.unwrap();
    nodes.delete(&other).await.unwrap();
}

fn scheduled_to(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// Thousandths of a processor.
fn millis(cpu: &Value) -> i64 {
    let text = cpu.as_str().unwrap_or("0");
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().unwrap(),
        None => text.parse::<i64>().unwrap() * 1000,
    }
}

async fn no_room_left(cluster: Cluster) {
    let node = cluster.node().await;
    let pods = cluster.pods("room").await;
    let read = cluster.core("nodes", None).get(&node).await.unwrap();
    let all = millis(&read["status"]["allocatable"]["cpu"]);
    let everywhere = cluster.core("pods", None).labelled("").await;
    let here = everywhere.iter().filter(|pod| {
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        scheduled_to(pod) == Some(node.as_str()) && !ended
    });
    let containers = here.flat_map(|pod| pod["spec"]["containers"].as_array().unwrap());
    let taken: i64 = containers
        .map(|container| millis(&container["resources"]["requests"]["cpu"]))
        .sum();
    // What is free is filled to 70 percent; then half of the node is too much.
    let asking = |name: &str, cpu: i64| {
        let cpu = format!("{cpu}m");
        with_main(
            sleeper(name),
            json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}}),
        )
    };
    pods.ready(&asking("filler", (all - taken) * 7 / 10)).await;
    pods.create(&asking("additional", all / 2)).await;
    let message = unschedulable(&pods.resource, "additional").await;
    assert!(message.contains("1 Insufficient cpu"), "{message}");
    // What ends makes room.
    pods.delete("filler").await;
    let runs = pods.until_ready("additional").await;
    assert_eq!(scheduled_to(&runs), Some(node.as_str()));
    pods.delete("additional").await;
}

async fn host_port_is_taken(cluster: Cluster) {
    let node = cluster.node().await;
    let pods = cluster.pods("ports").await;
    let pod = |name: &str, address: &str, protocol: &str| {
        let port = json!({"containerPort": 80, "hostPort": 54322, "protocol": protocol, "hostIP": address});
        let here = json!({"nodeSelector": {"kubernetes.io/hostname": node}});
        with_spec(with_main(sleeper(name), json!({"ports": [port]})), here)
    };
    let runs = pods.ready(&pod("first", "", "TCP")).await;
    assert_eq!(scheduled_to(&runs), Some(node.as_str()));
    pods.create(&pod("second", "127.0.0.1", "TCP")).await;
    let message = unschedulable(&pods.resource, "second").await;
    assert!(
        message.contains("1 node(s) didn't have free ports for the requested pod ports"),
        "{message}"
    );
    // Another protocol is another port.
    let runs = pods.ready(&pod("third", "127.0.0.1", "UDP")).await;
    assert_eq!(scheduled_to(&runs), Some(node.as_str()));
    pods.delete("first").await;
    pods.until_ready("second").await;
}

fn on(node: &str) -> Value {
    json!({
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"key": "only", "value": node, "effect": "NoSchedule"}],
    })
}

fn scheduled(pod: &Value) -> Option<&Value> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "PodScheduled")
}

async fn no_node_matches(cluster: Cluster) {
    let namespace = cluster.namespace("selector").await;
    let node = node(&cluster, json!({"kubernetes.io/hostname": "some-host"})).await;
    let pods = cluster.core("pods", Some(&namespace));
    let mut spec = on(&node);
    spec["nodeSelector"] = json!({"label": "nonempty"});
    pods.create(&pod("restricted", spec)).await.unwrap();
    let condition = eventually("the scheduler has tried", async || {
        let pod = pods.get("restricted").await.unwrap();
        scheduled(&pod).cloned()
    })
    .await;
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("False"), &json!("Unschedulable"))
    );
    let pod = pods.get("restricted").await.unwrap();
    assert_eq!(pod["status"]["phase"], "Pending");
    assert!(pod["spec"].get("nodeName").is_none());
    let events = cluster.core("events", Some(&namespace));
    let chosen = ListParams::default().fields("involvedObject.name=restricted,reason=FailedScheduling");
    eventually("an event says why", async || {
        let list = events.list(&chosen).await.unwrap();
        (!list["items"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    cluster.core("nodes", None).delete(&node).await.unwrap();
}

async fn with_runtime_class(cluster: &Cluster, class: Value) -> Value {
    let namespace = cluster.namespace("classes").await;
    let host = cluster.unique("host");
    let node = node(cluster, json!({"kubernetes.io/hostname": host})).await;
    let classes = cluster.resource("node.k8s.io/v1", "runtimeclasses", None);
    let name = cluster.unique("class");
    let mut object = json!({"metadata": {"name": name}, "handler": "runc"});
    merge_into(&mut object, class);
    classes.create(&object).await.unwrap();
    let mut spec = on(&node);
    merge_into(
        &mut spec,
        json!({"nodeSelector": {"kubernetes.io/hostname": host}, "runtimeClassName": name}),
    );
    let pods = cluster.core("pods", Some(&namespace));
    pods.create(&pod("one", spec)).await.unwrap();
    let placed = eventually("the pod is scheduled", async || {
        let pod = pods.get("one").await.unwrap();
        scheduled(&pod)
            .is_some_and(|condition| condition["status"] == "True")
            .then_some(pod)
    })
    .await;
    assert_eq!(placed["spec"]["nodeName"], node);
    let now = kube::api::DeleteParams::default().grace_period(0);
    pods.delete_with("one", &now).await.unwrap();
    classes.delete(&name).await.unwrap();
    cluster.core("nodes", None).delete(&node).await.unwrap();
    placed
}

async fn runtime_class_without_overhead(cluster: Cluster) {
    let pod = with_runtime_class(&cluster, json!({})).await;
    assert!(pod["spec"].get("overhead").is_none(), "{pod}");
}

async fn runtime_class_with_overhead(cluster: Cluster) {
    let overhead = json!({"cpu": "10m", "memory": "1Mi"});
    let pod = with_runtime_class(&cluster, json!({"overhead": {"podFixed": overhead}})).await;
    assert_eq!(pod["spec"]["overhead"], overhead);
}
