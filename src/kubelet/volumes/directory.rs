//! emptyDir and hostPath (upstream: `pkg/volume/{emptydir,hostpath}`), and taking a pod's directories away.

use super::{SetUpError, huge_pages, io};
use crate::runtime::{FileKind, Memory};
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
        let options = memory(source, group).size_bytes.map(|size| format!("size={size}"));
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

/// The file system of an emptyDir in memory.
pub fn memory(source: &EmptyDirVolumeSource, group: Option<i64>) -> Memory {
    let size = source
        .size_limit
        .as_ref()
        .and_then(|limit| limit.0.parse::<crate::quantity::Quantity>().ok());
    let group = group.and_then(|group| u32::try_from(group).ok());
    Memory {
        size_bytes: size.and_then(|size| u64::try_from(size.value()).ok()),
        mode: if group.is_some() { 0o2777 } else { 0o777 },
        group,
    }
}

/// What is at a path of this host, links followed.
pub fn look(path: &Path) -> Option<FileKind> {
    let kind = fs::metadata(path).ok()?.file_type();
    Some(match kind {
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_socket() => FileKind::Socket,
        kind if kind.is_char_device() => FileKind::CharDevice,
        kind if kind.is_block_device() => FileKind::BlockDevice,
        _ => FileKind::Other,
    })
}

/// Makes a directory with those above, or an empty file.
pub fn make(path: &Path, kind: FileKind) -> Result<(), SetUpError> {
    let (made, mode) = match kind {
        FileKind::Directory => (fs::create_dir_all(path), 0o755),
        _ => (fs::File::create(path).map(drop), 0o644),
    };
    made.map_err(io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("change the mode of", path))
}

/// Whether what is there is of the type that was asked for, or else what is to be made.
pub fn check(source: &HostPathVolumeSource, found: Option<FileKind>) -> Result<Option<FileKind>, SetUpError> {
    let kind = source.type_.as_deref().unwrap_or_default();
    let (wanted, name) = match kind {
        "Directory" | "DirectoryOrCreate" => (FileKind::Directory, "directory"),
        "File" | "FileOrCreate" => (FileKind::File, "file"),
        "Socket" => (FileKind::Socket, "socket"),
        "CharDevice" => (FileKind::CharDevice, "character device"),
        "BlockDevice" => (FileKind::BlockDevice, "block device"),
        other => return Err(SetUpError::UnsupportedType(format!("hostPath with type {other}"))),
    };
    match found {
        Some(found) if found == wanted => Ok(None),
        None if kind.ends_with("OrCreate") => Ok(Some(wanted)),
        _ => Err(SetUpError::HostPathType {
            path: source.path.clone(),
            wanted: name,
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
            let path = root.path().join(name);
            let source = serde_json::from_value(json!({"path": path, "type": kind})).unwrap();
            match check(&source, look(&path))? {
                Some(kind) => make(&path, kind).map(|()| true),
                None => Ok(false),
            }
        };
        assert!(check("none", "Directory").is_err());
        assert!(check("none", "Other").is_err());
        assert!(check("made/below", "DirectoryOrCreate").unwrap());
        assert!(!check("made/below", "Directory").unwrap());
        assert!(check("made", "File").is_err());
        assert!(check("file", "FileOrCreate").unwrap());
        assert!(!check("file", "FileOrCreate").unwrap() && !check("file", "File").unwrap());
        assert!(check("file", "Socket").is_err());
        let error = check("file", "DirectoryOrCreate").unwrap_err().to_string();
        assert!(error.ends_with("/file is not a directory"), "{error}");
    }

    #[test]
    fn sizes_and_owners_of_memory() {
        let source = |limit: Option<&str>| EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: limit.map(|limit| k8s_openapi::apimachinery::pkg::api::resource::Quantity(limit.to_owned())),
            ..EmptyDirVolumeSource::default()
        };
        let made = memory(&source(Some("1Mi")), Some(7));
        assert_eq!(
            (made.size_bytes, made.mode, made.group),
            (Some(1 << 20), 0o2777, Some(7))
        );
        let made = memory(&source(None), None);
        assert_eq!((made.size_bytes, made.mode, made.group), (None, 0o777, None));
    }
}
