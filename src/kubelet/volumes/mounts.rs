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
            container: container.name.clone(),
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
                checked(sub)?;
                let made = match self.sees(volume, &root) {
                    true => inside(&root, sub),
                    false => {
                        let made = self.runtime.make_below(&root, Path::new(sub)).await;
                        let made = made.map(|()| root.join(sub));
                        made.map_err(|error| (MAKING, error.to_string()))
                    }
                };
                made.map_err(|(step, reason)| {
                    let (pod, container) = (pod::full_name(pod), container.name.clone());
                    tracing::warn!(pod, container, sub, reason, "A path in a volume cannot be mounted");
                    ConfigError::SubPath {
                        step,
                        volume: mount.name.clone(),
                        container,
                    }
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

/// A path inside the volume is relative and has no steps up, wherever it leads (upstream: `makeMounts`).
fn checked(sub: &str) -> Result<(), ConfigError> {
    let path = Path::new(sub);
    if path.is_absolute() {
        return Err(ConfigError::AbsoluteSubPath(sub.to_owned()));
    }
    match path.components().any(|component| component == Component::ParentDir) {
        true => Err(ConfigError::SubPathSteps(sub.to_owned())),
        false => Ok(()),
    }
}

/// What fails, and why.
type Failed = (&'static str, String);

const MAKING: &str = "create subPath directory";
const PREPARING: &str = "prepare subPath";

/// A [checked] path inside the volume, made as a directory where there is none. Links that lead out are refused: a
/// container could have put them there.
fn inside(root: &Path, sub: &str) -> Result<PathBuf, Failed> {
    let wanted = root.join(sub);
    // What a link leads to counts: one that leads nowhere cannot be made a directory.
    let step = if wanted.exists() { PREPARING } else { MAKING };
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| (step, format!("{path}: {error}"))
    };
    let real_root = root.canonicalize().map_err(failed(root))?;
    let mut existing = wanted.clone();
    while std::fs::symlink_metadata(&existing).is_err() && existing.pop() {}
    let real = existing.canonicalize().map_err(failed(&existing))?;
    if !real.starts_with(&real_root) {
        return Err((step, format!("{sub:?} leads out of the volume")));
    }
    // Whoever may write to the volume may write there.
    let mode = std::fs::metadata(&real_root).map(|metadata| metadata.permissions());
    let mode = mode.map_err(failed(root))?;
    let rest = wanted.strip_prefix(&existing).unwrap_or(Path::new("")).to_owned();
    for component in rest.components() {
        existing.push(component);
        let made = std::fs::create_dir(&existing).and_then(|()| std::fs::set_permissions(&existing, mode.clone()));
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(&existing)(error));
            }
            _ => {}
        }
    }
    wanted.canonicalize().map_err(failed(&wanted))
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
        std::os::unix::fs::symlink(outer.path(), root.join("out")).unwrap();
        assert_eq!(inside(&root, "out").unwrap_err().0, PREPARING);
        assert_eq!(inside(&root, "out/new").unwrap_err().0, MAKING);
        assert!(!outer.path().join("new").exists());
    }

    #[test]
    fn sub_paths_that_are_refused() {
        let error = |sub: &str| checked(sub).err().map(|error| error.to_string());
        for (sub, expected) in [
            ("a/b", None),
            ("a/..b", None),
            ("/etc", Some("error SubPath `/etc` must not be an absolute path")),
            (
                "a/../b",
                Some("unable to provision SubPath `a/../b`: must not contain '..'"),
            ),
        ] {
            assert_eq!(error(sub).as_deref(), expected, "{sub}");
        }
        let failed = ConfigError::SubPath {
            step: MAKING,
            volume: "v".to_owned(),
            container: "c".to_owned(),
        };
        assert_eq!(
            failed.to_string(),
            "failed to create subPath directory for volumeMount \"v\" of container \"c\""
        );
    }
}
