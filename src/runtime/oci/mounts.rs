//! Mounts of sandboxes and containers (upstream: containerd's `pkg/cri/server`, `containerMounts`).

use super::super::Propagation;
use super::{ContainerSpec, OciError};
use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder, get_default_mounts};
use std::path::{Path, PathBuf};

/// Nothing below `/proc` is a device or a program either (upstream: containerd's `oci/mounts.go`).
fn of_kernel() -> Vec<Mount> {
    let mut mounts = get_default_mounts();
    if let Some(proc) = mounts
        .iter_mut()
        .find(|mount| mount.destination() == Path::new("/proc"))
    {
        proc.set_options(Some(["nosuid", "noexec", "nodev"].map(str::to_owned).to_vec()));
    }
    mounts
}

/// The kernel's file systems; the pause program needs no more.
pub(super) fn of_sandbox() -> Result<Vec<Mount>, OciError> {
    let wanted = ["/proc", "/dev", "/sys"];
    let mut mounts = of_kernel();
    mounts.retain(|mount| wanted.iter().any(|path| mount.destination() == Path::new(path)));
    Ok(mounts)
}

/// The kernel's, then the sandbox's files, then the pod's volumes, which may cover both.
pub(super) fn of_container(spec: &ContainerSpec) -> Result<Vec<Mount>, OciError> {
    let mut mounts = of_kernel();
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
        let propagation = match volume.propagation {
            Propagation::None => "rprivate",
            Propagation::HostToContainer => {
                check_propagation(source, &["shared:", "master:"], "shared or slave")?;
                "rslave"
            }
            Propagation::Bidirectional => {
                check_propagation(source, &["shared:"], "shared")?;
                "rshared"
            }
        };
        let access = match (volume.readonly, volume.recursive_readonly) {
            (true, true) => "rro",
            (true, false) => "ro",
            (false, _) => "rw",
        };
        let mut mount = bind_with(source, &volume.container_path, propagation, access)?;
        if let Some(first) = spec.user_ids {
            // Who owns a file of the volume owns it in the pod, whatever ids its users have on the host.
            let translated = Some(super::mappings(first)?);
            mount.set_uid_mappings(translated.clone()).set_gid_mappings(translated);
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// Mounts can be passed on only by a mount that others share (upstream: containerd's `ensureShared`). Fields of
/// mountinfo: id, parent, device, root, mount point, options, optional fields up to a dash (proc_pid_mountinfo(5)).
fn check_propagation(source: &Path, tags: &[&str], wanted: &'static str) -> Result<(), OciError> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let source = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    match holding(&mounts, &source) {
        Some((_, optional))
            if optional
                .iter()
                .any(|field| tags.iter().any(|tag| field.starts_with(tag))) =>
        {
            Ok(())
        }
        found => Err(OciError::NoPropagation {
            path: source.clone(),
            point: found.map_or_else(|| "/".into(), |(point, _)| point),
            wanted,
        }),
    }
}

/// The mount that holds a path: the last of the deepest ones, with its optional fields.
fn holding<'a>(mounts: &'a str, path: &Path) -> Option<(PathBuf, Vec<&'a str>)> {
    let mounts = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let point = PathBuf::from(fields.get(4)?.replace("\\040", " "));
        let optional = fields.get(6..)?.iter().take_while(|field| **field != "-").copied();
        path.starts_with(&point).then(|| (point, optional.collect()))
    });
    mounts.max_by_key(|(point, _)| point.components().count())
}

fn bind(source: &Path, target: &str, options: &str) -> Result<Mount, OciSpecError> {
    bind_with(source, target, "rprivate", options)
}

fn bind_with(source: &Path, target: &str, propagation: &str, options: &str) -> Result<Mount, OciSpecError> {
    let options = ["rbind", propagation].into_iter().chain(options.split(','));
    MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(target)
        .options(options.map(str::to_string).collect::<Vec<_>>())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_holds_a_path() {
        let mounts = "22 1 0:20 / / rw - ext4 /dev/a rw\n30 22 8:1 / /srv rw shared:7 - ext4 /dev/b rw\n\
            31 30 8:1 / /srv/a\\040b rw master:7 propagate_from:2 - ext4 /dev/c rw\n";
        let of = |path: &str| holding(mounts, Path::new(path)).unwrap();
        assert_eq!(of("/etc"), ("/".into(), vec![]));
        assert_eq!(of("/srv/x"), ("/srv".into(), vec!["shared:7"]));
        assert_eq!(
            of("/srv/a b/c"),
            ("/srv/a b".into(), vec!["master:7", "propagate_from:2"])
        );
    }
}
