//! What storage is described by, as objects; immutable ConfigMaps and Secrets.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::{Subject, cluster_wide, namespaced};
use crate::resource::{Resource, merge_into, pod};
use crate::runner::{Test, test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver",
            csi_driver,
        ),
        test(
            "[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API",
            inline_volume,
        ),
        test(
            "[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode",
            csi_node,
        ),
        test(
            "[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations",
            capacity,
        ),
        test(
            "[sig-storage] ConfigMap should be immutable if `immutable` field is set",
            immutable_map,
        ),
        test(
            "[sig-storage] Secrets should be immutable if `immutable` field is set",
            immutable_secret,
        ),
        test(
            "[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status",
            volume_status,
        ),
        test(
            "[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC",
            volume_lifecycle,
        ),
        test(
            "[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass",
            storage_class,
        ),
        test(
            "[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status",
            attachment_status,
        ),
        test(
            "[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment",
            attachment_lifecycle,
        ),
        test(
            "[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass",
            attributes_class,
        ),
    ]
}

const GROUP: &str = "storage.k8s.io/v1";
const DRIVER: &str = "tests.csi.example.com";

async fn csi_driver(cluster: Cluster) {
    let spec = json!({"volumeLifecycleModes": ["Ephemeral", "Persistent"], "attachRequired": false});
    cluster_wide(GROUP, "csidrivers", "CSIDriver", json!({"spec": spec}))
        .change(json!({"spec": {"requiresRepublish": true}}))
        .run(&cluster)
        .await;
}

async fn inline_volume(cluster: Cluster) {
    let namespace = cluster.namespace("inline").await;
    let pods = cluster.core("pods", Some(&namespace));
    let csi = json!({"driver": DRIVER, "readOnly": true, "volumeAttributes": {"a": "b"}});
    let mut object = pod("one", json!({"volumes": [{"name": "inline", "csi": csi}]}));
    object["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "inline", "mountPath": "/inline"}]);
    let created = pods.create(&object).await.unwrap();
    assert_eq!(created["spec"]["volumes"][0]["csi"], csi);
    let read = pods.get("one").await.unwrap();
    assert_eq!(read["spec"]["volumes"][0], json!({"name": "inline", "csi": csi}));
    let mark = json!({"metadata": {"labels": {"mark": "patched"}}});
    assert_eq!(
        pods.merge("one", mark).await.unwrap()["metadata"]["labels"]["mark"],
        "patched"
    );
    let nameless = json!({"volumes": [{"name": "inline", "csi": {"readOnly": true}}]});
    let status = refused(pods.create(&pod("two", nameless)).await, 422, "Invalid");
    assert!(
        status.message.contains("spec.volumes[0].csi.driver: Required value"),
        "{}",
        status.message
    );
    pods.delete_with("one", &kube::api::DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    refused(pods.get("one").await, 404, "NotFound");
}

async fn csi_node(cluster: Cluster) {
    let driver = json!({"name": DRIVER, "nodeID": "node-1", "topologyKeys": ["topology.example.com/zone"]});
    cluster_wide(GROUP, "csinodes", "CSINode", json!({"spec": {"drivers": [driver]}}))
        .change(json!({"spec": {"drivers": []}}))
        .run(&cluster)
        .await;
}

async fn capacity(cluster: Cluster) {
    let object = json!({"storageClassName": "some-class", "capacity": "1Gi"});
    namespaced(GROUP, "csistoragecapacities", "CSIStorageCapacity", object)
        .change(json!({"capacity": "2Gi"}))
        .run(&cluster)
        .await;
}

async fn storage_class(cluster: Cluster) {
    let object = json!({"provisioner": "example.com/none", "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"});
    cluster_wide(GROUP, "storageclasses", "StorageClass", object)
        .change(json!({"allowVolumeExpansion": true}))
        .run(&cluster)
        .await;
    let classes = cluster.resource(GROUP, "storageclasses", None);
    let name = cluster.unique("class");
    let made = classes
        .create(&json!({"metadata": {"name": name}, "provisioner": "example.com/none"}))
        .await
        .unwrap();
    assert_eq!(
        (&made["reclaimPolicy"], &made["volumeBindingMode"]),
        (&json!("Delete"), &json!("Immediate"))
    );
    refused(
        classes.merge(&name, json!({"provisioner": "example.com/other"})).await,
        422,
        "Invalid",
    );
    classes.delete(&name).await.unwrap();
}

async fn attributes_class(cluster: Cluster) {
    let classes = cluster.resource(GROUP, "volumeattributesclasses", None);
    let object = json!({"driverName": DRIVER, "parameters": {"iops": "100"}});
    under_controllers(&cluster, &classes, object).await;
    let name = cluster.unique("class");
    let object = json!({"metadata": {"name": name}, "driverName": DRIVER, "parameters": {"iops": "1"}});
    classes.create(&object).await.unwrap();
    refused(
        classes.merge(&name, json!({"parameters": {"iops": "2"}})).await,
        422,
        "Invalid",
    );
    classes.delete(&name).await.unwrap();
}

fn attachment() -> Subject {
    let spec = json!({"attacher": DRIVER, "nodeName": "node-1", "source": {"persistentVolumeName": "volume-1"}});
    cluster_wide(GROUP, "volumeattachments", "VolumeAttachment", json!({"spec": spec}))
}

async fn attachment_lifecycle(cluster: Cluster) {
    attachment().run(&cluster).await;
    let attachments = cluster.resource(GROUP, "volumeattachments", None);
    let name = cluster.unique("attachment");
    let spec = json!({"attacher": DRIVER, "nodeName": "node-1", "source": {"persistentVolumeName": "volume-1"}});
    attachments
        .create(&json!({"metadata": {"name": name}, "spec": spec}))
        .await
        .unwrap();
    refused(
        attachments.merge(&name, json!({"spec": {"nodeName": "node-2"}})).await,
        422,
        "Invalid",
    );
    attachments.delete(&name).await.unwrap();
}

async fn attachment_status(cluster: Cluster) {
    attachment().status(json!({"attached": true})).run(&cluster).await;
}

fn volume_spec() -> Value {
    json!({
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "tests-never-bound",
        "csi": {"driver": DRIVER, "volumeHandle": "handle-1"},
    })
}

fn claim_spec() -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "tests-never-bound-either",
        "resources": {"requests": {"storage": "1Gi"}},
    })
}

/// Objects that controllers write beside us: made, read, listed, changed, replaced, and deleted one by one and together.
async fn under_controllers(cluster: &Cluster, resource: &Resource, object: Value) {
    let label = cluster.unique("held");
    let selector = format!("test={label}");
    let names: Vec<String> = (0..3).map(|_| cluster.unique("held")).collect();
    for name in &names {
        let mut object = object.clone();
        merge_into(
            &mut object,
            json!({"metadata": {"name": name, "labels": {"test": label}}}),
        );
        let made = resource.create(&object).await.unwrap();
        assert_eq!(
            (&made["metadata"]["name"], made["metadata"]["uid"].is_string()),
            (&json!(name), true)
        );
        assert_eq!(
            resource.get(name).await.unwrap()["metadata"]["uid"],
            made["metadata"]["uid"]
        );
    }
    assert_eq!(resource.labelled(&selector).await.len(), 3);
    let mark = json!({"metadata": {"labels": {"mark": "patched"}}});
    assert_eq!(
        resource.merge(&names[0], mark).await.unwrap()["metadata"]["labels"]["mark"],
        "patched"
    );
    // Somebody else may write between our read and our write.
    let replaced = eventually("it is replaced", async || {
        let mut object = resource.get(&names[0]).await.unwrap();
        merge_into(&mut object, json!({"metadata": {"labels": {"mark": "replaced"}}}));
        match resource.replace(&object).await {
            Ok(replaced) => Some(replaced),
            Err(status) => {
                assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"), "{status:?}");
                None
            }
        }
    })
    .await;
    assert_eq!(replaced["metadata"]["labels"]["mark"], "replaced");
    assert_eq!(resource.labelled("mark=replaced").await.len(), 1);
    resource.delete(&names[0]).await.unwrap();
    eventually("one is gone", async || resource.get(&names[0]).await.err()).await;
    assert_eq!(resource.labelled(&selector).await.len(), 2);
    resource.delete_collection(&selector).await.unwrap();
    eventually("all are gone", async || {
        resource.labelled(&selector).await.is_empty().then_some(())
    })
    .await;
}

async fn volume_lifecycle(cluster: Cluster) {
    let volumes = cluster.core("persistentvolumes", None);
    under_controllers(&cluster, &volumes, json!({"spec": volume_spec()})).await;
    let namespace = cluster.namespace("claims").await;
    let claims = cluster.core("persistentvolumeclaims", Some(&namespace));
    under_controllers(&cluster, &claims, json!({"spec": claim_spec()})).await;
}

async fn volume_status(cluster: Cluster) {
    // Status is written as a part of the object, read back, and not touched by a write of the rest.
    let check = async |resource: &Resource, name: &str, status: Value, (key, replaced): (&str, Value)| {
        let patched = resource
            .merge_sub(name, "status", json!({"status": status}))
            .await
            .unwrap();
        let read = resource.get_sub(name, "status").await.unwrap();
        for (key, value) in status.as_object().unwrap() {
            assert_eq!((&patched["status"][key], &read["status"][key]), (value, value));
        }
        eventually("the status is replaced", async || {
            let mut object = resource.get(name).await.unwrap();
            object["status"][key] = replaced.clone();
            resource.replace_sub("status", &object).await.ok()
        })
        .await;
        let mark = json!({"metadata": {"labels": {"mark": "main"}}, "status": {key: null}});
        let main = resource.merge(name, mark).await.unwrap();
        assert_eq!(
            (&main["status"][key], &main["metadata"]["labels"]["mark"]),
            (&replaced, &json!("main"))
        );
        resource.delete(name).await.unwrap();
        eventually("it is gone", async || resource.get(name).await.err()).await;
    };
    let volumes = cluster.core("persistentvolumes", None);
    let name = cluster.unique("volume");
    let made = json!({"metadata": {"name": name}, "spec": volume_spec()});
    volumes.create(&made).await.unwrap();
    // What a controller says of the phase comes first, so that it does not take our words back with it.
    let available = async || (volumes.get(&name).await.unwrap()["status"]["phase"] == "Available").then_some(());
    eventually("the volume is available", available).await;
    let words = json!({"message": "by a test", "reason": "Test"});
    check(&volumes, &name, words, ("message", json!("by another"))).await;
    let namespace = cluster.namespace("claims").await;
    let claims = cluster.core("persistentvolumeclaims", Some(&namespace));
    claims
        .create(&json!({"metadata": {"name": "one"}, "spec": claim_spec()}))
        .await
        .unwrap();
    let condition = |message: &str| {
        json!([{
            "type": "StatusUpdate", "status": "True", "reason": "Test", "message": message,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }])
    };
    let conditions = json!({"conditions": condition("by a test")});
    check(&claims, "one", conditions, ("conditions", condition("by another"))).await;
}

/// Data can be changed until the object says that it is immutable; then neither can be taken back.
async fn immutable(cluster: &Cluster, plural: &str, value: [&str; 2]) {
    let namespace = cluster.namespace("immutable").await;
    let objects = cluster.core(plural, Some(&namespace));
    objects
        .create(&json!({"metadata": {"name": "one"}, "data": {"a": value[0]}}))
        .await
        .unwrap();
    objects.merge("one", json!({"data": {"a": value[1]}})).await.unwrap();
    objects.merge("one", json!({"immutable": true})).await.unwrap();
    for change in [
        json!({"immutable": null}),
        json!({"immutable": false}),
        json!({"data": {"a": value[0]}}),
        json!({"data": {"b": value[0]}}),
    ] {
        let status = refused(objects.merge("one", change).await, 422, "Invalid");
        assert!(
            status.message.contains("field is immutable when `immutable` is set"),
            "{}",
            status.message
        );
    }
    let mark = json!({"metadata": {"labels": {"mark": "allowed"}}});
    assert_eq!(objects.merge("one", mark).await.unwrap()["data"]["a"], value[1]);
    objects.delete("one").await.unwrap();
}

async fn immutable_map(cluster: Cluster) {
    immutable(&cluster, "configmaps", ["1", "2"]).await;
}

async fn immutable_secret(cluster: Cluster) {
    immutable(&cluster, "secrets", ["MQ==", "Mg=="]).await;
}
