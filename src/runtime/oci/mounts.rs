//! Mounts of sandboxes and containers (upstream: containerd's `pkg/cri/server`, `containerMounts`).

use super::{ContainerSpec, OciError};
use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder, get_default_mounts};
use std::path::Path;

/// The kernel's file systems; the pause program needs no more.
pub(super) fn of_sandbox() -> Result<Vec<Mount>, OciError> {
    let wanted = ["/proc", "/dev", "/sys"];
    let mut mounts = get_default_mounts();
    mounts.retain(|mount| wanted.iter().any(|path| mount.destination() == Path::new(path)));
    Ok(mounts)
}

/// The kernel's, then the sandbox's files, then the pod's volumes, which may cover both.
pub(super) fn of_container(spec: &ContainerSpec) -> Result<Vec<Mount>, OciError> {
    let mut mounts = get_default_mounts();
    mounts.retain(|mount| mount.destination() != Path::new("/dev/shm"));
    if spec.config.security.privileged {
        for mount in &mut mounts {
            if mount.destination().starts_with("/sys") {
                let mut options = mount.options().clone().unwrap_or_default();
                options.retain(|option| option != "ro");
                mount.set_options(Some(options));
            }
        }
    }
    let covered = |path: &str| spec.config.mounts.iter().any(|mount| mount.container_path == path);
    let files = [
        ("/etc/hosts", spec.files.hosts.as_path(), "rw"),
        ("/etc/resolv.conf", spec.files.resolv_conf.as_path(), "rw"),
        ("/etc/hostname", spec.files.hostname.as_path(), "rw"),
        ("/dev/shm", spec.files.shm.as_path(), "nosuid,nodev,noexec"),
    ];
    for (path, source, options) in files.into_iter().filter(|(path, ..)| !covered(path)) {
        let readonly = spec.config.security.readonly_rootfs && path.starts_with("/etc");
        mounts.push(bind(source, path, if readonly { "ro" } else { options })?);
    }
    let message_path = &spec.config.termination_message_path;
    if let Some(file) = spec.message_file
        && !covered(message_path)
    {
        mounts.push(bind(file, message_path, "rw")?);
    }
    // A directory before what lies in it.
    let mut volumes: Vec<_> = spec.config.mounts.iter().collect();
    volumes.sort_by_key(|mount| Path::new(&mount.container_path).components().count());
    for volume in volumes {
        let source = Path::new(&volume.host_path);
        if !source.exists() {
            return Err(OciError::NoMountSource(source.to_owned()));
        }
        mounts.push(bind(
            source,
            &volume.container_path,
            if volume.readonly { "ro" } else { "rw" },
        )?);
    }
    Ok(mounts)
}

fn bind(source: &Path, target: &str, options: &str) -> Result<Mount, OciSpecError> {
    let options = ["rbind", "rprivate"].into_iter().chain(options.split(','));
    MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(target)
        .options(options.map(str::to_string).collect::<Vec<_>>())
        .build()
}
