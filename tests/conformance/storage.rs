//! What storage is described by, as objects; immutable ConfigMaps and Secrets.

use crate::cluster::{Cluster, refused};
use crate::lifecycle::{Subject, cluster_wide, namespaced};
use crate::resource::pod;
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
    let object = json!({"driverName": DRIVER, "parameters": {"iops": "100"}});
    cluster_wide(GROUP, "volumeattributesclasses", "VolumeAttributesClass", object)
        .run(&cluster)
        .await;
    let classes = cluster.resource(GROUP, "volumeattributesclasses", None);
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

async fn volume_lifecycle(cluster: Cluster) {
    cluster_wide(
        "v1",
        "persistentvolumes",
        "PersistentVolume",
        json!({"spec": volume_spec()}),
    )
    .change(json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}))
    .with_finalizers()
    .run(&cluster)
    .await;
    namespaced(
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        json!({"spec": claim_spec()}),
    )
    .with_finalizers()
    .run(&cluster)
    .await;
}

async fn volume_status(cluster: Cluster) {
    cluster_wide(
        "v1",
        "persistentvolumes",
        "PersistentVolume",
        json!({"spec": volume_spec()}),
    )
    .status(json!({"message": "by a test", "reason": "Test"}))
    .with_finalizers()
    .run(&cluster)
    .await;
    let condition = json!({
        "type": "StatusUpdate", "status": "True", "reason": "Test", "message": "by a test",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    namespaced(
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        json!({"spec": claim_spec()}),
    )
    .status(json!({"conditions": [condition]}))
    .with_finalizers()
    .run(&cluster)
    .await;
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
