//! Tables of cases for cells, as kubectl shows them.

use crate::registry::Registry;
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z
const NOW: i64 = 1_767_225_600;

/// The cells of an object, joined by `|`.
fn cells(group: &str, version: &str, resource: &str, object: Value) -> String {
    let kind = Registry::builtin().lookup(group, version, resource).expect("a row");
    let object = object.as_object().expect("an object");
    let cells = kind.strategy.cells(object, NOW);
    let texts = cells.iter().map(|cell| match cell {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    texts.collect::<Vec<_>>().join("|")
}

#[test]
fn nodes() {
    let node = json!({
        "metadata": {
            "name": "n", "creationTimestamp": "2025-12-31T23:50:30Z",
            "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""},
        },
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian"},
        },
    });
    let expected =
        "n|Ready,SchedulingDisabled|control-plane,worker|9m30s|v1|10.0.0.1|<none>|Debian|<unknown>|<unknown>";
    assert_eq!(cells("", "v1", "nodes", node), expected);
    let bare = json!({"metadata": {"name": "n"}});
    let expected = "n|Unknown|<none>|<unknown>||<none>|<none>|<unknown>|<unknown>|<unknown>";
    assert_eq!(cells("", "v1", "nodes", bare), expected);
}

#[test]
fn services() {
    let show = |spec: Value, status: Value| {
        cells(
            "",
            "v1",
            "services",
            json!({"metadata": {"name": "s"}, "spec": spec, "status": status}),
        )
    };
    let plain = json!({"type": "ClusterIP", "clusterIPs": ["None"], "ports": [{"port": 80, "protocol": "TCP"}]});
    assert_eq!(
        show(plain, json!({})),
        "s|ClusterIP|None|<none>|80/TCP|<unknown>|<none>"
    );
    let ports = json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
    let balanced = json!({"type": "LoadBalancer", "ports": ports, "selector": {"b": "2", "a": "1"}});
    let waiting = "s|LoadBalancer|<none>|<pending>|80:30080/TCP,53/UDP|<unknown>|a=1,b=2";
    assert_eq!(show(balanced.clone(), json!({})), waiting);
    let ingress = json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "1.example"}]}});
    let ready = "s|LoadBalancer|<none>|1.example,2.2.2.2|80:30080/TCP,53/UDP|<unknown>|a=1,b=2";
    assert_eq!(show(balanced, ingress), ready);
    let external = json!({"type": "ExternalName", "externalName": "a.example"});
    assert_eq!(
        show(external, json!({})),
        "s|ExternalName|<none>|a.example|<none>|<unknown>|<none>"
    );
}

#[test]
fn events() {
    let event = json!({
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "type": "Normal", "reason": "Started", "message": " text\n",
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2025-12-31T23:58:00Z", "lastTimestamp": "2025-12-31T23:59:50Z", "count": 3,
    });
    let expected = "10s|Normal|Started|pod/p|spec.containers{c}|kubelet, n|text|2m|3|e";
    assert_eq!(cells("", "v1", "events", event), expected);
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:2"}]}});
    let selector = json!({
        "matchLabels": {"x": "y"},
        "matchExpressions": [{"key": "t", "operator": "In", "values": ["2", "1"]}, {"key": "z", "operator": "Exists"}],
    });
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {"replicas": 3, "template": template, "selector": selector},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
    });
    let expected = "d|2/3|3|2|<unknown>|a,b|i:1,i:2|t in (1,2),x=y,z";
    assert_eq!(cells("apps", "v1", "deployments", deployment), expected);
    let job = |status: Value| {
        let spec = json!({"completions": 2, "template": template, "selector": {"matchLabels": {"x": "y"}}});
        cells(
            "batch",
            "v1",
            "jobs",
            json!({"metadata": {"name": "j"}, "spec": spec, "status": status}),
        )
    };
    assert_eq!(job(json!({})), "j|Running|0/2||<unknown>|a,b|i:1,i:2|x=y");
    let done = json!({
        "conditions": [{"type": "Complete", "status": "True"}], "succeeded": 2,
        "startTime": "2025-12-31T23:00:00Z", "completionTime": "2025-12-31T23:00:07Z",
    });
    assert_eq!(job(done), "j|Complete|2/2|7s|<unknown>|a,b|i:1,i:2|x=y");
}

#[test]
fn autoscalers_show_two_metrics() {
    let resource =
        |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
    let autoscaler = json!({
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3,
            "metrics": [
                resource("cpu", json!({"averageUtilization": 80})),
                resource("memory", json!({"averageValue": "1Gi"})),
                {"type": "External", "external": {"target": {"value": "5"}}},
            ],
        },
        "status": {"currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}]},
    });
    let expected = "h|Deployment/d|cpu: 7%/80%, memory: <unknown>/1Gi + 1 more...|<unset>|3|0|<unknown>";
    assert_eq!(
        cells("autoscaling", "v2", "horizontalpodautoscalers", autoscaler),
        expected
    );
}

#[test]
fn volumes_and_slices() {
    let claim = json!({
        "metadata": {"name": "c", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"volumeName": "v", "storageClassName": "fast"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]},
    });
    let expected = "c|Terminating|v|1Gi|RWO,RWX|fast|<unset>|<unknown>|<unset>";
    assert_eq!(cells("", "v1", "persistentvolumeclaims", claim), expected);
    let slice = json!({
        "metadata": {"name": "s"}, "addressType": "IPv4",
        "ports": [{"port": 80}, {"name": "dns"}],
        "endpoints": [{"addresses": ["1.1.1.1", "1.1.1.2"]}, {"addresses": ["1.1.1.3"]}, {"addresses": ["1.1.1.4"]}],
    });
    let expected = "s|IPv4|80,dns|1.1.1.1,1.1.1.2,1.1.1.3 + 1 more...|<unknown>";
    assert_eq!(cells("discovery.k8s.io", "v1", "endpointslices", slice), expected);
    let role = json!({"metadata": {"name": "r", "creationTimestamp": "2025-12-31T23:00:00Z"}});
    assert_eq!(
        cells("rbac.authorization.k8s.io", "v1", "roles", role),
        "r|2025-12-31T23:00:00Z"
    );
}
