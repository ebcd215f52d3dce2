//! Which paths of the node a container sees, and where (upstream: `kubelet_pods.go` `makeMounts`, `subpath`).

use super::{Volumes, claims, plugin};
use crate::kubelet::container::env::Environment;
use crate::kubelet::container::{ConfigError, sub_path};
use crate::kubelet::pod;
use crate::runtime::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use std::path::{Component, Path, PathBuf};

impl Volumes {
    /// The container's mounts; its volumes are prepared.
    pub fn mounts(&self, pod: &Pod, container: &Container, env: &Environment) -> Result<Vec<Mount>, ConfigError> {
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        if container.volume_devices.iter().flatten().next().is_some() {
            return Err(ConfigError::UnsupportedSetting { field: "volumeDevices" });
        }
        mounts
            .iter()
            .map(|mount| self.mount(pod, container, mount, env))
            .collect()
    }

    fn mount(
        &self,
        pod: &Pod,
        container: &Container,
        mount: &VolumeMount,
        env: &Environment,
    ) -> Result<Mount, ConfigError> {
        if mount.mount_propagation.as_deref().is_some_and(|mode| mode != "None") {
            return Err(ConfigError::UnsupportedSetting {
                field: "volumeMounts.mountPropagation",
            });
        }
        let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let no_such_volume = || ConfigError::NoSuchVolume {
            volume: mount.name.clone(),
            path: mount.mount_path.clone(),
        };
        let volume = volume.ok_or_else(no_such_volume)?;
        let root = self.volume_root(pod, volume).ok_or_else(no_such_volume)?;
        let sub = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
            (Some(expression), _) if !expression.is_empty() => sub_path(expression, env)?,
            (_, Some(path)) => path.to_owned(),
            _ => String::new(),
        };
        let host_path = match sub.as_str() {
            "" => root,
            sub => inside(&root, sub).map_err(|message| ConfigError::SubPath {
                volume: mount.name.clone(),
                container: container.name.clone(),
                message,
            })?,
        };
        let claimed = claims::claim_name(pod, volume).is_some();
        let written_by_us = volume.empty_dir.is_none() && volume.host_path.is_none() && !claimed;
        let claim = volume.persistent_volume_claim.as_ref();
        let read_only_claim = claim.is_some_and(|claim| claim.read_only == Some(true));
        Ok(Mount {
            container_path: mount.mount_path.clone(),
            host_path: host_path.display().to_string(),
            readonly: mount.read_only.unwrap_or(false) || written_by_us || read_only_claim,
        })
    }

    fn volume_root(&self, pod: &Pod, volume: &Volume) -> Option<PathBuf> {
        match &volume.host_path {
            Some(source) => Some(PathBuf::from(&source.path)),
            None if claims::claim_name(pod, volume).is_some() => {
                claims::remembered(&self.path(pod, claims::PLUGIN, &volume.name))
            }
            None => Some(self.path(pod, plugin(volume)?, &volume.name)),
        }
    }
}

/// A path inside the volume, made as a directory where there is none. Links that lead out are refused: a
/// container could have put them there.
fn inside(root: &Path, sub: &str) -> Result<PathBuf, String> {
    let relative = Path::new(sub);
    if !relative
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(format!("{sub:?} must be relative and not contain '..'"));
    }
    let wanted = root.join(relative);
    let real_root = root
        .canonicalize()
        .map_err(|error| format!("{}: {error}", root.display()))?;
    let mut existing = wanted.clone();
    while std::fs::symlink_metadata(&existing).is_err() && existing.pop() {}
    let real = existing
        .canonicalize()
        .map_err(|error| format!("{}: {error}", existing.display()))?;
    if !real.starts_with(&real_root) {
        return Err(format!("{sub:?} leads out of the volume"));
    }
    if existing != wanted {
        std::fs::create_dir_all(&wanted).map_err(|error| format!("{}: {error}", wanted.display()))?;
    }
    wanted
        .canonicalize()
        .map_err(|error| format!("{}: {error}", wanted.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_are_made_and_stay_inside() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("v");
        std::fs::create_dir(&root).unwrap();
        assert!(inside(&root, "a/b").unwrap().ends_with("v/a/b"));
        assert!(root.join("a/b").is_dir());
        assert!(inside(&root, "../x").is_err());
        assert!(inside(&root, "/etc").is_err());
        std::os::unix::fs::symlink(outer.path(), root.join("out")).unwrap();
        assert!(inside(&root, "out").is_err());
        assert!(inside(&root, "out/new").is_err());
        assert!(!outer.path().join("new").exists());
    }
}
