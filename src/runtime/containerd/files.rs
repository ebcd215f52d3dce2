//! Files that krust makes for sandboxes and containers (upstream: the CRI plugin's `sandbox_run_linux.go`).

use super::super::TERMINATION_MESSAGE_BYTES_MAX;
use super::super::cgroups;
use super::super::oci::SharedFiles;
use super::super::pause::{self, Architecture};
use super::{Engine, Result, SandboxConfig, failed};
use std::fmt::Write;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const MESSAGE_FILE: &str = "termination-message";

/// Where a sandbox's files are. `/dev/shm` of its containers is a directory in the node's, which needs no mount.
pub(super) fn shared(engine: &Engine, sandbox_id: &str, host_ipc: bool) -> SharedFiles {
    let directory = engine.directory(sandbox_id);
    SharedFiles {
        hosts: directory.join("hosts"),
        resolv_conf: directory.join("resolv.conf"),
        hostname: directory.join("hostname"),
        shm: if host_ipc {
            PathBuf::from("/dev/shm")
        } else {
            shm_directory(sandbox_id)
        },
    }
}

fn shm_directory(sandbox_id: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/krust-{sandbox_id}"))
}

pub(super) fn create_shared(engine: &Engine, sandbox_id: &str, config: &SandboxConfig, ip: Option<&str>) -> Result<()> {
    let files = shared(engine, sandbox_id, config.host_ipc);
    let create = || -> io::Result<()> {
        std::fs::create_dir_all(engine.directory(sandbox_id))?;
        std::fs::write(&files.hosts, hosts(config, ip)?)?;
        std::fs::write(&files.resolv_conf, resolv_conf(config)?)?;
        std::fs::write(&files.hostname, format!("{}\n", hostname(config)?))?;
        if !config.host_ipc {
            std::fs::create_dir_all(&files.shm)?;
            std::fs::set_permissions(&files.shm, std::fs::Permissions::from_mode(0o1777))?;
        }
        Ok(())
    };
    create().map_err(|error| failed("write the files of", sandbox_id, error))
}

/// Gives what `create_shared` made to the root of the pod.
pub(super) fn give_shared(engine: &Engine, sandbox_id: &str, owner: u32) -> Result<()> {
    let SharedFiles {
        hosts,
        resolv_conf,
        hostname,
        shm,
    } = shared(engine, sandbox_id, false);
    let mut files = [hosts, resolv_conf, hostname, shm].into_iter();
    let given = files.try_for_each(|file| std::os::unix::fs::chown(file, Some(owner), Some(owner)));
    given.map_err(|error| failed("give away the files of", sandbox_id, error))
}

/// Everything of a sandbox or container. What is gone is fine.
pub(super) fn remove(engine: &Engine, id: &str) -> Result<()> {
    for directory in [engine.directory(id), shm_directory(id)] {
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &directory.display().to_string(), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn hostname(config: &SandboxConfig) -> io::Result<String> {
    if config.host_network || config.hostname.is_empty() {
        return Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned());
    }
    Ok(config.hostname.clone())
}

fn hosts(config: &SandboxConfig, ip: Option<&str>) -> io::Result<String> {
    let mut text = if config.host_network {
        std::fs::read_to_string("/etc/hosts")?
    } else {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            .to_string()
    };
    if let Some(ip) = ip {
        let _ = writeln!(text, "{ip}\t{}", hostname(config)?);
    }
    for (address, names) in &config.host_aliases {
        let _ = writeln!(text, "{address}\t{}", names.join("\t"));
    }
    Ok(text)
}

fn resolv_conf(config: &SandboxConfig) -> io::Result<String> {
    if config.dns_servers.is_empty() && config.dns_searches.is_empty() && config.dns_options.is_empty() {
        return match std::fs::read_to_string("/etc/resolv.conf") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
    }
    let mut text = String::new();
    if !config.dns_searches.is_empty() {
        let _ = writeln!(text, "search {}", config.dns_searches.join(" "));
    }
    for server in &config.dns_servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !config.dns_options.is_empty() {
        let _ = writeln!(text, "options {}", config.dns_options.join(" "));
    }
    Ok(text)
}

/// A container's directory with an empty log; and an empty termination message, if it has one, which every user may
/// write.
pub(super) fn create_for_container(
    engine: &Engine,
    id: &str,
    message: bool,
    owner: Option<u32>,
) -> Result<Option<PathBuf>> {
    let create = || -> io::Result<Option<PathBuf>> {
        std::fs::create_dir_all(engine.log_directory(id))?;
        if !message {
            return Ok(None);
        }
        let path = engine.directory(id).join(MESSAGE_FILE);
        let file = std::fs::File::create(&path)?;
        // The mode of a new file is subject to the umask.
        file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
        std::os::unix::fs::fchown(&file, owner, owner)?;
        Ok(Some(path))
    };
    create().map_err(|error| failed("write the files of", id, error))
}

/// The end of a container's termination message; empty if there is none.
pub(super) fn termination_message(engine: &Engine, id: &str) -> Result<Vec<u8>> {
    let path = engine.directory(id).join(MESSAGE_FILE);
    match tail(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| failed("read", &path.display().to_string(), error)),
    }
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    // The container may have put something else in its place.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = options.read(true).custom_flags(flags).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(
        length.saturating_sub(TERMINATION_MESSAGE_BYTES_MAX as u64),
    ))?;
    let mut bytes = Vec::new();
    file.take(TERMINATION_MESSAGE_BYTES_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The root file system of all sandboxes: the pause program, and where the kernel's file systems go. Returns its path.
pub(super) fn pause_rootfs(engine: &Engine) -> Result<PathBuf> {
    let architecture = Architecture::host().ok_or_else(|| {
        let message = format!(
            "there is no pause program for the architecture {:?}",
            std::env::consts::ARCH
        );
        failed("make", "the sandbox's file system", message)
    })?;
    let reference = pause::reference(architecture);
    let tag = reference.rsplit(':').next().unwrap_or("pause");
    let rootfs = engine.options.state_dir.join("pause").join(tag);
    if rootfs.join("complete").exists() {
        return Ok(rootfs);
    }
    let create = || -> io::Result<()> {
        for directory in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(rootfs.join(directory))?;
        }
        // Beside the place and then into it: another pod may be starting it.
        let program = rootfs.join(format!("pause-{}", uuid::Uuid::new_v4()));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o755).open(&program)?;
        io::Write::write_all(&mut file, &pause::program(architecture))?;
        drop(file);
        std::fs::rename(program, rootfs.join(pause::PATH.trim_start_matches('/')))?;
        std::fs::write(rootfs.join("complete"), "")
    };
    create().map_err(|error| failed("make", &rootfs.display().to_string(), error))?;
    Ok(rootfs)
}

/// Whether the kernel killed a process of a container for memory, by the counter of its cgroup. The daemon's event says
/// the same, but may come after that of the end.
pub(super) fn was_oom_killed(engine: &Engine, pod_uid: &str, id: &str) -> bool {
    let cgroup = format!("{}/{id}", engine.pod_cgroup(pod_uid));
    cgroups::oom_kills(Path::new(cgroups::ROOT), &cgroup) > 0
}

/// Removes a container's cgroups, of which the runtime leaves some, and the pod's if it was the last. Those that are in use
/// stay; and those above, which another pod may be about to use.
pub(super) fn remove_cgroups(engine: &Engine, pod_uid: &str, id: &str) {
    let cgroup = format!("{}/{id}", engine.pod_cgroup(pod_uid));
    cgroups::remove(Path::new(cgroups::ROOT), &cgroup);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_servers() {
        let config = SandboxConfig {
            hostname: "web".into(),
            host_aliases: vec![("10.0.0.1".into(), vec!["a".into(), "b".into()])],
            dns_servers: vec!["10.96.0.10".into()],
            dns_searches: vec!["svc.cluster.local".into(), "cluster.local".into()],
            dns_options: vec!["ndots:5".into()],
            ..Default::default()
        };
        let text = hosts(&config, Some("10.42.0.2")).unwrap();
        assert!(
            text.contains("10.42.0.2\tweb\n") && text.ends_with("10.0.0.1\ta\tb\n"),
            "{text}"
        );
        assert_eq!(
            resolv_conf(&config).unwrap(),
            "search svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn the_end_of_a_message() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("message");
        std::fs::write(&path, "x".repeat(5000) + "end").unwrap();
        let read = tail(&path).unwrap();
        assert_eq!(read.len(), TERMINATION_MESSAGE_BYTES_MAX);
        assert!(read.ends_with(b"xend"));
    }
}
