//! Volumes that are directories on a node: the built-in provisioner (Kubernetes has none; the names are those that such
//! provisioners commonly use). Pure.

use crate::controllers::claims::{BOUND_BY_CONTROLLER, LOCAL_PATH, PROVISIONED_BY};
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::plan::reference_to;

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Keeps a volume until its directory is gone.
pub const FINALIZER: &str = "kubernetes.io/pv-controller";

/// The volume that is made for a claim.
pub fn name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid().unwrap_or_default())
}

/// The volume for a claim on a node, below `root`; or why there can be none.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&Node>,
    root: &Path,
) -> Result<PersistentVolume, &'static str> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("local-path has no block volumes");
    }
    let modes = spec.access_modes.clone().unwrap_or_default();
    if !modes
        .iter()
        .all(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod")
    {
        return Err("local-path supports the access modes ReadWriteOnce and ReadWriteOncePod only");
    }
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported");
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Err("local-path cannot fill volumes from a data source");
    }
    let node = node.ok_or("no node was selected: the class needs volumeBindingMode WaitForFirstConsumer")?;
    let hostname = node.labels().get(HOSTNAME).cloned().unwrap_or_else(|| node.name_any());
    let name = name(claim);
    let directory = format!("{name}_{}_{}", claim.namespace().unwrap_or_default(), claim.name_any());
    let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
    let annotations = BTreeMap::from([
        (BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned()),
        (PROVISIONED_BY.to_owned(), LOCAL_PATH.to_owned()),
    ]);
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some(annotations),
            finalizers: (policy == "Delete").then(|| vec![FINALIZER.to_owned()]),
            ..Default::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(modes),
            capacity: spec.resources.and_then(|resources| resources.requests),
            claim_ref: Some(reference_to(claim)),
            host_path: Some(HostPathVolumeSource {
                path: root.join(directory).to_string_lossy().into_owned(),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(only_on(hostname)),
            persistent_volume_reclaim_policy: Some(policy),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..Default::default()
        }),
        status: None,
    })
}

fn only_on(hostname: String) -> VolumeNodeAffinity {
    let on = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![hostname]),
    };
    VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: Some(vec![on]),
                match_fields: None,
            }],
        }),
    }
}

/// What is to be removed for a volume of ours; only what lies right below `root`, whoever wrote the object.
pub fn directory(volume: &PersistentVolume, root: &Path) -> Result<PathBuf, String> {
    let source = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref());
    let path = PathBuf::from(source.map(|source| source.path.as_str()).unwrap_or_default());
    let below = path.strip_prefix(root).ok();
    let parts: Vec<Component<'_>> = below.map(|below| below.components().collect()).unwrap_or_default();
    match parts.as_slice() {
        [Component::Normal(_)] => Ok(path),
        _ => Err(format!("{} is not a directory of this provisioner", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(more: Value) -> PersistentVolumeClaim {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "data", "namespace": "a", "uid": "u"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn a_volume_is_a_directory_on_the_selected_node() {
        let class: StorageClass = serde_json::from_value(json!({"metadata": {"name": "local-path"},
            "provisioner": LOCAL_PATH, "reclaimPolicy": "Delete"}))
        .unwrap();
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {HOSTNAME: "host"}}})).unwrap();
        let root = Path::new("/data/volumes");
        let made = volume(&claim(json!({})), &class, Some(&node), root).unwrap();
        let shown = serde_json::to_value(&made).unwrap();
        assert_eq!(shown["metadata"]["name"], "pvc-u");
        assert_eq!(
            shown["spec"]["hostPath"],
            json!({"path": "/data/volumes/pvc-u_a_data", "type": "DirectoryOrCreate"})
        );
        let terms = &shown["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["host"]));
        assert_eq!(shown["spec"]["claimRef"]["uid"], "u");
        assert_eq!(
            directory(&made, root).unwrap(),
            PathBuf::from("/data/volumes/pvc-u_a_data")
        );
        for wrong in ["/data/volumes", "/data/volumes/../x", "/data/volumes/a/b", "/etc", ""] {
            let mut foreign = made.clone();
            foreign.spec.as_mut().unwrap().host_path.as_mut().unwrap().path = wrong.to_owned();
            assert!(directory(&foreign, root).is_err(), "{wrong}");
        }
        for refused in [
            json!({"volumeMode": "Block"}),
            json!({"accessModes": ["ReadWriteMany"]}),
            json!({"selector": {"matchLabels": {"a": "b"}}}),
            json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}}),
        ] {
            assert!(
                volume(&claim(refused.clone()), &class, Some(&node), root).is_err(),
                "{refused}"
            );
        }
        assert!(volume(&claim(json!({})), &class, None, root).is_err());
    }
}
