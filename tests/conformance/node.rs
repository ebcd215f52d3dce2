//! What pods are made of, and nodes, as objects: ConfigMaps, Secrets, Leases, PodTemplates, RuntimeClasses, devices.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::{Subject, cluster_wide, namespaced};
use crate::resource::{pod, revision};
use crate::runner::{Test, test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-node] ConfigMap should fail to create ConfigMap with empty key",
            map_with_empty_key,
        ),
        test(
            "[sig-node] ConfigMap should run through a ConfigMap lifecycle",
            map_lifecycle,
        ),
        test("[sig-node] ConfigMap should update ConfigMap successfully", map_update),
        test("[sig-node] Lease lease API should be available", lease),
        test(
            "[sig-node] Node Lifecycle should run through the lifecycle of a node",
            node_lifecycle,
        ),
        test(
            "[sig-node] PodTemplates should delete a collection of pod templates",
            template_collection,
        ),
        test(
            "[sig-node] PodTemplates should replace a pod template",
            template_replace,
        ),
        test(
            "[sig-node] PodTemplates should run the lifecycle of PodTemplates",
            template_lifecycle,
        ),
        test(
            "[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu",
            quality_of_service,
        ),
        test(
            "[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass",
            deleted_runtime_class,
        ),
        test(
            "[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass",
            unknown_runtime_class,
        ),
        test(
            "[sig-node] RuntimeClass should support RuntimeClasses API operations",
            runtime_class,
        ),
        test(
            "[sig-node] Secrets should fail to create secret due to empty secret key",
            secret_with_empty_key,
        ),
        test("[sig-node] Secrets should patch a secret", secret_lifecycle),
        test("[sig-node] Sysctls [LinuxOnly] should reject invalid sysctls", sysctls),
        test(
            "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass",
            device_class,
        ),
        test(
            "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceTaintRule",
            device_taint_rule,
        ),
        test(
            "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim",
            resource_claim,
        ),
        test(
            "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate",
            resource_claim_template,
        ),
        test(
            "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice",
            resource_slice,
        ),
    ]
}

async fn map_with_empty_key(cluster: Cluster) {
    let namespace = cluster.namespace("maps").await;
    let map = json!({"metadata": {"name": "empty-key"}, "data": {"": "value"}});
    let status = refused(
        cluster.core("configmaps", Some(&namespace)).create(&map).await,
        422,
        "Invalid",
    );
    assert_eq!(status.details.unwrap().causes[0].field, "data[]");
}

async fn secret_with_empty_key(cluster: Cluster) {
    let namespace = cluster.namespace("secrets").await;
    let secret = json!({"metadata": {"name": "empty-key"}, "data": {"": "dmFsdWU="}});
    let status = refused(
        cluster.core("secrets", Some(&namespace)).create(&secret).await,
        422,
        "Invalid",
    );
    assert_eq!(status.details.unwrap().causes[0].field, "data[]");
}

async fn map_lifecycle(cluster: Cluster) {
    namespaced("v1", "configmaps", "ConfigMap", json!({"data": {"key": "value"}}))
        .change(json!({"data": {"key": "patched"}}))
        .run(&cluster)
        .await;
}

async fn map_update(cluster: Cluster) {
    let namespace = cluster.namespace("maps").await;
    let maps = cluster.core("configmaps", Some(&namespace));
    let mut map = maps
        .create(&json!({"metadata": {"name": "one"}, "data": {"a": "1"}}))
        .await
        .unwrap();
    map["data"] = json!({"b": "2"});
    map["binaryData"] = json!({"bytes": "3q2+7w=="});
    let replaced = maps.replace(&map).await.unwrap();
    assert_eq!(
        (&replaced["data"], &replaced["binaryData"]),
        (&map["data"], &map["binaryData"])
    );
    assert_eq!(maps.get("one").await.unwrap(), replaced);
}

async fn secret_lifecycle(cluster: Cluster) {
    let secret = json!({"data": {"key": "dmFsdWU="}, "type": "Opaque"});
    namespaced("v1", "secrets", "Secret", secret)
        .change(json!({"data": {"key": "dmFsdWUx"}}))
        .run(&cluster)
        .await;
    let namespace = cluster.namespace("secrets").await;
    let secrets = cluster.core("secrets", Some(&namespace));
    let written = json!({"metadata": {"name": "plain"}, "stringData": {"word": "hello"}});
    let stored = secrets.create(&written).await.unwrap();
    assert_eq!(stored["data"]["word"], "aGVsbG8=");
    assert!(stored.get("stringData").is_none());
    let status = refused(secrets.merge("plain", json!({"type": "other"})).await, 422, "Invalid");
    assert!(status.message.contains("field is immutable"), "{}", status.message);
}

async fn lease(cluster: Cluster) {
    let spec = json!({
        "holderIdentity": "holder", "leaseDurationSeconds": 30, "leaseTransitions": 0,
        "acquireTime": "2026-01-02T03:04:05.000000Z", "renewTime": "2026-01-02T03:04:05.000000Z",
    });
    namespaced("coordination.k8s.io/v1", "leases", "Lease", json!({"spec": spec}))
        .change(json!({"spec": {
            "holderIdentity": "another", "leaseTransitions": 1, "renewTime": "2026-01-02T03:05:05.000000Z",
        }}))
        .run(&cluster)
        .await;
    let namespace = cluster.namespace("lease").await;
    let leases = cluster.resource("coordination.k8s.io/v1", "leases", Some(&namespace));
    // An update may create one, and must name its revision where there is one.
    let one = json!({"metadata": {"name": "one", "namespace": namespace}, "spec": {"holderIdentity": "a"}});
    let made = leases.replace(&one).await.unwrap();
    assert_eq!(made["spec"]["holderIdentity"], "a");
    refused(leases.replace(&one).await, 422, "Invalid");
    let negative = json!({"spec": {"leaseDurationSeconds": 0}});
    let status = refused(leases.merge("one", negative).await, 422, "Invalid");
    assert!(
        status
            .message
            .contains("spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"),
        "{}",
        status.message
    );
}

/// The node's life cycle controller writes to it, too: what others own is not compared.
async fn node_lifecycle(cluster: Cluster) {
    let (nodes, label) = (cluster.core("nodes", None), cluster.unique("lifecycle"));
    let selector = format!("test={label}");
    // A taint, so that no pod of another test is put there.
    let node = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"test": label}},
            "spec": {"unschedulable": true, "taints": [{"key": "tests", "effect": "NoSchedule"}]},
            "status": {
                "capacity": {"cpu": "2", "memory": "1Gi", "pods": "10"},
                "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"},
            },
        })
    };
    let (first, second) = (cluster.unique("node"), cluster.unique("node"));
    let created = nodes.create(&node(&first)).await.unwrap();
    let keys = |node: &Value| -> Vec<String> {
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        taints.map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
    };
    // Nothing is known of it yet.
    assert_eq!(keys(&created), ["tests", "node.kubernetes.io/not-ready"]);
    nodes.create(&node(&second)).await.unwrap();
    refused(nodes.create(&node(&first)).await, 409, "AlreadyExists");
    assert_eq!(nodes.labelled(&selector).await.len(), 2);
    let cordoned = async || {
        let keys = keys(&nodes.get(&first).await.unwrap());
        (keys == ["tests", "node.kubernetes.io/unschedulable"]).then_some(())
    };
    eventually("the taints say that it is cordoned, and no more", cordoned).await;
    let mut watch = nodes
        .watch(&selector, &revision(&nodes.get(&first).await.unwrap()))
        .await;
    nodes
        .merge(&first, json!({"metadata": {"labels": {"more": "x"}}}))
        .await
        .unwrap();
    watch
        .until("MODIFIED", |node| node["metadata"]["labels"]["more"] == "x")
        .await;
    let mut replacement = nodes.get(&first).await.unwrap();
    replacement["spec"]["providerID"] = json!("test://one");
    nodes.replace(&replacement).await.unwrap();
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "Test", "message": "by a test",
        "lastHeartbeatTime": "2026-01-02T03:04:05Z", "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    let status = json!({"status": {"conditions": [condition], "phase": "Running"}});
    let patched = nodes.merge_sub(&first, "status", status).await.unwrap();
    assert_eq!(
        (&patched["status"]["phase"], &patched["spec"]["providerID"]),
        (&json!("Running"), &json!("test://one"))
    );
    let not_ready = |node: &Value| keys(node).contains(&"node.kubernetes.io/not-ready".to_owned());
    watch.until("MODIFIED", not_ready).await;
    nodes.delete(&second).await.unwrap();
    watch.until("DELETED", |node| node["metadata"]["name"] == *second).await;
    nodes.delete_collection(&selector).await.unwrap();
    watch.until("DELETED", |node| node["metadata"]["name"] == *first).await;
    assert!(nodes.labelled(&selector).await.is_empty());
}

fn template() -> Subject {
    let template = json!({
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/pause:1"}]},
    });
    namespaced("v1", "podtemplates", "PodTemplate", json!({"template": template}))
}

async fn template_lifecycle(cluster: Cluster) {
    template()
        .change(json!({"template": {"metadata": {"labels": {"app": "y"}}}}))
        .run(&cluster)
        .await;
}

fn one_template(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"set": label}},
        "template": {"spec": {"containers": [{"name": "main", "image": "registry.example/pause:1"}]}},
    })
}

async fn template_collection(cluster: Cluster) {
    let namespace = cluster.namespace("templates").await;
    let label = cluster.unique("templates");
    let selector = format!("set={label}");
    let templates = cluster.core("podtemplates", Some(&namespace));
    for name in ["a", "b", "c"] {
        templates.create(&one_template(name, &label)).await.unwrap();
    }
    assert_eq!(templates.labelled(&selector).await.len(), 3);
    templates.delete_collection(&selector).await.unwrap();
    assert!(templates.labelled(&selector).await.is_empty());
}

async fn template_replace(cluster: Cluster) {
    let namespace = cluster.namespace("templates").await;
    let templates = cluster.core("podtemplates", Some(&namespace));
    let mut template = templates.create(&one_template("one", "x")).await.unwrap();
    template["metadata"]["annotations"] = json!({"updated": "true"});
    template["template"]["spec"]["containers"][0]["image"] = json!("registry.example/pause:2");
    let replaced = templates.replace(&template).await.unwrap();
    assert_eq!(replaced["metadata"]["annotations"]["updated"], "true");
    assert_eq!(
        replaced["template"]["spec"]["containers"][0]["image"],
        "registry.example/pause:2"
    );
}

async fn quality_of_service(cluster: Cluster) {
    let namespace = cluster.namespace("qos").await;
    let pods = cluster.core("pods", Some(&namespace));
    let figures = json!({"cpu": "100m", "memory": "100Mi"});
    for (name, resources, class) in [
        (
            "guaranteed",
            json!({"requests": figures, "limits": figures}),
            "Guaranteed",
        ),
        ("limits", json!({"limits": figures}), "Guaranteed"),
        ("burstable", json!({"requests": figures}), "Burstable"),
        ("best-effort", json!({}), "BestEffort"),
    ] {
        let mut pod = pod(name, json!({}));
        pod["spec"]["containers"][0]["resources"] = resources;
        assert_eq!(pods.create(&pod).await.unwrap()["status"]["qosClass"], class, "{name}");
    }
}

fn class(handler: &str) -> Value {
    json!({"handler": handler})
}

async fn runtime_class(cluster: Cluster) {
    cluster_wide("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", class("runc"))
        .change(json!({"scheduling": {"nodeSelector": {"foo": "bar"}}}))
        .run(&cluster)
        .await;
    let classes = cluster.resource("node.k8s.io/v1", "runtimeclasses", None);
    let name = cluster.unique("class");
    classes
        .create(&json!({"metadata": {"name": name}, "handler": "one"}))
        .await
        .unwrap();
    let status = refused(classes.merge(&name, class("two")).await, 422, "Invalid");
    assert!(status.message.contains("handler"), "{}", status.message);
    classes.delete(&name).await.unwrap();
}

async fn unknown_runtime_class(cluster: Cluster) {
    let namespace = cluster.namespace("classes").await;
    let pods = cluster.core("pods", Some(&namespace));
    let pod = pod("one", json!({"runtimeClassName": "nonexistent"}));
    let status = refused(pods.create(&pod).await, 403, "Forbidden");
    assert!(
        status.message.contains(r#"RuntimeClass "nonexistent" not found"#),
        "{}",
        status.message
    );
}

async fn deleted_runtime_class(cluster: Cluster) {
    let namespace = cluster.namespace("classes").await;
    let pods = cluster.core("pods", Some(&namespace));
    let classes = cluster.resource("node.k8s.io/v1", "runtimeclasses", None);
    let name = cluster.unique("class");
    classes
        .create(&json!({"metadata": {"name": name}, "handler": "runc"}))
        .await
        .unwrap();
    let spec = json!({"runtimeClassName": name});
    pods.create(&pod("before", spec.clone())).await.unwrap();
    classes.delete(&name).await.unwrap();
    crate::cluster::eventually("a pod of the class is refused", async || {
        let result = pods.create(&pod(&cluster.unique("after"), spec.clone())).await;
        result.is_err_and(|status| status.code == 403).then_some(())
    })
    .await;
}

async fn sysctls(cluster: Cluster) {
    let namespace = cluster.namespace("sysctls").await;
    let pods = cluster.core("pods", Some(&namespace));
    let sysctl = |name: &str| json!({"name": name, "value": "0"});
    let spec = json!({"securityContext": {"sysctls": [
        sysctl("foo-"), sysctl("kernel.shmmax"), sysctl("safe-and-unsafe"), sysctl("bar.."),
    ]}});
    let status = refused(pods.create(&pod("one", spec)).await, 422, "Invalid");
    let fields: Vec<String> = status
        .details
        .unwrap()
        .causes
        .into_iter()
        .map(|cause| cause.field)
        .collect();
    assert_eq!(
        fields,
        [
            "spec.securityContext.sysctls[0].name",
            "spec.securityContext.sysctls[3].name"
        ]
    );
}

const DEVICES: &str = "resource.k8s.io/v1";

async fn device_class(cluster: Cluster) {
    let selectors = json!([{"cel": {"expression": "device.driver == 'tests.example.com'"}}]);
    cluster_wide(
        DEVICES,
        "deviceclasses",
        "DeviceClass",
        json!({"spec": {"selectors": selectors}}),
    )
    .change(json!({"spec": {"selectors": null}}))
    .run(&cluster)
    .await;
}

async fn device_taint_rule(cluster: Cluster) {
    let spec = json!({
        "deviceSelector": {"driver": "tests.example.com"},
        "taint": {"key": "tests.example.com/broken", "value": "yes", "effect": "NoSchedule"},
    });
    let condition = json!({
        "type": "Tested", "status": "True", "reason": "Test", "message": "by a test",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    // What the controller says of it, so that it is left as it is.
    let other_effect = json!({
        "type": "EvictionInProgress", "status": "False", "reason": "OtherEffect", "observedGeneration": 2,
        "message": "Eviction only happens for the NoExecute effect.", "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    cluster_wide(DEVICES, "devicetaintrules", "DeviceTaintRule", json!({"spec": spec}))
        .change(json!({"spec": {"taint": {"value": "no"}}}))
        .status(json!({"conditions": [other_effect, condition]}))
        .settled(|rule| rule["status"]["conditions"][0]["observedGeneration"] == rule["metadata"]["generation"])
        .run(&cluster)
        .await;
}

fn claim_spec() -> Value {
    json!({"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "tests.example.com"}}]}})
}

async fn resource_claim(cluster: Cluster) {
    let result = json!({"request": "one", "driver": "tests.example.com", "pool": "pool", "device": "device"});
    namespaced(
        DEVICES,
        "resourceclaims",
        "ResourceClaim",
        json!({"spec": claim_spec()}),
    )
    .status(json!({"allocation": {"devices": {"results": [result]}}}))
    .run(&cluster)
    .await;
    let namespace = cluster.namespace("claims").await;
    let claims = cluster.resource(DEVICES, "resourceclaims", Some(&namespace));
    claims
        .create(&json!({"metadata": {"name": "one"}, "spec": claim_spec()}))
        .await
        .unwrap();
    let other = json!({"spec": {"devices": {"requests": []}}});
    let status = refused(claims.merge("one", other).await, 422, "Invalid");
    assert!(status.message.contains("field is immutable"), "{}", status.message);
}

async fn resource_claim_template(cluster: Cluster) {
    let spec = json!({"metadata": {"labels": {"a": "b"}}, "spec": claim_spec()});
    namespaced(
        DEVICES,
        "resourceclaimtemplates",
        "ResourceClaimTemplate",
        json!({"spec": spec}),
    )
    .run(&cluster)
    .await;
}

async fn resource_slice(cluster: Cluster) {
    let spec = json!({
        "driver": "tests.example.com", "nodeName": "node-1",
        "pool": {"name": "node-1", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "device-1", "attributes": {"model": {"string": "x"}}, "capacity": {"memory": {"value": "1Gi"}}}],
    });
    cluster_wide(DEVICES, "resourceslices", "ResourceSlice", json!({"spec": spec}))
        .change(json!({"spec": {"devices": [{"name": "device-2"}]}}))
        .run(&cluster)
        .await;
}
