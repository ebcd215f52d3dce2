//! Memory for files that no disk is to keep (upstream: `pkg/volume/emptydir`, which wraps secrets and tokens).

use super::{SetUpError, directory, io};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes the directory with a tmpfs on it. What was made without one stays so: containers have it mounted.
pub fn make(path: &Path) -> Result<(), SetUpError> {
    fs::create_dir_all(path).map_err(io("create", path))?;
    if directory::is_mount_point(path) || fs::symlink_metadata(path.join("..data")).is_ok() {
        return Ok(());
    }
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let on = |options: Option<&str>| mount(Some("tmpfs"), path, Some("tmpfs"), flags, options);
    // Kernels before 6.4 do not know the option.
    match on(Some("noswap")).or_else(|_| on(None)) {
        // Only root may mount; others' pods have their files below a directory that nobody else may read.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(io("mount a tmpfs on", path)(errno.into())),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(io("change the mode of", path))
}
