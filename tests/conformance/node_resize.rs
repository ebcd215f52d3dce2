//! Resources of running containers, changed in place: the pod's status says so, and the containers' cgroups.

use crate::cluster::Cluster;
use crate::pods::{Pods, SLEEP, container, container_status, pod_of};
use crate::resource::name;
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    let guaranteed = "guaranteed pods with multiple containers 3 containers - ";
    let burstable = "burstable pods - extended ";
    let name = |rest: String| -> &'static str { format!("[sig-node] Pod InPlace Resize Container {rest}").leak() };
    let net = |what: &str| name(format!("{guaranteed}{what}"));
    let three = |changes: [(u32, u32); 3]| move |cluster| three_change(cluster, changes);
    vec![
        pod_test(
            net("increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase"),
            three([(30, 40), (30, 40), (10, 20)]),
        ),
        pod_test(
            net("increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease"),
            three([(30, 40), (10, 20), (10, 20)]),
        ),
        pod_test(
            net("increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2)"),
            three([(30, 30), (10, 40), (30, 40)]),
        ),
        pod_test(
            name(format!(
                "{burstable}6 containers - various operations performed (including adding limits and requests)"
            )),
            six_change,
        ),
        pod_test(name(format!("{burstable}resize with equivalents")), equivalents),
        pod_test(name("resize pod via the replace endpoint".to_owned()), replaced),
    ]
}

fn sized(index: usize, resources: &Value) -> Value {
    let mut container = container(&format!("c{index}"), SLEEP);
    container["resources"] = resources.clone();
    container
}

fn sized_pod(resources: &[Value]) -> Value {
    let containers: Vec<Value> = resources.iter().enumerate().map(|(i, r)| sized(i + 1, r)).collect();
    pod_of("resized", &containers)
}

/// Requests and limits alike: thousandths of a core, and MiB.
fn both(milli: u32, mebibytes: u32) -> Value {
    let figures = json!({"cpu": format!("{milli}m"), "memory": format!("{mebibytes}Mi")});
    json!({"requests": figures, "limits": figures})
}

async fn three_change(cluster: Cluster, changes: [(u32, u32); 3]) {
    let before: Vec<Value> = (0..3).map(|_| both(20, 30)).collect();
    let after: Vec<Value> = changes.iter().map(|(cpu, memory)| both(*cpu, *memory)).collect();
    resize(&cluster, &before, &after).await;
}

async fn six_change(cluster: Cluster) {
    let figures = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let before = [
        json!({}),
        json!({"requests": {"cpu": "10m"}}),
        json!({"requests": figures("10m", "20Mi"), "limits": figures("20m", "40Mi")}),
        json!({"requests": figures("10m", "20Mi"), "limits": figures("20m", "40Mi")}),
        json!({"requests": {"memory": "20Mi"}, "limits": {"memory": "40Mi"}}),
        json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "20m"}}),
    ];
    let after = [
        json!({"requests": figures("10m", "20Mi"), "limits": figures("20m", "40Mi")}),
        json!({"requests": figures("12m", "20Mi"), "limits": {"cpu": "25m"}}),
        json!({"requests": figures("12m", "25Mi"), "limits": figures("25m", "50Mi")}),
        json!({"requests": figures("8m", "15Mi"), "limits": figures("15m", "40Mi")}),
        json!({"requests": {"memory": "25Mi"}, "limits": figures("20m", "40Mi")}),
        json!({"requests": figures("15m", "20Mi"), "limits": figures("25m", "40Mi")}),
    ];
    resize(&cluster, &before, &after).await;
}

/// What the kernel cannot tell apart: 1m and 2m are the least share, 1m and 10m the least quota.
async fn equivalents(cluster: Cluster) {
    let of = |request: &str, limit: &str| {
        json!({
            "requests": {"cpu": request, "memory": "20Mi"}, "limits": {"cpu": limit, "memory": "40Mi"},
        })
    };
    let before = [of("2m", "10m")];
    let after = [of("1m", "5m")];
    resize(&cluster, &before, &after).await;
}

/// Creates a pod with the first, changes it to the second, and looks at status and cgroups of both.
async fn resize(cluster: &Cluster, before: &[Value], after: &[Value]) -> Value {
    let pods = cluster.pods("resize").await;
    let ready = pods.ready(&sized_pod(before)).await;
    let started = check(&pods, &ready, before).await;
    let containers: Vec<Value> = after.iter().enumerate().map(|(i, r)| sized(i + 1, r)).collect();
    let containers: Vec<Value> = containers
        .iter()
        .map(|c| json!({"name": c["name"], "resources": c["resources"]}))
        .collect();
    let patch = kube::api::Patch::Strategic(json!({"spec": {"containers": containers}}));
    let patched = pods.resource.patch_sub("resized", "resize", &patch).await.unwrap();
    assert_eq!(patched["metadata"]["generation"], 2);
    let resized = until_resized(&pods, &patched).await;
    assert_eq!(
        check(&pods, &resized, after).await,
        started,
        "a container was restarted"
    );
    resized
}

/// The pod when the containers' resources are what its spec says, and nothing is going on.
async fn until_resized(pods: &Pods, wanted: &Value) -> Value {
    let so = |pod: &Value| {
        let containers = pod["spec"]["containers"].as_array().unwrap();
        let as_wanted = |container: &Value| {
            let status = container_status(pod, name_of(container));
            canonical(&status["resources"]) == canonical(&container["resources"])
        };
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let waits = |c: &Value| c["type"].as_str().is_some_and(|kind| kind.starts_with("PodResize"));
        pod["status"]["observedGeneration"] == wanted["metadata"]["generation"]
            && containers.iter().all(as_wanted)
            && !conditions.iter().any(waits)
    };
    pods.until(name(wanted), "resized", so).await
}

fn name_of(container: &Value) -> &str {
    container["name"].as_str().unwrap()
}

/// Requests and limits; what is empty counts as absent.
fn canonical(resources: &Value) -> [Value; 2] {
    ["requests", "limits"].map(|list| match &resources[list] {
        Value::Object(figures) if !figures.is_empty() => json!(figures),
        _ => Value::Null,
    })
}

/// Prints share, quota and limit, of either version of cgroups.
const CGROUP: &str = "cd /sys/fs/cgroup; if [ -f cpu.max ]; then cat cpu.max memory.max; \
    else cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes cpu/cpu.shares; fi";

/// Looks at each container; gives their ids.
async fn check(pods: &Pods, pod: &Value, resources: &[Value]) -> Vec<String> {
    let mut ids = Vec::new();
    for (index, resources) in resources.iter().enumerate() {
        let container = format!("c{}", index + 1);
        let status = container_status(pod, &container);
        assert_eq!(status["restartCount"], 0);
        ids.push(status["containerID"].as_str().unwrap().to_owned());
        let spec = &pod["spec"]["containers"][index]["resources"];
        assert_eq!(canonical(&status["resources"]), canonical(spec), "{container}");
        let milli = |list: &str| {
            let text = resources[list]["cpu"].as_str();
            text.map(|text| text.strip_suffix('m').unwrap().parse::<u64>().unwrap())
        };
        let limit = resources["limits"]["memory"].as_str().map(crate::quantity::rounded_up);
        let quota = milli("limits").map(|milli| (milli * 100).max(1000));
        let output = pods.shell("resized", &container, CGROUP).await;
        let lines: Vec<&str> = output.lines().collect();
        let figure = |line: usize| lines[line].split(' ').next().unwrap();
        match quota {
            Some(quota) => assert_eq!(figure(0), quota.to_string(), "quota of {container}: {output}"),
            None => assert!(matches!(figure(0), "max" | "-1"), "quota of {container}: {output}"),
        }
        match limit {
            Some(limit) => assert_eq!(figure(1), limit.to_string(), "limit of {container}: {output}"),
            None => assert!(
                figure(1).len() > 15 || figure(1) == "max",
                "limit of {container}: {output}"
            ),
        }
        if lines.len() > 2 {
            let shares = milli("requests")
                .or(milli("limits"))
                .map_or(2, |milli| (milli * 1024 / 1000).max(2));
            assert_eq!(figure(2), shares.to_string(), "share of {container}: {output}");
        }
    }
    ids
}

async fn replaced(cluster: Cluster) {
    let pods = cluster.pods("resize").await;
    pods.ready(&sized_pod(&[both(20, 30)])).await;
    let written = crate::cluster::eventually("the resize is taken", async || {
        let mut pod = pods.resource.get_sub("resized", "resize").await.unwrap();
        pod["spec"]["containers"][0]["resources"] = both(30, 40);
        pods.resource.replace_sub("resize", &pod).await.ok()
    })
    .await;
    let resized = until_resized(&pods, &written).await;
    check(&pods, &resized, &[both(30, 40)]).await;
    // More than the node has is refused, and the pod goes on as it is.
    let patch = json!({"spec": {"containers": [{"name": "c1", "resources": both(9_000_000, 40)}]}});
    let patch = kube::api::Patch::Strategic(patch);
    let refused = pods
        .resource
        .patch_sub("resized", "resize", &patch)
        .await
        .unwrap_err()
        .to_string();
    let why = "Node didn't have enough allocatable resources: cpu, requested: 9000000, allocatable: ";
    assert!(refused.contains(why), "{refused}");
    check(&pods, &resized, &[both(30, 40)]).await;
}
