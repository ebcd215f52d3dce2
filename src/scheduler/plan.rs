//! The decision where a pod goes: filter, then score (upstream: `schedule_one.go`). Pure.

use super::cache::{Cache, HostPort, host_ports};
use super::plugins;
use super::resources::Amounts;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Bind {
        node: String,
    },
    /// `0/3 nodes are available: 2 Insufficient cpu, 1 node(s) were unschedulable.`
    Unschedulable {
        message: String,
    },
}

/// What plug-ins read of a pod, worked out once per attempt.
pub struct PodInfo<'a> {
    pub spec: &'a PodSpec,
    pub requested: Amounts,
    pub host_ports: Vec<HostPort>,
}

/// The node with the best score among those that pass every filter; the first by name among equals.
pub fn decide(pod: &Pod, cache: &Cache) -> Decision {
    let Some(spec) = &pod.spec else {
        return Decision::Unschedulable {
            message: "the pod has no spec".into(),
        };
    };
    let info = PodInfo {
        spec,
        requested: Amounts::requested_by(pod),
        host_ports: host_ports(pod),
    };
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut nodes_count = 0;
    let mut best: Option<(i64, &str)> = None;
    for (name, node) in cache.nodes() {
        nodes_count += 1;
        // Upstream stops at the first plug-in that refuses; the plug-in may give several reasons.
        let refused = plugins::all()
            .iter()
            .map(|plugin| plugin.filter(&info, node))
            .find(|refused| !refused.is_empty());
        match refused {
            Some(refused) => {
                for reason in refused {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
            None => {
                let score = plugins::all().iter().map(|plugin| plugin.score(&info, node)).sum();
                if best.is_none_or(|(highest, _)| score > highest) {
                    best = Some((score, name));
                }
            }
        }
    }
    match best {
        Some((_, node)) => Decision::Bind { node: node.to_owned() },
        None => Decision::Unschedulable {
            message: unschedulable_message(nodes_count, &reasons),
        },
    }
}

fn unschedulable_message(nodes_count: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes_count == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    // Upstream sorts the finished texts, count first.
    let mut parts: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    format!("0/{nodes_count} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn node(name: &str, cpu: &str, spec: Value, labels: Value) -> Arc<k8s_openapi::api::core::v1::Node> {
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": spec,
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"}}});
        Arc::new(serde_json::from_value(node).unwrap())
    }
    fn pod(uid: &str, spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        Arc::new(serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec})).unwrap())
    }
    fn cpu(amount: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
    }
    fn three_nodes() -> Cache {
        let mut cache = Cache::default();
        cache.put_node(node("a", "1", json!({}), json!({"disk": "ssd"})));
        cache.put_node(node(
            "b",
            "2",
            json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}),
            json!({}),
        ));
        cache.put_node(node("c", "4", json!({"unschedulable": true}), json!({})));
        cache
    }
    fn message(decision: Decision) -> String {
        match decision {
            Decision::Unschedulable { message } => message,
            Decision::Bind { node } => format!("bound to {node}"),
        }
    }

    #[test]
    fn situations() {
        let tolerate = json!([{"key": "k", "operator": "Exists"}]);
        let mut tolerant = cpu("2");
        tolerant["tolerations"] = tolerate.clone();
        for (spec, expected) in [
            (cpu("500m"), "bound to a"),
            (tolerant, "bound to b"),
            (
                cpu("8"),
                "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
            ),
            (json!({"nodeSelector": {"disk": "ssd"}}), "bound to a"),
            (
                json!({"nodeSelector": {"disk": "hdd"}, "tolerations": [{"operator": "Exists"}]}),
                "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            ),
            (
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}]}}}, "tolerations": tolerate}),
                "bound to b",
            ),
        ] {
            assert_eq!(
                message(decide(&pod("p", spec.clone()), &three_nodes())),
                expected,
                "{spec}"
            );
        }
        assert_eq!(
            message(decide(&pod("p", json!({})), &Cache::default())),
            "no nodes available to schedule pods"
        );
    }

    #[test]
    fn assumed_pods_take_room_and_give_it_back() {
        let mut cache = Cache::default();
        cache.put_node(node("a", "1", json!({}), json!({})));
        let first = pod("first", cpu("600m"));
        let second = pod("second", cpu("600m"));
        assert_eq!(message(decide(&first, &cache)), "bound to a");
        cache.assume(first.clone(), "a");
        assert_eq!(
            message(decide(&second, &cache)),
            "0/1 nodes are available: 1 Insufficient cpu."
        );
        cache.forget(&first);
        assert_eq!(message(decide(&second, &cache)), "bound to a");
    }

    #[test]
    fn too_many_pods_and_host_ports() {
        let mut cache = Cache::default();
        cache.put_node(node("a", "9", json!({}), json!({})));
        let port = |address: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": address}]}]});
        cache.assume(pod("0", port("127.0.0.1")), "a");
        assert_eq!(message(decide(&pod("x", port("10.0.0.1")), &cache)), "bound to a");
        assert_eq!(
            message(decide(&pod("x", port("")), &cache)),
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        );
        cache.assume(pod("1", json!({})), "a");
        cache.assume(pod("2", json!({})), "a");
        assert_eq!(
            message(decide(&pod("3", json!({})), &cache)),
            "0/1 nodes are available: 1 Too many pods."
        );
    }
}
