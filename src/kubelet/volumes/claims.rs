//! Volumes by claim: the directory or file of this node that a bound claim's volume is
//! (upstream: `desired_state_of_world_populator.go`, `pkg/volume/{hostpath,local}`).

use super::{SetUpError, io};
pub use crate::client::claims::claim_name;
use crate::client::claims::{LOCAL_PATH, PROVISIONED_BY};
use crate::kubelet::pod;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Client;
use kube::api::Api;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directory name under which the node agent remembers where a claim's volume is.
pub const PLUGIN: &str = "persistent-volume";

/// Where a claim's volume is.
#[derive(Debug, PartialEq)]
pub struct Found {
    pub source: HostPathVolumeSource,
    /// The directory is ours to make, and anybody's to write.
    pub made_here: bool,
    /// The pod's fsGroup owns it: not what an administrator put at a hostPath.
    pub takes_group: bool,
}

pub async fn find(client: &Client, pod: &Pod, volume: &Volume, name: &str) -> Result<Found, SetUpError> {
    let namespace = pod::namespace(pod);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let failed = |what: String| move |error: kube::Error| SetUpError::Claim(format!("{what}: {error}"));
    let claim = claims.get(name).await.map_err(failed(format!(
        "failed to fetch PVC {namespace}/{name} from API server"
    )))?;
    let bound = bound_volume(pod, volume, &claim).map_err(SetUpError::Claim)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let found = volumes
        .get(&bound)
        .await
        .map_err(failed(format!("failed to fetch PV {bound} from API server")))?;
    of_volume(&found, &claim)
}

/// The name of the volume that a claim is bound to, if the pod may use it.
fn bound_volume(pod: &Pod, volume: &Volume, claim: &PersistentVolumeClaim) -> Result<String, String> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| owner.controller == Some(true));
    if volume.ephemeral.is_some() && !owners.any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref()) {
        return Err("PVC was not created for pod (pod is not owner)".to_owned());
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    match name.filter(|name| !name.is_empty() && phase == Some("Bound")) {
        Some(name) => Ok(name),
        None => Err("PVC is not bound".to_owned()),
    }
}

fn of_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<Found, SetUpError> {
    let spec = volume.spec.clone().unwrap_or_default();
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if spec
        .claim_ref
        .is_none_or(|reference| reference.uid != claim.metadata.uid)
    {
        return Err(SetUpError::Claim(format!("PV {name} is not bound to the PVC")));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(SetUpError::UnsupportedType(
            "persistentVolumeClaim with volumeMode Block".to_owned(),
        ));
    }
    let by = volume
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(PROVISIONED_BY));
    let made_here = by.is_some_and(|by| by == LOCAL_PATH);
    match (spec.host_path, spec.local) {
        (Some(source), _) => Ok(Found {
            source,
            made_here,
            takes_group: made_here,
        }),
        (None, Some(local)) => Ok(Found {
            source: HostPathVolumeSource {
                path: local.path,
                type_: None,
            },
            made_here: false,
            takes_group: true,
        }),
        (None, None) => Err(SetUpError::UnsupportedType(
            "persistentVolumeClaim whose volume is neither hostPath nor local".to_owned(),
        )),
    }
}

/// Makes the directory of a volume that was provisioned here; what is in it stays.
pub fn make(path: &Path) -> Result<(), SetUpError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(io("change the mode of", path))
}

/// Remembers, by a link, where a volume is: mounts are made later and without the API.
pub fn remember(link: &Path, target: &Path) -> Result<(), SetUpError> {
    if fs::read_link(link).is_ok_and(|known| known == target) {
        return Ok(());
    }
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent).map_err(io("create", parent))?;
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", link)(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(target, link).map_err(io("link", link))
}

pub fn remembered(link: &Path) -> Option<PathBuf> {
    fs::read_link(link).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(more: Value) -> PersistentVolumeClaim {
        let mut claim =
            json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        for (pointer, value) in more.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            claim.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn only_bound_claims_have_a_volume() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "pod"}})).unwrap();
        let named: Volume =
            serde_json::from_value(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})).unwrap();
        let own: Volume = serde_json::from_value(json!({"name": "v", "ephemeral": {}})).unwrap();
        assert_eq!(
            (claim_name(&pod, &named).as_deref(), claim_name(&pod, &own).as_deref()),
            (Some("c"), Some("p-v"))
        );
        assert_eq!(bound_volume(&pod, &named, &claim(json!({}))), Ok("v".to_owned()));
        assert!(bound_volume(&pod, &named, &claim(json!({"/status/phase": "Pending"}))).is_err());
        assert!(
            bound_volume(
                &pod,
                &named,
                &claim(json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"}))
            )
            .is_err()
        );
        assert!(bound_volume(&pod, &own, &claim(json!({}))).is_err());
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod", "controller": true}]);
        assert!(bound_volume(&pod, &own, &claim(json!({"/metadata/ownerReferences": owner}))).is_ok());
    }

    #[test]
    fn volumes_are_directories_of_the_node() {
        let volume = |spec: Value, by: &str| -> PersistentVolume {
            let mut spec = spec;
            spec["claimRef"] = json!({"uid": "u"});
            serde_json::from_value(
                json!({"metadata": {"name": "v", "annotations": {PROVISIONED_BY: by}}, "spec": spec}),
            )
            .unwrap()
        };
        let bound = claim(json!({}));
        let path = |spec: Value, by: &str| {
            of_volume(&volume(spec, by), &bound).map(|found| (found.source.path, found.made_here))
        };
        assert_eq!(
            path(json!({"hostPath": {"path": "/a"}}), LOCAL_PATH).unwrap(),
            ("/a".to_owned(), true)
        );
        assert_eq!(
            path(json!({"hostPath": {"path": "/a"}}), "other").unwrap(),
            ("/a".to_owned(), false)
        );
        assert_eq!(
            path(json!({"local": {"path": "/b"}}), "").unwrap(),
            ("/b".to_owned(), false)
        );
        assert!(path(json!({"nfs": {"server": "s", "path": "/"}}), "").is_err());
        assert!(path(json!({"hostPath": {"path": "/a"}, "volumeMode": "Block"}), "").is_err());
        assert!(
            of_volume(
                &volume(json!({"hostPath": {"path": "/a"}}), ""),
                &claim(json!({"/metadata/uid": "other"}))
            )
            .is_err()
        );
    }

    #[test]
    fn where_a_volume_is_is_remembered() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("a/link");
        for target in ["/one", "/two", "/two"] {
            remember(&link, Path::new(target)).unwrap();
            assert_eq!(remembered(&link), Some(PathBuf::from(target)));
        }
        let made = root.path().join("volumes/v");
        make(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o777);
    }
}
