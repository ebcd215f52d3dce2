//! emptyDir and hostPath (upstream: `pkg/volume/{emptydir,hostpath}`), and taking a pod's directories away.

use super::{SetUpError, huge_pages, io};
use crate::kubelet::FileSharing;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes the directory, once; what containers wrote into it stays.
pub fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, pod: &Pod, group: Option<i64>) -> Result<(), SetUpError> {
    let medium = source.medium.as_deref().unwrap_or_default();
    if !matches!(medium, "" | "Memory") && !huge_pages::is_medium(medium) {
        return Err(SetUpError::UnsupportedType(format!("emptyDir with medium {medium}")));
    }
    let exists = path.is_dir();
    fs::create_dir_all(path).map_err(io("create", path))?;
    if medium == "Memory" && !is_mount_point(path) {
        let size = source
            .size_limit
            .as_ref()
            .and_then(|limit| limit.0.parse::<crate::quantity::Quantity>().ok());
        let options = size.map(|size| format!("size={}", size.value()));
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())
            .map_err(|errno| io("mount a tmpfs on", path)(errno.into()))?;
    } else if huge_pages::is_medium(medium) && !is_mount_point(path) {
        huge_pages::make(path, medium, pod)?;
    } else if exists {
        return Ok(());
    }
    let mode = match group.and_then(|gid| u32::try_from(gid).ok()) {
        Some(gid) => {
            std::os::unix::fs::chown(path, None, Some(gid)).map_err(io("change the group of", path))?;
            0o2777
        }
        None => 0o777,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("change the mode of", path))
}

/// Checks, or makes, what the type asks for.
pub fn host_path(source: &HostPathVolumeSource, files: &FileSharing) -> Result<(), SetUpError> {
    let kind = source.type_.as_deref().unwrap_or_default();
    let path = Path::new(&source.path);
    if kind.is_empty() {
        return Ok(());
    }
    if let FileSharing::OwnFiles(reason) | FileSharing::Unavailable(reason) = files {
        return Err(SetUpError::NoSharedFiles {
            kind: format!("hostPath with type {kind}"),
            reason: reason.clone(),
        });
    }
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    match (kind, &found) {
        ("DirectoryOrCreate", None) => {
            fs::create_dir_all(path).map_err(io("create", path))?;
            return fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .map_err(io("change the mode of", path));
        }
        ("FileOrCreate", None) => {
            fs::File::create(path).map_err(io("create", path))?;
            return fs::set_permissions(path, fs::Permissions::from_mode(0o644))
                .map_err(io("change the mode of", path));
        }
        _ => {}
    }
    let (wanted, fits) = match kind {
        "Directory" | "DirectoryOrCreate" => ("directory", found.is_some_and(|t| t.is_dir())),
        "File" | "FileOrCreate" => ("file", found.is_some_and(|t| t.is_file())),
        "Socket" => ("socket", found.is_some_and(|t| t.is_socket())),
        "CharDevice" => ("character device", found.is_some_and(|t| t.is_char_device())),
        "BlockDevice" => ("block device", found.is_some_and(|t| t.is_block_device())),
        other => return Err(SetUpError::UnsupportedType(format!("hostPath with type {other}"))),
    };
    match fits {
        true => Ok(()),
        false => Err(SetUpError::HostPathType {
            path: source.path.clone(),
            wanted,
        }),
    }
}

pub fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|m| m.dev());
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

/// Unmounts what is mounted below and removes the rest.
pub fn remove(pod_directory: &Path) -> Result<(), SetUpError> {
    for volume in volume_directories(pod_directory) {
        if is_mount_point(&volume) {
            umount2(&volume, MntFlags::MNT_DETACH).map_err(|errno| io("unmount", &volume)(errno.into()))?;
        }
    }
    match fs::remove_dir_all(pod_directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", pod_directory)(error)),
        _ => Ok(()),
    }
}

fn volume_directories(pod_directory: &Path) -> Vec<PathBuf> {
    let plugins = fs::read_dir(pod_directory.join("volumes"))
        .into_iter()
        .flatten()
        .flatten();
    let volumes = plugins.flat_map(|plugin| fs::read_dir(plugin.path()).into_iter().flatten().flatten());
    volumes.map(|volume| volume.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_dirs_are_open_to_all_and_keep_their_content() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("volumes/kubernetes.io~empty-dir/v");
        let source = EmptyDirVolumeSource::default();
        empty_dir(&path, &source, &Pod::default(), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::write(path.join("kept"), "x").unwrap();
        empty_dir(&path, &source, &Pod::default(), None).unwrap();
        assert!(path.join("kept").exists());
        remove(root.path()).unwrap();
        assert!(!root.path().exists());
        remove(root.path()).unwrap();
    }

    #[test]
    fn host_path_types() {
        let root = tempfile::tempdir().unwrap();
        let check = |name: &str, kind: &str| {
            let source = json!({"path": root.path().join(name), "type": kind});
            host_path(&serde_json::from_value(source).unwrap(), &FileSharing::Shared)
        };
        assert!(check("none", "Directory").is_err());
        assert!(check("none", "").is_ok());
        check("made", "DirectoryOrCreate").unwrap();
        check("made", "Directory").unwrap();
        assert!(check("made", "File").is_err());
        check("file", "FileOrCreate").unwrap();
        check("file", "File").unwrap();
        assert!(check("file", "Socket").is_err());
    }
}
