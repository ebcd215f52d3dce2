//! Which paths of the node a container sees, and where (upstream: `kubelet_pods.go` `makeMounts`, `subpath`).

use super::{Volumes, claims, plugin};
use crate::kubelet::container::env::Environment;
use crate::kubelet::container::{ConfigError, sub_path};
use crate::kubelet::{FileSharing, pod};
use crate::runtime::{Mount, Propagation};
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use std::path::{Component, Path, PathBuf};

impl Volumes {
    /// The container's mounts; its volumes are prepared.
    pub async fn mounts(&self, pod: &Pod, container: &Container, env: &Environment) -> Result<Vec<Mount>, ConfigError> {
        if container.volume_devices.iter().flatten().next().is_some() {
            return Err(ConfigError::UnsupportedSetting { field: "volumeDevices" });
        }
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            mounts.push(self.mount(pod, container, mount, env).await?);
        }
        Ok(mounts)
    }

    async fn mount(
        &self,
        pod: &Pod,
        container: &Container,
        mount: &VolumeMount,
        env: &Environment,
    ) -> Result<Mount, ConfigError> {
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::None,
        };
        let recursive_readonly = recursive_readonly(mount, self.recursive_readonly)?;
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
            sub => {
                let made = match self.sees(volume, &root) {
                    true => inside(&root, sub),
                    false => {
                        let made = self.runtime.make_below(&root, Path::new(sub)).await;
                        made.map(|()| root.join(sub)).map_err(|error| error.to_string())
                    }
                };
                made.map_err(|message| ConfigError::SubPath {
                    volume: mount.name.clone(),
                    container: container.name.clone(),
                    message,
                })?
            }
        };
        let claimed = claims::claim_name(pod, volume).is_some();
        let written_by_us =
            volume.empty_dir.is_none() && volume.host_path.is_none() && volume.nfs.is_none() && !claimed;
        let claim = volume.persistent_volume_claim.as_ref();
        let read_only_claim = claim.is_some_and(|claim| claim.read_only == Some(true));
        let read_only_source = volume.nfs.as_ref().is_some_and(|nfs| nfs.read_only == Some(true));
        Ok(Mount {
            container_path: mount.mount_path.clone(),
            host_path: host_path.display().to_string(),
            readonly: mount.read_only.unwrap_or(false) || written_by_us || read_only_claim || read_only_source,
            recursive_readonly,
            propagation,
        })
    }

    /// Whether the files that the engine mounts are those that krust sees at the path.
    fn sees(&self, volume: &Volume, root: &Path) -> bool {
        let own = self.root.parent().is_some_and(|own| root.starts_with(own));
        !matches!(self.files, FileSharing::OwnFiles(_)) || own && !self.is_engines_memory(volume)
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

/// Whether all that is mounted below is to be read-only, too; the API server has checked what it goes with.
pub fn recursive_readonly(mount: &VolumeMount, possible: bool) -> Result<bool, ConfigError> {
    match mount.recursive_read_only.as_deref() {
        Some("IfPossible") => Ok(possible),
        Some("Enabled") if possible => Ok(true),
        Some("Enabled") => Err(ConfigError::RecursiveReadOnly {
            volume: mount.name.clone(),
        }),
        _ => Ok(false),
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
    // Whoever may write to the volume may write there.
    let mode = std::fs::metadata(&real_root).map(|metadata| metadata.permissions());
    let mode = mode.map_err(|error| format!("{}: {error}", root.display()))?;
    let rest = wanted.strip_prefix(&existing).unwrap_or(Path::new("")).to_owned();
    for component in rest.components() {
        existing.push(component);
        let made = std::fs::create_dir(&existing).and_then(|()| std::fs::set_permissions(&existing, mode.clone()));
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(format!("{}: {error}", existing.display()));
            }
            _ => {}
        }
    }
    wanted
        .canonicalize()
        .map_err(|error| format!("{}: {error}", wanted.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn recursion_as_asked_and_as_possible() {
        let resolve = |mode: Option<&str>, possible| {
            let mount = VolumeMount {
                name: "v".to_owned(),
                recursive_read_only: mode.map(str::to_owned),
                ..VolumeMount::default()
            };
            recursive_readonly(&mount, possible).map_err(|error| error.to_string())
        };
        for (mode, possible, expected) in [
            (None, true, Ok(false)),
            (Some("Disabled"), true, Ok(false)),
            (Some("IfPossible"), false, Ok(false)),
            (Some("IfPossible"), true, Ok(true)),
            (Some("Enabled"), true, Ok(true)),
            (
                Some("Enabled"),
                false,
                Err(
                    "volume \"v\" requested recursive read-only mode, but it is not supported by the runtime"
                        .to_owned(),
                ),
            ),
        ] {
            assert_eq!(resolve(mode, possible), expected);
        }
    }

    #[test]
    fn sub_paths_are_made_and_stay_inside() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("v");
        std::fs::create_dir(&root).unwrap();
        assert!(inside(&root, "a/b").unwrap().ends_with("v/a/b"));
        assert!(root.join("a/b").is_dir());
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o2777)).unwrap();
        inside(&root, "open/to/all").unwrap();
        for path in ["open", "open/to/all"] {
            let mode = std::fs::metadata(root.join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o2777, "{path}");
        }
        assert!(inside(&root, "../x").is_err());
        assert!(inside(&root, "/etc").is_err());
        std::os::unix::fs::symlink(outer.path(), root.join("out")).unwrap();
        assert!(inside(&root, "out").is_err());
        assert!(inside(&root, "out/new").is_err());
        assert!(!outer.path().join("new").exists());
    }
}
