//! Tables of cases for cells, as kubectl shows them.

use crate::registry::Registry;
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z
const NOW: i64 = 1_767_225_600;

/// A column as the table writes it.
fn described(column: &super::Column) -> String {
    let format = if column.format.is_empty() {
        String::new()
    } else {
        format!(":{}", column.format)
    };
    let priority = if column.priority == 0 {
        String::new()
    } else {
        format!("@{}", column.priority)
    };
    format!("{}:{}{format}{priority}", column.name, column.kind)
}

#[test]
fn every_kind_has_upstreams_columns() {
    let table: std::collections::BTreeMap<&str, &str> = include_str!("columns.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .collect();
    let mut compared = 0;
    for kind in Registry::builtin().kinds().filter(|kind| kind.has_verb("list")) {
        let name = format!("{}/{}", kind.group, kind.kind);
        let expected = table.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no line"));
        let columns: Vec<String> = kind.strategy.columns().iter().map(described).collect();
        assert_eq!(columns.join(", "), **expected, "{name}");
        compared += 1;
    }
    assert!(compared >= 60, "{compared}");
}

/// The cells of an object, joined by `|`.
fn cells(group: &str, version: &str, resource: &str, object: Value) -> String {
    let kind = Registry::builtin().lookup(group, version, resource).expect("a row");
    let object = object.as_object().expect("an object");
    let cells = kind.strategy.cells(object, NOW);
    let read = kind
        .strategy
        .cells_read()
        .read(json!(object).to_string().as_bytes())
        .unwrap();
    assert_eq!(
        kind.strategy.cells(&read, NOW),
        cells,
        "nothing is shown that is not read"
    );
    assert_eq!(
        kind.strategy.row_conditions(&read),
        kind.strategy.row_conditions(object)
    );
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

#[test]
fn certificates() {
    let show = |resource: &str, object: Value| cells("certificates.k8s.io", "v1", resource, object);
    let request = |status: Value| {
        let spec = json!({"signerName": "a.b/c", "username": "u", "expirationSeconds": 7200});
        show(
            "certificatesigningrequests",
            json!({"metadata": {"name": "r"}, "spec": spec, "status": status}),
        )
    };
    assert_eq!(request(json!({})), "r|<unknown>|a.b/c|u|120m|Pending");
    let issued = json!({"conditions": [{"type": "Approved"}], "certificate": "eA=="});
    assert_eq!(request(issued), "r|<unknown>|a.b/c|u|120m|Approved,Issued");
    let failed = json!({"conditions": [{"type": "Approved"}, {"type": "Denied"}, {"type": "Failed"}]});
    assert_eq!(request(failed), "r|<unknown>|a.b/c|u|120m|Denied,Failed");
    let bare = show("certificatesigningrequests", json!({"metadata": {"name": "r"}}));
    assert_eq!(bare, "r|<unknown>|<none>||<none>|Pending");
    let bundle = json!({"metadata": {"name": "b"}, "spec": {}});
    assert_eq!(show("clustertrustbundles", bundle), "b|<none>");
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"podName": "x", "serviceAccountName": "s", "nodeName": "n", "signerName": "a.b/c"},
        "status": {"conditions": [{"type": "Issued", "status": "True"}]},
    });
    assert_eq!(show("podcertificaterequests", pod), "p|x|s|n|a.b/c|Issued|<none>");
}

#[test]
fn small_kinds() {
    let meta = json!({"name": "x", "creationTimestamp": "2025-12-31T23:00:00Z"});
    let cases = [
        (
            ("", "configmaps"),
            json!({"data": {"a": "1"}, "binaryData": {"b": "", "c": ""}}),
            "x|3|60m",
        ),
        (
            ("", "secrets"),
            json!({"type": "Opaque", "data": {"a": ""}}),
            "x|Opaque|1|60m",
        ),
        (("", "serviceaccounts"), json!({"secrets": [{"name": "s"}]}), "x|60m"),
        (
            ("", "namespaces"),
            json!({"status": {"phase": "Active"}}),
            "x|Active|60m",
        ),
        (
            ("", "componentstatuses"),
            json!({"conditions": [{"type": "Healthy", "status": "False", "error": "e"}]}),
            "x|Unhealthy||e",
        ),
        (
            ("", "resourcequotas"),
            json!({"status": {"hard": {"pods": "4", "limits.cpu": "2"}, "used": {"pods": "1"}}}),
            "x|pods: 1/4|limits.cpu: 0/2|60m",
        ),
        (
            ("", "endpoints"),
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
            "x|1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...|60m",
        ),
        (
            ("apps", "controllerrevisions"),
            json!({"revision": 3, "metadata": {"name": "x", "ownerReferences": [
                {"controller": true, "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d"}]}}),
            "x|daemonset.apps/d|3|<unknown>",
        ),
        (
            ("policy", "poddisruptionbudgets"),
            json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}),
            "x|50%|N/A|1|60m",
        ),
        (
            ("storage.k8s.io", "storageclasses"),
            json!({"provisioner": "p", "metadata": {"name": "x", "annotations":
                {"storageclass.kubernetes.io/is-default-class": "true"}}}),
            "x (default)|p|Delete|Immediate|false|<unknown>",
        ),
        (
            ("storage.k8s.io", "csidrivers"),
            json!({"spec": {"tokenRequests": [{"audience": "a"}, {"audience": "b"}], "volumeLifecycleModes": ["Ephemeral"]}}),
            "x|true|false|false|a,b|false|Ephemeral|60m",
        ),
        (
            ("storage.k8s.io", "volumeattachments"),
            json!({"spec": {"attacher": "a", "source": {"persistentVolumeName": "v"}, "nodeName": "n"}, "status": {"attached": true}}),
            "x|a|v|n|true|60m",
        ),
        (
            ("networking.k8s.io", "ingresses"),
            json!({"spec": {"ingressClassName": "c", "rules": [{"host": "a"}, {"host": "b"}], "tls": [{}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}}),
            "x|c|a,b|1.1.1.1|80, 443|60m",
        ),
        (
            ("networking.k8s.io", "ipaddresses"),
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}}),
            "x|services/n/s",
        ),
        (
            ("networking.k8s.io", "servicecidrs"),
            json!({"spec": {"cidrs": ["10.0.0.0/8", "fd00::/64"]}}),
            "x|10.0.0.0/8,fd00::/64|60m",
        ),
        (
            ("rbac.authorization.k8s.io", "rolebindings"),
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
                {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"},
                {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
            "x|Role/r|60m|u|g|n/s",
        ),
        (
            ("scheduling.k8s.io", "priorityclasses"),
            json!({"value": 7, "globalDefault": true, "preemptionPolicy": "Never"}),
            "x|7|true|60m|Never",
        ),
        (
            ("resource.k8s.io", "resourceclaims"),
            json!({"status": {"allocation": {"devices": {}}, "reservedFor": [{"name": "p"}]}}),
            "x|allocated,reserved|60m",
        ),
        (
            ("resource.k8s.io", "devicetaintrules"),
            json!({"spec": {"taint": {"key": "k", "effect": "NoExecute", "timeAdded": "2025-12-31T23:59:00Z"}}}),
            "x|k||NoExecute|60s|60m",
        ),
        (
            ("storagemigration.k8s.io", "storageversionmigrations"),
            json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}},
                "status": {"conditions": [{"type": "Succeeded", "status": "True"}]}}),
            "x|deployments.apps|Succeeded",
        ),
        (
            ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
            json!({"spec": {"policyName": "p", "paramRef": {"name": "r"}}}),
            "x|p|*/r|60m",
        ),
        (
            ("flowcontrol.apiserver.k8s.io", "flowschemas"),
            json!({"spec": {"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 5}}),
            "x|l|5|<none>|60m|?",
        ),
        (
            ("coordination.k8s.io", "leases"),
            json!({"spec": {"holderIdentity": "h"}}),
            "x|h|60m",
        ),
    ];
    for ((group, resource), mut object, expected) in cases {
        if object.get("metadata").is_none() {
            object["metadata"] = meta.clone();
        }
        assert_eq!(cells(group, "v1", resource, object), expected, "{resource}");
    }
}

#[test]
fn cron_jobs_and_volumes() {
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let job = json!({
        "metadata": {"name": "c"},
        "spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": template},
        "status": {"active": [{}], "lastScheduleTime": "2025-12-31T23:59:30Z"},
    });
    assert_eq!(
        cells("batch", "v1", "cronjobs", job),
        "c|* * * * *|<none>|False|1|30s|<unknown>|c|i|<none>"
    );
    let volume = json!({
        "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOncePod"], "storageClassName": "s",
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"}},
        "status": {"phase": "Bound"},
    });
    assert_eq!(
        cells("", "v1", "persistentvolumes", volume),
        "v|5Gi|RWOP|Retain|Bound|n/c|s|<unset>||<unknown>|<unset>"
    );
}
