//! fsGroup: files of a volume become those of the pod's group (upstream: `pkg/volume/volume_linux.go`).

use super::{SetUpError, io};
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const READ_WRITE: u32 = 0o660;
const READ: u32 = 0o440;
/// Of directories besides: they can be entered, and what is made in them is the group's.
const DIRECTORY: u32 = 0o2110;

#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub group: i64,
    pub readonly: bool,
    /// fsGroupChangePolicy: nothing is done where the root is as it should be.
    pub on_root_mismatch: bool,
}

impl Wanted {
    fn mode(self, metadata: &Metadata) -> u32 {
        let bits = if self.readonly { READ } else { READ_WRITE };
        let more = if metadata.is_dir() { DIRECTORY } else { 0 };
        metadata.mode() & 0o7777 | bits | more
    }
}

/// Changes all that is in the volume.
pub fn set(root: &Path, wanted: Wanted) -> Result<(), SetUpError> {
    let Ok(group) = u32::try_from(wanted.group) else {
        return Ok(());
    };
    let metadata = fs::symlink_metadata(root).map_err(io("read", root))?;
    let fits = metadata.gid() == group && metadata.mode() & 0o7777 == wanted.mode(&metadata);
    if wanted.on_root_mismatch && fits {
        return Ok(());
    }
    // The root last: as long as it does not fit, a change that was broken off is done again.
    let mut pending = vec![root.to_owned()];
    let mut directories = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(io("read", &directory))? {
            let path = entry.map_err(io("read", &directory))?.path();
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => pending.push(path),
                Ok(metadata) => change(&path, &metadata, group, wanted)?,
                // Another pod has the volume as well, and removed it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io("read", &path)(error)),
            }
        }
        directories.push(directory);
    }
    for directory in directories.iter().rev() {
        match fs::symlink_metadata(directory) {
            Ok(metadata) => change(directory, &metadata, group, wanted)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("read", directory)(error)),
        }
    }
    Ok(())
}

fn change(path: &Path, metadata: &Metadata, group: u32, wanted: Wanted) -> Result<(), SetUpError> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match lchown(path, None, Some(group)) {
        Err(error) if !gone(&error) => return Err(io("change the group of", path)(error)),
        _ => {}
    }
    if metadata.is_symlink() {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(wanted.mode(metadata))) {
        Err(error) if !gone(&error) => Err(io("change the mode of", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_inside_becomes_the_groups() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("v");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "x").unwrap();
        fs::write(outer.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink(outer.path().join("outside"), root.join("link")).unwrap();
        for path in ["v/a/b/file", "outside"] {
            fs::set_permissions(outer.path().join(path), Permissions::from_mode(0o600)).unwrap();
        }
        // One's own group, so that it needs no root.
        let group = i64::from(nix::unistd::getegid().as_raw());
        let wanted = Wanted {
            group,
            readonly: false,
            on_root_mismatch: true,
        };
        set(&root, wanted).unwrap();
        let mode = |path: &str| fs::metadata(outer.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!(mode("v/a/b/file"), 0o660);
        assert_eq!(mode("v/a/b"), 0o2775);
        assert_eq!(mode("v"), 0o2775);
        assert_eq!(mode("outside"), 0o600, "links are not followed");
        // The root fits: the policy says that the rest does, too.
        fs::set_permissions(root.join("a/b/file"), Permissions::from_mode(0o600)).unwrap();
        set(&root, wanted).unwrap();
        assert_eq!(mode("v/a/b/file"), 0o600);
        let always = Wanted {
            on_root_mismatch: false,
            readonly: true,
            ..wanted
        };
        set(&root, always).unwrap();
        assert_eq!(mode("v/a/b/file"), 0o640);
    }
}
